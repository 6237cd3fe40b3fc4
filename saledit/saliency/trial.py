"""Trial-step saliency: which layer mends failures for the least damage, by trying.

At each layer every failure takes a few step sizes along its own normalised gradient,
each step as a delta of its own in one batched suffix run, and what it mends (the
failure and its rewording) is held against what it disturbs (KL on pass samples). A
gradient says how steep a layer is at the start; a finite step says how far it goes.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import Tensor

from saledit.bank import Bank, BankSpec
from saledit.cache import memory_banks
from saledit.delta import Edits, LowRank
from saledit.losses import locality_kl
from saledit.models import TaskModel
from saledit.rows import join, run_edits
from saledit.saliency.base import LayerScore, Probes, Saliency
from saledit.site import Layer
from saledit.tasks.base import Task

#: Frobenius norms of the trial steps, over all sites of a layer together.
STEPS = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0)
_EDITS = 32  # edits a suffix run


class TrialStep:
    """Score of a layer = max over steps of (share mended - KL on pass in nats).

    Args:
        steps: norms to try.
        rank: terms kept of each failure's gradient.
        passes: pass samples that each edit is held against.
    """

    def __init__(self, steps: Sequence[float] = STEPS, rank: int = 8, passes: int = 3) -> None:
        self._steps, self._rank, self._passes = tuple(steps), rank, passes

    def __call__(
        self, base: TaskModel, task: Task, layers: Sequence[Layer], probes: Probes
    ) -> Saliency:
        """Score every layer."""
        began = time.perf_counter()
        adapt = probes.adapt or probes.fail
        graded = [BankSpec(layer, rank=self._rank) for layer in layers]
        bare = [BankSpec(layer) for layer in layers]
        fails = memory_banks(base, task, probes.fail, graded)
        adapts = memory_banks(base, task, adapt, bare)
        passes = memory_banks(base, task, probes.passing, bare)
        draws = torch.Generator().manual_seed(0)
        shape = (len(probes.fail), self._passes)
        held = torch.randint(len(probes.passing), shape, generator=draws)  # (N_fail, n)
        scores = []
        suffix_passes = 0.0
        for layer, fail, reworded, passing in zip(layers, fails, adapts, passes, strict=True):
            trials = [
                self._trial(base, task, (fail, reworded, passing), held, step)
                for step in self._steps
            ]
            best = max(range(len(trials)), key=lambda i: trials[i][0] - trials[i][1])
            mended, kl = trials[best]
            details = {"step": self._steps[best], "mended": mended, "locality_kl": kl}
            scores.append(LayerScore(layer.index, mended - kl, details))
            rows = len(probes.fail) * (2 + self._passes) * len(self._steps)
            suffix_passes += rows * (base.n_blocks - layer.index) / base.n_blocks
        whole = len(probes.fail) + len(adapt) + len(probes.passing)
        return Saliency(
            "trial-step", tuple(scores), whole + suffix_passes, float(len(probes.fail)),
            time.perf_counter() - began,
        )  # fmt: skip

    @torch.no_grad()
    def _trial(
        self,
        base: TaskModel,
        task: Task,
        banks: tuple[Bank, Bank, Bank],
        held: Tensor,
        step: float,
    ) -> tuple[float, float]:
        """Share of failures and rewordings mended, and mean KL, at one step size."""
        fail, reworded, passing = banks
        mended, kl = [], []
        for index in torch.split(torch.arange(len(fail)), _EDITS):
            other = index % len(reworded)
            rows = join(
                [fail.rows(index), reworded.rows(other), passing.rows(held[index].flatten())],
                len(index),
                [1, 1, held.shape[1]],
            )
            edits = normalized_steps(fail, index, step)
            logits = run_edits(base, fail.entry, rows, edits)  # (E, 2 + n, C)
            targets = torch.stack([fail.targets[index], reworded.targets[other]], 1)
            mended.append(task.correct(logits[:, :2], targets).float())
            kl.append(locality_kl(passing.logits[held[index]], logits[:, 2:]))
        return float(torch.cat(mended).mean()), float(torch.cat(kl).mean())


def normalized_steps(bank: Bank, index: Tensor, step: float) -> Edits:
    """Each failure's own step down its gradient, of one Frobenius norm over all sites.

    Args:
        bank: failures with gradient factors.
        index: (E,) positions.
        step: the norm.

    Returns:
        Edits with batch shape (E,).
    """
    pairs = bank.factors(index)
    norm = torch.stack([pair.norm() ** 2 for pair in pairs]).sum(0).sqrt()  # (E,)
    scale = (-step / norm.clamp_min(1e-12))[:, None, None]
    return Edits(
        {
            site: LowRank(pair.u, pair.v * scale)
            for site, pair in zip(bank.layer.sites, pairs, strict=True)
        }
    )
