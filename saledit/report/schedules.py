"""The figure of several schedules: what mends and what it costs, against the failures an edit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PANELS = (
    ("fail_accuracy", "failures mended, %"),
    ("adapt_accuracy", "rewordings right, %"),
    ("drawdown", "drawdown, %"),
    ("score", "S (ES, PS, NS), %"),
)
_MARKERS, _STYLES = "os^", ("-", ":", "--")  # of the modes


def schedules_figure(table: Mapping[str, Any]) -> Figure:
    """Draw a line for each editor and mode, a panel for each number.

    Args:
        table: what ``run.compare`` makes of several schedules.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator

    rows = [row for row in table["editors"] if row.get("schedule")]
    lines = list(dict.fromkeys(_line(row) for row in rows))
    drawn = {
        label: {line: _against_k([r for r in rows if _line(r) == line], key) for line in lines}
        for key, label in _PANELS
    }
    panels = {label: curves for label, curves in drawn.items() if any(curves.values())}
    figure = Figure(figsize=(6.4, 0.8 + 2.0 * max(1, len(panels))), layout="constrained")
    canvas = FigureCanvasAgg(figure).figure
    grid = canvas.subplots(max(1, len(panels)), 1, sharex=True, squeeze=False)
    editors, modes = (list(dict.fromkeys(line[i] for line in lines)) for i in (0, 1))
    for axes, (label, curves) in zip(grid[:, 0], panels.items(), strict=False):
        for (editor, mode), points in curves.items():
            if points:
                number = modes.index(mode)
                axes.plot(
                    *zip(*points, strict=True), marker=_MARKERS[number], markersize=4,
                    linestyle=_STYLES[number], color=f"C{editors.index(editor) % 10}",
                    label=f"{editor}, {mode}",
                )  # fmt: skip
        axes.set_ylabel(label, fontsize=8)
        axes.set_xscale("log")
        axes.spines[["top", "right"]].set_visible(False)
    if panels:
        grid[0, 0].legend(fontsize=7, frameon=False, ncols=2)
    sizes = sorted({_failures(row) for row in rows})
    grid[-1, 0].set_xticks(sizes, [str(k) for k in sizes])
    grid[-1, 0].xaxis.set_minor_locator(NullLocator())
    grid[-1, 0].set_xlabel("failures an edit")
    return figure


def _line(row: Mapping[str, Any]) -> tuple[str, str]:
    return row.get("preset", row["editor"]), row["schedule"]["mode"]


def _against_k(rows: Sequence[Mapping[str, Any]], key: str) -> list[tuple[int, float]]:
    """A number of some schedules, in percent, in the order of their failures an edit."""
    found = []
    for row in rows:
        value = row.get("preference", {}).get(key) if key == "score" else row[key]["mean"]
        if value is not None:
            found.append((_failures(row), 100 * value))
    return sorted(found)


def _failures(row: Mapping[str, Any]) -> int:
    """Failures of an edit: no more than there are."""
    k: int = row["schedule"]["batch_size"]
    return min(k, row.get("n_failures") or k)
