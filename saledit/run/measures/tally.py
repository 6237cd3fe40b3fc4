"""Counting what edits mended and broke: word by word after the right words, and spoken freely."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from saledit import distributed
from saledit.cache.bank import Bank
from saledit.data.episodes import EditBatch
from saledit.data.part_banks import PartBanks
from saledit.data.splits import Part
from saledit.delta import Edits
from saledit.judging.banked import bank_batches, bank_heard
from saledit.judging.counts import EditMetrics
from saledit.judging.judged import Heard, Judged
from saledit.models import TaskModel
from saledit.report.bootstrap import PER_EDIT as _PER_EDIT
from saledit.run.measures.decided import Decided
from saledit.run.measures.fluency import Fluency
from saledit.run.measures.preferences import Preferences
from saledit.run.measures.said import ADAPT, FAIL, PASS, Said, Seen, labelled
from saledit.run.measures.spoken import Spoken
from saledit.tasks.base import Task, in_words


@dataclass(slots=True)
class _Batch:
    """What is written down of a batch of edits.

    Attributes:
        n_edits: how many they are.
        n_refused: how many of them were no numbers, and were not made.
        answers: rows for ``answers.jsonl``, with edits numbered from 0.
        right: right rewordings by kind.
        total: all of them.
        per_edit: lists by name, see ``Tally.per_edit``.
    """

    n_edits: int
    answers: list[dict[str, Any]]
    right: Counter[str] = field(default_factory=Counter)
    total: Counter[str] = field(default_factory=Counter)
    per_edit: dict[str, list[int]] = field(default_factory=dict)
    n_refused: int = 0


class Tally:
    """Counts outcomes, rewordings by kind and, of text, what is said freely.

    Processes may count a batch each; all numbers are then those of the whole (``gather``).

    Args:
        base: the task model.
        task: says what is right.
        part: the samples.
        banks: their caches.
        said: takes down the answers.
        fluency: failures on which free continuations are looked at, where there are beginnings.
        preferences: compares answers with their rivals, where there are any.
    """

    def __init__(
        self, base: TaskModel, task: Task, part: Part, banks: PartBanks, said: Said,
        fluency: int = 0, preferences: Preferences | None = None,
    ) -> None:  # fmt: skip
        self._preferences, self._said = preferences, said
        self._base, self._task, self._part, self._banks = base, task, part, banks
        self._all = EditMetrics()
        self._fluency = None
        if in_words(task):
            self._fluency = Fluency(base, task, part, fluency)
        self._spoken = None
        if in_words(task):
            self._spoken = Spoken(base, task, part, banks, said.samples, said.reworded)
        self._decided = None if task.by_perplexity else Decided(base, task, banks.passing)
        self._kinds = [sys.intern(sample.kind) for sample in said.samples[ADAPT]]
        self._batches: list[_Batch] = []

    def count_batch(self, batch: EditBatch, seen: Judged, edits: Edits, made: Tensor) -> None:
        """Count a batch of edits (E,), each judged on the base, and which of them were made."""
        base, task = self._base, self._task
        self._all.update(batch, seen)
        if self._spoken is not None:
            found = self._spoken.count_batch(batch, seen, edits)
            before = None  # all right, in the base's own words
        else:
            found = _labels(base, task, batch, seen)
            before = seen.base.right
        fail, adapt = found[0], found[1]
        kept = found[2].right if len(found) > 2 else torch.ones_like(batch.members[2]).bool()
        self._count_decided(batch.members[2], kept)
        before = kept.new_ones(kept.shape) if before is None else before
        noted = self._count_rest(found, batch.members[0], edits)
        noted.n_refused = int(made.logical_not().sum())
        noted.per_edit = self._each(fail.right, adapt.right, batch.weights, before, kept)

    def count_final(self, edits: Edits) -> None:
        """Count one edit that all failures went into."""
        base, task, banks = self._base, self._task, self._banks
        found = [self._through(FAIL, banks.fail, edits), self._through(ADAPT, banks.adapt, edits)]
        right = torch.cat([seen.right for seen in found], 1)
        self._all.count_edits(found[0].right, found[1].right, torch.ones(right.shape))
        pairs = (bank_batches(base, task, banks.passing, given) for given in (None, edits))
        for (index, before), (_, logits) in zip(*pairs, strict=True):
            targets = banks.passing.targets_of(index)
            kl = task.divergence(before, logits, targets)
            was, now = (
                Heard.of(base, task, said, targets, task.by_perplexity) for said in (before, logits)
            )
            self._all.count_passes(was.right, now.right, kl)
            if was.nll is not None and now.nll is not None:
                self._all.count_texts(was.nll, now.nll, targets)
            elif self._spoken is None:
                self._count_decided(index, now.right)
                found.append(labelled(base, task, PASS, index[None], now.row()))
        if self._spoken is not None:
            found = self._spoken.count_final(edits)
            for seen in found[2:]:
                self._count_decided(seen.index, seen.right)
        everything = torch.arange(len(self._part.fail))[None]
        self._count_rest(found, everything, edits.expand(1))

    def _through(self, name: str, bank: Bank | None, edits: Edits) -> Seen:
        """A part (1, n) under one edit."""
        if bank is None:
            return Seen(name, torch.arange(0)[None], torch.zeros(1, 0, dtype=torch.bool), {})
        heard = bank_heard(self._base, self._task, bank, edits)
        return labelled(self._base, self._task, name, torch.arange(len(bank))[None], heard)

    def _count_decided(self, index: Tensor, kept: Tensor) -> None:
        if self._decided is not None:
            self._decided.count(index, kept)

    def _count_rest(self, found: Sequence[Seen], failures: Tensor, edits: Edits) -> _Batch:
        """Kinds of rewordings, free text, rivals and the answers themselves, of edits (E,)."""
        noted = _Batch(len(failures), self._said.rows(found))
        self._batches.append(noted)
        self._count_kinds(found[1], noted)
        if self._fluency is not None:
            self._fluency.count(failures, edits)
        if self._preferences is not None:
            self._preferences.count(failures, edits)
        return noted

    def _each(
        self, fail: Tensor, adapt: Tensor, weights: Tensor, before: Tensor, after: Tensor
    ) -> dict[str, list[int]]:
        """Edits one by one: right failures (E, K), rewordings (E, K m), pass samples (E, n)."""
        k, by_text = fail.shape[1], self._task.by_perplexity
        rows = (
            fail.sum(1), weights[:, :k].sum(1),
            (adapt * weights[:, k:]).sum(1), weights[:, k:].sum(1),
            before.int().sum(1) - after.int().sum(1),
            # What texts lose is their perplexity's, not a number of them.
            torch.full(fail.shape[:1], 0 if by_text else before.shape[1]),
        )  # fmt: skip
        return {
            name: [int(value) for value in values.tolist()]
            for name, values in zip(_PER_EDIT, rows, strict=True)
        }

    def gather(self, n: int) -> None:
        """Bring together what processes counted of n batches, every one its share."""
        self._batches = distributed.all_gather_shares(self._batches, n)

    @property
    def n_edits(self) -> int:
        """Edits that were counted."""
        return sum(batch.n_edits for batch in self._batches)

    @property
    def n_refused(self) -> int:
        """Those of them that were no numbers: not made, and counted as the model without them."""
        return sum(batch.n_refused for batch in self._batches)

    def answers(self) -> list[dict[str, Any]]:
        """Rows for ``answers.jsonl`` (``saledit.run.measures.said``)."""
        out, first = [], 0
        for batch in self._batches:
            out += [{**row, "edit": first + row["edit"]} for row in batch.answers]
            first += batch.n_edits
        return out

    def per_edit(self) -> dict[str, list[int]]:
        """For each edit: right failures and rewordings, lost pass samples, and out of how many.

        Of text under free generation. Of edits that pile up there are none.
        """
        return {
            name: [value for batch in self._batches for value in batch.per_edit.get(name, ())]
            for name in _PER_EDIT
        }

    def _count_kinds(self, seen: Seen, noted: _Batch) -> None:
        weights = torch.ones(seen.index.shape) if seen.weights is None else seen.weights
        for i, weight, ok in zip(
            *(x.flatten().tolist() for x in (seen.index, weights, seen.right)), strict=True
        ):
            if weight:
                noted.total[self._kinds[i]] += 1
                noted.right[self._kinds[i]] += ok

    def metrics(self) -> dict[str, Any]:
        """The numbers, those of free generation under ``generated``."""
        found: dict[str, Any] = self._all.compute()
        if self._fluency is not None:
            found |= self._fluency.compute()
        decided = {} if self._decided is None else self._decided.metrics()
        if self._preferences is not None and (compared := self._preferences.metrics()):
            found["preference"] = compared
        if self._spoken is None:
            return found | decided
        return found | {"generated": self._spoken.metrics() | decided}

    def by_kind(self) -> dict[str, dict[str, float]]:
        """Accuracy on rewordings of each kind, of text under free generation."""
        right, total = Counter[str](), Counter[str]()
        for batch in self._batches:
            right += batch.right
            total += batch.total
        return {kind: {"accuracy": right[kind] / n, "n": n} for kind, n in sorted(total.items())}

    def unedited(self) -> dict[str, Any]:
        """The same shares without any edit."""
        out: dict[str, Any] = self._shares()
        if self._preferences is not None and (compared := self._preferences.unedited()):
            out["preference"] = compared
        return out if self._spoken is None else out | {"generated": self._spoken.unedited()}

    def _shares(self) -> dict[str, float]:
        banks = self._banks
        right = [self._right(banks.fail)]
        out = {"fail_accuracy": float(right[0].mean())}
        if banks.adapt is not None:
            right.append(self._right(banks.adapt))
            out["adapt_accuracy"] = float(right[1].mean())
        out["edit_accuracy"] = float(torch.cat(right, 1).mean())
        return out | {"pass_accuracy": float(self._right(banks.passing).mean())}

    def _right(self, bank: Bank) -> Tensor:
        return bank_heard(self._base, self._task, bank).right.float()


def _labels(base: TaskModel, task: Task, batch: EditBatch, seen: Judged) -> list[Seen]:
    """A classifier's answers to failures (E, K), rewordings (E, K m) and pass samples (E, n)."""
    k, (fail, adapt, passing), weights = batch.n_fail, batch.members, batch.weights
    return [
        labelled(base, task, FAIL, fail, seen.edit.columns(0, k), weights[:, :k]),
        labelled(base, task, ADAPT, adapt, seen.edit.columns(k), weights[:, k:]),
        labelled(base, task, PASS, passing, seen.passing),
    ]
