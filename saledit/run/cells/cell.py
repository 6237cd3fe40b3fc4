"""One cell of a comparison, in a process of its own: ``main`` of a configuration file."""

from __future__ import annotations

import traceback
from pathlib import Path

import torch

from saledit import config as configuration
from saledit.artifact import load_editor
from saledit.config import RunConfig
from saledit.errors import ArtifactError
from saledit.files import one_at_a_time, write_text
from saledit.report import Ui, quiet_libraries, use_threads
from saledit.report.failures import explain
from saledit.run.cells.alike import train_once
from saledit.run.cells.done import facts_of, is_of
from saledit.run.resuming import LAST
from saledit.run.setup.origins import origins
from saledit.run.setup.prepare import prepare
from saledit.run.testing import measure, write_measured


def run_cell(config: RunConfig, ui: Ui) -> None:
    """Fit and test one editor; a training that was cut off goes on.

    Comparisons beside each other may share a cell: one of them makes it, the others wait for that.
    What cannot be gone on with is begun anew, without asking.

    Args:
        config: the whole configuration of the run.
        ui: where progress is shown.

    Raises:
        UserError, JobError: as ``fit`` and ``test``.
    """
    folder = config.folder
    with one_at_a_time(folder):
        if facts_of(config, torch.get_num_threads()) is not None:
            return
        found = origins(config)  # first: what changes meanwhile is not what is measured
        prepared = prepare(config, ui)
        resume = is_of(folder, config) and (folder / LAST).exists()
        try:
            source = train_once(prepared, resume)
        except ArtifactError as error:
            if not resume:
                raise
            ui.stage(f"this cell cannot be gone on with, so it is begun anew ({error})")
            prepared = prepare(config, ui)
            source = train_once(prepared, resume=False)
        if source != folder:
            ui.stage(f"the editor is that of {source}, which was trained alike")
        measured = measure(prepared, load_editor(folder))
        measured.results["origins"] = found
        write_measured(folder, measured)


def main(path: str, quiet: str, threads: str, debug: str) -> int:
    """Run the cell of a configuration; an error is left beside it as one line.

    Args:
        path: the configuration.
        quiet: "1" to show nothing, "0" to show progress.
        threads: processor threads.
        debug: "1" to show the traceback of an error.

    Returns:
        The exit status.
    """
    quiet_libraries()
    use_threads(int(threads))
    note = Path(path).with_suffix(".error")
    note.unlink(missing_ok=True)
    try:
        with Ui(quiet == "1") as ui:
            run_cell(configuration.load(path), ui)
    except BaseException as error:
        message, status = explain(error, [])
        if not isinstance(error, KeyboardInterrupt):
            if debug == "1":
                traceback.print_exc()
            write_text(note, message.removeprefix("error: "))  # it is told as one there
        return status
    return 0
