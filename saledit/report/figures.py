"""Figures of results; matplotlib is imported when one is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from saledit.report.look import of_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PICKED, _OTHER = "#d1495b", "#8fa3ad"


def saliency_figure(table: Mapping[str, Any]) -> Figure:
    """Draw the score of every layer as a bar chart, the picked one in another colour.

    Args:
        table: ``Saliency.as_json``.
    """
    # Without pyplot there is no state and no display: the figure belongs to this call alone.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    layers = [int(row["layer"]) for row in table["layers"]]
    scores = [float(row["score"]) for row in table["layers"]]
    pick = int(table["pick"])
    figure = Figure(figsize=(max(5.0, 1.6 + 0.3 * len(layers)), 3.2), layout="constrained")
    axes = FigureCanvasAgg(figure).figure.add_subplot()
    colors = [_PICKED if layer == pick else _OTHER for layer in layers]
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
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def comparison_figure(table: Mapping[str, Any]) -> Figure:
    """Draw edit accuracy against drawdown, a point an editor, with its intervals.

    Args:
        table: what ``run.compare`` makes; editors without results are left out.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = FigureCanvasAgg(figure).figure.add_subplot()
    for row in table["editors"]:
        if not row["seeds"] or row["drawdown"]["mean"] is None:
            continue
        x, y = row["drawdown"], row["edit_accuracy"]
        axes.errorbar(
            100 * x["mean"], 100 * y["mean"], xerr=_reach(x), yerr=_reach(y), fmt="o",
            markersize=5, elinewidth=0.9, capsize=2, label=row["editor"],
        )  # fmt: skip
        axes.annotate(
            row["editor"], (100 * x["mean"], 100 * y["mean"]), xytext=(5, 5),
            textcoords="offset points", fontsize=8, parse_math=False,
        )  # fmt: skip
    text = any(of_text(cell.get("metrics", {})) for cell in table["cells"])
    unit = "% more perplexity" if text else "percentage points"
    axes.set_xlabel(f"drawdown, {unit} (less is better)")
    axes.set_ylabel("edit accuracy, %")
    axes.set_title(f"{table['config']}: what mends, what it costs", fontsize=10, parse_math=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


#: Curves of a course, and what they are called.
_CURVES = (
    ("current", "the current edits"),
    ("earlier", "all earlier edits"),
    ("adapt", "rewordings of all"),
    ("pass_accuracy", "pass samples"),
)


#: What is drawn of the courses of several editors, each in a panel of its own.
_PANELS = (
    ("current", "current edits that hold, %"),
    ("earlier", "earlier edits that hold, %"),
    ("pass_accuracy", "pass samples, %"),
    ("abilities", "other prompts, mean of kinds, %"),
    ("perplexity", "perplexity of text"),
    ("delta_norm", "|change| / |weights|"),
)


def courses_of(cells: Sequence[Mapping[str, Any]]) -> dict[str, Sequence[Mapping[str, Any]]]:
    """The course of each editor of a comparison that has one, of its first seed."""
    out: dict[str, Sequence[Mapping[str, Any]]] = {}
    for cell in cells:
        if "course" in cell:
            out.setdefault(cell["editor"], cell["course"])
    return out


def courses_figure(courses: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Draw the courses of several editors over one another, a panel for each thing that is watched.

    Args:
        courses: for each editor the ``course`` of its ``results.json``.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogFormatter

    found = {
        label: {
            editor: [(p["n_failures"], _seen(p, key)) for p in points if key in p]
            for editor, points in courses.items()
        }
        for key, label in _PANELS
    }
    panels = {label: curves for label, curves in found.items() if any(curves.values())}
    figure = Figure(figsize=(6.4, 0.6 + 2.0 * len(panels)), layout="constrained")
    grid = FigureCanvasAgg(figure).figure.subplots(len(panels), 1, sharex=True, squeeze=False)
    for axes, (label, curves) in zip(grid[:, 0], panels.items(), strict=True):
        for number, (editor, points) in enumerate(curves.items()):
            if points:
                axes.plot(
                    *zip(*points, strict=True), marker="o", markersize=2.5, label=editor,
                    color=f"C{number % 10}", linestyle="--" if number >= 10 else "-",
                )  # fmt: skip
        axes.set_ylabel(label, fontsize=8)
        if label.endswith("%"):
            axes.set_ylim(-2, 102)
        elif label.startswith("perplexity"):
            axes.set_yscale("log")
            for numbers in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
                numbers(LogFormatter(labelOnlyBase=False))  # 60 and 200, not 2 x 10^2
        axes.spines[["top", "right"]].set_visible(False)
    grid[0, 0].legend(fontsize=8, frameon=False, ncols=3)
    grid[-1, 0].set_xlabel("failures edited")
    return figure


def _seen(point: Mapping[str, Any], key: str) -> float:
    """A number of a point as it is drawn."""
    if key == "abilities":
        kinds: Mapping[str, float] = point[key]
        return 100 * sum(kinds.values()) / len(kinds)
    if key == "delta_norm":
        return float(point[key]) / float(point["weight_norm"])
    return float(point[key]) * (1 if key == "perplexity" else 100)


def course_figure(results: Mapping[str, Any]) -> Figure:
    """Draw what holds and what is forgotten as edits pile up, and how far the weights have gone.

    Args:
        results: ``results.json`` of a sequence with a ``course``.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    points = results["course"]
    figure = Figure(figsize=(6.4, 5.6), layout="constrained")
    upper, lower = FigureCanvasAgg(figure).figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
    for name, label in _CURVES:
        found = [(p["n_failures"], 100 * p[name]) for p in points if name in p]
        if found:
            upper.plot(*zip(*found, strict=True), marker="o", markersize=3, label=label)
    upper.set_ylabel("right, %")
    upper.set_ylim(-2, 102)
    upper.legend(fontsize=8, frameon=False)
    grown = [(p["n_failures"], _seen(p, "delta_norm")) for p in points if "delta_norm" in p]
    if grown:
        lower.plot(
            *zip(*grown, strict=True),
            color=_OTHER,
            marker="o",
            markersize=3,
            label="|change| / |weights|",
        )
    if "perplexity" in points[0]:
        texts = [(p["n_failures"], p["perplexity"]) for p in points if "perplexity" in p]
        rise = [(at, seen / points[0]["perplexity"]) for at, seen in texts]
        lower.plot(
            *zip(*rise, strict=True), color=_PICKED, marker="o", markersize=3,
            label="perplexity, relative",
        )  # fmt: skip
        lower.set_yscale("log")
    lower.set_xlabel("failures edited")
    if lower.lines:
        lower.legend(fontsize=8, frameon=False)
    if results["collapse"] is not None:
        for axes in (upper, lower):
            axes.axvline(results["collapse"], color=_PICKED, linestyle=":", linewidth=1)
    name, k = results["editor"], results["schedule"]["batch_size"]
    upper.set_title(f"{name}, {k} failures a step", fontsize=10, parse_math=False)
    for axes in (upper, lower):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _reach(found: Mapping[str, Any]) -> list[list[float]] | None:
    """How far an interval reaches below and above its mean, in percent."""
    if found["low"] is None:
        return None
    below, above = found["mean"] - found["low"], found["high"] - found["mean"]
    return [[100 * max(0.0, below)], [100 * max(0.0, above)]]


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
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

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
    figure = Figure(figsize=(6.4, 0.6 + 1.8 * len(panels)), layout="constrained")
    grid = FigureCanvasAgg(figure).figure.subplots(len(panels), 1, sharex=True, squeeze=False)
    for axes, (label, curves) in zip(grid[:, 0], panels.items(), strict=True):
        for number, (name, points) in enumerate(curves.items()):
            axes.plot(
                *zip(*points, strict=True), label=name, color=f"C{number}", linewidth=1.2,
                marker="o" if name.startswith("val/") else "", markersize=3,
            )  # fmt: skip
        axes.set_ylabel(label, fontsize=8)
        axes.legend(fontsize=7, frameon=False, ncols=3)
        axes.spines[["top", "right"]].set_visible(False)
    grid[-1, 0].set_xlabel("optimizer step")
    return figure
