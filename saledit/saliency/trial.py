"""Trial-step saliency: which layer mends failures for the least damage, by trying.

At each layer every failure takes a few step sizes along its own normalised direction,
each step as a delta of its own in one batched suffix run, and what it mends (the
failure and its rewording) is held against what it disturbs (KL on pass samples). A
gradient says how steep a layer is at the start; a finite step says how far it goes.

The direction is the gradient with its inputs whitened, as an editor sees it: g (W u)^T
with W from the second moments of the site's inputs. Along the bare gradient g u^T a step
also goes along what all inputs have in common, which disturbs everything and hides what
a layer can do.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from saledit.cache.bank import Bank, BankSpec
from saledit.cache.opening import memory_banks
from saledit.config import SiteConfig
from saledit.delta import Edits, LowRank
from saledit.forward.rows import join, run_edits
from saledit.models import TaskModel
from saledit.moments import layers_at_once, whitener
from saledit.records import Sample
from saledit.saliency.base import LayerScore, Probes, Saliency
from saledit.site import Layer
from saledit.tasks.base import Task
from saledit.widths import wide_type

#: Frobenius norms of the trial steps, over all sites of a layer together.
STEPS = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0)
#: The same along whitened gradients, which point away from what inputs share and reach further.
WHITENED_STEPS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
_EDITS = 32  # edits a suffix run
_FIRST_ROUND = 6  # failures on which all layers of a deep model are tried
_FINALISTS = 6  # layers at least that are tried on all failures
#: A step that mends five failures of a hundred more says nothing about what training reaches.
_TOLERANCE = 0.05
_LOST = 1e3  # nats for a pass row whose logits are no numbers after a step: it is lost at any price


class TrialStep:
    """Score of a layer = max over steps of (share mended - share disturbed).

    Disturbed is the mean over pass rows of min(1, price x KL).

    A model of many layers is scored in two rounds: all layers on a few failures at every second
    step, the best of them on all failures about the step that was best. Only these may be picked.

    Both count from 0 to 1 a row: a pass row that is lost costs what a mended failure gains,
    however many nats it moved. (Without the bound one near twin of a failure decides.) A step too
    long for the numbers of the weights mends nothing and loses what it meets.

    Args:
        whiten: relative ridge of the whitening, see ``saledit.moments.whitener``; 0 for
            steps along the bare gradient.
        steps: norms to try; None for ``WHITENED_STEPS``, or ``STEPS`` without whitening.
        rank: terms kept of each failure's gradient.
        passes: pass samples that each edit is held against.
        price: what a nat of KL costs; None for what the task says, see docs/results/layers.md for
            how far that is shown.
        dtype: type that suffix runs are cast to (autocast); None for the weights' own.
    """

    def __init__(
        self, whiten: float = 0.1, steps: Sequence[float] | None = None, rank: int = 8,
        passes: int = 3, price: float | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:  # fmt: skip
        self._ridge = whiten
        self._steps = tuple(steps or (WHITENED_STEPS if whiten else STEPS))
        self._rank, self._passes, self._price, self._dtype = rank, passes, price, dtype

    @classmethod
    def of(cls, config: SiteConfig, dtype: torch.dtype | None = None) -> TrialStep:
        """See ``Picker.of``."""
        return cls(config.whiten, dtype=dtype)

    def readable(self, passing: Sequence[Sample]) -> Sequence[Sample]:
        """All of them, see ``Picker.readable``."""
        return passing

    def __call__(
        self, base: TaskModel, task: Task, layers: Sequence[Layer], probes: Probes
    ) -> Saliency:
        """Score every layer."""
        began = time.perf_counter()
        n = len(probes.fail)
        draws = torch.Generator().manual_seed(0)
        held = torch.randint(len(probes.passing), (n, self._passes), generator=draws)
        trials = [
            trial
            for some in base.groups(layers)
            for trial in self._trials(base, task, some, probes, held)
        ]
        everything, suffix_passes = torch.arange(n), 0.0

        def score(trial: _Trial, index: Tensor, steps: Sequence[float], final: bool) -> LayerScore:
            nonlocal suffix_passes
            rows = len(index) * (2 + self._passes) * len(steps)
            suffix_passes += rows * (base.n_blocks - trial.fail.layer.index) / base.n_blocks
            return self._score(base, task, trial, index, steps, final)

        finalists = {i: self._steps for i in range(len(trials))}
        scores: dict[int, LayerScore] = {}
        if len(trials) > _FINALISTS and n > _FIRST_ROUND:
            few = everything[:_FIRST_ROUND]
            scores = {i: score(trials[i], few, self._steps[::2], False) for i in finalists}
            order = sorted(scores, key=lambda i: scores[i].score, reverse=True)
            kept = order[: max(_FINALISTS, len(trials) // 4)]
            finalists = {i: self._near(scores[i].details["step"]) for i in kept}
        scores |= {i: score(trials[i], everything, finalists[i], True) for i in finalists}
        whole = n + len(probes.adapt or probes.fail) + len(probes.passing)
        rounds = sum(1 for _ in base.groups(layers))
        looks = sum(1 for some in base.groups(layers) for _ in layers_at_once(some))
        beside = looks * len(probes.background or probes.passing) if self._ridge else 0
        name = f"trial-step, whitened by {self._ridge:g}" if self._ridge else "trial-step"
        return Saliency(
            name, tuple(scores[i] for i in sorted(scores)),
            rounds * whole + beside + suffix_passes,
            float(rounds * n), time.perf_counter() - began, _TOLERANCE,
        )  # fmt: skip

    def _trials(
        self, base: TaskModel, task: Task, layers: Sequence[Layer], probes: Probes, held: Tensor
    ) -> list[_Trial]:
        """What is needed to try each layer, from one pass over each kind of sample."""
        graded = [BankSpec(layer, rank=self._rank) for layer in layers]
        bare = [BankSpec(layer) for layer in layers]
        fails = memory_banks(base, task, probes.fail, graded)
        adapts = memory_banks(base, task, probes.adapt or probes.fail, bare)
        passes = memory_banks(base, task, probes.passing, bare)
        background = probes.background or probes.passing
        pairs = [
            directions(fail, matrices)
            for fail, matrices in zip(
                fails, self._whiteners(base, task, layers, background), strict=True
            )
        ]
        return [
            _Trial(fail, adapt, passing, held, own)
            for fail, adapt, passing, own in zip(fails, adapts, passes, pairs, strict=True)
        ]

    def _near(self, step: float) -> tuple[float, ...]:
        """A step and those beside it."""
        i = self._steps.index(step)
        return self._steps[max(0, i - 1) : i + 2]

    def _score(
        self, base: TaskModel, task: Task, trial: _Trial, index: Tensor, steps: Sequence[float],
        final: bool,
    ) -> LayerScore:  # fmt: skip
        """The score of one layer on some of the failures, at the best of the steps."""
        seen = [self._trial(base, task, trial, index, step) for step in steps]
        price = task.kl_price if self._price is None else self._price
        gains = torch.stack(  # (steps, N)
            [mended - (price * kl).clamp(max=1).mean(1) for mended, kl in seen]
        )
        best = int(gains.mean(1).argmax())
        mended, kl = (float(values.mean()) for values in seen[best])
        error = float(gains[best].std(correction=0)) / math.sqrt(len(index))
        details = {"step": steps[best], "mended": mended, "locality_kl": kl}
        layer = trial.fail.layer.index
        return LayerScore(layer, float(gains[best].mean()), details, error, final)

    def _whiteners(
        self, base: TaskModel, task: Task, layers: Sequence[Layer], samples: Sequence[Sample]
    ) -> Iterator[list[Tensor] | None]:
        """A matrix (D_in, D_in) for each site of each layer, of one layer at a time.

        From one forward pass, or where their sums would not fit beside each other, from several.
        """
        if not self._ridge:
            yield from [None] * len(layers)
            return
        dtype = wide_type(base.model.dtype)
        for some in layers_at_once(layers):
            specs = [BankSpec(layer, moments=True) for layer in some]
            for bank in memory_banks(base, task, samples, specs):
                yield [whitener(moment, self._ridge).to(dtype) for moment in bank.moments()]

    def _cast(self, base: TaskModel) -> torch.autocast:
        return torch.autocast(base.device.type, self._dtype, self._dtype is not None)

    @torch.no_grad()
    def _trial(
        self, base: TaskModel, task: Task, trial: _Trial, chosen: Tensor, step: float
    ) -> tuple[Tensor, Tensor]:
        """Share mended of each failure and its rewording (N,), and KL of its pass rows (N, n)."""
        fail, reworded, passing = trial.fail, trial.adapt, trial.passing
        right: tuple[list[Tensor], list[Tensor]] = ([], [])
        kl = []
        for index in torch.split(chosen, _EDITS):
            other, held = index % len(reworded), trial.held[index]
            rows = join(
                [fail.rows(index), reworded.rows(other), passing.rows(held.flatten())],
                len(index),
                [1, 1, held.shape[1]],
            )
            edits = normalized_steps(fail.layer, [pair[index] for pair in trial.pairs], step)
            with self._cast(base):
                outputs = run_edits(base, fail.entry, rows, edits)  # (E, 2 + n, A, D)
            for column, bank, places in ((0, fail, index), (1, reworded, other)):
                targets = bank.targets_of(places)
                with self._cast(base):
                    logits = task.logits(base, _cut(bank, outputs[:, column], targets), targets)
                whole = task.losses(base, logits, targets).isfinite()
                right[column].append((task.correct(logits, targets) & whole).float())
            wanted = passing.targets_of(held)
            after = _cut(passing, outputs[:, 2:], wanted)
            with self._cast(base):
                both = task.logits_beside(base, passing.outputs(held), after, wanted)
            kl.append(task.divergence(*both, wanted))
        mended = torch.stack([torch.cat(part) for part in right]).mean(0)
        return mended, torch.cat(kl).nan_to_num(nan=_LOST, posinf=_LOST)


@dataclass(frozen=True, slots=True)
class _Trial:
    """What is needed to try one layer.

    Attributes:
        fail: failures (N), with gradient factors.
        adapt: a rewording of each.
        passing: pass samples.
        held: (N, n) the pass samples that each failure's step is held against.
        pairs: for each site the directions of the failures' steps.
    """

    fail: Bank
    adapt: Bank
    passing: Bank
    held: Tensor
    pairs: list[LowRank]


def _cut(bank: Bank, outputs: Tensor, targets: Tensor) -> Tensor:
    """Outputs (..., A, D) of as many positions as there are targets (..., A)."""
    if bank.answer_lengths is None:
        return outputs
    return outputs[..., : targets.shape[-1], :]


def directions(bank: Bank, whitening: Sequence[Tensor] | None) -> list[LowRank]:
    """The direction of each failure's step, before it is normalised and turned downhill.

    Args:
        bank: N failures with gradient factors.
        whitening: for each site a matrix (D_in, D_in); None for the bare gradient.

    Returns:
        For each site u (N, r, D_in), v (N, r, D_out).
    """
    pairs = bank.factors(torch.arange(len(bank)))
    if whitening is None:
        return pairs
    return [LowRank(pair.u @ w, pair.v) for pair, w in zip(pairs, whitening, strict=True)]


def normalized_steps(layer: Layer, pairs: Sequence[LowRank], step: float) -> Edits:
    """Steps down given directions, each of one Frobenius norm over all sites together.

    Args:
        layer: the layer.
        pairs: for each of its sites the directions of E steps.
        step: the norm.

    Returns:
        Edits with batch shape (E,).
    """
    norm = torch.stack([pair.norm() ** 2 for pair in pairs]).sum(0).sqrt()  # (E,)
    scale = (-step / norm.clamp_min(1e-12))[:, None, None]
    return Edits(
        {
            site: LowRank(pair.u, pair.v * scale)
            for site, pair in zip(layer.sites, pairs, strict=True)
        }
    )
