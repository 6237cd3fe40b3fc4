"""``saledit log`` and ``saledit undo``: what was done to a model, and taking it back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from saledit.errors import ArtifactError, UserError
from saledit.export import CHANGED, CUT_OFF, FORMATS, settle, state
from saledit.ledger import FIX, UNDO, EditFolder
from saledit.models import TaskModel
from saledit.models.recorded import found_again
from saledit.report import Ui
from saledit.run.fixes.head import load_again, load_merged, task_of
from saledit.run.fixes.merging import check_merged
from saledit.tasks.base import Task


def log(out: str, ui: Ui) -> dict[str, Any]:
    """Read a ledger, check it and the files of its entries, and finish what was cut off.

    Args:
        out: the folder of ``fix``.
        ui: where progress is shown.

    Returns:
        The entries, and whether what stands beside them was changed by others.

    Raises:
        UserError: there is no ledger.
        ArtifactError: the ledger or an entry is broken, was changed, or is missing.
        JobError: what was cut off cannot be finished.
    """
    folder = _read(out)
    found = state(folder)
    if found == CUT_OFF:
        with EditFolder.opened(Path(out)) as folder:
            _settle(folder, ui)
            found = state(folder)
    in_force = {entry.id for entry in folder.in_force}
    undone = {e.facts["of"]: e.id for e in folder.entries if e.action == UNDO}
    rows = [
        {
            "id": entry.id,
            "time": entry.time,
            "action": entry.action,
            "in_force": entry.id in in_force,
            "undone_by": undone.get(entry.id),
            **{k: v for k, v in entry.facts.items() if k in ("of", "editor", "metrics")},
        }
        for entry in folder.entries[1:]
    ]
    edits = folder.edits  # read, and so checked
    head = {name: folder.head[name] for name in ("base_model", "layer", "format")}
    return {
        "out": out, **head, "entries": rows, "changed": found == CHANGED,
        "norm": float(edits.norm()) if len(edits) and not edits.are_routed else None,
    }  # fmt: skip


def undo(out: str, number: int | None, ui: Ui) -> dict[str, Any]:
    """Take a fix back, exactly; later ones stay.

    Args:
        out: the folder of ``fix``.
        number: the fix's entry; None for the last in force.
        ui: where progress is shown.

    Returns:
        What was taken back, and what is in force.

    Raises:
        UserError: there is no ledger, or no such fix in force.
        ArtifactError: the ledger or an entry is broken, was changed, or is missing.
        JobError: the base model gives another result than before, or the disk is full.
    """
    _read(out)
    with EditFolder.opened(Path(out)) as folder:
        state(folder)  # refuses a ledger that has lost entries
        new = folder.undone(number)
        _settle(new, ui)
        entry = new.entries[-1]
        return {
            "out": out,
            "undone": entry.facts["of"],
            "entry": entry.id,
            "format": new.head["format"],
            "in_force": [fix.id for fix in new.in_force],
            "n_fixes": sum(e.action == FIX for e in new.entries),
        }


def _read(out: str) -> EditFolder:
    folder = EditFolder.read(Path(out))
    if not folder.entries:
        raise UserError(f"{out}: expected a folder that saledit fix made, got none; check the path")
    return folder


def _settle(folder: EditFolder, ui: Ui) -> None:
    """Write what is in force, with the base model where that takes it."""
    if not FORMATS[folder.head["format"]].needs_base:
        settle(folder, None)
        return
    base, task = _base(folder, ui)

    def check(part: Path) -> None:
        ui.stage("checking the merged model")
        layer = base.layer(folder.head["layer"])
        again = load_merged(folder, part)
        check_merged(again, part, base, task, layer, folder.edits, (), ())

    settle(folder, base, check)


def _base(folder: EditFolder, ui: Ui) -> tuple[TaskModel, Task]:
    """The base model that a ledger is of.

    Raises:
        ModelError: it is no longer where it was.
        ArtifactError: it is another one now.
    """
    told = folder.head["base_model"]
    name, wanted = found_again(told, folder.path), told["fingerprint"]
    ui.stage(f"loading {name}")
    base = load_again(folder, name)
    if base.fingerprint != wanted:
        raise ArtifactError(
            f"{name}: expected the base model of {folder.path} (fingerprint {wanted[:8]}), got "
            f"{base.fingerprint[:8]}; put it back where it was"
        )
    return base, task_of(folder)
