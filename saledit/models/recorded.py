"""Which model a file is of, and where that model is when the file is read elsewhere."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from saledit.files import is_file, is_folder
from saledit.models.base import TaskModel


def recorded(base: TaskModel, folder: Path) -> dict[str, str]:
    """A model for a JSON file in a folder: its name and fingerprint.

    A relative path is of the folder that a command ran in, and a file is read from others too; so
    ``beside`` says where the model is from the file's folder.
    """
    facts = {"name": base.name, "fingerprint": base.fingerprint}
    path = Path(base.name)
    if path.is_absolute() or not _is_there(path):
        return facts
    try:
        return {**facts, "beside": Path(os.path.relpath(path, folder)).as_posix()}
    except ValueError:  # on another drive
        return facts


def found_again(facts: Mapping[str, Any], folder: Path) -> str:
    """Where a model is that a file in a folder tells of: at its name, or else beside the file."""
    name, near = str(facts["name"]), folder / str(facts.get("beside", ""))
    if not facts.get("beside") or _is_there(Path(name)) or not _is_there(near):
        return name
    return str(Path(os.path.normpath(near.absolute())))


def _is_there(path: Path) -> bool:
    return is_file(path) or is_folder(path)
