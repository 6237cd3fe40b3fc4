"""What an edited model says to a batch of edits, in logits."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from saledit import distributed
from saledit.data.episodes import EditBatch
from saledit.delta import Edits
from saledit.forward.rows import run_edits
from saledit.forward.suffix import Entry
from saledit.losses import mean_of, weighted_mean
from saledit.models import TaskModel
from saledit.tasks.base import Task

_ROWS = 2048  # in memory at a time, as they have logits


@dataclass(frozen=True, slots=True, kw_only=True)
class Losses:
    """What a batch of E edits is trained by.

    Attributes:
        answer_nll: negative log-likelihood of each right answer (E, K + K m).
        edit_nll: their mean, by the batch's weights.
        locality: KL(base || edited) of each pass row (E, n).
    """

    answer_nll: Tensor
    edit_nll: Tensor
    locality: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome(Losses):
    """What the edited model says in a batch of E edits. Logits of text are (P, C), see ``Task``.

    Attributes:
        edit: logits of failures and rewordings (E, K + K m, C).
        passing: logits of the pass samples (E, n, C).
        base: logits of the pass samples without edits (E, n, C).
    """

    edit: Tensor
    passing: Tensor
    base: Tensor

    @torch.no_grad()
    def told(
        self, task: Task, batch: EditBatch, share: float, pass_share: float
    ) -> dict[str, Tensor]:
        """What is logged of a training batch, or of a part by its shares of the means."""
        right = weighted_mean(task.correct(self.edit, batch.targets).float(), batch.weights)
        return {
            "edit_nll": share * self.edit_nll.detach(),
            "locality_kl": pass_share * mean_of(self.locality).detach(),
            "edit_accuracy": share * right,
        }


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
    n = batch.targets.shape[1]
    outputs = run_edits(base, entry, batch.rows, edits)  # (E, S, A, D)
    before, passing = task.logits_beside(
        base, batch.base_outputs, outputs[:, n:], batch.pass_targets
    )
    # Under autocast logits come in bfloat16; losses are taken at the precision of the base's.
    passing = passing.to(before.dtype)
    edit = task.logits(base, outputs[:, :n], batch.targets).to(before.dtype)
    answers = task.answer_losses(base, edit, batch.targets)
    return Outcome(
        edit=edit,
        passing=passing,
        base=before,
        answer_nll=answers,
        edit_nll=weighted_mean(answers, batch.weights),
        locality=task.divergence(before, passing, batch.pass_targets),
    )


def n_parts(base: TaskModel, batch: EditBatch) -> int:
    """In how many parts a batch is gone through, so that each fits into memory."""
    n = batch.cuts(_ROWS, base.positions_at_once)
    # As many in every process that goes through a divided model.
    return distributed.all_max(n) if base.weights.is_divided else n
