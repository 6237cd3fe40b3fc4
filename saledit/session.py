"""One step of a schedule: failures in, edits out, and what they mended and broke.

Used by validation, test, fix and notebooks alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection

from saledit.cache.bank import Bank, BankSpec
from saledit.cache.opening import memory_bank
from saledit.data.conditions import conditions
from saledit.data.episodes import EditBatch
from saledit.delta import Edits
from saledit.editors.base import Editor, Ranks, aggregate
from saledit.editors.looks import steps_for
from saledit.editors.request import Request
from saledit.editors.stepping import StepSearch
from saledit.errors import NoNumbersError
from saledit.failures import Failures
from saledit.forward.suffix import run
from saledit.metrics import Accuracy, Drawdown, Mean
from saledit.models import TaskModel
from saledit.outcomes import Outcome
from saledit.overlay import applied
from saledit.records import Sample
from saledit.requests import damage, facts_of, hold, request_of
from saledit.site import Layer
from saledit.tasks.base import Task, in_words
from saledit.tasks.prompts import IGNORED

_LOG_MOST = 690.0  # of perplexities, which stay below what a comparison can add up

#: Whether answers (...) are right, from logits as ``Task.logits`` gives them and targets.
Judge = Callable[[Tensor, Tensor], Tensor]


class EditMetrics(nn.Module):
    """Fail, adapt and edit accuracy, drawdown and locality KL of many batches.

    For a task whose pass samples are texts, perplexity stands in the place of accuracy: the
    drawdown is its relative rise.
    """

    def __init__(self) -> None:
        super().__init__()
        names = [f"{kind}_accuracy" for kind in ("fail", "adapt", "edit")]
        names += ["pass_accuracy_before", "pass_accuracy_after"]
        self.shares = MetricCollection({name: Accuracy() for name in names}, compute_groups=False)
        self.drawdown = Drawdown()
        self.locality = Mean()
        # Mean negative log-likelihood a token of pass texts, without and with the edit.
        self.nll = MetricCollection({"before": Mean(), "after": Mean()}, compute_groups=False)

    def update(
        self, base: TaskModel, task: Task, batch: EditBatch, seen: Outcome,
        judge: Judge | None = None,
    ) -> None:  # fmt: skip
        """Count one batch, judged by ``task.correct`` or as given."""
        judge = judge or task.correct
        right = judge(seen.edit, batch.targets)
        before, after = (
            judge(seen.base, batch.pass_targets),
            judge(seen.passing, batch.pass_targets),
        )
        self.count_edits(right[:, : batch.n_fail], right[:, batch.n_fail :], batch.weights)
        self.count_passes(before, after, seen.locality)
        if task.by_perplexity:
            self.count_texts(base, task, (seen.base, seen.passing), batch.pass_targets)

    def count_edits(self, fail: Tensor, adapt: Tensor, weights: Tensor) -> None:
        """Count failures (E, K) and rewordings (E, K m), weights (E, K + K m) of both."""
        k = fail.shape[1]
        self.shares["fail_accuracy"].update(fail, weights[:, :k])
        self.shares["adapt_accuracy"].update(adapt, weights[:, k:])
        self.shares["edit_accuracy"].update(torch.cat([fail, adapt], 1), weights)

    def count_passes(self, before: Tensor, after: Tensor, locality: Tensor | None = None) -> None:
        """Count pass samples: right (...) without and with the edit, and the KL between."""
        self.shares["pass_accuracy_before"].update(before)
        self.shares["pass_accuracy_after"].update(after)
        self.drawdown.update(before, after)
        if locality is not None:
            self.locality.update(locality)

    def count_texts(
        self, base: TaskModel, task: Task, logits: tuple[Tensor, Tensor], targets: Tensor
    ) -> None:
        """Count the likelihood of pass texts: logits (P, C) before and after."""
        tokens = (targets != IGNORED).sum(-1)
        for name, seen in zip(("before", "after"), logits, strict=True):
            self.nll[name].update(task.losses(base, seen, targets), tokens)

    def compute(self) -> dict[str, float]:
        """The numbers; a share of nothing (no rewordings, say) is left out, a NaN of logits not."""
        shares = {name: float(share.compute()) for name, share in self.shares.items()}
        values = {name: value for name, value in shares.items() if value == value}
        values["drawdown"] = float(self.drawdown.compute())
        if self.locality.count():
            values["locality_kl"] = float(self.locality.compute())
        return values | self.compute_texts()

    def compute_texts(self) -> dict[str, float]:
        """Perplexity without and with the edit, and its rise; nothing where no text was seen."""
        counted = self.nll["before"]
        assert isinstance(counted, Mean)
        if not counted.count():
            return {}
        before, after = (float(self.nll[name].compute()) for name in ("before", "after"))
        return {
            "perplexity_before": _exp(before),
            "perplexity_after": _exp(after),
            "perplexity_rise": _exp(after) - _exp(before),
            "drawdown": _exp(after - before) - 1,
        }

    def reset(self) -> None:
        """Forget everything."""
        self.shares.reset()
        self.nll.reset()
        self.drawdown.reset()
        self.locality.reset()


def _exp(value: float) -> float:
    """A perplexity that JSON can hold, however far an untrained edit throws it."""
    return math.exp(min(value, _LOG_MOST)) if value == value else value


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
        self._spec = BankSpec(layer, rank=sample_rank)
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
            right = task.correct(logits, targets)
            if in_words(task):  # to its end, in the words that are spoken
                right = task.spoken(base, logits, targets)
            low = task.answer_losses(base, logits, targets) <= self._search.enough
            enough &= bool((right & low).all())
        return base.weights.broadcast(enough)

    def _request(self, bank: Bank, failures: Sequence[Sample]) -> Request:
        """The request of one edit (E = 1) of a bank's failures, on top of the edits so far."""
        index = torch.arange(len(bank))
        gradients = aggregate(
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
        request = request_of(base, gradients, lambda: own, harm, texts)
        facts = facts_of(base, task, entry, [failures], self.edits)
        made = self._steps.expand(1)
        return replace(request.on_top(made), facts=facts, memory=self._memory)


@torch.no_grad()
def bank_batches(
    base: TaskModel, task: Task, bank: Bank, edits: Edits | None = None, batch_rows: int = 256,
    index: Tensor | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:  # fmt: skip
    """Logits of samples of a bank, with or without one edit.

    Args:
        base: the task model.
        task: says where something is scored.
        bank: cached samples.
        edits: unbatched edits of the bank's layer; None for the base, which costs next to nothing.
        batch_rows: rows a suffix run of a classifier; text takes fewer.
        index: positions (n,) of the samples; None for all.

    Yields:
        (positions (B,), logits as ``task.logits`` gives them), by length: the same batches
        whatever the edits.
    """
    rows_at_once = batch_rows if bank.answer_lengths is None else max(1, batch_rows // 8)
    every = torch.arange(len(bank)) if index is None else index
    # By length, so that little is spent on padding.
    for chunk in torch.split(every[bank.lengths[every].argsort(stable=True)], rows_at_once):
        if edits is None:
            outputs = bank.outputs(chunk)
        else:
            rows = bank.rows(chunk)
            with applied(base.model, edits):
                outputs = run(base, bank.entry, rows.states, rows.inputs, rows.at)
        yield chunk, task.logits(base, outputs, bank.targets_of(chunk))


def bank_right(
    base: TaskModel, task: Task, bank: Bank, judge: Judge, edits: Edits | None = None
) -> Tensor:
    """Which samples of a bank (n,) are answered right, with or without an edit."""
    right = torch.zeros(len(bank), dtype=torch.bool)
    for index, logits in bank_batches(base, task, bank, edits):
        right[index] = judge(logits, bank.targets_of(index)).cpu()
    return right
