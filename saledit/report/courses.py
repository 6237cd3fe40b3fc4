"""Figures of sequences: what holds and what is forgotten as edits pile up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from saledit.report.drawing import canvas, legend_beside, line_of
from saledit.report.figures import OTHER, PICKED
from saledit.report.look import count

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Course = Sequence[Mapping[str, Any]]
Curve = list[tuple[int, float]]
#: Curves of one course, and what they are called.
_CURVES = (
    ("current", "the current edits"),
    ("earlier", "all earlier edits"),
    ("adapt", "rewordings of all"),
    ("pass_accuracy", "pass samples"),
)


def course_figure(results: Mapping[str, Any]) -> Figure:
    """Draw what holds and what is forgotten as edits pile up, and how far the weights have gone.

    Args:
        results: ``results.json`` of a sequence with a ``course``.
    """
    points = results["course"]
    figure, (upper, lower) = canvas(6.4, 5.6, 2, height_ratios=(3, 2))
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
            color=OTHER,
            marker="o",
            markersize=3,
            label="|change| / |weights|",
        )
    if "perplexity" in points[0]:
        texts = [(p["n_failures"], p["perplexity"]) for p in points if "perplexity" in p]
        rise = [(at, seen / points[0]["perplexity"]) for at, seen in texts]
        lower.plot(
            *zip(*rise, strict=True), color=PICKED, marker="o", markersize=3,
            label="perplexity, relative",
        )  # fmt: skip
        lower.set_yscale("log")
    lower.set_xlabel("failures edited")
    if lower.lines:
        lower.legend(fontsize=8, frameon=False)
    if results["collapse"] is not None:
        for axes in (upper, lower):
            axes.axvline(results["collapse"], color=PICKED, linestyle=":", linewidth=1)
    name, k = results["editor"], results["schedule"]["batch_size"]
    upper.set_title(f"{name}, {count(k, 'failure')} a step", fontsize=10, parse_math=False)
    return figure


#: What is drawn of the courses of several editors, each in a panel of its own.
_PANELS = (
    ("current", "current edits that hold, %"),
    ("earlier", "earlier edits that hold, %"),
    ("pass_accuracy", "pass samples, %"),
    ("abilities", "other prompts, mean of kinds, %"),
    ("perplexity", "perplexity of text"),
    ("delta_norm", "|change| / |weights|"),
)


def courses_of(cells: Sequence[Mapping[str, Any]]) -> dict[str, list[Course]]:
    """The courses of each editor of a comparison that has some, one a seed."""
    out: dict[str, list[Course]] = {}
    for cell in cells:
        if "course" in cell:
            out.setdefault(cell["editor"], []).append(cell["course"])
    return out


def courses_figure(courses: Mapping[str, Sequence[Course]]) -> Figure:
    """Draw the courses of several editors over one another, a panel for each thing that is watched.

    Of several seeds each is a thin line, and their mean a line as of one seed, as far as all go.

    Args:
        courses: for each editor the ``course`` of its ``results.json``, of every seed.
    """
    from matplotlib.ticker import LogFormatter

    found = {
        label: {
            editor: [curve for points in seeds if (curve := _curve(points, key))]
            for editor, seeds in courses.items()
        }
        for key, label in _PANELS
    }
    panels = {label: curves for label, curves in found.items() if any(curves.values())}
    figure, grid = canvas(6.4, 0.6 + 2.0 * len(panels), len(panels))
    drawn = {}
    for axes, (label, curves) in zip(grid, panels.items(), strict=True):
        for number, (editor, seeds) in enumerate(curves.items()):
            look = line_of(number)
            for curve in seeds if len(seeds) > 1 else ():
                axes.plot(*zip(*curve, strict=True), color=look["color"], linewidth=0.6, alpha=0.5)
            if mean := _mean(seeds):
                (drawn[editor],) = axes.plot(*zip(*mean, strict=True), **look)
        axes.set_ylabel(label, fontsize=8)
        if label.endswith("%"):
            axes.set_ylim(-2, 102)
        elif label.startswith("perplexity"):
            axes.set_yscale("log")
            for numbers in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
                numbers(LogFormatter(labelOnlyBase=False))  # 60 and 200, not 2 x 10^2
    if any(len(seeds) > 1 for seeds in courses.values()):
        grid[0].set_title("thin: each seed; with marks: their mean", fontsize=10)
    grid[-1].set_xlabel("failures edited")
    legend_beside(figure, drawn)
    return figure


def _curve(points: Course, key: str) -> Curve:
    return [(p["n_failures"], _seen(p, key)) for p in points if key in p]


def _mean(seeds: Sequence[Curve]) -> Curve:
    """The mean over seeds where all of them were looked at: where one has ended, others go on."""
    looks = [dict(curve) for curve in seeds]
    return [
        (n, sum(own[n] for own in looks) / len(looks))
        for n in (looks[0] if looks else ())
        if all(n in own for own in looks)
    ]


def _seen(point: Mapping[str, Any], key: str) -> float:
    """A number of a point as it is drawn."""
    if key == "abilities":
        kinds: Mapping[str, float] = point[key]
        return 100 * sum(kinds.values()) / len(kinds)
    if key == "delta_norm":
        return float(point[key]) / float(point["weight_norm"])
    return float(point[key]) * (1 if key == "perplexity" else 100)
