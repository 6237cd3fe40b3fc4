"""What a ledger tells at its beginning of the model that its fixes are of, and that model again."""

from __future__ import annotations

from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from saledit.artifact import sites_as_json
from saledit.building import load_model, make_task
from saledit.config import ModelConfig, RunConfig, TaskConfig
from saledit.errors import ArtifactError, JobError, ModelError
from saledit.ledger import EditFolder
from saledit.models import TaskModel
from saledit.models.recorded import recorded
from saledit.site import Layer
from saledit.tasks.base import Task


def beginning(
    base: TaskModel, model: ModelConfig, task: TaskConfig, layer: Layer, form: str, rank: int,
    folder: Path,
) -> dict[str, Any]:  # fmt: skip
    """What a folder's ledger tells first: all that it takes to load its model again."""
    own = asdict(replace(model, name=base.name))
    own.pop("finetune")
    return {
        "base_model": recorded(base, folder),
        "model": {"kind": base.kind, **own},
        "task": asdict(replace(task, subjects=[])),
        "layer": layer.index,
        "sites": sites_as_json(layer.sites),
        "format": form,
        "rank": rank,
    }


def load_again(folder: EditFolder, name: str | Path) -> TaskModel:
    """The ledger's kind of model, from another place.

    Raises:
        ModelError: it cannot be loaded.
    """
    told = folder.head["model"]
    own = {f.name: told[f.name] for f in fields(ModelConfig) if f.name in told}
    return load_model(task_of(folder), ModelConfig(**{**own, "name": str(name)}), RunConfig().cache)


def load_merged(folder: EditFolder, part: Path) -> TaskModel:
    """A merged model as it was written, opened again.

    Raises:
        JobError: it cannot be.
    """
    try:
        return load_again(folder, part)
    except ModelError as error:
        raise JobError(
            f"the merged model cannot be opened again ({error}); nothing was written"
        ) from error


def task_of(folder: EditFolder) -> Task:
    """The task of a ledger.

    Raises:
        ArtifactError: the ledger tells of another one than there are.
    """
    try:
        return make_task(TaskConfig(**folder.head["task"]))
    except TypeError as error:
        raise ArtifactError(f"{folder.path}: the ledger's task does not fit: {error}") from error
