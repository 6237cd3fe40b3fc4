"""Edit accuracy against drawdown of trained editors, each at several lengths of its edits.

    python benchmarks/fronts.py checkpoints/snli-salem-s0 checkpoints/snli-step-s0 --out snli.json

Two editors can be compared at equal edit accuracy when each is drawn as a curve: the same edits,
taken at a factor of their length. A run is NAME-EDITOR-sSEED, as `saledit compare` names them.
Prints, for the edit accuracy that each editor has at its best length, what drawdown the others
have there (interpolated; the mean over the seeds), and writes the curves and a picture.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from saledit.artifact import TrainedEditor, load_editor
from saledit.report import Ui, quiet_libraries
from saledit.run.prepare import Prepared, prepare
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
        metrics = measure(prepared, scaled).results["metrics"]
        metrics |= metrics.get("generated", {})
        points.append({"length": length, **{key: metrics.get(key, 0.0) for key in _KEPT}})
    return points


def drawdown_at(points: Sequence[Mapping[str, float]], accuracy: float) -> float | None:
    """The least drawdown at which a curve reaches an edit accuracy; None if it does not."""
    line = [(point["edit_accuracy"], point["drawdown"]) for point in points]
    line = [(0.0, 0.0), *line]
    found = []
    for (a, da), (b, db) in pairwise(line):
        if min(a, b) <= accuracy <= max(a, b):
            found.append(da if a == b else da + (db - da) * (accuracy - a) / (b - a))
    return min(found, default=None)


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


def read(path: Path) -> dict[str, list[list[dict[str, float]]]]:
    """The curves of a file that this script wrote, seeds apart."""
    curves = defaultdict(list)
    for run, points in json.loads(path.read_text(encoding="utf-8")).items():
        curves[editor_of(run)].append(points)
    return dict(curves)


def editor_of(run: str) -> str:
    """The editor in the name of a run, NAME-EDITOR-sSEED."""
    return run.split("-", 1)[1].rsplit("-s", 1)[0]


def main() -> None:
    """Test the runs at each length that has not been tested before."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="*", type=Path, help="folders of trained editors")
    parser.add_argument("--out", type=Path, required=True, help="JSON file; runs in it are kept")
    parser.add_argument("--lengths", nargs="+", type=float, default=list(LENGTHS))
    args = parser.parse_args()
    quiet_libraries()
    known = json.loads(args.out.read_text(encoding="utf-8")) if args.out.exists() else {}
    with Ui() as ui:
        for run in args.runs:
            if run.name in known:
                continue
            trained = load_editor(run)
            prepared = prepare(trained.config, ui)
            trained.check(prepared.base)
            known[run.name] = front(prepared, trained, args.lengths)
            args.out.write_text(json.dumps(known, indent=1), encoding="utf-8")
    curves = mean_curves(read(args.out))
    draw(curves, args.out.with_suffix(".png"))
    print("\n".join(table(curves)))


if __name__ == "__main__":
    main()
