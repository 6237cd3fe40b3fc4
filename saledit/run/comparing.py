"""``saledit compare``: several editors on the same splits, task model and budget, in one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import torch

from saledit import config as configuration
from saledit.config import RunConfig
from saledit.errors import ConfigError
from saledit.files import write_text
from saledit.report import Ui
from saledit.run.budget import check_budget, is_timed
from saledit.run.cells.crew import OwnProcess, Runner, run_all
from saledit.run.cells.done import Found, facts_of, found_of
from saledit.run.cells.rivals import Cells, cell_of, check_once, rivals_of
from saledit.run.cells.table import draw_table, table_of, write_table
from saledit.run.setup.placing import device_of
from saledit.run.setup.reading import check_data

#: Of a cell that ended well.
_NOTHING = (
    "expected results of this configuration in the cell's folder, got none; does another "
    "comparison write there?"
)
#: Of cells beside each other.
_TOGETHER = "How far cells get in train.seconds depends on those that ran beside them"


def compare(
    target: str, editors: Sequence[str], seeds: Sequence[int], overrides: Sequence[str], ui: Ui,
    edits: int = 0, seconds: float = 0.0, jobs: int = 1, schedules: Sequence[str] = (),
    runner: Runner | None = None, anew: bool = False,
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
        anew: let cells take the place of finished ones of another configuration; without it that
            is refused before anything runs.

    Returns:
        The table, also written as ``compare.json`` and ``compare.csv`` after every cell, and as
        plots at the end, also of an interrupted one.

    Raises:
        ConfigError: an unknown editor or schedule, no editor, what is no budget, an accelerator
            that is not here, or finished results of something else where a cell is to be.
        DataError: see ``check_data``.
    """
    check_budget(edits, seconds)
    if not editors or not seeds:
        raise ConfigError(
            "compare: expected editors and seeds, got none; e.g. --editors salem mend"
        )
    check_once(editors, seeds)
    shared = configuration.load(target, overrides)
    folder = Path(shared.output) / f"{shared.name}-compare"
    cells: Cells = {}
    for rival in rivals_of(target, editors, schedules, overrides, ui):
        for seed in seeds:
            cells[rival, seed] = cell_of(target, rival, seed, overrides, edits, seconds)
    threads = max(1, torch.get_num_threads() // jobs)
    found = {config.name: found_of(config, threads) for config in cells.values()}
    known = {name: own.facts for name, own in found.items()}
    waiting = {
        folder / "cells" / f"{config.name}.yaml": (f"{rival.label}, seed {seed}", config)
        for (rival, seed), config in cells.items()
        if known[config.name] is None
    }
    if not anew:
        _check_places([config for config in cells.values() if found[config.name].is_other], found)
    for _, config in waiting.values():
        device_of(config.trainer)  # refuses what is not here
    check_data([config for _, config in waiting.values()])
    for why in dict.fromkeys(own.why for own in found.values() if own.why):
        again = (what for what, config in waiting.values() if found[config.name].why == why)
        ui.stage(f"run again, as its results are {why}: {'; '.join(again)}")
    notes = []
    if jobs > 1 and any(is_timed(config) for _, config in waiting.values()):
        notes = [f"{_TOGETHER} ({jobs} at a time)."]
        ui.stage(notes[0])
    table = table_of(cells, known, {}, shared, ui.command, notes)
    write_table(folder, table)
    failed: dict[str, str] = {}

    def begin(path: Path) -> None:
        what, config = waiting[path]
        write_text(path, configuration.to_yaml(config))
        if jobs == 1:  # beside others, the bar tells of it
            ui.stage(what)

    # Bars of several processes would write over each other: beside others, a cell is quiet.
    runner = runner or OwnProcess(ui.quiet or jobs > 1, threads, ui.debug)
    try:
        with (
            ui.progress("cells", len(waiting)) if jobs > 1 else nullcontext() as bar,
            closing(run_all([*waiting], runner, jobs, begin)) as ended,
        ):
            for done, (path, error) in enumerate(ended, start=1):
                what, config = waiting[path]
                known[config.name] = facts_of(config, threads)
                if error is not None or known[config.name] is None:
                    failed[config.name] = str(error or _NOTHING)
                    ui.stage(f"{what} failed: {failed[config.name]}")
                if bar is not None:
                    bar.update(done, what)
                table = table_of(cells, known, failed, shared, ui.command, notes)
                write_table(folder, table)
    finally:
        draw_table(folder, table)
    return table | {"folder": str(folder)}


def _check_places(taken: Sequence[RunConfig], found: Mapping[str, Found]) -> None:
    """Refuse to write over finished cells.

    Raises:
        ConfigError: there are some.
    """
    if taken:
        more = f", and {len(taken) - 1} more such cells" if len(taken) > 1 else ""
        raise ConfigError(
            f"{taken[0].folder}: expected no results or those of this comparison, got some "
            f"{found[taken[0].name].why}{more}; give another name=..., or --anew to replace them"
        )
