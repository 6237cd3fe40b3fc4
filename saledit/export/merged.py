"""A complete model folder with the edits in its weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from saledit.delta import Edits
from saledit.errors import JobError
from saledit.models import TaskModel
from saledit.overlay import merge


def write_merged(
    folder: Path, base: TaskModel | None, edits: Edits, head: Mapping[str, Any]
) -> None:
    """Write what ``save_pretrained`` writes of the edited model, and its tokenizer.

    The base model's own weights are replaced meanwhile, and come back bit for bit.

    Args:
        folder: where.
        base: the base model.
        edits: unbatched edits.
        head: not read.

    Raises:
        JobError: the disk is full.
    """
    del head
    assert base is not None
    snapshot = merge(base.model, edits)
    try:
        base.model.save_pretrained(folder, safe_serialization=True)
        base.tokenizer.save_pretrained(str(folder))
    except (OSError, SafetensorError) as error:
        raise JobError(f"{folder}: cannot be written: {error}; nothing was changed") from error
    finally:
        snapshot.restore(base.model)
