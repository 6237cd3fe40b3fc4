"""``saledit compare``: several editors on the same splits, task model and budget, in one table."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from saledit import config as configuration
from saledit.building import check_failures
from saledit.config import RunConfig, ScheduleConfig
from saledit.config.schedules import name_of
from saledit.config.schedules import schedules as read_schedules
from saledit.errors import ConfigError
from saledit.files import write_json, write_text
from saledit.report import (
    Ui,
    comparison_figure,
    courses_figure,
    courses_of,
    schedules_figure,
    write_plot,
)
from saledit.report.bootstrap import SHARES
from saledit.report.look import PREFERENCES
from saledit.run.budget import budgeted, check_budget
from saledit.run.cells.crew import OwnProcess, Runner, run_all
from saledit.run.cells.done import facts_of
from saledit.run.cells.summing import TIMES, summary
from saledit.run.checks import check
from saledit.run.setup.launching import alone
from saledit.run.setup.placing import device_of
from saledit.run.setup.reading import check_data

_COUNTED = ("n_edits", "n_refused", "stopped")  # of a cell: edits made, not made, cut short
#: Of a cell that ended well.
_NOTHING = (
    "expected results of this configuration in the cell's folder, got none; does another "
    "comparison write there?"
)


def compare(
    target: str, editors: Sequence[str], seeds: Sequence[int], overrides: Sequence[str], ui: Ui,
    edits: int = 0, seconds: float = 0.0, jobs: int = 1, schedules: Sequence[str] = (),
    runner: Runner | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Fit and test editors side by side.

    Each cell, an editor with a seed (and a schedule, where several are compared), is a run of its
    own below ``output`` and a process of its own: its peak of memory is its own, and one that fails
    or is killed leaves the others alone. Cells with results are not run again, one that was cut off
    goes on.

    Args:
        target: the configuration that the editors share.
        editors: presets below ``configs/editors``, or files of one's own.
        seeds: of splits, draws and initial weights; each one a cell of every editor.
        overrides: ``key=value`` set over file and presets.
        ui: where progress is shown.
        edits: edits that every editor is trained on; 0 for as many as configured.
        seconds: wall clock that every editor is trained for; 0 for no limit.
        jobs: cells at a time. They share the processor's threads, or the accelerator, so a cell's
            times are then not its own.
        schedules: names of schedules (``saledit.config.schedules``), each one a cell of every
            editor that takes so many failures an edit; none for the configured one.
        runner: runs a cell; None for a process of its own.

    Returns:
        The table, also written as ``compare.json`` and ``compare.csv`` after every cell, and as
        plots at the end, also of an interrupted one.

    Raises:
        ConfigError: an unknown editor or schedule, no editor, what is no budget, or an accelerator
            that is not here.
        DataError: see ``check_data``.
    """
    check_budget(edits, seconds)
    if not editors or not seeds:
        raise ConfigError(
            "compare: expected editors and seeds, got none; e.g. --editors salem mend"
        )
    _check_once(editors, seeds)
    shared = configuration.load(target, overrides)
    folder = Path(shared.output) / f"{shared.name}-compare"
    cells: Cells = {}
    for rival in _rivals(target, editors, schedules, overrides, ui):
        for seed in seeds:
            cells[rival, seed] = _cell(target, rival, seed, overrides, edits, seconds)
    known = {config.name: facts_of(config) for config in cells.values()}
    waiting = {
        folder / "cells" / f"{config.name}.yaml": (f"{rival.label}, seed {seed}", config)
        for (rival, seed), config in cells.items()
        if known[config.name] is None
    }
    for _, config in waiting.values():
        device_of(config.trainer)  # refuses what is not here
    check_data([config for _, config in waiting.values()])
    table = _table(cells, known, {}, shared, ui.command)
    _write(folder, table)
    failed: dict[str, str] = {}

    def begin(path: Path) -> None:
        what, config = waiting[path]
        write_text(path, configuration.to_yaml(config))
        if jobs == 1:  # beside others, the bar tells of it
            ui.stage(what)

    # Bars of several processes would write over each other: beside others, a cell is quiet.
    runner = runner or OwnProcess(ui.quiet or jobs > 1, max(1, torch.get_num_threads() // jobs))
    try:
        with (
            ui.progress("cells", len(waiting)) if jobs > 1 else nullcontext() as bar,
            closing(run_all([*waiting], runner, jobs, begin)) as ended,
        ):
            for done, (path, error) in enumerate(ended, start=1):
                what, config = waiting[path]
                known[config.name] = facts_of(config)
                if error is not None or known[config.name] is None:
                    failed[config.name] = str(error or _NOTHING)
                    ui.stage(f"{what} failed: {failed[config.name]}")
                if bar is not None:
                    bar.update(done, what)
                table = _table(cells, known, failed, shared, ui.command)
                _write(folder, table)
    finally:
        _draw(folder, table)
    return table | {"folder": str(folder)}


def _check_once(editors: Sequence[str], seeds: Sequence[int]) -> None:
    """Refuse what would be one cell twice.

    Raises:
        ConfigError: an editor or a seed that comes twice, or two editors' files of one name.
    """
    if len(set(editors)) < len(editors) or len(set(seeds)) < len(seeds):
        raise ConfigError("compare: expected each editor and each seed once, got one twice")
    named: dict[str, str] = {}
    for editor in editors:
        first = named.setdefault(_named(editor), editor)
        if first != editor:
            raise ConfigError(
                f"compare: expected editors of different names, got {first} and {editor}, whose "
                f"runs would both be '{_named(editor)}'; rename the file"
            )


def _named(editor: str) -> str:
    """What an editor's runs are named by: the name of its preset or file."""
    return Path(editor).name.removesuffix(".yaml").removesuffix(".yml")


@dataclass(frozen=True)
class Rival:
    """What is compared: an editor, and its schedule where several are compared.

    Attributes:
        editor: a preset, or a file.
        schedule: None for the configured one.
    """

    editor: str
    schedule: ScheduleConfig | None = None

    @property
    def label(self) -> str:
        """What it is called in tables."""
        return f"{self.editor} {name_of(self.schedule)}" if self.schedule else self.editor

    @property
    def run(self) -> str:
        """What its runs are named by."""
        own = _named(self.editor)
        return f"{own}-{name_of(self.schedule).replace(':', '-')}" if self.schedule else own

    def load(self, target: str, overrides: Sequence[str]) -> RunConfig:
        """Its configuration."""
        name = self.editor
        preset = name if name.endswith((".yaml", ".yml")) else f"editors/{name}"
        config = configuration.load(target, overrides, [preset])
        return replace(config, schedule=self.schedule) if self.schedule else config


Cells = dict[tuple[Rival, int], RunConfig]


def _rivals(
    target: str, editors: Sequence[str], words: Sequence[str], overrides: Sequence[str], ui: Ui
) -> list[Rival]:
    """Every editor with every schedule that is for it; told where one is not."""
    if not words:
        return [Rival(editor) for editor in editors]
    out = []
    for editor in editors:
        for schedule in read_schedules(words):
            rival = Rival(editor, schedule)
            own = rival.load(target, overrides).editor
            try:
                check_failures(own, schedule.batch_size)
            except ConfigError as error:
                ui.stage(f"{rival.label} left out: {error}")
            else:
                out.append(rival)
    if not out:
        raise ConfigError("--schedules: expected one that an editor can take, got none")
    return out


def _cell(
    target: str, rival: Rival, seed: int, overrides: Sequence[str], edits: int, seconds: float
) -> RunConfig:
    config = rival.load(target, [*overrides, f"seed={seed}"])
    check(config)  # all cells are checked before one of them runs
    name = f"{config.name}-{rival.run}-s{seed}"
    config = replace(config, name=name, trainer=alone(config.trainer))
    return budgeted(config, edits, seconds)


def _table(
    cells: Cells, known: Mapping[str, Mapping[str, Any] | None],
    failed: Mapping[str, str], shared: RunConfig, command: str,
) -> dict[str, Any]:  # fmt: skip
    """All that is known of the cells so far, by their names."""
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
    }


def _write(folder: Path, table: Mapping[str, Any]) -> None:
    write_json(folder / "compare.json", table)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    cells = table["cells"]
    compared = [cell.get("metrics", {}).get("preference", {}) for cell in cells]
    named = [name for name in PREFERENCES if any(name in own for own in compared)]
    peaks = ("peak_rss_mb", "peak_device_mb", "editor_mb")
    writer.writerow(
        ["editor", "seed", "mode", "batch_size", "layer", *SHARES, "locality_kl", *named, *TIMES,
         *peaks, *_COUNTED, "error"]
    )  # fmt: skip
    for row, own in zip(cells, compared, strict=True):
        metrics, timing, schedule = (row.get(key, {}) for key in ("metrics", "timing", "schedule"))
        writer.writerow(
            [row["editor"], row["seed"], schedule.get("mode"), schedule.get("batch_size"),
             row.get("layer"), *(metrics.get(k) for k in (*SHARES, "locality_kl")),
             *(own.get(k) for k in named), *(timing.get(k) for k in TIMES),
             *(row.get(k) for k in (*peaks, *_COUNTED)), row.get("error")]
        )  # fmt: skip
    write_text(folder / "compare.csv", out.getvalue())


def _draw(folder: Path, table: Mapping[str, Any]) -> None:
    """The plots, of what there is when a comparison ends or is interrupted."""
    write_plot(comparison_figure(table), folder / "compare.png")
    if len(table.get("schedules", [])) > 1:
        write_plot(schedules_figure(table), folder / "schedules.png")
    courses = courses_of(table["cells"])
    if courses:
        write_plot(courses_figure(courses), folder / "course.png")
