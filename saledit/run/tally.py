"""Counting what edits mended and broke: word by word after the right words, and spoken freely."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from saledit.answering import answers
from saledit.bank import Bank
from saledit.data.episodes import EditBatch
from saledit.data.part_banks import PartBanks
from saledit.data.splits import Part
from saledit.decoding import generate
from saledit.delta import Edits
from saledit.metrics import Mean
from saledit.models import TaskModel
from saledit.outcomes import Outcome
from saledit.records import Sample
from saledit.run.decided import Decided
from saledit.run.fluency import Fluency
from saledit.run.preferences import Preferences
from saledit.session import EditMetrics, Judge, bank_batches, bank_right
from saledit.tasks.base import Task
from saledit.tasks.text import TextTask

_PER_EDIT = ("fail", "fail_of", "adapt", "adapt_of", "lost", "lost_of")


class Tally:
    """Counts outcomes, rewordings by kind and, of text, what is said freely.

    Args:
        base: the task model.
        task: says what is right.
        part: the samples.
        banks: their caches.
        fluency: failures on which free continuations are looked at, where there are beginnings.
        preferences: compares answers with their rivals, where there are any.
    """

    def __init__(
        self, base: TaskModel, task: Task, part: Part, banks: PartBanks, fluency: int = 0,
        preferences: Preferences | None = None,
    ) -> None:  # fmt: skip
        self._preferences = preferences
        self._base, self._task, self._part, self._banks = base, task, part, banks
        self._all = EditMetrics()
        self._fluency = None
        if isinstance(task, TextTask):
            self._fluency = Fluency(base, task, part, fluency)
        self._spoken = _Spoken(base, task, part, banks) if isinstance(task, TextTask) else None
        self._decided = None if task.by_perplexity else Decided(base, task, banks.passing)
        self._reworded = [sample for group in part.adapt for sample in group]
        self._right: Counter[str] = Counter()
        self._total: Counter[str] = Counter()
        self._per_edit: dict[str, list[int]] = {name: [] for name in _PER_EDIT}

    def count_batch(self, batch: EditBatch, seen: Outcome, edits: Edits) -> None:
        """Count a batch of edits (E,) that are each judged on the base."""
        self._all.update(self._base, self._task, batch, seen)
        if self._spoken is not None:
            right, kept = self._spoken.count_batch(batch, seen, edits)
        else:
            right = self._task.correct(seen.edit, batch.targets)
            kept = self._task.correct(seen.passing, batch.pass_targets)
        if self._decided is not None:
            self._decided.count(batch.members[2], kept)
        k = batch.n_fail
        before = kept.new_ones(kept.shape)
        if self._spoken is None:
            before = self._task.correct(seen.base, batch.pass_targets)
        self._count_each(right[:, :k], right[:, k:], batch.weights, before, kept)
        if self._fluency is not None:
            self._fluency.count(batch.members[0], edits)
        self._count_kinds(batch.members[1], batch.weights[:, k:], right[:, k:])
        if self._preferences is not None:
            self._preferences.count(batch.members[0], edits)

    def count_final(self, edits: Edits) -> None:
        """Count one edit that all failures went into."""
        base, task, banks = self._base, self._task, self._banks
        adapt = torch.zeros(1, 0, dtype=torch.bool)
        fail = bank_right(base, task, banks.fail, task.correct, edits)[None]
        if banks.adapt is not None:
            adapt = bank_right(base, task, banks.adapt, task.correct, edits)[None]
        self._all.count_edits(fail, adapt, torch.ones(1, fail.shape[1] + adapt.shape[1]))
        pairs = (bank_batches(base, task, banks.passing, given) for given in (None, edits))
        for (index, before), (_, logits) in zip(*pairs, strict=True):
            targets = banks.passing.targets_of(index)
            kl = task.divergence(before, logits, targets)
            right = task.correct(logits, targets)
            self._all.count_passes(task.correct(before, targets), right, kl)
            if task.by_perplexity:
                self._all.count_texts(base, task, (before, logits), targets)
            if self._decided is not None and self._spoken is None:
                self._decided.count(index, right)
        if self._spoken is not None:
            adapt, kept = self._spoken.count_final(edits)
            if self._decided is not None:
                self._decided.count(torch.arange(kept.shape[1])[None], kept)
        everything = torch.arange(len(self._part.fail))[None]
        if self._fluency is not None:
            self._fluency.count(everything, edits.expand(1))
        every = torch.arange(adapt.shape[1])[None]
        self._count_kinds(every, torch.ones(every.shape), adapt)
        if self._preferences is not None:
            self._preferences.count(everything, edits.expand(1))

    def _count_each(
        self, fail: Tensor, adapt: Tensor, weights: Tensor, before: Tensor, after: Tensor
    ) -> None:
        """Edits one by one: right failures (E, K), rewordings (E, K m), pass samples (E, n)."""
        k, by_text = fail.shape[1], self._task.by_perplexity
        rows = (
            fail.sum(1), weights[:, :k].sum(1),
            (adapt * weights[:, k:]).sum(1), weights[:, k:].sum(1),
            before.int().sum(1) - after.int().sum(1),
            # What texts lose is their perplexity's, not a number of them.
            torch.full(fail.shape[:1], 0 if by_text else before.shape[1]),
        )  # fmt: skip
        for name, values in zip(_PER_EDIT, rows, strict=True):
            self._per_edit[name] += [int(value) for value in values.tolist()]

    def per_edit(self) -> dict[str, list[int]]:
        """For each edit: right failures and rewordings, lost pass samples, and out of how many.

        Of text under free generation. Of edits that pile up, one.
        """
        return self._per_edit

    def _count_kinds(self, index: Tensor, weight: Tensor, right: Tensor) -> None:
        """Positions in the adapt bank, weights and rightness, all of one shape."""
        rows = zip(
            index.flatten().tolist(),
            weight.flatten().tolist(),
            right.flatten().tolist(),
            strict=True,
        )
        for i, real, ok in rows:
            if real:
                self._total[self._reworded[i].kind] += 1
                self._right[self._reworded[i].kind] += ok

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
        return {
            kind: {"accuracy": self._right[kind] / n, "n": n}
            for kind, n in sorted(self._total.items())
        }

    def unedited(self) -> dict[str, Any]:
        """The same shares without any edit."""
        out: dict[str, Any] = self._shares(self._task.correct)
        if self._preferences is not None and (compared := self._preferences.unedited()):
            out["preference"] = compared
        return out if self._spoken is None else out | {"generated": self._spoken.unedited()}

    def _shares(self, judge: Judge) -> dict[str, float]:
        base, task, banks = self._base, self._task, self._banks
        right = [bank_right(base, task, banks.fail, judge).float()]
        out = {"fail_accuracy": float(right[0].mean())}
        if banks.adapt is not None:
            right.append(bank_right(base, task, banks.adapt, judge).float())
            out["adapt_accuracy"] = float(right[1].mean())
        out["edit_accuracy"] = float(torch.cat(right).mean())
        passing = bank_right(base, task, banks.passing, judge).float()
        return out | {"pass_accuracy": float(passing.mean())}


class _Spoken:
    """What is right under free greedy generation.

    A known answer needs no generation: greedy decoding gives it if and only if its words are the
    likeliest one after another (``TextTask.spoken``). So what an edit leaves as it was, and
    what it mends to the letter, is known already; only the other samples are generated.
    """

    def __init__(self, base: TaskModel, task: TextTask, part: Part, banks: PartBanks) -> None:
        self._base, self._task, self._part, self._banks = base, task, part, banks
        self._metrics = EditMetrics()
        self._f1 = {name: Mean() for name in ("fail_f1", "adapt_f1", "pass_f1")}
        self._reworded = [sample for group in part.adapt for sample in group]
        self._n_generated = self._n_asked = 0

    def count_batch(self, batch: EditBatch, seen: Outcome, edits: Edits) -> tuple[Tensor, Tensor]:
        """Count a batch.

        Returns:
            Which failures and rewordings (E, K + K m) and which pass samples (E, n) are right.
        """
        k = batch.n_fail
        fail, adapt, passing = batch.members
        lists = (self._part.fail, self._reworded, self._part.passing)
        draft = self._task.spoken(self._base, seen.edit, batch.targets)
        parts = [(fail, draft[:, :k], batch.weights[:, :k])]
        parts.append((adapt, draft[:, k:], batch.weights[:, k:]))
        if not self._task.by_perplexity:
            kept = self._task.spoken(self._base, seen.passing, batch.pass_targets)
            parts.append((passing, kept, torch.ones(kept.shape, device=kept.device)))
        found = [
            self._judged(samples, *given, edits)
            for samples, given in zip(lists, parts, strict=False)
        ]
        for name, (_, f1), (_, _, weights) in zip(self._f1, found, parts, strict=False):
            self._f1[name].update(f1, weights)
        self._metrics.count_edits(found[0][0], found[1][0], batch.weights)
        kept = torch.ones_like(passing, dtype=torch.bool)
        if not self._task.by_perplexity:
            # Pass samples are what the base answers right in its own words.
            kept = found[2][0]
            self._metrics.count_passes(torch.ones_like(kept), kept)
        return torch.cat([found[0][0], found[1][0]], 1), kept

    def _judged(
        self, samples: Sequence[Sample], index: Tensor, draft: Tensor, weights: Tensor, edits: Edits
    ) -> tuple[Tensor, Tensor]:
        """Right (E, n) and F1 (E, n) of samples at positions, each under its row's edit."""
        open_ = ((~draft) & (weights > 0)).nonzero()  # (rows, 2)
        right, f1 = draft.clone(), draft.double()
        self._n_asked += int((weights > 0).sum())
        self._n_generated += len(open_)
        if len(open_):
            asked = [samples[int(index[e, i])] for e, i in open_.tolist()]
            found = generate(self._base, self._task, asked, edits, open_[:, 0])
            for (e, i), answer in zip(open_.tolist(), found, strict=True):
                right[e, i], f1[e, i] = answer.right, answer.f1
        return right, f1

    def count_final(self, edits: Edits) -> tuple[Tensor, Tensor]:
        """Count one edit of everything; returns the right of rewordings and pass samples (1, n)."""
        banks, part = self._banks, self._part
        batched = edits.expand(1)  # (E=1,)
        groups: list[tuple[Bank | None, Sequence[Sample]]] = [
            (banks.fail, part.fail), (banks.adapt, self._reworded), (banks.passing, part.passing)
        ]  # fmt: skip
        found = []
        for (bank, samples), name in zip(groups, self._f1, strict=True):
            right, f1 = torch.zeros(1, 0, dtype=torch.bool), torch.zeros(1, 0)
            if bank is not None and not (self._task.by_perplexity and name == "pass_f1"):
                draft = bank_right(self._base, self._task, bank, self._is_spoken, edits)[None]
                draft = draft[:, : len(samples)]
                index = torch.arange(len(samples))[None]
                weights = torch.ones(index.shape)
                right, f1 = self._judged(samples, index, draft, weights, batched)
                self._f1[name].update(f1)
            found.append(right)
        weights = torch.ones(1, found[0].shape[1] + found[1].shape[1])
        self._metrics.count_edits(found[0], found[1], weights)
        if not self._task.by_perplexity:
            self._metrics.count_passes(torch.ones_like(found[2]), found[2])
        return found[1], found[2]

    def _is_spoken(self, logits: Tensor, targets: Tensor) -> Tensor:
        return self._task.spoken(self._base, logits, targets)

    def metrics(self) -> dict[str, float]:
        found = self._metrics.compute()
        if self._task.by_perplexity:
            del found["drawdown"]
        f1 = {n: float(m.compute()) for n, m in self._f1.items() if float(m.total)}
        share = self._n_generated / max(1, self._n_asked)
        return found | f1 | {"share_generated": share}

    def unedited(self) -> dict[str, float]:
        """The same without edits: failures are wrong by choice, rewordings need not be."""
        out = {"fail_accuracy": 0.0}
        if self._reworded:
            found = answers(self._base, self._task, self._reworded)
            right = sum(answer.right for answer in found)
            out["adapt_accuracy"] = right / len(found)
            out["edit_accuracy"] = right / (len(found) + len(self._part.fail))
        return out
