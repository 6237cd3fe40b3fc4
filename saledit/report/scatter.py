"""The figure of a comparison: what mends against what it costs, a point an editor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

from saledit.report.drawing import MARKERS, canvas, color_of, legend_beside, placed, reach, spread
from saledit.report.look import drawdown, of_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NAMED = 8  # points at most that have their names beside them


def comparison_figure(table: Mapping[str, Any]) -> Figure:
    """Draw edit accuracy against drawdown, a point an editor, with its intervals and its seeds.

    Args:
        table: what ``run.compare`` makes; editors without results are left out.
    """
    rows = [r for r in table["editors"] if r["seeds"] and r["drawdown"]["mean"] is not None]
    text = any(of_text(cell.get("metrics", {})) for cell in table["cells"])
    figure, (axes,) = canvas(6.4, 4.4)
    spread(axes, "x", [placed(row["drawdown"]["mean"]) for row in rows])
    drawn, points = {}, {}
    for row, look in zip(rows, _looks(table, rows), strict=True):
        x, y = row["drawdown"], row["edit_accuracy"]
        at = placed(x["mean"])
        label = row["editor"]
        if at < 100 * x["mean"]:
            label += f" ({drawdown(x['mean'], text)}: off the scale)"
        points[label] = at, 100 * y["mean"]
        (drawn[label], *_) = axes.errorbar(
            *points[label], xerr=_bars(x), yerr=_bars(y), markersize=6, elinewidth=0.9,
            capsize=2, **look,
        )  # fmt: skip
        for point in _seeds(row):
            axes.plot(*point, alpha=0.45, markersize=3, **look)
    unit = "% more perplexity" if text else "percentage points"
    axes.set_xlabel(f"drawdown, {unit} (less is better)")
    axes.set_ylabel("edit accuracy, %")
    seeds = "; small: each seed" if any(map(_seeds, rows)) else ""
    title = f"{table['config']}: what mends, what it costs{seeds}"
    axes.set_title(title, fontsize=10, parse_math=False)
    if len(points) > _NAMED or not _name(figure, axes, points):
        legend_beside(figure, drawn)
    return figure


def _seeds(row: Mapping[str, Any]) -> list[tuple[float, float]]:
    """Where an editor's seeds are drawn, where it has several."""
    xs, ys = (row[name].get("by_seed", {}) for name in ("drawdown", "edit_accuracy"))
    both = [(xs[seed], y) for seed, y in ys.items() if xs.get(seed) is not None and y is not None]
    return [(placed(x), 100 * y) for x, y in both] if len(both) > 1 else []


def _looks(table: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Colour and marker of each editor; where schedules are compared, the marker is theirs."""
    if rows and len(table.get("schedules", ())) > 1:
        pairs = [(row["preset"], str(row["schedule"])) for row in rows]
        editors, schedules = (list(dict.fromkeys(own)) for own in zip(*pairs, strict=True))
        numbers = [(editors.index(own), schedules.index(schedule)) for own, schedule in pairs]
    else:
        numbers = [(n, n) for n in range(len(rows))]
    return [
        color_of(c) | {"marker": MARKERS[m % len(MARKERS)], "linestyle": ""} for c, m in numbers
    ]


def _name(figure: Figure, axes: Axes, points: Mapping[str, tuple[float, float]]) -> bool:
    """Write names beside points; where they run into each other or out of the panel, none."""
    axes.autoscale_view()  # or else it comes with the next drawing
    inside = axes.transData + axes.transAxes.inverted()
    names = []
    for text, at in points.items():
        side, where = (1, "left") if inside.transform(at)[0] < 0.5 else (-1, "right")
        name = axes.annotate(
            text, at, xytext=(6 * side, 5), ha=where, textcoords="offset points", fontsize=8,
            parse_math=False,
        )  # fmt: skip
        name.set_in_layout(False)  # of which the panel would shrink
        names.append(name)
    figure.draw_without_rendering()
    boxes = [name.get_window_extent() for name in names]
    marks = [axes.transData.transform(at) for at in points.values()]
    fit = (
        not any(a.overlaps(b) for a, b in combinations(boxes, 2))
        and not any(box.contains(*mark) for box in boxes for mark in marks)
        and all(axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1 for box in boxes)
    )
    for name in () if fit else names:
        name.remove()
    return fit


def _bars(found: Mapping[str, Any]) -> list[list[float]]:
    return [[side] for side in reach(found)]
