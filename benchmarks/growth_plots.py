"""Powers fitted to growth curves, as tables and as plots on logarithmic axes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from growth_curves import Curve

from saledit.report import write_plot

_COLORS = ("#1b6ca8", "#d1495b", "#2a9d6f", "#e09f3e", "#7b5ea7", "#5c6b73", "#a0522d")


@dataclass(frozen=True)
class Power:
    """y = factor x^exponent.

    Attributes:
        exponent: b.
        error: its standard error; None of two points.
        last: slope between the last two points.
        factor: a.
    """

    exponent: float
    error: float | None
    last: float
    factor: float

    def __str__(self) -> str:
        error = "" if self.error is None else f" ± {self.error:.2f}"
        return f"{self.exponent:.2f}{error}"


def fitted(xs: Sequence[float], ys: Sequence[float]) -> Power | None:
    """Least squares of log y = log a + b log x over the points above 0; None of fewer than two."""
    pairs = sorted((x, y) for x, y in zip(xs, ys, strict=True) if x > 0 and y > 0)
    if len({x for x, _ in pairs}) < 2:
        return None
    x, y = np.log(np.array(pairs, dtype=np.float64)).T
    spread = float(((x - x.mean()) ** 2).sum())
    exponent = float(((x - x.mean()) * (y - y.mean())).sum()) / spread
    rest = y - y.mean() - exponent * (x - x.mean())
    free = len(x) - 2
    error = math.sqrt(float((rest**2).sum()) / free / spread) if free else None
    before = int(np.flatnonzero(x < x[-1])[-1])
    last = float((y[-1] - y[before]) / (x[-1] - x[before]))
    return Power(exponent, error, last, math.exp(float(y.mean()) - exponent * float(x.mean())))


def fits_of(curve: Curve, rows: Sequence[Mapping[str, float]]) -> dict[str, Power]:
    """The exponent of each column that has one."""
    drawn = [key for names in curve.panels.values() for key in names]
    keys = dict.fromkeys([*(c.key for c in curve.columns if c.is_fitted), *drawn])
    xs = [row[curve.x] for row in rows]
    found = {key: fitted(xs, [row[key] for row in rows]) for key in keys}
    return {key: power for key, power in found.items() if power is not None}


def table(curve: Curve, rows: Sequence[Mapping[str, float]], fits: Mapping[str, Power]) -> str:
    """Two markdown tables: the points, and the exponents."""
    lines: list[Sequence[str]] = [[c.head for c in curve.columns], ["---:"] * len(curve.columns)]
    lines += [[format(c.scale * row[c.key], c.show) for c in curve.columns] for row in rows]
    heads = {c.key: c.head for c in curve.columns if c.is_fitted and c.key in fits}
    lines += [[], [f"against {curve.x}", "exponent", "last two points"], ["---", "---:", "---:"]]
    lines += [[head, str(fits[key]), f"{fits[key].last:.2f}"] for key, head in heads.items()]
    return "\n".join("| " + " | ".join(line) + " |" if line else "" for line in lines)


def plot(
    curve: Curve, rows: Sequence[Mapping[str, float]], fits: Mapping[str, Power], path: Path
) -> None:
    """Draw the points and, dashed, what is fitted to them, on logarithmic axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    size = (5.6 * len(curve.panels), 4.6)
    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    grid = FigureCanvasAgg(figure).figure.subplots(1, len(curve.panels), squeeze=False)
    for axes, (label, names) in zip(grid[0], curve.panels.items(), strict=True):
        for color, (key, name) in zip(_COLORS, names.items(), strict=False):
            found = sorted((row[curve.x], row[key]) for row in rows if row[key] > 0)
            if not found:
                continue
            xs, ys = (np.array(side, dtype=np.float64) for side in zip(*found, strict=True))
            power = fits.get(key)
            text = name if power is None else f"{name}: exponent {power}"
            axes.plot(xs, ys, "o", color=color, markersize=5, label=text)
            if power is not None:
                line = power.factor * xs**power.exponent
                axes.plot(xs, line, "--", color=color, linewidth=1.2)
        axes.set(xscale="log", yscale="log", xlabel=curve.x_label, ylabel=label)
        ticks = sorted({row[curve.x] for row in rows})
        axes.set_xticks(ticks, labels=[curve.tick(x) for x in ticks])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
        plain = FuncFormatter(lambda y, _place: f"{y:,.6g}")
        axes.yaxis.set_major_formatter(plain)
        axes.yaxis.set_minor_formatter(plain)
        axes.tick_params(axis="both", which="both", labelsize=8)
        axes.grid(visible=True, which="both", color="#e6e6e6", linewidth=0.7)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(
            fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(0, -0.14),
            ncols=1 + (len(names) > 4),
        )  # fmt: skip
    write_plot(figure, path)
