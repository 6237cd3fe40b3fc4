"""A trained editor on disk: ``editor.safetensors`` and ``editor.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from saledit import config as configuration
from saledit.artifact.building import (
    SCHEMA,
    make_editor,
    make_search,
    make_task,
    sites_as_json,
    versions,
)
from saledit.config import RunConfig
from saledit.data.sources import load_records
from saledit.data.splits import other_matters
from saledit.delta import Edits
from saledit.editors.base import Editor
from saledit.errors import ArtifactError, UserError
from saledit.files import read_json, read_tensors, write_json, write_tensors
from saledit.models import TaskModel, wrap
from saledit.records import Sample
from saledit.session import EditSession
from saledit.site import Layer, Site
from saledit.stepping import StepSearch
from saledit.tasks.base import Task

EDITOR_WEIGHTS = "editor.safetensors"
EDITOR_FACTS = "editor.json"
HELD = "held.jsonl"


def save_editor(
    folder: Path, editor: Editor, config: RunConfig, base: TaskModel, layer: Layer
) -> None:
    """Write ``editor.safetensors``, then ``editor.json`` that declares it whole.

    Raises:
        JobError: the disk is full.
    """
    write_tensors(folder / EDITOR_WEIGHTS, editor.state_dict())
    write_json(
        folder / EDITOR_FACTS,
        {
            "schema": SCHEMA,
            "editor": config.editor.name,
            "base_model": {"name": base.name, "fingerprint": base.fingerprint},
            "embedding_size": base.embedding_size,
            "layer": layer.index,
            "sites": sites_as_json(layer.sites),
            "versions": versions(),
        },
    )


@dataclass(frozen=True)
class TrainedEditor:
    """A trained editor, read from a run.

    Attributes:
        config: the run's configuration.
        editor: the network with its statistics.
        task: the task it was trained for.
        layer: the layer it edits.
        base_name: where the base model was loaded from.
        base_fingerprint: hash of the base model's weights.
        folder: the run's folder.
    """

    config: RunConfig
    editor: Editor
    task: Task
    layer: Layer
    base_name: str
    base_fingerprint: str
    folder: Path

    def check(self, base: TaskModel) -> None:
        """Refuse a model that the editor was not trained on.

        Raises:
            ArtifactError: the fingerprints differ.
        """
        if base.fingerprint != self.base_fingerprint:
            raise ArtifactError(
                f"{self.folder}: expected the model it was trained on ({self.base_name}, "
                f"fingerprint {self.base_fingerprint[:8]}), got {base.name} "
                f"({base.fingerprint[:8]}); train an editor for this model with saledit fit"
            )

    def session(self, base: TaskModel) -> EditSession:
        """A session of accumulating edits on a base model.

        Raises:
            ArtifactError: the editor is of another model.
        """
        self.check(base)
        c = self.config.editor
        return EditSession(
            base, self.task, self.editor, self.layer, c.sample_rank, c.gradient_rank, self.search,
            self.held,
        )  # fmt: skip

    @cached_property
    def held(self) -> list[Sample]:
        """The pass samples that the editor may look at; none for one that needs none.

        Raises:
            DataError: their file is gone or broken.
        """
        if not self.editor.needs_held:
            return []
        return other_matters(self.task, load_records(self.task, str(self.folder / HELD)))

    @property
    def search(self) -> StepSearch:
        """How far its edits go."""
        return make_search(self.config.editor)

    def edit(
        self,
        model: TaskModel | PreTrainedModel,
        failures: Sequence[Mapping[str, Any]],
        tokenizer: Any = None,
    ) -> Edits:
        """Turn failures into edits of a model, k at a time.

        Args:
            model: the model that the editor was trained on.
            failures: records as in a data file, with the right label.
            tokenizer: the model's tokenizer; needed with a bare transformers model.

        Returns:
            The edits, for ``with saledit.applied(model, edits)``.

        Raises:
            UserError: no failure, or a bare model without a tokenizer.
            DataError: a record is wrong.
            ArtifactError: the editor is of another model.
        """
        if isinstance(model, TaskModel):
            base = model
        elif tokenizer is None:
            raise UserError("edit: expected tokenizer=... with a transformers model, got None")
        else:
            c = self.config.model
            base = wrap(model, tokenizer, str(model.name_or_path), c.stack, c.blocks)
        rows = enumerate(failures, start=1)
        samples = [self.task.parse(row, f"failures:{i}").sample for i, row in rows]
        if not samples:
            raise UserError("edit: expected at least one failure, got none")
        session = self.session(base)
        k = self.config.schedule.batch_size
        for start in range(0, len(samples), k):
            session.step(samples[start : start + k])
        return session.edits


def load_editor(run: str | Path) -> TrainedEditor:
    """Read a trained editor from a run folder.

    Args:
        run: the folder that ``saledit fit`` wrote.

    Returns:
        The editor, in eval mode.

    Raises:
        ArtifactError: no such run, a broken file, or weights of another shape.
    """
    folder = Path(run)
    if not folder.is_dir():
        raise ArtifactError(f"{folder}: expected a run folder, got no such folder; check the path")
    facts = read_json(folder / EDITOR_FACTS, "a trained editor (saledit fit writes it at its end)")
    tensors = read_tensors(folder / EDITOR_WEIGHTS, "a trained editor")
    config = configuration.load(folder / "config.yaml")
    try:
        sites = tuple(Site(**site) for site in facts["sites"])
        layer = Layer(int(facts["layer"]), sites)
        # Editors of earlier versions have none, and need none.
        editor = make_editor(config.editor, sites, int(facts.get("embedding_size", 0)))
        # Owned copies: the file may be replaced while the editor is in use.
        editor.load_state_dict({name: tensor.clone() for name, tensor in tensors.items()})
        base = facts["base_model"]
        name, print_ = str(base["name"]), str(base["fingerprint"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ArtifactError(
            f"{folder}: expected a whole editor, got one that does not fit: {reason}"
        ) from error
    editor.eval()
    # Subjects matter for splits alone: new failures need not name theirs.
    task = make_task(replace(config.task, subjects=[]))
    return TrainedEditor(config, editor, task, layer, name, print_, folder)
