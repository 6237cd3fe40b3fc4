"""The figure of several schedules: what mends and what it costs, against the failures an edit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from saledit.report.drawing import (
    FAR,
    MARKERS,
    canvas,
    color_of,
    legend_beside,
    placed,
    reach,
    spread,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PANELS = (
    ("fail_accuracy", "failures mended, %"),
    ("adapt_accuracy", "rewordings right, %"),
    ("drawdown", "drawdown, %"),
    ("score", "S (ES, PS, NS), %"),
)
_STYLES = ("-", ":", "--")  # of the modes
_WIDE = 1.2  # from the first line's failures an edit to the last one's


class Point(NamedTuple):
    """Failures an edit, and a number in percent with how far its interval reaches."""

    k: int
    value: float
    reach: tuple[float, float]


def schedules_figure(table: Mapping[str, Any]) -> Figure:
    """Draw a line for each editor and mode, a panel for each number.

    Args:
        table: what ``run.compare`` makes of several schedules.
    """
    from matplotlib.ticker import NullLocator

    rows = [row for row in table["editors"] if row.get("schedule")]
    lines = list(dict.fromkeys(_line(row) for row in rows))
    drawn = {
        label: {line: _against_k([r for r in rows if _line(r) == line], key) for line in lines}
        for key, label in _PANELS
    }
    panels = {label: curves for label, curves in drawn.items() if any(curves.values())}
    figure, grid = canvas(6.4, 0.8 + 2.0 * max(1, len(panels)), max(1, len(panels)))
    editors, modes = (list(dict.fromkeys(line[i] for line in lines)) for i in (0, 1))
    shown: dict[str, Any] = {}
    for axes, (label, curves) in zip(grid, panels.items(), strict=False):
        values = [point.value for points in curves.values() for point in points]
        more = f"\n({FAR:,.0f}: or more)" if max(values) == FAR else ""
        axes.set_ylabel(label + more, fontsize=8)
        axes.set_xscale("log")
        spread(axes, "y", values)
        for number, ((editor, mode), points) in enumerate(curves.items()):
            if not points:
                continue
            aside = _WIDE ** (number / max(1, len(curves) - 1) - 0.5)  # intervals beside each other
            (shown[f"{editor}, {mode}"], *_) = axes.errorbar(
                [point.k * aside for point in points], [point.value for point in points],
                yerr=list(zip(*(point.reach for point in points), strict=True)),
                marker=MARKERS[modes.index(mode)], linestyle=_STYLES[modes.index(mode)],
                **color_of(editors.index(editor)), markersize=4, linewidth=1.1,
                elinewidth=0.9, capsize=2,
            )  # fmt: skip
    legend_beside(figure, shown)
    sizes = sorted({_failures(row) for row in rows})
    grid[-1].set_xticks(sizes, [str(k) for k in sizes])
    grid[-1].xaxis.set_minor_locator(NullLocator())
    grid[-1].set_xlabel("failures an edit")
    return figure


def _line(row: Mapping[str, Any]) -> tuple[str, str]:
    return row.get("preset", row["editor"]), row["schedule"]["mode"]


def _against_k(rows: Sequence[Mapping[str, Any]], key: str) -> list[Point]:
    """A number of some schedules, in the order of their failures an edit."""
    found = []
    for row in rows:
        share = row.get(key) or {"mean": row.get("preference", {}).get(key), "low": None}
        if share["mean"] is not None:
            found.append(Point(_failures(row), placed(share["mean"]), reach(share)))
    return sorted(found)


def _failures(row: Mapping[str, Any]) -> int:
    """Failures of an edit: no more than there are."""
    k: int = row["schedule"]["batch_size"]
    return min(k, row.get("n_failures") or k)
