"""Drawdown of pass samples that the base decides clearly, apart from that of near-ties.

A pass sample is one that the base answers right, by however little. Where its answer leads by a
hundredth of a nat, the number format decides as well as any edit does.
"""

from __future__ import annotations

import torch
from torch import Tensor

from saledit.cache.bank import Bank
from saledit.judging.banked import bank_batches
from saledit.metrics import Accuracy
from saledit.models import TaskModel
from saledit.tasks.base import Task

#: Nats by which an answer leads at least that counts as decided: 1.1 times as likely as the next.
LEAD = 0.1


class Decided:
    """Counts what becomes of pass samples whose answer leads by ``LEAD`` or more.

    Args:
        base: the task model.
        task: says by how much an answer leads.
        passing: all pass samples.
    """

    def __init__(self, base: TaskModel, task: Task, passing: Bank) -> None:
        self._clear = torch.zeros(len(passing), dtype=torch.bool)
        for index, logits in bank_batches(base, task, passing):
            leads = task.leads(base, logits.float(), passing.targets_of(index))
            self._clear[index] = (leads >= LEAD).cpu()
        self._kept = Accuracy()

    def count(self, index: Tensor, kept: Tensor) -> None:
        """Count pass samples at positions (...): bool (...), right with the edit as without."""
        self._kept.update(kept, self._clear[index.cpu()].to(kept.device).double())

    def metrics(self) -> dict[str, float]:
        """``share_decided`` of the pass samples, and ``drawdown_decided`` among them."""
        share = {"share_decided": float(self._clear.float().mean())}
        if not self._clear.any():
            return share
        return share | {"drawdown_decided": 1 - float(self._kept.compute())}
