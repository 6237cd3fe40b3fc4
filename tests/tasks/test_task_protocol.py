"""What every task promises, and that a further one needs no more than that."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import tiny
import tiny_text
import torch
import torch.nn.functional as F
from torch import Tensor
from whole_runs import ANY, questions, ui

from saledit import building
from saledit import config as configuration
from saledit.building import make_task
from saledit.config import TaskConfig
from saledit.errors import ConfigError
from saledit.files import write_jsonl
from saledit.forward.scoring import forward
from saledit.losses import locality_kl
from saledit.models import TaskModel
from saledit.records import Record, Sample
from saledit.registry import TASKS
from saledit.report import render
from saledit.run import fit, fix
from saledit.run import test as run_test
from saledit.tasks.answering import answers
from saledit.tasks.base import Encoded, LabelTask, Task, WordTask, in_labels, in_words
from saledit.tasks.nli import Nli
from saledit.tasks.text import OPTIONAL, TextTask

_COMMON = {"name", "fields", "subjects", "max_length"}
_OTHERS = {"template": "Q: {question}", "chat": True, "stop": "!", "max_new_tokens": 5}


class Sentiment:
    """A task of labels that shares no code with the ones of the package: a text and its label."""

    name, settings = "sentiment", ()
    generates = by_perplexity = False
    kl_price = 0.5

    def __init__(self, subjects: Sequence[str], max_length: int) -> None:
        self.subjects, self.max_length = tuple(subjects), max_length

    @classmethod
    def of(cls, config: TaskConfig) -> Sentiment:
        return cls(config.subjects, config.max_length)

    def parse(self, row: Mapping[str, Any], where: str) -> Record:
        name = str(row.get("id") or where)
        others = [Sample(f"{name}#0", (t,), row["label"], "said again") for t in row["again"]]
        return Record(Sample(name, (row["text"],), row["label"]), tuple(others))

    def row(self, sample: Sample) -> dict[str, Any]:
        return {"id": sample.id, "text": sample.inputs[0], "label": sample.target, "again": []}

    def encode(self, base: TaskModel, samples: Sequence[Sample]) -> Encoded:
        texts = [sample.inputs[0] for sample in samples]
        tokens = base.tokenizer(texts, padding=True, padding_side="right", return_tensors="pt")
        return Encoded(dict(tokens), self.targets(base, samples))

    def subject_spans(self, base: TaskModel, samples: Sequence[Sample]) -> list[tuple[int, int]]:
        return [(1, 1) for _ in samples]

    def targets(self, base: TaskModel, samples: Sequence[Sample]) -> Tensor:
        return torch.tensor([base.labels[sample.target] for sample in samples])

    def label_names(self, base: TaskModel, numbers: Tensor) -> list[str]:
        names = list(base.labels)
        return [names[number] for number in numbers.tolist()]

    def other_answers(self, base: TaskModel, answer: str) -> list[str]:
        return [label for label in base.labels if label != answer]

    def logits(self, base: TaskModel, outputs: Tensor, targets: Tensor) -> Tensor:
        return outputs

    def logits_beside(
        self, base: TaskModel, reference: Tensor, outputs: Tensor, targets: Tensor
    ) -> tuple[Tensor, Tensor]:
        return reference, outputs

    def losses(self, base: TaskModel, logits: Tensor, targets: Tensor) -> Tensor:
        flat = F.cross_entropy(logits.flatten(0, -2), targets.flatten(), reduction="none")
        return flat.view(targets.shape)

    answer_losses = losses

    def divergence(self, base_logits: Tensor, edited: Tensor, targets: Tensor) -> Tensor:
        return locality_kl(base_logits, edited)

    def correct(self, logits: Tensor, targets: Tensor) -> Tensor:
        return logits.argmax(-1) == targets

    def leads(self, base: TaskModel, logits: Tensor, targets: Tensor) -> Tensor:
        right = logits.gather(-1, targets[..., None])
        others = logits.scatter(-1, targets[..., None], float("-inf")).amax(-1, keepdim=True)
        return (right - others).squeeze(-1)


class Cloze(TextTask):
    """A task of words, as docs/extending.md says: the names of its fields, and how it is built."""

    name = "cloze"
    names = ("gap", "filler", *OPTIONAL)
    settings = ("stop", "max_new_tokens")

    @classmethod
    def of(cls, config: TaskConfig) -> Cloze:
        return cls(
            config.fields, config.subjects, config.max_length, stop=config.stop,
            max_new_tokens=config.max_new_tokens,
        )  # fmt: skip


FURTHER = {"sentiment": Sentiment, "cloze": Cloze}


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """The further tasks, as if they stood in the registry."""
    lines = {name: f"{__name__}:{kind.__name__}" for name, kind in FURTHER.items()}
    monkeypatch.setattr(building, "TASKS", MappingProxyType({**TASKS, **lines}))


def built(name: str, **settings: Any) -> tuple[TaskModel, Task, list[Sample]]:
    task = make_task(TaskConfig(name=name, **settings))
    if not task.generates:
        base, chosen = tiny.build("bert"), tiny.samples(6)
        if name != "nli":
            chosen = [dataclasses.replace(s, inputs=s.inputs[:1]) for s in chosen]
        return base, task, chosen
    return tiny_text.build("llama"), task, tiny_text.samples(6)


@pytest.mark.parametrize("name", [*TASKS, *FURTHER])
@pytest.mark.usefixtures("known")
class TestEveryTask:
    def test_it_is_of_one_kind(self, name: str) -> None:
        _, task, _ = built(name)
        assert in_words(task) != in_labels(task)
        protocol = WordTask if in_words(task) else LabelTask
        missing = {n for n in dir(protocol) if not n.startswith("_")} - set(dir(task))
        assert not missing
        assert task.name == name
        assert set(task.settings) <= {field.name for field in dataclasses.fields(TaskConfig)}

    @pytest.mark.parametrize("setting", _OTHERS)
    def test_settings_that_it_does_not_read_are_refused(self, name: str, setting: str) -> None:
        value = {setting: _OTHERS[setting]}
        _, task, _ = built(name)
        if setting in task.settings:
            assert getattr(make_task(TaskConfig(name=name, **value)), setting) == value[setting]
        else:
            with pytest.raises(ConfigError, match=f"task.{setting}: task '{name}' has no such"):
                make_task(TaskConfig(name=name, **value))
        assert setting not in _COMMON

    def test_a_row_is_the_sample_that_it_is_of(self, name: str) -> None:
        _, task, chosen = built(name)
        for sample in chosen:
            again = task.parse(task.row(sample), "x:1").sample
            for field in ("id", "inputs", "target"):
                assert getattr(again, field) == getattr(sample, field)

    def test_what_it_scores_hangs_together(self, name: str) -> None:
        base, task, chosen = built(name)
        seen = task.encode(base, chosen)
        with torch.no_grad():
            outputs = forward(base, seen.inputs, seen.at)
            logits = task.logits(base, outputs, seen.targets)
            beside = task.logits_beside(base, outputs, outputs, seen.targets)
        losses = task.losses(base, logits, seen.targets)
        assert losses.shape == (6,)
        assert (losses > 0).all()
        assert (task.answer_losses(base, logits, seen.targets) >= losses).all()
        assert task.divergence(*beside, seen.targets).abs().max() < 1e-6
        right, leads = task.correct(logits, seen.targets), task.leads(base, logits, seen.targets)
        assert right.dtype == torch.bool
        assert not (leads > 0)[~right].any()
        said = answers(base, task, chosen)
        told = task.spoken(base, logits, seen.targets) if in_words(task) else right
        assert [answer.right for answer in said] >= told.tolist()
        if in_labels(task):
            assert [answer.text for answer in said] == task.label_names(base, logits.argmax(-1))
            assert [answer.right for answer in said] == right.tolist()


@pytest.mark.parametrize("name", FURTHER)
@pytest.mark.usefixtures("known")
def test_a_further_task_is_fitted_tested_and_fixed(name: str, tmp_path: Path) -> None:
    base, task, _ = built(name)
    tiny.save(base, tmp_path / "model")
    if name == "sentiment":
        plain = [dataclasses.replace(s, inputs=s.inputs[:1]) for s in tiny.samples(60)]
        said, others = answers(base, task, plain), list(base.labels)
        labels = [a.text if i % 2 else others[others.index(a.text) - 1]
                  for i, a in enumerate(said)]  # fmt: skip
        rows = [
            {"id": s.id, "text": s.inputs[0], "label": label, "again": [s.inputs[0] + " a"]}
            for s, label in zip(plain, labels, strict=True)
        ]
        own = ["data.adapt.rewrite=false"]
    else:
        rows = [
            {"gap": row.pop("question"), "filler": row.pop("answer"), **row}
            for row in questions(base, 60, 0)
        ]
        own = [f"task.stop='{tiny_text.STOP}'", "task.max_new_tokens=4"]
    write_jsonl(tmp_path / "data.jsonl", rows)
    config = configuration.load(
        None,
        [f"output={tmp_path}", "name=run", f"task.name={name}", f"data.train={tmp_path}/data.jsonl",
         f"model.name={tmp_path}/model", "site.select=fixed", "site.layer=1",
         "editor.mend.rank=4", "schedule.batch_size=1", "train.epochs=1",
         "train.steps_per_epoch=2", "train.edits_per_step=2", "train.passes_per_edit=2",
         "train.validation_edits=2", "train.validation_passes=3", "trainer.accelerator=cpu", *own],
    )  # fmt: skip
    fit(config, False, ui())
    results = run_test(str(config.folder), [], ui())
    assert results["task"] == name
    assert 0 <= results["metrics"]["fail_accuracy"] <= 1
    assert render("test", results, io.StringIO())
    found = fix(str(config.folder), f"{tmp_path}/data.jsonl", f"{tmp_path}/fixed", ANY, ui())
    assert Path(f"{tmp_path}/fixed/edits.json").exists() or found["refused"]


def test_the_package_has_no_tasks_of_its_own_in_mind() -> None:
    """But in their files: what a task is asked for stands in the protocol."""
    root = Path(building.__file__).parent
    for path in root.rglob("*.py"):
        if path.parent.name != "tasks":
            text = path.read_text(encoding="utf-8")
            for name in (Nli.__name__, TextTask.__name__):
                assert f"import {name}" not in text, f"{path} imports {name}"
