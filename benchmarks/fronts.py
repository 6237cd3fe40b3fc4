"""Edit accuracy against drawdown of trained editors, each at several lengths of its edits.

    python benchmarks/fronts.py checkpoints/snli-salem-s0 checkpoints/snli-step-s0 --out snli.json
    python benchmarks/fronts.py checkpoints/snli-salem-s[012] --beside checkpoints/snli-enn-s[012] \
        --out snli.json

Two editors can be compared at equal edit accuracy when each is drawn as a curve: the same edits,
taken at a factor of their length. A run is NAME-EDITOR-sSEED, as `saledit compare` names them.
Prints, for the edit accuracy that each editor has at its best length, what drawdown the others
have there (interpolated; the mean over the seeds), and writes the curves and a picture.

With --beside, finished runs of rivals are set beside the curve of their own seed: the drawdown that
the curve has at the rival's edit accuracy, the ratio of the two, and an editor's ratios over the
seeds, written as well beside the curves (snli.beside.json). The curves meant are those of the runs
named first, or all in the file; there is one a seed.

That drawdown is the least of the curve, whose lengths were measured on the test, where a rival has
the one length that it is used with. So two more ratios are printed. "At the length nearest 1":
where a curve folds and has an edit accuracy several times, the drawdown is not the least of these
but that of the length nearest to the editor's own, so that its own run has the ratio 1. "Both at
their least": with --rivals the rivals are tested at the lengths of the curve, too (kept in
snli.rivals.json), and at a rival's edit accuracy the least drawdown of its own curve is divided by
the least of the other.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from beside import (
    Points,
    beside,
    beside_table,
    check_rivals,
    drawdown_at,
    editor_of,
    fronts_of,
    judged,
    rival_of,
    summary,
)

from saledit.artifact import EDITOR_WEIGHTS, REVISION, TrainedEditor, load_editor
from saledit.errors import SaleditError, UserError
from saledit.files import file_hash, read_json, write_json
from saledit.report import Ui, quiet_libraries
from saledit.run.setup.prepare import Prepared, prepare
from saledit.run.testing import measure

LENGTHS = (0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0)
_PRICE = 4.0  # points of edit accuracy that a point of drawdown is worth
_KEPT = ("fail_accuracy", "adapt_accuracy", "edit_accuracy", "drawdown", "locality_kl")


def front(
    prepared: Prepared, trained: TrainedEditor, lengths: Sequence[float] = LENGTHS
) -> list[dict[str, float]]:
    """What a trained editor mends and breaks with its edits at some lengths."""
    points = []
    for length in lengths:
        editor = trained.config.editor
        longer = replace(editor, steps=[step * length for step in editor.steps])
        scaled = replace(trained, config=replace(trained.config, editor=longer))
        measured = measure(prepared, scaled)
        measured.kept.remove()
        metrics = judged(measured.results["metrics"])
        points.append({"length": length, **{key: metrics.get(key, 0.0) for key in _KEPT}})
    return points


@dataclass(frozen=True, slots=True)
class Curve:
    """A front on disk.

    Attributes:
        points: what edits of each length mend and break.
        editor: fingerprint of the run's editor, its settings and the code; "" where it is unknown.
    """

    points: Sequence[Mapping[str, float]]
    editor: str = ""

    def is_of(self, editor: str, lengths: Sequence[float] | None) -> bool:
        """Whether it is of an editor ("" for one that is gone) and some lengths (None for any)."""
        own = [point["length"] for point in self.points]
        return editor in ("", self.editor) and (lengths is None or own == [*lengths])


def editor_in(run: Path) -> str:
    """Fingerprint of the editor in a run's folder; "" where there is none."""
    if not (run / EDITOR_WEIGHTS).is_file():
        return ""
    hashes = (file_hash(run / name) for name in (EDITOR_WEIGHTS, "config.yaml"))
    return "-".join((str(REVISION), *hashes))


def mean_curves(
    curves: Mapping[str, Sequence[Sequence[Mapping[str, float]]]],
) -> dict[str, list[dict[str, float]]]:
    """The mean over seeds, length by length."""
    return {
        editor: [
            {key: sum(point[key] for point in column) / len(column) for key in column[0]}
            for column in zip(*seeds, strict=True)
        ]
        for editor, seeds in curves.items()
    }


def best(points: Sequence[Mapping[str, float]]) -> Mapping[str, float]:
    """The point of a curve that is worth the most."""
    return max(points, key=lambda point: point["edit_accuracy"] - _PRICE * point["drawdown"])


