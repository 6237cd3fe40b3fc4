"""What the steps of a fix would do, asked of the model before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch

from saledit.answering import answers
from saledit.bank import BankSpec
from saledit.cache import memory_bank
from saledit.delta import Edits
from saledit.errors import JobError
from saledit.export import FORMATS
from saledit.ledger import EditFolder
from saledit.models import TaskModel
from saledit.records import Answer, Sample
from saledit.session import EditMetrics, bank_batches
from saledit.site import Layer
from saledit.tasks.base import Task


class Trial:
    """What steps do on top of what is in force."""

    def __init__(
        self, base: TaskModel, task: Task, layer: Layer, samples: Sequence[Sample],
        before: Sequence[Answer], held: Sequence[Sample], folder: EditFolder,
    ) -> None:  # fmt: skip
        self._base, self._task, self._layer, self._folder = base, task, layer, folder
        self._samples, self._before, self._held = samples, before, held
        self._so_far = folder.edits if len(folder.edits) else None
        self._under = folder.ground + folder.steps

    @cached_property
    def _held_before(self) -> list[Answer]:
        return answers(self._base, self._task, self._held, self._so_far)

    def outcome(self, steps: Edits, full: bool = False) -> dict[str, Any]:
        """Answers before and after, and what changed on the check set.

        Raises:
            JobError: the edits give NaN.
        """
        base, task = self._base, self._task
        head = self._folder.head
        edits, told = FORMATS[head["format"]].shape(self._under + steps, int(head["rank"]))
        if full:
            _check_finite(base, task, self._layer, self._samples, edits)
        rows = _rows(self._samples, self._before, answers(base, task, self._samples, edits))
        checked = self._check(edits)
        return {"n_fixed": sum(r["fixed"] for r in rows), "rows": rows, "check": checked, **told}

    def _check(self, edits: Edits) -> dict[str, Any]:
        """What else edits changed on samples that they should leave alone."""
        base, task, held = self._base, self._task, self._held
        if task.by_perplexity:
            return _check_texts(base, task, self._layer, held, self._so_far, edits)
        rows = _rows(held, self._held_before, answers(base, task, held, edits))
        n, was, now = len(rows), sum(r["was_right"] for r in rows), sum(r["is_right"] for r in rows)
        changed = [row for row in rows if row["before"] != row["after"]]
        return {
            "n": n,
            "accuracy_before": was / n,
            "accuracy_after": now / n,
            "drawdown": (was - now) / n,
            "changed": [{k: v for k, v in row.items() if k != "fixed"} for row in changed],
        }

    def measure(self, steps: Edits) -> tuple[int, float]:
        """How many failures steps mend, and their drawdown."""
        found = self.outcome(steps)
        return found["n_fixed"], found["check"]["drawdown"]


def _check_finite(
    base: TaskModel, task: Task, layer: Layer, samples: Sequence[Sample], edits: Edits
) -> None:
    """Refuse an edit that gives NaN: greedy decoding would take it for an answer."""
    bank = memory_bank(base, task, samples, BankSpec(layer))
    for _, logits in bank_batches(base, task, bank, edits):
        if not torch.isfinite(logits).all():
            raise JobError(
                "the edit gave NaN and was not written; fewer failures at a time may work"
            )


def _rows(
    samples: Sequence[Sample], before: Sequence[Answer], after: Sequence[Answer]
) -> list[dict[str, Any]]:
    """Each sample's answers before and after."""
    return [
        {
            "id": sample.id,
            "inputs": list(sample.inputs),
            "target": sample.target,
            "before": old.text,
            "after": new.text,
            "was_right": old.right,
            "is_right": new.right,
            "fixed": new.right and not old.right,
        }
        for sample, old, new in zip(samples, before, after, strict=True)
    ]


def _check_texts(
    base: TaskModel, task: Task, layer: Layer, held: Sequence[Sample],
    so_far: Edits | None, edits: Edits,
) -> dict[str, Any]:  # fmt: skip
    """The perplexity of texts before and after."""
    bank, counted = memory_bank(base, task, held, BankSpec(layer)), EditMetrics()
    pairs = (bank_batches(base, task, bank, given) for given in (so_far, edits))
    for (index, before), (_, after) in zip(*pairs, strict=True):
        counted.count_texts(base, task, (before, after), bank.targets_of(index))
    return {"n": len(held), "changed": [], **counted.compute_texts()}
