"""One step of a schedule: failures in, edits out. Used by sequences, fix and notebooks alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from saledit.cache.bank import Bank, BankSpec
from saledit.cache.filling import check_losses
from saledit.cache.opening import memory_bank
from saledit.data.conditions import conditions
from saledit.delta import Edits
from saledit.editors.base import Editor
from saledit.editors.looks import steps_for
from saledit.editors.request import Request
from saledit.editors.stepping import StepSearch
from saledit.editors.terms import Ranks, aggregate
from saledit.errors import NoNumbersError
from saledit.failures import Failures
from saledit.judging.banked import bank_batches
from saledit.judging.judged import Heard
from saledit.models import TaskModel
from saledit.overlay import applied
from saledit.records import Sample
from saledit.requests import damage, facts_of, hold, request_of
from saledit.site import Layer
from saledit.tasks.base import Task


class EditSession:
    """Edits a model step by step; the edits pile up.

    The gradients of each step are those of the model as edited so far.

    Args:
        base: the task model.
        task: encodes and scores.
        editor: makes the edits.
        layer: the layer it edits.
        sample_rank: terms kept of each failure's gradient.
        gradient_rank: terms kept of the aggregated gradient.
        search: how far each edit goes.
        held: pass samples that the editor may look at, where it needs them.
    """

    def __init__(
        self, base: TaskModel, task: Task, editor: Editor, layer: Layer, sample_rank: int,
        gradient_rank: int, search: StepSearch | None = None, held: Sequence[Sample] = (),
    ) -> None:  # fmt: skip
        self._search, self._held = search or StepSearch(), held
        self.base, self.task, self.editor, self.layer = base, task, editor.to(base.device), layer
        self._spec = BankSpec(layer, rank=sample_rank if editor.needs_gradients else 0)
        self._gradient_rank = gradient_rank
        self._steps = Edits({})
        self._memory: Mapping[str, Tensor] = {}

    @property
    def state(self) -> tuple[Edits, Mapping[str, Tensor]]:
        """The steps so far, and what the editor remembers of them; see ``go_on``."""
        return self._steps, self._memory

    def go_on(self, steps: Edits, memory: Mapping[str, Tensor]) -> None:
        """Take up a ``state`` that was left."""
        self._steps, self._memory = steps, memory

    @property
    def edits(self) -> Edits:
        """All edits so far, and what the editor changes before any."""
        return self.editor.resident.detach() + self._steps

    @torch.no_grad()
    def step(self, failures: Sequence[Sample]) -> Edits:
        """Turn failures into one more edit.

        Args:
            failures: the failures of this step, with their right answers.

        Returns:
            This step's own edits; ``edits`` holds all so far. Nothing where the steps before have
            mended all of these failures as well.

        Raises:
            NoNumbersError: the model as edited so far gives no numbers, or the editor makes none of
                them. The step is not made.
        """
        self.editor.eval()
        with applied(self.base.model, self.edits):
            bank = memory_bank(self.base, self.task, failures, self._spec)
        check_losses(self.base, bank.losses, failures)
        if self._steps and not self.editor.looks_by_itself and self._has_mended(bank):
            return Edits({})
        request = self._request(bank, failures)
        batched = steps_for(self.editor, request, self._search)
        new = Edits({site: delta[0] for site, delta in batched.items()})
        if not self.base.weights.broadcast(bool(batched.finite().all())):
            raise NoNumbersError(
                f"expected an edit of {failures[0].id} in numbers, got some that are NaN or "
                "infinite; load the model in single precision (model.dtype), or train the editor "
                "with a lower rate"
            )
        self._memory = self.editor.remember(request, batched)
        self._steps = self._steps + new
        return new

    def _has_mended(self, bank: Bank) -> bool:
        """Whether failures are right by now, and lose no more than is enough.

        The step of a trained editor does not shrink with what is left to mend: a failure is as long
        as Polyak's step for it, its loss over the norm of its gradient, and both vanish together.
        """
        base, task, enough = self.base, self.task, True
        for index, logits in bank_batches(base, task, bank):
            targets = bank.targets_of(index)
            right = Heard.of(base, task, logits, targets).spoken  # to its end
            low = task.answer_losses(base, logits, targets) <= self._search.enough
            enough &= bool((right & low).all())
        return base.weights.broadcast(enough)

    def _request(self, bank: Bank, failures: Sequence[Sample]) -> Request:
        """The request of one edit (E = 1) of a bank's failures, on top of the edits so far."""
        index = torch.arange(len(bank))
        terms = aggregate(
            bank.factors(index[None]), bank.losses_of(index[None]), self._gradient_rank
        )
        base, task, entry = self.base, self.task, bank.entry
        ranks = Ranks(self._spec.rank, self._gradient_rank)
        own = Failures(base, task, entry, bank.rows(index), bank.targets_of(index)[None], ranks)
        held = None
        if self.editor.needs_held or self._search.needs_held:
            # What an edit may cost is counted from the model as it stands before it.
            with applied(base.model, self.edits):
                held = hold(base, task, self._held, self.layer)
        harm = damage(base, task, entry, held)
        texts = None
        if self.editor.needs_text:
            texts = conditions(base, task, bank, failures)[None]
        request = request_of(base, terms, lambda: own, harm, texts)
        facts = facts_of(base, task, entry, [failures], self.edits)
        made = self._steps.expand(1)
        return replace(request.on_top(made), facts=facts, memory=self._memory)