def table(curves: Mapping[str, Sequence[Mapping[str, float]]]) -> list[str]:
    """A line an editor: its best point, and the others' drawdown at that edit accuracy."""
    names = list(curves)
    lines = [
        "| editor | best length | edit accuracy | " + " | ".join(names) + " |",
        "|---|---|---|" + "---|" * len(names),
    ]
    for name in names:
        point = best(curves[name])
        cells = []
        for other in names:
            value = drawdown_at(curves[other], point["edit_accuracy"])
            cells.append("-" if value is None else f"{value:.4f}")
        head = f"| {name} | {point['length']:g} | {point['edit_accuracy']:.3f} | "
        lines.append(head + " | ".join(cells) + " |")
    return lines


def draw(curves: Mapping[str, Sequence[Mapping[str, float]]], path: Path) -> None:
    """One line an editor."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.add_subplot()
    for name, points in curves.items():
        x = [100 * point["drawdown"] for point in points]
        y = [100 * point["edit_accuracy"] for point in points]
        axes.plot(x, y, marker="o", markersize=3.5, linewidth=1.1, label=name)
    axes.set_xscale("symlog", linthresh=0.1)
    axes.set_xlim(left=0)
    axes.set_xlabel("drawdown, percentage points (less is better)")
    axes.set_ylabel("edit accuracy, %")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False, loc="lower right")
    figure.savefig(path, dpi=144)


def read(path: Path) -> dict[str, Curve]:
    """The curves of a file that this script wrote, by run; of older ones the editor is unknown.

    Raises:
        ArtifactError: there is none, or it is broken or of something else.
    """
    points = [{str: float}]
    told = read_json(path, "curves by run", {str: ({"editor": str, "points": points}, points)})
    return {
        run: Curve(own) if isinstance(own, list) else Curve(own["points"], own["editor"])
        for run, own in told.items()
    }


def main(given: Sequence[str] | None = None) -> None:
    """Test the runs at each length that has not been tested before, and set rivals beside them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="*", type=Path, help="folders of trained editors")
    parser.add_argument("--out", type=Path, required=True, help="JSON file; runs in it are kept")
    parser.add_argument("--lengths", nargs="+", type=float, help=f"default: {LENGTHS}")
    parser.add_argument(
        "--beside", nargs="+", type=Path, default=[], metavar="RUN", help="folders of rivals' runs"
    )
    parser.add_argument(
        "--rivals", action="store_true", help="test rivals at the lengths of the curve, too"
    )
    args = parser.parse_args(given)
    quiet_libraries()
    try:
        for line in _lines(args):
            print(line)
    except SaleditError as error:
        parser.exit(error.exit_status, f"{error}\n")


def _curve(
    run: Path, known: dict[str, Curve], lengths: Sequence[float] | None, path: Path, ui: Ui
) -> None:  # fmt: skip
    """Measure the curve of a run's editor where it is not known, and keep it."""
    editor = editor_in(run)
    if run.name in known and known[run.name].is_of(editor, lengths):
        return
    trained = load_editor(run)
    prepared = prepare(trained.config, ui)
    trained.check(prepared.base)
    known[run.name] = Curve(front(prepared, trained, lengths or LENGTHS), editor)
    write_json(path, {name: asdict(own) for name, own in known.items()})


def _of_rivals(
    args: argparse.Namespace, fronts: Mapping[int, Points], ui: Ui
) -> dict[str, Points]:  # fmt: skip
    """Curves of the rivals at the lengths of those that they stand beside; {} if not asked for."""
    path = args.out.with_suffix(".rivals.json")
    known = read(path) if args.rivals and path.exists() else {}
    for run in args.beside if args.rivals else ():
        lengths = [point["length"] for point in fronts[rival_of(run)["seed"]]]
        _curve(run, known, lengths, path, ui)
    return {name: own.points for name, own in known.items()}


def _lines(args: argparse.Namespace) -> list[str]:
    """Measure, write and draw; what there is to print."""
    known = read(args.out) if args.out.exists() or not args.runs else {}
    meant = [run.name for run in args.runs] or [*known]
    for name in {*known, *meant}:
        editor_of(name)  # a name that says nothing is refused before minutes of work
    if args.rivals and not args.beside:
        raise UserError("--rivals: expected rivals behind --beside, got none")
    if args.beside:
        check_rivals(args.beside, args.runs, meant)
    with Ui() as ui:
        for run in args.runs:
            _curve(run, known, args.lengths, args.out, ui)
        meant_curves = {name: known[name].points for name in meant}
        fronts = fronts_of(meant_curves) if args.beside else {}
        theirs = _of_rivals(args, fronts, ui)
    seeds = defaultdict(list)
    for run, own in known.items():
        seeds[editor_of(run)].append(own.points)
    curves = mean_curves(seeds)
    draw(curves, args.out.with_suffix(".png"))
    lines = table(curves)
    if args.beside:
        rows = beside(map(rival_of, args.beside), fronts, theirs)
        editors = summary(rows)
        write_json(args.out.with_suffix(".beside.json"), {"runs": rows, "editors": editors})
        lines += ["", *beside_table(rows, editors)]
    return lines


if __name__ == "__main__":
    main()
