"""What an edited model says to a batch of edits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from saledit.data.episodes import EditBatch
from saledit.delta import Edits
from saledit.forward.rows import run_edits
from saledit.forward.suffix import Entry
from saledit.losses import weighted_mean
from saledit.models import TaskModel
from saledit.tasks.base import Task


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the edited model says in a batch of E edits. Logits of text are (P, C), see ``Task``.

    Attributes:
        edit: logits of failures and rewordings (E, K + K m, C).
        passing: logits of the pass samples (E, n, C).
        base: logits of the pass samples without edits (E, n, C).
        answer_nll: negative log-likelihood of each right answer (E, K + K m).
        edit_nll: their mean, by the batch's weights.
        locality: KL(base || edited) of each pass row (E, n).
    """

    edit: Tensor
    passing: Tensor
    base: Tensor
    answer_nll: Tensor
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
        edit,
        passing,
        before,
        answers,
        weighted_mean(answers, batch.weights),
        task.divergence(before, passing, batch.pass_targets),
    )


def in_numbers(
    edits: Edits, resident: Edits, see: Callable[[Edits], Outcome],
    broadcast: Callable[[Tensor], Tensor],
) -> tuple[Edits, Outcome, Tensor]:  # fmt: skip
    """Take back edits that are no numbers, or under which an answer is none.

    One edit that broke would end a test of all others; and nobody has it, as a ``fix`` refuses it.

    Args:
        edits: batch shape (E,).
        resident: what the editor changes before any edit, unbatched: it stays.
        see: runs the batch's rows under edits.
        broadcast: gives what the first process has, of which edits stay.

    Returns:
        The edits, their outcome, and which of them were made, bool (E,) on the CPU.
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
