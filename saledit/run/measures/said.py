"""Answers behind the counts of a test: what was said before, what is said under each edit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from saledit.data.asking import Asked
from saledit.data.splits import Part
from saledit.data.views import Flat
from saledit.judging.judged import Heard
from saledit.models import TaskModel
from saledit.records import Answer, Sample
from saledit.tasks.base import Task, in_labels

#: Part of a test that an answer is of.
FAIL, ADAPT, PASS = "fail", "adapt", "pass"
Words = Mapping[tuple[int, int], str]


@dataclass(frozen=True, slots=True)
class Seen:
    """Samples of one part under a batch of edits.

    Attributes:
        part: ``FAIL``, ``ADAPT`` or ``PASS``.
        index: their positions in the part (E, n).
        right: whether each is answered right (E, n).
        words: answers by place, at least those that are wrong.
        weights: 0 for a filler (E, n); None where all are real.
    """

    part: str
    index: Tensor
    right: Tensor
    words: Words
    weights: Tensor | None = None


class Said:
    """Makes rows for ``answers.jsonl``: failures and rewordings all, pass samples lost.

    What is said without edits was asked when the parts were made, and comes from its memo; a
    failure's rewordings are asked here, once, and remembered beside.

    Args:
        base: the task model.
        task: asks it.
        part: the samples.
        folder: where memos are.

    Attributes:
        samples: those of each part, by its name.
    """

    def __init__(self, base: TaskModel, task: Task, part: Part, folder: Path) -> None:
        reworded: Sequence[Sample] = Flat(part.adapt)
        self.samples = {FAIL: part.fail, ADAPT: reworded, PASS: part.passing}
        ask = Asked(base, task, folder, lambda _done: None)
        self._before = {name: ask(self.samples[name][:]) for name in (FAIL, ADAPT)}

    @property
    def reworded(self) -> Sequence[Answer]:
        """What the rewordings are answered without edits."""
        return self._before[ADAPT]

    def rows(self, parts: Sequence[Seen]) -> list[dict[str, Any]]:
        """What is said under a batch of edits, which are numbered from 0.

        Args:
            parts: what they are judged on.
        """
        out = []
        for seen in parts:
            counts = torch.ones_like(seen.index) if seen.weights is None else seen.weights
            wanted, index, rights = (counts > 0).cpu(), seen.index.cpu(), seen.right.cpu()
            if seen.part == PASS:
                wanted &= ~rights
            for e, i in wanted.nonzero().tolist():
                place, right = int(index[e, i]), bool(rights[e, i])
                sample = self.samples[seen.part][place]
                said = seen.words.get((e, i), sample.target if right else "")
                row = {"edit": e, "part": seen.part}
                out.append(row | self._row(seen.part, place, sample, said, right))
        return out

    def _row(self, part: str, place: int, sample: Sample, said: str, right: bool) -> dict[str, Any]:
        before = Answer(sample.target, True, 1.0) if part == PASS else self._before[part][place]
        return {
            "id": sample.id,
            "inputs": list(sample.inputs),
            "target": sample.target,
            **({"kind": sample.kind} if sample.kind else {}),
            "before": before.text,
            "after": said,
            "was_right": before.right,
            "is_right": right,
        }


def labelled(
    base: TaskModel, task: Task, part: str, index: Tensor, heard: Heard,
    weights: Tensor | None = None,
) -> Seen:  # fmt: skip
    """What was said to samples at positions (E, n).

    Of a classifier with the labels of wrong answers; what follows right words gives no words.
    """
    wrong = (~heard.right).nonzero()
    if not in_labels(task) or heard.labels is None or not len(wrong):
        return Seen(part, index, heard.right, {}, weights)
    names = task.label_names(base, heard.labels[wrong[:, 0], wrong[:, 1]])
    words = {(e, i): name for (e, i), name in zip(wrong.tolist(), names, strict=True)}
    return Seen(part, index, heard.right, words, weights)
