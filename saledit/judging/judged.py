"""What edited models say to a batch of edits, judged: one value a sample, and no logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from saledit.data.episodes import EditBatch
from saledit.delta import Edits
from saledit.forward.suffix import Entry
from saledit.losses import weighted_mean
from saledit.models import TaskModel
from saledit.outcomes import Losses, Outcome, n_parts, outcome
from saledit.tasks.base import Task, in_words


@dataclass(frozen=True, slots=True)
class Heard:
    """What logits say to samples (...).

    Attributes:
        right: whether each answer is right, of text under teacher forcing: bool.
        spoken: whether free greedy generation gives just this answer: bool; of labels ``right``.
        labels: numbers of the labels that are said; None of words.
        nll: of the right answers, of text a mean over its tokens; None where nobody counts it.
    """

    right: Tensor
    spoken: Tensor
    labels: Tensor | None = None
    nll: Tensor | None = None

    @classmethod
    def of(
        cls, base: TaskModel, task: Task, logits: Tensor, targets: Tensor, nll: bool = False
    ) -> Self:
        """Listen to logits.

        Args:
            base: the task model.
            task: says what is right.
            logits: as ``Task.logits`` gives them.
            targets: right answers (...), or (..., A) of text.
            nll: whether likelihoods are wanted as well.
        """
        right = task.correct(logits, targets)
        told = task.losses(base, logits, targets) if nll else None
        if in_words(task):
            return cls(right, task.spoken(base, logits, targets), nll=told)
        return cls(right, right, logits.argmax(-1), told)

    def columns(self, first: int, end: int | None = None) -> Heard:
        """Some columns of what was said to samples (E, N)."""
        return self._each(lambda value: value[:, first:end])

    def row(self) -> Heard:
        """What was said to samples (n,), as to those of one edit: (1, n)."""
        return self._each(lambda value: value[None])

    def cpu(self) -> Heard:
        """The same on the CPU."""
        return self._each(lambda value: value.cpu())

    def _each(self, change: Callable[[Tensor], Tensor]) -> Heard:
        told = (self.right, self.spoken, self.labels, self.nll)
        return Heard(*(None if value is None else change(value) for value in told))  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged(Losses):
    """What is kept of an ``Outcome`` where E edits are judged.

    Attributes:
        edit: what failures and rewordings (E, K + K m) are answered.
        base: what pass samples (E, n) are without edits.
        passing: what they are with them.
    """

    edit: Heard
    base: Heard
    passing: Heard


@torch.no_grad()
def judged(base: TaskModel, task: Task, entry: Entry, edits: Edits, batch: EditBatch) -> Judged:
    """Run a batch's rows under its edits, in as many parts as their logits ask for, and judge them.

    Args:
        base: the task model.
        task: scores the logits.
        entry: where the batch's states were captured.
        edits: batch shape (E,).
        batch: the rows.
    """
    n = n_parts(base, batch)
    if n == 1:
        return _judged(base, task, outcome(base, task, entry, edits, batch), batch)
    cuts = list(batch.parts(n))
    found = [
        _judged(base, task, outcome(base, task, entry, edits, cut.batch), cut.batch) for cut in cuts
    ]
    own, others = ([getattr(cut, name) for cut in cuts] for name in ("edit", "passing"))
    nll = _placed([part.answer_nll for part in found], own)
    return Judged(
        edit=together([part.edit for part in found], own),
        base=together([part.base for part in found], others),
        passing=together([part.passing for part in found], others),
        answer_nll=nll,
        edit_nll=weighted_mean(nll, batch.weights),
        locality=_placed([part.locality for part in found], others),
    )


def _judged(base: TaskModel, task: Task, seen: Outcome, batch: EditBatch) -> Judged:
    nll = task.by_perplexity
    before, after = (
        Heard.of(base, task, logits, batch.pass_targets, nll)
        for logits in (seen.base, seen.passing)
    )
    return Judged(
        edit=Heard.of(base, task, seen.edit, batch.targets),
        base=before,
        passing=after,
        answer_nll=seen.answer_nll,
        edit_nll=seen.edit_nll,
        locality=seen.locality,
    )


def together(parts: Sequence[Heard], columns: Sequence[Tensor]) -> Heard:
    """What was said to parts (E, N_i) of samples, whose columns in the whole (E, N) are given."""
    first = parts[0]
    rest = {
        name: _placed([getattr(part, name) for part in parts], columns)
        for name in ("spoken", "labels", "nll")
        if getattr(first, name) is not None
    }
    return replace(first, right=_placed([part.right for part in parts], columns), **rest)


def _placed(parts: Sequence[Tensor], columns: Sequence[Tensor]) -> Tensor:
    """Values (E, N) of parts (E, N_i) whose columns in the whole are given."""
    whole = torch.cat(list(parts), 1)
    return whole[:, torch.cat(list(columns)).argsort().to(whole.device)]


def in_numbers(
    edits: Edits, resident: Edits, see: Callable[[Edits], Judged],
    broadcast: Callable[[Tensor], Tensor],
) -> tuple[Edits, Judged, Tensor]:  # fmt: skip
    """Take back edits that are no numbers, or under which an answer is none.

    One edit that broke would end a test of all others; and nobody has it, as a ``fix`` refuses it.

    Args:
        edits: batch shape (E,).
        resident: what the editor changes before any edit, unbatched: it stays.
        see: judges a batch's rows under edits.
        broadcast: gives what the first process has, of which edits stay.

    Returns:
        The edits, what was judged, and which of them were made, bool (E,) on the CPU.
    """
    seen = see(edits)
    answered = (seen.locality, seen.answer_nll)
    real = [told.isfinite().flatten(1).all(1).cpu() for told in answered]
    made = broadcast(edits.finite() & real[0] & real[1])
    if bool(made.all()):
        return edits, seen, made
    rest = resident.expand(len(made)) * made.logical_not().to(seen.locality)
    edits = edits.without(~made) + rest
    return edits, see(edits), made
