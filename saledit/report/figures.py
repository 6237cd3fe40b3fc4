"""Figures of a run: its layers and its training; matplotlib is imported when one is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from saledit.report.drawing import canvas

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICKED, OTHER = "#d1495b", "#8fa3ad"


def saliency_figure(table: Mapping[str, Any]) -> Figure:
    """Draw the score of every layer as a bar chart, the picked one in another colour.

    Args:
        table: ``Saliency.as_json``.
    """
    from matplotlib.ticker import MaxNLocator

    layers = [int(row["layer"]) for row in table["layers"]]
    scores = [float(row["score"]) for row in table["layers"]]
    pick = int(table["pick"])
    figure, (axes,) = canvas(max(5.0, 1.6 + 0.3 * len(layers)), 3.2)
    colors = [PICKED if layer == pick else OTHER for layer in layers]
    # Of some scores the error is told, and has no say in the pick.
    errors = [float(row.get("error") or row.get("standard_error", 0)) for row in table["layers"]]
    axes.bar(
        layers, scores, color=colors, width=0.75, yerr=errors if any(errors) else None,
        error_kw={"ecolor": "black", "elinewidth": 0.8, "capsize": 3},
    )  # fmt: skip
    axes.axhline(0, color="black", linewidth=0.6)
    axes.set_xlabel("layer, from the input up")
    axes.set_ylabel("score")
    axes.set_title(f"{table['method']}: layer {pick} is picked", fontsize=10, parse_math=False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=16))
    return figure


#: Panels of a training's curves: label, and which columns of ``metrics.csv`` are in it.
_TRAINING = (
    ("loss", ("train/loss", "val/loss")),
    ("validation, %", ("val/edit_accuracy", "val/drawdown", "val/score")),
    ("KL on pass", ("train/locality_kl", "val/locality_kl")),
)


def training_figure(rows: Sequence[Mapping[str, str]]) -> Figure | None:
    """Draw the curves of a training.

    Args:
        rows: ``metrics.csv``; an empty cell is no value.

    Returns:
        The figure; None where nothing was logged.
    """
    panels: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for label, names in _TRAINING:
        factor = 100 if label.endswith("%") else 1
        found = {
            name: [(int(row["step"]), factor * float(row[name])) for row in rows if row.get(name)]
            for name in names
        }
        if any(found.values()):
            panels[label] = {name: points for name, points in found.items() if points}
    if not panels:
        return None
    figure, grid = canvas(6.4, 0.6 + 1.8 * len(panels), len(panels))
    for axes, (label, curves) in zip(grid, panels.items(), strict=True):
        for number, (name, points) in enumerate(curves.items()):
            axes.plot(
                *zip(*points, strict=True), label=name, color=f"C{number}", linewidth=1.2,
                marker="o" if name.startswith("val/") else "", markersize=3,
            )  # fmt: skip
        axes.set_ylabel(label, fontsize=8)
        axes.legend(fontsize=7, frameon=False, ncols=3)
    grid[-1].set_xlabel("optimizer step")
    return figure
