"""What tests of whole runs on a tiny model share."""

from __future__ import annotations

import csv
import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import tiny_text
import torch
from tiny import encode
from torch import Tensor

from saledit.artifact import EDITOR_WEIGHTS
from saledit.config import RunConfig
from saledit.files import read_tensors
from saledit.forward.scoring import base_logits
from saledit.models import TaskModel
from saledit.module import EditModule
from saledit.records import Sample
from saledit.run import Bounds, FixOptions
from saledit.tasks.answering import answers
from saledit.tasks.qa import Qa

EPOCHS, STEPS = 3, 3

#: A fix that is written whatever it mends: of the editors of tests many mend nothing.
ANY = FixOptions(bounds=Bounds(min_fixed=0.0))


class Bar:
    def update(self, done: int, note: str = "") -> None:
        pass


class FakeUi:
    """Remembers the stages, shows nothing."""

    interactive = False
    command = "saledit fit"
    quiet, debug = True, False

    def __init__(self) -> None:
        self.stages: list[str] = []

    def stage(self, text: str) -> None:
        self.stages.append(text)

    @contextmanager
    def progress(self, text: str, total: int) -> Iterator[Bar]:
        yield Bar()


def ui() -> Any:
    return FakeUi()


def shuffled(sample: Sample, n: int) -> tuple[str, ...]:
    rng = random.Random(f"{sample.id} {n}")
    return tuple(" ".join(rng.sample(words, len(words))) for words in map(str.split, sample.inputs))


def rows(base: TaskModel, chosen: Sequence[Sample], wrong_share: float = 0.5) -> list[dict]:
    """Records of which the model answers a share wrongly, by construction."""
    logits = base_logits(base, encode(base, chosen))
    ranked = logits.argsort(-1, descending=True).tolist()
    out = []
    for i, sample in enumerate(chosen):
        wrong = i < wrong_share * len(chosen)
        others = [shuffled(sample, n) for n in range(i % 3)]
        out.append(
            {
                "id": f"r{sample.id}",
                "premise": sample.inputs[0],
                "hypothesis": sample.inputs[1],
                "label": base.model.config.id2label[ranked[i][1 if wrong else 0]],
                "paraphrases": [
                    {"premise": p, "hypothesis": h, "kind": f"shuffle-{n}"}
                    for n, (p, h) in enumerate(others)
                ],
            }
        )
    return out


def sentence(rng: random.Random) -> str:
    return " ".join(rng.choices(tiny_text.WORDS, k=rng.randint(2, 6)))


def questions(base: TaskModel, n: int, seed: int) -> list[dict[str, Any]]:
    """Questions of which the model answers every second one right, by construction."""
    rng = random.Random(seed)
    asked = [Sample(str(i), (sentence(rng),), "x", "", ("x",)) for i in range(n)]
    task = Qa(stop=tiny_text.STOP, max_new_tokens=4)
    out = []
    for i, (sample, said) in enumerate(zip(asked, answers(base, task, asked), strict=True)):
        right = bool(i % 2) and bool(said.text)
        answer = said.text if right else " ".join(rng.choices(tiny_text.WORDS, k=rng.randint(1, 2)))
        words = sample.inputs[0].split()
        rephrases = [" ".join(rng.sample(words, len(words))) for _ in range(i % 3)]
        row = {"id": f"q{seed}-{i}", "question": sample.inputs[0], "answer": answer}
        out.append(row | {"rephrases": rephrases})
    return out


def weights(config: RunConfig) -> dict[str, Tensor]:
    return read_tensors(config.folder / EDITOR_WEIGHTS, "an editor")


def metrics(config: RunConfig) -> list[dict[str, str]]:
    with (config.folder / "metrics.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def assert_same_run(a: RunConfig, b: RunConfig) -> None:
    first, second = weights(a), weights(b)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, rtol=1e-6, atol=1e-6, msg=name)
    left, right = metrics(a), metrics(b)
    assert [row["step"] for row in left] == [row["step"] for row in right]
    for one, other in zip(left, right, strict=True):
        assert one.keys() == other.keys()
        for name, text in one.items():
            assert bool(text) == bool(other[name]), name
            if text:
                assert float(other[name]) == pytest.approx(float(text), rel=1e-5, abs=1e-6), name


def interrupt(monkeypatch: pytest.MonkeyPatch, step: int, error: BaseException) -> None:
    """Let training end with an exception at a step, once."""
    real, left = EditModule.training_step, [1]

    def training_step(self: EditModule, batch: Any, batch_idx: int) -> Tensor:
        if self.global_step == step and left:
            left.clear()
            raise error
        return real(self, batch, batch_idx)

    monkeypatch.setattr(EditModule, "training_step", training_step)


class KilledError(Exception):
    """Stands for the end of the process."""


def f1(said: str, right: str) -> float:
    """Of words: 2 shared / (said + right)."""
    a, b = Counter(said.split()), Counter(right.split())
    return 2 * sum((a & b).values()) / max(1, sum(a.values()) + sum(b.values()))


def check_answers(path: Path, results: dict[str, Any], spoken: bool = False) -> None:
    """The rows of an ``answers.jsonl`` are what its ``results.json`` counts."""
    found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    metrics = results["metrics"]["generated"] if spoken else results["metrics"]
    for part, key in (("fail", "fail_accuracy"), ("adapt", "adapt_accuracy")):
        own = [row for row in found if row["part"] == part]
        assert len(own) == results["counts"][part]
        if own:
            share = sum(row["is_right"] for row in own) / len(own)
            assert share == pytest.approx(metrics[key])
            bare = results["unedited"]["generated"] if spoken else results["unedited"]
            before = sum(row["was_right"] for row in own) / len(own)
            assert before == pytest.approx(bare[key])
            if spoken:
                alike = sum(row["is_right"] or f1(row["after"], row["target"]) for row in own)
                assert alike / len(own) == pytest.approx(metrics[f"{part}_f1"])
    both = [row for row in found if row["part"] != "pass"]
    bare = results["unedited"]["generated"] if spoken else results["unedited"]
    if results["counts"]["adapt"]:
        before = sum(row["was_right"] for row in both) / len(both)
        assert before == pytest.approx(bare["edit_accuracy"])
    lost = [row for row in found if row["part"] == "pass"]
    assert all(row["was_right"] and not row["is_right"] for row in lost)
    if results["schedule"]["mode"] == "batch":
        assert len(lost) == sum(results["per_edit"]["lost"])
        edits = [row["edit"] for row in found if row["part"] == "fail"]
        assert sorted(set(edits)) == list(range(results["n_edits"]))
    else:
        assert len(lost) == round(metrics["drawdown"] * results["counts"]["pass"])
        assert {row["edit"] for row in found} <= {0}
    for row in found:
        if not spoken:
            assert (row["after"] == row["target"]) == row["is_right"]
            assert (row["before"] == row["target"]) == row["was_right"]


def compared(folder: Path) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """What a comparison has left: ``compare.json``, and the rows of ``compare.csv``."""
    with (folder / "compare.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    return json.loads((folder / "compare.json").read_text(encoding="utf-8")), rows
