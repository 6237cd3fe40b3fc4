"""Artifacts: a trained editor, and edits, on disk. Safetensors and JSON, nothing else."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

import saledit
from saledit import config as configuration
from saledit.config import EditorConfig, RunConfig, TaskConfig
from saledit.delta import Dense, Edits, LowRank
from saledit.editors.base import Editor
from saledit.errors import ArtifactError, UserError
from saledit.files import new_folder, read_json, read_tensors, write_json, write_tensors
from saledit.models import TaskModel, fingerprint, wrap
from saledit.records import Sample
from saledit.registry import EDITORS, TASKS, look_up
from saledit.session import EditSession
from saledit.site import Layer, Site, resolve
from saledit.tasks.base import Task

_SCHEMA = 1
EDITOR_WEIGHTS = "editor.safetensors"
EDITOR_FACTS = "editor.json"
EDITS_WEIGHTS = "edits.safetensors"
EDITS_FACTS = "edits.json"


def make_task(config: TaskConfig) -> Task:
    """The task that a configuration names.

    Raises:
        ConfigError: no such task.
    """
    task: Task = look_up(TASKS, config.name, "task.name")(
        premise=config.premise,
        hypothesis=config.hypothesis,
        label=config.label,
        subjects=config.subjects,
        max_length=config.max_length,
    )
    return task


def make_editor(config: EditorConfig, sites: Sequence[Site]) -> Editor:
    """A fresh editor of the kind that a configuration names.

    Raises:
        ConfigError: no such editor or style.
    """
    editor: Editor = look_up(EDITORS, config.name, "editor.name")(
        sites, rank=config.rank, n_blocks=config.n_blocks, style=config.style, whiten=config.whiten
    )
    return editor


def versions() -> dict[str, str]:
    """Versions that a result depends on."""
    names = ("torch", "lightning", "transformers", "datasets", "safetensors")
    found = {name: importlib.metadata.version(name) for name in names}
    return {"saledit": saledit.__version__, "python": platform.python_version(), **found}


def sites_as_json(sites: Sequence[Site]) -> list[dict[str, Any]]:
    """Sites for a JSON file."""
    return [
        {"name": s.name, "d_in": s.d_in, "d_out": s.d_out, "transposed": s.transposed}
        for s in sites
    ]


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
            "schema": _SCHEMA,
            "editor": config.editor.name,
            "base_model": {"name": base.name, "fingerprint": base.fingerprint},
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
        return EditSession(base, self.task, self.editor, self.layer, c.sample_rank, c.gradient_rank)

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
            base = wrap(model, tokenizer, str(model.name_or_path))
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
        editor = make_editor(config.editor, sites)
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


def save_edits(folder: Path, edits: Edits, facts: Mapping[str, Any]) -> None:
    """Write ``edits.safetensors`` and ``edits.json``; the folder appears whole.

    Args:
        folder: where; an old one is replaced.
        edits: unbatched edits.
        facts: base model, failures and metrics, for the JSON file.

    Raises:
        JobError: the disk is full.
    """
    tensors: dict[str, Tensor] = {}
    for site, delta in edits.items():
        if isinstance(delta, LowRank):
            tensors |= {f"{site.name}.u": delta.u, f"{site.name}.v": delta.v}
        else:
            tensors[f"{site.name}.w"] = delta.w
    with new_folder(folder) as part:
        write_tensors(part / EDITS_WEIGHTS, tensors)
        value = {"schema": _SCHEMA, "sites": sites_as_json(tuple(edits)), "versions": versions()}
        write_json(part / EDITS_FACTS, {**value, **facts})


def load_edits(folder: str | Path, model: nn.Module) -> Edits:
    """Read edits and check them against a model.

    Args:
        folder: what ``save_edits`` wrote.
        model: the base model they are to be applied to.

    Raises:
        ArtifactError: broken files, or edits of another model.
        SiteError: the model has no such site.
    """
    folder = Path(folder)
    facts = read_json(folder / EDITS_FACTS, "saved edits")
    tensors = read_tensors(folder / EDITS_WEIGHTS, "saved edits")
    wanted = facts.get("base_model", {}).get("fingerprint") if isinstance(facts, dict) else None
    if wanted != fingerprint(model):
        raise ArtifactError(
            f"{folder}: expected the base model with fingerprint {str(wanted)[:8]}, got "
            f"{fingerprint(model)[:8]}; edits fit only the weights they were made for"
        )
    out: dict[Site, LowRank | Dense] = {}
    for name in sorted({key.rsplit(".", 1)[0] for key in tensors}):
        site = resolve(model, name)
        try:
            delta: LowRank | Dense
            if f"{name}.w" in tensors:
                delta = Dense(tensors[f"{name}.w"].clone())
                shape = tuple(delta.w.shape)
            else:
                delta = LowRank(tensors[f"{name}.u"].clone(), tensors[f"{name}.v"].clone())
                shape = (delta.v.shape[-1], delta.u.shape[-1])
        except (KeyError, ValueError) as error:
            raise ArtifactError(f"{folder}: the factors of {name} do not fit: {error}") from error
        if shape != (site.d_out, site.d_in):
            raise ArtifactError(
                f"{folder}: expected a delta of shape {(site.d_out, site.d_in)} at {name}, "
                f"got {shape}"
            )
        out[site] = delta
    return Edits(out)


def failures_as_json(samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """Failures for ``edits.json``."""
    return [{"id": s.id, "inputs": list(s.inputs), "target": s.target} for s in samples]
