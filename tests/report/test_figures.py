"""Figures of several editors: every one can be told from the others, whatever their numbers."""

from __future__ import annotations

from typing import Any

import pytest

from saledit.report import comparison_figure, courses_figure, courses_of, schedules_figure
from saledit.report.drawing import FAR

#: Drawdown and edit accuracy, as measured of presets and made up.
FIVE = {"salem": (0.012, 0.94), "mend": (0.02, 0.6), "step": (0.031, 0.89), "enn": (0.048, 0.8),
        "ke": (0.039, 0.37)}  # fmt: skip
MANY = {f"editor-{n}": (0.003 * (n + 1), 0.3 + 0.05 * n) for n in range(13)} | {"ft": (0.85, 0.58)}


def share(mean: float, reach: float = 0.0, **more: Any) -> dict[str, Any]:
    return {"mean": mean, "low": mean - reach, "high": mean + reach, **more}


def compared(editors: dict[str, tuple[float, float]], **more: Any) -> dict[str, Any]:
    rows = [
        {"editor": name, "preset": name, "seeds": [0], "drawdown": share(x, 0.001),
         "edit_accuracy": share(y, 0.02)}
        for name, (x, y) in editors.items()
    ]  # fmt: skip
    return {"config": "c", "cells": [], "editors": rows, **more}


def named(figure: Any) -> list[str]:
    """Names beside points."""
    return [text.get_text() for text in figure.axes[0].texts]


def listed(figure: Any) -> list[str]:
    """Names in the legend."""
    return [text.get_text() for own in figure.legends for text in own.get_texts()]


def looks(lines: Any) -> set[tuple[str, ...]]:
    return {(own.get_color(), own.get_marker(), own.get_fillstyle()) for own in lines}


def test_few_editors_have_their_names_beside_them() -> None:
    figure = comparison_figure(compared(FIVE))
    assert named(figure) == [*FIVE]
    assert not figure.legends
    assert figure.axes[0].get_xscale() == "linear"


def test_names_that_would_run_into_each_other_are_in_a_legend() -> None:
    close = FIVE | {"malmen-whitened": (0.0121, 0.941)}
    figure = comparison_figure(compared(close))
    assert not named(figure)
    assert listed(figure) == [*close]
    long = comparison_figure(compared({"a": (0.0, 0.5), "b" * 200: (0.1, 0.6)}))
    assert not named(long), "a name that runs out of the panel"


def test_many_editors_are_told_apart_beside_one_that_breaks_everything() -> None:
    figure = comparison_figure(compared(MANY))
    (axes,) = figure.axes
    assert not named(figure)
    assert listed(figure) == [*MANY]
    assert axes.get_xscale() == "symlog"
    points = [own for own in axes.lines if own.get_marker() in "os^DvPX*"]
    assert len(looks(points)) == len(MANY)
    figure.draw_without_rendering()
    along = axes.transData + axes.transAxes.inverted()
    placed = [along.transform((100 * x, 50))[0] for x, _ in MANY.values()]
    assert max(placed[:-1]) - min(placed[:-1]) > 0.3, "the others have room"
    legend = figure.legends[0].get_window_extent()
    assert legend.x0 >= axes.bbox.x1
    assert legend.x1 <= figure.bbox.x1 + 1


def test_schedules_are_told_apart_by_markers_and_editors_by_colours() -> None:
    names = {f"{editor} {word}": (editor, word) for editor in ("a", "b") for word in ("1", "16")}
    table = compared({name: (0.01 * n, 0.5) for n, name in enumerate(names)}, schedules=["1", "16"])
    for row in table["editors"]:
        row["preset"], k = names[row["editor"]]
        row["schedule"] = {"mode": "batch", "batch_size": int(k)}
    points = [own[0] for own in comparison_figure(table).axes[0].containers]
    colors, markers = [own.get_color() for own in points], [own.get_marker() for own in points]
    assert colors[0] == colors[1] != colors[2] == colors[3]
    assert markers[0] == markers[2] != markers[1] == markers[3]


