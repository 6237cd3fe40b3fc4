"""A trained editor on disk: ``editor.safetensors`` and ``editor.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from saledit import config as configuration
from saledit.artifact.recording import SCHEMA, sites_as_json, versions
from saledit.building import make_editor, make_search, make_task
from saledit.config import EditorConfig, RunConfig
from saledit.data.matters import other_matters
from saledit.data.sources import load_records
from saledit.delta import Edits
from saledit.editors.base import Editor
from saledit.editors.stepping import StepSearch
from saledit.errors import ArtifactError, SiteError, UserError
from saledit.files import (
    check_numbers,
    is_folder,
    read_json,
    read_tensors,
    reason,
    write_json,
    write_tensors,
)
from saledit.models import TaskModel, wrap
from saledit.models.loading import give_padding
from saledit.models.recorded import found_again, recorded
from saledit.records import Sample
from saledit.session import EditSession
from saledit.site import IN_A_FILE, LARGEST, Layer, Site, are_possible, resolve
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
            "base_model": recorded(base, folder),
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
        try:
            same = [resolve(base.model, site.name) == site for site in self.layer.sites]
        except SiteError:
            same = [False]
        if not all(same) or not 0 <= self.layer.index < base.n_blocks:
            raise ArtifactError(
                f"{self.folder / EDITOR_FACTS}: expected sites and a layer of {base.name}, got "
                "others; take the file from a backup, or train anew with saledit fit"
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
    def held(self) -> Sequence[Sample]:
        """The pass samples that edits may be made by; none where none are needed.

        Raises:
            DataError: their file is gone or broken.
        """
        if not (self.editor.needs_held or self.search.needs_held):
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
            give_padding(model, tokenizer, str(model.name_or_path))
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
    if not is_folder(folder):
        raise ArtifactError(f"{folder}: expected a run folder, got no such folder; check the path")
    what = "a trained editor (saledit fit writes it at its end)"
    facts = read_json(folder / EDITOR_FACTS, what, _FACTS)
    tensors = read_tensors(folder / EDITOR_WEIGHTS, "a trained editor")
    config = configuration.load(folder / "config.yaml")
    if facts["editor"] != config.editor.name:
        raise ArtifactError(
            f"{folder}: expected an editor as config.yaml names it ({config.editor.name}), got "
            f"{facts['editor']:.40}; take the folder from a backup"
        )
    try:
        editor = _filled(config.editor, facts, tensors)
    except (LookupError, TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise ArtifactError(
            f"{folder}: expected a whole editor, got one that does not fit: {reason(error)}; take "
            "the folder from a backup, or train anew with saledit fit"
        ) from error
    numbers = {k: t for k, t in editor.state_dict().items() if t.is_floating_point()}
    check_numbers(numbers, folder / EDITOR_WEIGHTS, "an editor")
    sites = tuple(Site(**site) for site in facts["sites"])
    layer, base = Layer(facts["layer"], sites), facts["base_model"]
    name, print_ = found_again(base, folder), base["fingerprint"]
    editor.eval()
    # Subjects matter for splits alone: new failures need not name theirs.
    task = make_task(replace(config.task, subjects=[]))
    return TrainedEditor(config, editor, task, layer, name, print_, folder)


#: What ``editor.json`` holds, at least. Editors of earlier versions have no size, and need none.
_FACTS = {
    "editor": str, "base_model": {"name": str, "fingerprint": str, "beside?": str}, "layer": int,
    "sites": [IN_A_FILE], "embedding_size?": int,
}  # fmt: skip


def _filled(
    config: EditorConfig, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> Editor:
    """An editor with the weights of its file.

    Raises:
        ValueError, RuntimeError: they do not fit.
    """
    sites = tuple(Site(**site) for site in facts["sites"])
    size = facts.get("embedding_size", 0)
    if not are_possible(facts["sites"]):
        raise ValueError("sites of no possible size")
    if not 0 <= size < LARGEST:
        raise ValueError(f"an embedding size of {size}")
    # Without memory first: how much an editor takes is told by the file, and may not be there.
    with torch.device("meta"):
        wanted = make_editor(config, sites, size).state_dict()
    if missing := wanted.keys() ^ tensors.keys():
        raise ValueError(f"{min(missing):.80} is missing, or one too many")
    for name, tensor in wanted.items():
        found = tensors[name]
        if found.shape != tensor.shape or found.is_floating_point() != tensor.is_floating_point():
            raise ValueError(
                f"{name} is {found.dtype} of {tuple(found.shape)}, expected {tensor.dtype} of "
                f"{tuple(tensor.shape)}"
            )
    editor = make_editor(config, sites, size)
    # Owned copies: the file may be replaced while the editor is in use.
    editor.load_state_dict({name: tensor.clone() for name, tensor in tensors.items()})
    return editor
