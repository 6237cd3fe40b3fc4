"""Folders of fixes on tiny models, without an editor: any edits will do."""

from __future__ import annotations

from pathlib import Path

import tiny
import tiny_text
import torch

from saledit.building import load_model, make_task
from saledit.config import ModelConfig, RunConfig, TaskConfig
from saledit.delta import Edits
from saledit.export import settle
from saledit.forward.scoring import base_logits
from saledit.ledger import EditFolder
from saledit.models import TaskModel
from saledit.overlay import applied
from saledit.run.fixes.head import beginning, load_merged
from saledit.run.fixes.merging import check_merged
from saledit.site import Layer
from saledit.tasks.base import Task

CLASSIFIERS = ("bert", "gpt2", "llama")
WRITERS = ("gpt2", "llama", "t5", "t5/encoder")


class Shelf:
    """A saved tiny model, and folders of fixes of it.

    Args:
        home: where.
        name: a family of ``tiny``, or ``text:`` and a model of ``tiny_text``.
        block: whose maps are edited.
    """

    def __init__(self, home: Path, name: str, block: int = 1) -> None:
        self.home, text = home, name.startswith("text:")
        made = tiny_text.build(name[5:]) if text else tiny.build(name)
        tiny.save(made, home / "model")
        stack = "encoder" if name.endswith("/encoder") else "decoder"
        self.model = ModelConfig(name=str(home / "model"), stack=stack)
        settings = {"name": "qa", "max_length": 60, "stop": tiny_text.STOP} if text else {}
        self.about_task = TaskConfig(**settings)
        self.task: Task = make_task(self.about_task)
        self.base: TaskModel = load_model(self.task, self.model, RunConfig().cache)
        self.layer: Layer = self.base.layer(block)
        self.samples = tiny_text.samples(12, seed=5) if text else tiny.samples(12, seed=5)

    def edits(self, seed: int = 0, rank: int = 2) -> Edits:
        """Some edits at all sites of the layer."""
        return tiny.random_edits(self.layer.sites, seed=seed, rank=rank) * 0.3

    def begun(self, form: str, name: str = "fixed", rank: int = 0) -> EditFolder:
        """A ledger with its beginning, nothing of it on disk."""
        model, task, folder = self.model, self.about_task, self.home / name
        head = beginning(self.base, model, task, self.layer, form, rank, folder)
        return EditFolder.read(folder).begun(head, Edits({}))

    def fixed(self, folder: EditFolder, edits: Edits) -> EditFolder:
        """With one more fix, on disk."""
        metrics = {"n_failures": 1, "n_wrong_before": 1, "n_fixed": 1}
        facts = {"editor": {"name": "mend"}, "n_failures": 1, "metrics": metrics}
        told = {"editor": {"name": "mend"}, "failures": [{"id": "a"}], "metrics": metrics}
        with EditFolder.opened(folder.path):
            new = folder.fixed(edits, {}, facts, told)
            settle(new, self.base, lambda part: self.check(new, part))
        return EditFolder.read(folder.path)

    def check(self, folder: EditFolder, part: Path) -> None:
        """What ``fix`` does before it says that a merged model is done."""
        if folder.head["format"] == "merged":
            again = load_merged(folder, part)
            check_merged(
                again, part, self.base, self.task, self.layer, folder.edits, self.samples, []
            )

    def logits(self, base: TaskModel, edits: Edits | None = None) -> torch.Tensor:
        """Of all samples, by the whole model."""
        encoded = self.task.encode(base, self.samples)
        if encoded.at is not None:
            return tiny_text.run_whole(base, encoded, edits)

        with torch.no_grad(), applied(base.model, edits or Edits({})):
            return base_logits(base, encoded.inputs)