def test_seeds_are_drawn_where_there_are_several() -> None:
    table = compared(FIVE)
    alone = len(comparison_figure(table).axes[0].lines)
    for row in table["editors"]:
        for name in ("drawdown", "edit_accuracy"):
            row[name]["by_seed"] = {str(n): row[name]["mean"] + n / 100 for n in range(3)}
    figure = comparison_figure(table)
    assert len(figure.axes[0].lines) == alone + 3 * len(FIVE)
    assert "small: each seed" in figure.axes[0].get_title()
    for row in table["editors"]:
        row["drawdown"]["by_seed"]["1"] = row["edit_accuracy"]["by_seed"]["2"] = None
    assert len(comparison_figure(table).axes[0].lines) == alone


def test_a_broken_model_does_not_take_the_axis_from_the_others() -> None:
    cells = [{"metrics": {"perplexity_before": 9.0}}]
    rises = {"salem": (0.02, 0.9), "mend": (0.05, 0.8), "step": (0.4, 0.7), "ft": (1e298, 0.6)}
    figure = comparison_figure(compared(rises) | {"cells": cells})
    figure.draw_without_rendering()
    assert figure.axes[0].get_xlim()[1] < 10 * FAR
    assert "ft (1e+300% more: off the scale)" in named(figure) + listed(figure)


def scheduled(drawdowns: dict[str, float]) -> dict[str, Any]:
    rows = [
        {"editor": f"{name} {k}", "preset": name, "seeds": [0], "fail_accuracy": share(0.5, 0.1),
         "adapt_accuracy": {"mean": None, "low": None, "high": None},
         "drawdown": {"mean": x * (1 + k / 16), "low": None, "high": None}, "n_failures": 100,
         "schedule": {"mode": "batch", "batch_size": k}}
        for name, x in drawdowns.items() for k in (1, 16)
    ]  # fmt: skip
    return {"editors": rows}


def test_lines_of_schedules_have_their_intervals() -> None:
    figure = schedules_figure(scheduled({"a": 0.01, "b": 0.02}))
    mended, drawdown = figure.axes
    assert listed(figure) == ["a, batch", "b, batch"]
    for line in mended.containers:
        (bars,) = line[2]
        for (_, low), (_, high) in bars.get_segments():
            assert (low, high) == pytest.approx((40, 60))
    assert drawdown.get_yscale() == "linear"
    broken = schedules_figure(scheduled({"a": 0.01, "b": 0.02, "ft": 1e290}))
    assert broken.axes[1].get_yscale() == "symlog"
    assert "100,000: or more" in broken.axes[1].get_ylabel()
    many = schedules_figure(scheduled(dict.fromkeys(MANY, 0.1))).axes[0].containers
    assert len(looks(own[0] for own in many)) == len(MANY)


def test_courses_show_every_seed_and_their_mean_as_far_as_all_go() -> None:
    def cell(editor: str, seed: int, values: list[float]) -> dict[str, Any]:
        course = [{"n_failures": n, "current": value} for n, value in enumerate(values, 1)]
        return {"editor": editor, "seed": seed, "course": course}

    cells = [cell("a", 0, [1.0, 0.5, 0.25]), cell("a", 1, [0.5, 0.0]), cell("b", 0, [0.75])]
    figure = courses_figure(courses_of([*cells, {"editor": "c", "seed": 0}]))
    (axes,) = figure.axes
    drawn = [list(map(float, line.get_ydata())) for line in axes.lines]
    assert drawn == [[100, 50, 25], [50, 0], [75, 25], [75]]
    assert "thin: each seed" in axes.get_title()
    assert listed(figure) == ["a", "b"]
    assert not courses_figure(courses_of(cells[2:])).axes[0].get_title()
    many = courses_figure({f"e{n}": [cell("e", 0, [n / 20])["course"]] for n in range(14)})
    assert len(looks(many.axes[0].lines)) == 14


def test_names_are_no_formulas() -> None:
    figure = comparison_figure(compared({"a$b$": (0.1, 0.5), "a$_$": (0.1, 0.5)}))
    assert listed(figure) == ["a$b$", "a$_$"]
    figure.draw_without_rendering()
    assert not any(text.get_parse_math() for own in figure.legends for text in own.get_texts())
