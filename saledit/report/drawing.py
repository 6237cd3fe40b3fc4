"""What figures of several editors share: colours and marks, axes that show all, a legend beside."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median_low
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Those of Okabe and Ito (2008) that are seen on white and on black, and a grey.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f")
#: One more than colours: taken in turn, colour and marker come together again after 56.
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_LINES = ("-", "--", "-.", ":")
_SQUEEZED = 10.0  # times the middle value: what lies as far out takes the axis from the others
_LEAST = 0.1  # percent, below which a logarithmic axis goes on linearly
_FEW = 1000.0  # times that, which leaves room for more numbers than the powers of ten
#: Percent: a model of a thousandfold perplexity is broken, and farther points would take the axis
#: from the others.
FAR = 1e5
_ROW, _LETTER = 0.19, 0.075  # inches of a legend


def canvas(
    width: float, height: float, panels: int = 1, height_ratios: Sequence[float] | None = None
) -> tuple[Figure, Sequence[Axes]]:
    """A figure of panels below each other, of inches, that share what is along the bottom."""
    # Without pyplot there is no state and no display: the figure belongs to this call alone.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = FigureCanvasAgg(Figure(figsize=(width, height), layout="constrained")).figure
    panes = figure.subplots(panels, 1, sharex=True, squeeze=False, height_ratios=height_ratios)
    grid: list[Axes] = panes[:, 0].tolist()
    for axes in grid:
        axes.spines[["top", "right"]].set_visible(False)
    return figure, grid


def color_of(number: int) -> dict[str, Any]:
    """What tells one of several editors from the others, whatever its marker; open when used up."""
    full = number // len(COLORS) % 2 == 0
    return {"color": COLORS[number % len(COLORS)], "fillstyle": "full" if full else "none"}


def line_of(number: int) -> dict[str, Any]:
    """How the line of one of several editors looks."""
    return color_of(number) | {
        "marker": MARKERS[number % len(MARKERS)], "markersize": 4,
        "linestyle": _LINES[number // len(COLORS) % len(_LINES)],
    }  # fmt: skip


def reach(found: Mapping[str, Any]) -> tuple[float, float]:
    """How far an interval reaches below and above its mean, in percent; 0 where there is none."""
    if found["low"] is None:
        return 0.0, 0.0
    below, above = found["mean"] - found["low"], found["high"] - found["mean"]
    return 100 * max(0.0, below), 100 * max(0.0, above)


def placed(share: float) -> float:
    """Where a share, or a rise, is drawn: in percent, and no farther out than ``FAR``."""
    return min(100 * share, FAR)


def spread(axes: Axes, which: str, values: Sequence[float]) -> None:
    """Make an axis logarithmic where else a few of its values would squeeze the others.

    Args:
        axes: whose.
        which: "x" or "y".
        values: what is drawn along it; near zero and below it is linear.
    """
    from matplotlib.ticker import FuncFormatter, SymmetricalLogLocator

    sizes = [abs(value) for value in values if value]
    if not sizes or max(sizes) <= _SQUEEZED * median_low(sizes):
        return
    scale, axis = (axes.set_xscale, axes.xaxis) if which == "x" else (axes.set_yscale, axes.yaxis)
    linear = max(_LEAST, 10.0 ** math.floor(math.log10(min(sizes))))
    scale("symlog", linthresh=linear)
    subs = (1, 2, 5) if max(sizes) < _FEW * linear else (1,)
    axis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=linear, subs=subs))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))  # 10, not 10^1


def legend_beside(figure: Figure, drawn: Mapping[str, Any]) -> None:
    """A legend to the right of all panels, for which the figure grows.

    Args:
        figure: with its panels drawn.
        drawn: what is drawn, by its name, which may be of unknown origin.
    """
    if not drawn:
        return
    width, height = figure.get_size_inches()
    longest = max(map(len, drawn))
    figure.set_size_inches(width + 0.6 + _LETTER * longest, max(height, 0.6 + _ROW * len(drawn)))
    legend = figure.legend(
        drawn.values(), drawn.keys(), loc="outside right upper", fontsize=8, frameon=False
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
