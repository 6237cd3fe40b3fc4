"""One step of a schedule: failures in, edits out, and what they mended and broke.

Used by validation, test, fix and notebooks alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection

from saledit.bank import Bank, BankSpec
from saledit.cache import memory_bank
from saledit.data.episodes import EditBatch
from saledit.delta import Edits
from saledit.editors.base import Editor, aggregate
from saledit.losses import locality_kl, weighted_mean
from saledit.metrics import Accuracy, Drawdown, Mean
from saledit.models import TaskModel
from saledit.overlay import applied
from saledit.records import Sample
from saledit.rows import run_edits
from saledit.site import Layer
from saledit.suffix import Entry, run
from saledit.tasks.base import Task


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the edited model says in a batch of E edits.

    Attributes:
        edit: logits of failures and rewordings (E, K + K m, C).
        passing: logits of the pass samples (E, n, C).
        edit_nll: mean negative log-likelihood of the right answers.
        locality: KL(base || edited) of each pass row (E, n).
    """

    edit: Tensor
    passing: Tensor
    edit_nll: Tensor
    locality: Tensor


def outcome(base: TaskModel, task: Task, entry: Entry, edits: Edits, batch: EditBatch) -> Outcome:
    """Run a batch's rows under its edits.

    Args:
        base: the task model.
        task: scores the logits.
        entry: where the batch's states were captured.
        edits: batch shape (E,).
        batch: the rows.

    Returns:
        The outcome, differentiable in the edits.
    """
    n_targets = batch.targets.shape[1]
    # Under autocast logits come in bfloat16; losses are taken at the precision of the base's.
    logits = run_edits(base, entry, batch.rows, edits)  # (E, S, C)
    grouped = logits.to(batch.base_logits.dtype)
    edit, passing = grouped[:, :n_targets], grouped[:, n_targets:]
    return Outcome(
        edit,
        passing,
        weighted_mean(task.losses(edit, batch.targets), batch.weights),
        locality_kl(batch.base_logits, passing),
    )


class EditMetrics(nn.Module):
    """Fail, adapt and edit accuracy, drawdown and locality KL of many batches."""

    def __init__(self) -> None:
        super().__init__()
        self.shares = MetricCollection(
            {
                name: Accuracy()
                for name in (
                    "fail_accuracy",
                    "adapt_accuracy",
                    "edit_accuracy",
                    "pass_accuracy_before",
                    "pass_accuracy_after",
                )
            },
            compute_groups=False,
        )
        self.drawdown = Drawdown()
        self.locality = Mean()

    def update(self, task: Task, batch: EditBatch, seen: Outcome) -> None:
        """Count one batch."""
        right = task.correct(seen.edit, batch.targets)
        before = task.correct(batch.base_logits, batch.pass_targets)
        after = task.correct(seen.passing, batch.pass_targets)
        k, w = batch.n_fail, batch.weights
        self.shares["fail_accuracy"].update(right[:, :k], w[:, :k])
        self.shares["adapt_accuracy"].update(right[:, k:], w[:, k:])
        self.shares["edit_accuracy"].update(right, w)
        self.shares["pass_accuracy_before"].update(before)
        self.shares["pass_accuracy_after"].update(after)
        self.drawdown.update(before, after)
        self.locality.update(seen.locality)

    def compute(self) -> dict[str, float]:
        """The numbers; a share of nothing (no rewordings, say) is left out, a NaN of logits not."""
        shares = {name: float(share.compute()) for name, share in self.shares.items()}
        values = {name: value for name, value in shares.items() if value == value}
        values["drawdown"] = float(self.drawdown.compute())
        values["locality_kl"] = float(self.locality.compute())
        return values

    def reset(self) -> None:
        """Forget everything."""
        self.shares.reset()
        self.drawdown.reset()
        self.locality.reset()


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
    """

    def __init__(
        self, base: TaskModel, task: Task, editor: Editor, layer: Layer, sample_rank: int,
        gradient_rank: int,
    ) -> None:  # fmt: skip
        self.base, self.task, self.editor, self.layer = base, task, editor, layer
        self._spec = BankSpec(layer, rank=sample_rank)
        self._gradient_rank = gradient_rank
        self.edits = Edits({})

    @torch.no_grad()
    def step(self, failures: Sequence[Sample]) -> Edits:
        """Turn failures into one more edit.

        Args:
            failures: the failures of this step, with their right answers.

        Returns:
            This step's own edits; ``self.edits`` holds all so far.
        """
        self.editor.eval()
        with applied(self.base.model, self.edits):
            bank = memory_bank(self.base, self.task, failures, self._spec)
        index = torch.arange(len(failures))[None]  # (E=1, K)
        factors, losses = bank.factors(index), bank.losses[index]
        batched = self.editor(aggregate(factors, losses, self._gradient_rank))
        new = Edits({site: delta[0] for site, delta in batched.items()})
        self.edits = self.edits + new
        return new


@torch.no_grad()
def bank_logits(base: TaskModel, bank: Bank, edits: Edits, batch_rows: int = 256) -> Tensor:
    """Logits (n, C) of all samples of a bank under one edit.

    Args:
        base: the task model.
        bank: cached samples.
        edits: unbatched edits of the bank's layer.
        batch_rows: rows a suffix run.
    """
    out = []
    with applied(base.model, edits):
        # By length, so that little is spent on padding; then back in order.
        order = bank.lengths.argsort()
        for index in torch.split(order, batch_rows):
            rows = bank.rows(index)
            out.append(run(base, bank.entry, rows.states, rows.inputs))
    logits = torch.cat(out)
    return torch.empty_like(logits).index_copy_(0, order, logits)
