"""Putting what is in force beside the ledger, so that every reader finds old or new, not both."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from saledit.artifact import EDITS_FACTS, EDITS_WEIGHTS, edits_as_tensors
from saledit.errors import ArtifactError, JobError
from saledit.export.formats import FORMATS
from saledit.files import beside, file_hash, read_json, write_json, write_tensors
from saledit.ledger import FIX, EditFolder
from saledit.ledger.checking import is_plain
from saledit.models import TaskModel

SETTLED, CUT_OFF, CHANGED = "settled", "cut off", "changed"
_FACTS = {"ledger": str, "files": {str: str}, "base_model": dict, "in_force": [int]}
_TOLD = {"editor": dict, "failures": [dict], "metrics": dict}
_DECLARING = ("config.json", "adapter_config.json")  # no loader takes a folder without these


def state(folder: EditFolder) -> str:
    """How what stands beside a ledger is to it.

    Returns:
        ``SETTLED``: it is what the entries add up to; ``CUT_OFF``: of an earlier entry, or not
        there; ``CHANGED``: of the last entry, but somebody changed a file.

    Raises:
        ArtifactError: it is of a ledger that has lost entries since.
    """
    if folder.head["format"] not in FORMATS:
        raise ArtifactError(
            f"{folder.path}: expected a ledger of one of the formats {', '.join(FORMATS)}, got "
            f"'{folder.head['format']:.40}'; take ledger.jsonl from a backup"
        )
    try:
        facts = read_json(folder.path / EDITS_FACTS, "the edits in force", _FACTS)
    except ArtifactError:
        return CUT_OFF
    told, files = facts["ledger"], facts["files"]
    if EDITS_WEIGHTS not in files or not all(map(is_plain, files)):
        return CUT_OFF
    if told not in {entry.hash for entry in folder.entries}:
        raise ArtifactError(
            f"{folder.path}: expected the ledger that {EDITS_FACTS} was made of, got one without "
            "its last entries; take ledger.jsonl from a backup"
        )
    if told != folder.hash:
        return CUT_OFF
    same = all(file_hash(folder.path / name) == print_ for name, print_ in files.items())
    same &= facts["base_model"] == folder.head["base_model"]
    same &= facts["in_force"] == [entry.id for entry in folder.in_force]
    return SETTLED if same else CHANGED


def settle(
    folder: EditFolder,
    base: TaskModel | None,
    check: Callable[[Path], object] = lambda _part: None,
) -> None:
    """Write what is in force: the edits, and the form that the ledger's beginning names.

    Everything is written beside the folder and checked there. Then new entries go into the ledger,
    and the files are moved in, the facts last. A process that ends in between leaves a folder that
    is not settled, which the next one sees to. Call it inside ``EditFolder.opened``, which takes
    entries back that did not get into the ledger.

    Args:
        folder: the ledger and its entries, new ones included.
        base: the base model, where the form needs it.
        check: called with the place before anything is moved; may refuse.

    Raises:
        JobError: the disk is full, or the check refused.
    """
    head, form = folder.head, FORMATS[folder.head["format"]]
    edits, told = form.shape(folder.edits, int(head.get("rank", 0)))
    tensors, values = edits_as_tensors(edits)
    part = beside(folder.path)
    try:
        part.mkdir()
        form.write(part, base, edits, head)
        _with_usual_modes(part)
        write_tensors(part / EDITS_WEIGHTS, tensors)
        files = {path.name: file_hash(path) for path in sorted(part.iterdir())}
        value = {
            **values,
            "base_model": head["base_model"],
            "ledger": folder.hash,
            "in_force": [entry.id for entry in folder.in_force],
            "format": head["format"],
            **told,
            **_about(folder),
            "files": files,
        }
        write_json(part / EDITS_FACTS, value)
        check(part)
        folder.commit()
        _move(part, folder.path)
    except OSError as error:
        raise JobError(
            f"{folder.path}: cannot be written: {error.strerror or error}; see: saledit log "
            f"{folder.path}"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _with_usual_modes(folder: Path) -> None:
    """Let those read the files who may read any new file: safetensors hides its own from others."""
    probe = folder / ".mode"
    probe.touch()
    mode = probe.stat().st_mode
    probe.unlink()
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(mode)


def _about(folder: EditFolder) -> dict[str, Any]:
    """The layer, the failures in force, and what was measured after the last entry."""
    entries = folder.in_force
    told = [read_json(folder.told(entry, EDITS_FACTS), "a fix", _TOLD) for entry in entries]
    last = folder.entries[-1].action == FIX
    return {
        "layer": folder.head["layer"],
        "editor": told[-1]["editor"] if told else None,
        "failures": [failure for one in told for failure in one["failures"]],
        "metrics": told[-1]["metrics"] if last else {},
    }


def _move(part: Path, folder: Path) -> None:
    """Move the files that are new; with several of weights the folder is no model meanwhile."""
    # A link would be read from elsewhere: a file of the folder's own takes its place.
    kept = {p for p in part.iterdir() if file_hash(p) == file_hash(folder / p.name)}
    new = [p for p in part.iterdir() if p not in kept or (folder / p.name).is_symlink()]
    weights = [p for p in new if p.suffix == ".safetensors" and p.name != EDITS_WEIGHTS]
    if len(weights) > 1:
        for name in _DECLARING:
            if (folder / name).exists():
                (folder / name).unlink()
                new += [part / name] if part / name not in new else []
    last = (*_DECLARING, EDITS_FACTS)
    for path in sorted(new, key=lambda p: last.index(p.name) if p.name in last else -1):
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
        path.replace(folder / path.name)
