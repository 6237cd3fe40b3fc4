"""What the steps of a fix would do, asked of the model before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch

from saledit.cache.bank import Bank, BankSpec
from saledit.cache.opening import memory_bank
from saledit.delta import Edits
from saledit.errors import JobError
from saledit.export import FORMATS
from saledit.judging.banked import bank_batches
from saledit.judging.counts import EditMetrics
from saledit.ledger import EditFolder
from saledit.models import TaskModel
from saledit.records import Answer, Sample
from saledit.run.fixes.making import steps_in_force
from saledit.site import Layer
from saledit.tasks.answering import answers, labels
from saledit.tasks.base import Task, in_labels


class _Asked:
    """Samples that are asked under one edit after another.

    A classifier runs below the edited sites once; free generation has to run all of a model.
    """

    def __init__(
        self, base: TaskModel, task: Task, layer: Layer, samples: Sequence[Sample]
    ) -> None:
        self.samples, self._base, self._task, self._layer = samples, base, task, layer

    @cached_property
    def bank(self) -> Bank:
        return memory_bank(self._base, self._task, self.samples, BankSpec(self._layer))

    def answers(self, edits: Edits) -> list[Answer]:
        base, task = self._base, self._task
        if not in_labels(task) or not self.samples:
            return answers(base, task, self.samples, edits if len(edits) else None)
        found: dict[int, Answer] = {}
        for index, logits in bank_batches(base, task, self.bank, edits if len(edits) else None):
            own = labels(base, task, logits, self.bank.targets_of(index))
            found |= dict(zip(index.tolist(), own, strict=True))
        return [found[i] for i in range(len(self.samples))]


class Trial:
    """What steps do on top of what is in force.

    Args:
        base: the base model.
        task: asks it.
        layer: where the edits are.
        samples: failures, and what was right among them.
        held: samples that should stay as they are.
        folder: the fixes in force, with a beginning.

    Attributes:
        before: answers to the failures under what is in force.
    """

    def __init__(
        self, base: TaskModel, task: Task, layer: Layer, samples: Sequence[Sample],
        held: Sequence[Sample], folder: EditFolder,
    ) -> None:  # fmt: skip
        self._base, self._task, self._head = base, task, folder.head
        self._asked = _Asked(base, task, layer, samples)
        self._held = _Asked(base, task, layer, held)
        self._under = folder.ground + folder.steps
        self._so_far = Edits({})
        if folder.in_force:
            self._so_far = folder.ground + steps_in_force(folder)
        self.before = self._asked.answers(self._so_far)

    @cached_property
    def _held_before(self) -> list[Answer]:
        return self._held.answers(self._so_far)

    def outcome(self, steps: Edits, full: bool = False) -> dict[str, Any]:
        """Answers before and after, and what changed on the check set.

        Raises:
            JobError: the edits give NaN.
        """
        shape = FORMATS[self._head["format"]].shape
        edits, told = shape(self._under + steps, int(self._head["rank"]))
        if full:
            self._check_finite(edits)
        rows = _rows(self._asked.samples, self.before, self._asked.answers(edits))
        checked = self._check(edits)
        return {
            "n_fixed": sum(row["fixed"] for row in rows),
            "n_broken": sum(row["was_right"] and not row["is_right"] for row in rows),
            "rows": rows,
            "check": checked,
            **told,
        }

    def _check(self, edits: Edits) -> dict[str, Any]:
        """What else edits changed on samples that they should leave alone."""
        if self._task.by_perplexity:
            return self._check_texts(edits)
        rows = _rows(self._held.samples, self._held_before, self._held.answers(edits))
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

    def _check_finite(self, edits: Edits) -> None:
        """Refuse an edit that gives NaN: greedy decoding would take it for an answer."""
        for _, logits in bank_batches(self._base, self._task, self._asked.bank, edits):
            if not torch.isfinite(logits).all():
                raise JobError(
                    "the edit gave NaN and was not written; fewer failures at a time may work"
                )

    def _check_texts(self, edits: Edits) -> dict[str, Any]:
        """The perplexity of texts before and after."""
        base, task, bank, counted = self._base, self._task, self._held.bank, EditMetrics()
        so_far = self._so_far if len(self._so_far) else None
        pairs = (bank_batches(base, task, bank, given) for given in (so_far, edits))
        for (index, before), (_, after) in zip(*pairs, strict=True):
            targets = bank.targets_of(index)
            was, now = (task.losses(base, logits, targets) for logits in (before, after))
            counted.count_texts(was, now, targets)
        return {"n": len(bank), "changed": [], **counted.compute_texts()}


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
