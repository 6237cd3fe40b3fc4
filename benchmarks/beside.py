"""Rivals' finished runs beside a curve of edit accuracy against drawdown: see ``fronts.py``."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any

from saledit.errors import UserError
from saledit.files import read_json
from saledit.run.cells.done import failures_of

_NAMED = re.compile(r"[^-]+-(?P<editor>.+)-s(?P<seed>\d+)")
_SHARES = {"edit_accuracy": float, "drawdown": float}
_RESULTS = {"seed": int, "metrics": {**_SHARES, "generated?": _SHARES}}

RATIOS = ("ratio", "share", "fixed_ratio", "alike_ratio")
Points = Sequence[Mapping[str, float]]
Row = dict[str, Any]


def drawdown_at(points: Points, accuracy: float) -> float | None:
    """The least drawdown at which a curve reaches an edit accuracy; None if it does not.

    Where a curve folds (longer edits mend less) it does so more than once, and the least is chosen
    by what the test says.
    """
    return min((drawdown for _, drawdown in _crossings(points, accuracy)), default=None)


def fixed_drawdown_at(points: Points, accuracy: float) -> float | None:
    """The drawdown at an edit accuracy where a curve reaches it nearest to its editor's own length.

    That is 1, and nearness is of the factor between lengths, so nothing is chosen by the drawdown;
    an editor's own run lies on its own curve.
    """
    near = min(_crossings(points, accuracy), key=lambda at: _from_own(at[0]), default=None)
    return None if near is None else near[1]


def _from_own(length: float) -> float:
    return abs(math.log(length)) if length > 0 else math.inf


def _crossings(points: Points, accuracy: float) -> Iterator[tuple[float, float]]:
    """Length and drawdown wherever a curve has an edit accuracy.

    Linear between neighbouring lengths, and from the shortest to no edit accuracy and no drawdown.
    """
    line = [(p["length"], p["edit_accuracy"], p["drawdown"]) for p in points]
    for (x, a, da), (y, b, db) in pairwise([(0.0, 0.0, 0.0), *line]):
        if min(a, b) <= accuracy <= max(a, b):
            for share in (0.0, 1.0) if a == b else ((accuracy - a) / (b - a),):
                yield x + share * (y - x), da + share * (db - da)


def fronts_of(curves: Mapping[str, Points]) -> dict[int, Points]:
    """Seed -> its curve, of curves by run.

    Raises:
        UserError: two curves of one seed.
    """
    runs: dict[int, str] = {}
    for run in curves:
        first = runs.setdefault(seed_of(run), run)
        if first != run:
            raise UserError(
                f"--beside: expected one curve of seed {seed_of(run)}, got {first} and {run}; name "
                "the runs whose curves are meant before --beside"
            )
    return {seed: curves[run] for seed, run in runs.items()}


def beside(
    rivals: Iterable[Mapping[str, Any]], fronts: Mapping[int, Points],
    curves: Mapping[str, Points] | None = None,
) -> list[Row]:  # fmt: skip
    """Rivals, each beside the curve of its seed at its edit accuracy.

    Args:
        rivals: as ``rival_of`` gives them.
        fronts: seed -> curve.
        curves: run -> its own curve, of rivals that have one.

    Returns:
        For each rival what it is and the curve's ``front_drawdown`` at its edit accuracy, ``ratio``
        (its drawdown in that), ``share`` (the other way round) and where it ``lies`` on the curve:
        within, below the least edit accuracy measured (``front_drawdown`` is then on a line to the
        origin) or above the highest, ``front_end``. Above it ``front_drawdown``, ``ratio`` and
        ``share`` are None; so is one of the latter two that would divide by no drawdown.

        ``front_drawdown`` has its length chosen on the test, the rival's drawdown has not. So there
        are two comparisons of like with like: ``fixed_drawdown`` (``fixed_drawdown_at``) and
        ``fixed_ratio``, where neither side chooses by its drawdown, and of rivals with a curve
        ``alike_drawdown``, the least on it at the same edit accuracy, and ``alike_ratio`` (it in
        ``front_drawdown``), where both do.
    """
    rows = []
    for rival in rivals:
        points, accuracy, own = fronts[rival["seed"]], rival["edit_accuracy"], rival["drawdown"]
        reached = [point["edit_accuracy"] for point in points]
        there, fixed = drawdown_at(points, accuracy), fixed_drawdown_at(points, accuracy)
        curve = (curves or {}).get(rival["run"])
        alike = None if curve is None else drawdown_at(curve, accuracy)
        low, high = min(reached), max(reached)
        rows.append(
            {
                **rival,
                "front_drawdown": there,
                "ratio": _over(own, there),
                "share": _over(there, own),
                "lies": "below" if accuracy < low else "above" if accuracy > high else "within",
                "front_end": high,
                "fixed_drawdown": fixed,
                "fixed_ratio": _over(own, fixed),
                "alike_drawdown": alike,
                "alike_ratio": _over(alike, there),
            }
        )
    return rows


def _over(drawdown: float | None, other: float | None) -> float | None:
    return drawdown / other if drawdown is not None and other else None


def summary(rows: Iterable[Row]) -> list[Row]:
    """An entry an editor: mean and range of its ratios and shares over the seeds that have one."""
    editors = defaultdict(list)
    for row in rows:
        editors[row["editor"]].append(row)
    return [
        {
            "editor": editor,
            "seeds": [row["seed"] for row in own],
            **{key: _spread([row[key] for row in own]) for key in RATIOS},
            "below": any(row["lies"] == "below" for row in own),
        }
        for editor, own in editors.items()
    ]


def _spread(values: Iterable[float | None]) -> dict[str, float] | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    return {"mean": mean(known), "low": min(known), "high": max(known), "n": len(known)}


def beside_table(rows: Sequence[Row], editors: Sequence[Row]) -> list[str]:
    """A line a rival run, then a line an editor."""
    lines = [
        (
            "| run | edit accuracy | drawdown | the curve's drawdown there | ratio "
            "| at the length nearest 1 | ratio | the least of its own curve | ratio of the least |"
        ),
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        there, ratio = row["front_drawdown"], row["ratio"]
        cells = [row["run"], f"{row['edit_accuracy']:.3f}", f"{row['drawdown']:.4f}"]
        if there is None:
            cells.append(f"- (the curve ends at {row['front_end']:.3f})")
        else:
            cells.append(f"{there:.4f}{_mark(row['lies'] == 'below')}")
        cells += [_told(ratio, 1), _told(row["fixed_drawdown"], 4), _told(row["fixed_ratio"], 1)]
        cells += [_told(row["alike_drawdown"], 4), _told(row["alike_ratio"], 1)]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        (
            "| editor | seeds | times the curve's (range) | the curve's share of it (range) "
            "| times it at the length nearest 1 | times it, both at their least |"
        ),
        "|---|---|---|---|---|---|",
    ]
    for entry in editors:
        n, ratio, share = len(entry["seeds"]), entry["ratio"], entry["share"]
        has = ratio["n"] if ratio else 0
        cells = [entry["editor"], f"{n}" if has == n else f"{has} of {n}"]
        cells += [_ranged(ratio, 1) + _mark(entry["below"]), _ranged(share, 2)]
        cells += [_ranged(entry["fixed_ratio"], 1), _ranged(entry["alike_ratio"], 1)]
        lines.append("| " + " | ".join(cells) + " |")
    if any(entry["below"] for entry in editors):
        lines += [
            "",
            "\\* at an edit accuracy below that of the shortest length: on a line to (0, 0)",
        ]
    return lines


def _told(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _mark(below: bool) -> str:
    return r"\*" if below else ""


def _ranged(spread: Mapping[str, float] | None, digits: int) -> str:
    if spread is None:
        return "-"
    middle, low, high = (f"{spread[key]:.{digits}f}" for key in ("mean", "low", "high"))
    return middle if spread["n"] == 1 else f"{middle} ({low} to {high})"


def rival_of(folder: Path) -> dict[str, Any]:
    """Run, editor, seed, edit accuracy and drawdown of a finished run.

    Raises:
        UserError: there are no results in it, or its name is not that of a run of an editor.
        ArtifactError: the results are broken.
    """
    path = folder / "results.json"
    if not path.exists():
        raise UserError(
            f"--beside {folder}: expected a finished run, got none with results.json; run saledit "
            "test on it, or saledit compare again"
        )
    results = read_json(path, "results of a test", _RESULTS)
    metrics = judged(results["metrics"])
    return {
        "run": folder.name,
        "editor": editor_of(folder.name),
        "seed": results["seed"],
        **{key: metrics[key] for key in _SHARES},
    }


def check_rivals(folders: Sequence[Path], runs: Sequence[Path], names: Iterable[str]) -> None:
    """Refuse rivals that cannot be set beside the curves, before these take minutes.

    Args:
        folders: of the rivals.
        runs: folders of the runs whose curves are meant; those that are there are looked into.
        names: all runs that there will be a curve of.

    Raises:
        UserError: a rival is not finished, has no curve of its seed or other test failures.
    """
    seeds = fronts_of(dict.fromkeys(names, ()))
    of_seed = {seed_of(run.name): run for run in runs if run.is_dir()}
    for folder in folders:
        seed = rival_of(folder)["seed"]
        if seed not in seeds:
            raise UserError(
                f"--beside {folder}: expected a curve of its seed {seed}, got those of seeds "
                f"{', '.join(map(str, sorted(seeds))) or 'none'}; name a run of that seed before "
                "--beside"
            )
        if seed in of_seed and failures_of(folder) != failures_of(of_seed[seed]):
            raise UserError(
                f"--beside {folder}: expected edits of the same test failures as "
                f"{of_seed[seed]}, got others; take runs of one comparison"
            )


def judged(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics by which editors are compared: of text under free generation."""
    return {**metrics, **metrics.get("generated", {})}


def editor_of(run: str) -> str:
    """The editor in the name of a run, NAME-EDITOR-sSEED."""
    return _parts(run)["editor"]


def seed_of(run: str) -> int:
    """The seed in the name of a run, NAME-EDITOR-sSEED."""
    return int(_parts(run)["seed"])


def _parts(run: str) -> re.Match[str]:
    found = _NAMED.fullmatch(run)
    if found is None:
        raise UserError(f"{run}: expected a run named NAME-EDITOR-sSEED, as by saledit compare")
    return found
