"""Values of facts on disk: what is wanted of an unedited model is the same for every solver."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from torch import Tensor

from saledit.editors.locating import FactSpec
from saledit.errors import ArtifactError
from saledit.files import keep_tensors, kept_tensors
from saledit.models import TaskModel
from saledit.records import Sample
from saledit.site import Site
from saledit.tasks.base import Task, task_settings

_SCHEMA = 3
_NAME = "delta"


class Values:
    """The wanted changes of a site's output, a small file for each fact.

    Args:
        folder: where they are kept.
        base: the task model, unedited.
        task: how prompts are made and answers scored.
        site: whose output is changed.
        spec: how facts are found.
        contexts: what is put before the prompts.
    """

    def __init__(
        self, folder: Path, base: TaskModel, task: Task, site: Site, spec: FactSpec,
        contexts: Sequence[str],
    ) -> None:  # fmt: skip
        head = [
            _SCHEMA, base.reading, base.blocks_path, site.name, asdict(spec), list(contexts),
            task.name, task_settings(task),
        ]  # fmt: skip
        self._folder = folder / f"values-{_hash(head)}"

    def read(self, sample: Sample) -> Tensor | None:
        """What was found before (D_out,); None where nothing was, or it is damaged."""
        with suppress(ArtifactError):
            return kept_tensors(self._path(sample), "the value of a fact")[0].get(_NAME)
        return None

    def write(self, sample: Sample, delta: Tensor) -> None:
        """Keep what was found.

        Raises:
            JobError: the disk is full or the place cannot be written.
        """
        keep_tensors(self._path(sample), {_NAME: delta})

    def _path(self, sample: Sample) -> Path:
        asked = _hash([*sample.inputs, sample.target, sample.subject])
        return self._folder / f"{asked}.safetensors"


def _hash(value: object) -> str:
    return hashlib.blake2b(json.dumps(value).encode(), digest_size=16).hexdigest()
