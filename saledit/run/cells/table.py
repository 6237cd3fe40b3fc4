"""A comparison as a table: all that is known of its cells, as JSON, CSV and plots."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from saledit.config import RunConfig
from saledit.config.schedules import name_of
from saledit.files import write_json, write_text
from saledit.report import (
    comparison_figure,
    courses_figure,
    courses_of,
    schedules_figure,
    write_plot,
)
from saledit.report.bootstrap import SHARES
from saledit.report.look import PREFERENCES
from saledit.run.cells.notes import notes_of
from saledit.run.cells.rivals import Cells
from saledit.run.cells.summing import PEAKS, PICKING, TIMES, summary

_COUNTED = ("n_edits", "n_refused", "stopped")  # of a cell: edits made, not made, cut short


def table_of(
    cells: Cells, known: Mapping[str, Mapping[str, Any] | None],
    failed: Mapping[str, str], shared: RunConfig, command: str,
    notes: Sequence[str] = (),
) -> dict[str, Any]:  # fmt: skip
    """All that is known of a comparison.

    Args:
        cells: configurations.
        known: what a cell has left, by its name; None where it is not done.
        failed: what went wrong, by a cell's name.
        shared: the configuration that the editors share.
        command: what was typed.
        notes: what is to be known beside what the cells tell (``saledit.run.cells.notes``).

    Returns:
        What ``compare.json`` holds.
    """
    rows: list[dict[str, Any]] = []
    for (rival, seed), config in cells.items():
        row: dict[str, Any] = {"editor": rival.label, "seed": seed, "run": str(config.folder)}
        if config.name in failed:
            row["error"] = failed[config.name]
        else:
            row |= known[config.name] or {}
        rows.append(row)
    done = [row for row in rows if "metrics" in row]
    rivals = {rival.label: rival for rival, _ in cells}
    names = [*rivals]
    seeds = list(dict.fromkeys(seed for _, seed in cells))
    return {
        "schema": 1,
        "config": shared.name,
        "task": shared.task.name,
        "command": command,
        # As configured; each cell has its own, which its editor may have set.
        "schedule": {
            "batch_size": shared.schedule.batch_size,
            "cumulative": shared.schedule.cumulative,
        },
        "schedules": list(dict.fromkeys(name_of(r.schedule) for r, _ in cells if r.schedule)),
        "editors": [
            {**summary(name, done, names[0], seeds), "preset": rivals[name].editor}
            for name in names
        ],
        "cells": rows,
        "notes": [*notes_of(done), *notes],
    }


def write_table(folder: Path, table: Mapping[str, Any]) -> None:
    """Write ``compare.json`` and ``compare.csv``."""
    write_json(folder / "compare.json", table)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    cells = table["cells"]
    compared = [cell.get("metrics", {}).get("preference", {}) for cell in cells]
    named = [name for name in PREFERENCES if any(name in own for own in compared)]
    writer.writerow(
        ["editor", "seed", "mode", "batch_size", "layer", *SHARES, "locality_kl", *named, *TIMES,
         *PICKING, *PEAKS, "editor_mb", *_COUNTED, "error"]
    )  # fmt: skip
    for row, own in zip(cells, compared, strict=True):
        metrics, timing, schedule = (row.get(key, {}) for key in ("metrics", "timing", "schedule"))
        writer.writerow(
            [row["editor"], row["seed"], schedule.get("mode"), schedule.get("batch_size"),
             row.get("layer"), *(metrics.get(k) for k in (*SHARES, "locality_kl")),
             *(own.get(k) for k in named), *(timing.get(k) for k in TIMES),
             *(row.get(k) for k in (*PICKING, *PEAKS, "editor_mb", *_COUNTED)), row.get("error")]
        )  # fmt: skip
    write_text(folder / "compare.csv", out.getvalue())


def draw_table(folder: Path, table: Mapping[str, Any]) -> None:
    """The plots, of what there is when a comparison ends or is interrupted."""
    write_plot(comparison_figure(table), folder / "compare.png")
    if len(table.get("schedules", [])) > 1:
        write_plot(schedules_figure(table), folder / "schedules.png")
    courses = courses_of(table["cells"])
    if courses:
        write_plot(courses_figure(courses), folder / "course.png")
