"""SaLEM's saliency: how large the gradient of the samples' loss is in each layer.

Source: Mishra et al., Findings of EACL 2024, and the authors' article
(https://www.amazon.science/blog/updating-large-language-models-by-directly-editing-network-layers):
per-sample loss against the target, gradients averaged over each layer and over all
samples of pass, fail and adapt, the layer with the highest average is edited. The
article does not say whether the average is signed; a signed one cancels, so
``mean_abs`` (mean over weights of the absolute value of the mean gradient) is our
reading of it. ``frobenius`` is the mean over samples of the Frobenius norm of each
sample's own gradient, which needs no weight gradient at all:
|sum_t g_t u_t^T|^2 = sum_ts (g_t . g_s)(u_t . u_s).
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import torch
from torch import Tensor

from saledit.config import SiteConfig
from saledit.delta import LowRank
from saledit.forward.scoring import forward
from saledit.models import TaskModel
from saledit.records import Sample
from saledit.saliency.base import LayerScore, Probes, Saliency, check_name
from saledit.site import Layer, Site
from saledit.tap import tap
from saledit.tasks.base import Task
from saledit.tasks.batching import batches_by_length
from saledit.widths import wide

SCORES = ("mean_abs", "frobenius")


class GradientSaliency:
    """Scores all layers in one pass of forward and backward.

    Args:
        score: ``mean_abs`` or ``frobenius``. Beside the first the second is shown, not the other
            way round: it is chosen where a sum the size of the weights is too much.
        per_parameter: divide by the Frobenius norm of the layer's weights.
        batch_tokens: padded tokens a batch; 0 for the model's own.
    """

    def __init__(
        self, score: str = "mean_abs", per_parameter: bool = False, batch_tokens: int = 0
    ) -> None:
        assert score in SCORES, score
        self._score, self._per_parameter, self._batch_tokens = score, per_parameter, batch_tokens

    @classmethod
    def of(cls, config: SiteConfig, dtype: torch.dtype | None = None) -> GradientSaliency:
        """See ``Picker.of``; gradients are never cast."""
        check_name("site.score", config.score, SCORES)
        return cls(config.score, config.per_parameter)

    def readable(self, passing: Sequence[Sample]) -> Sequence[Sample]:
        """All of them, see ``Picker.readable``."""
        return passing

    def __call__(
        self, base: TaskModel, task: Task, layers: Sequence[Layer], probes: Probes
    ) -> Saliency:
        """Score every layer over pass, fail and adapt together."""
        began = time.perf_counter()
        samples = [*probes.passing, *probes.fail, *probes.adapt]
        scores: list[LayerScore] = []
        passes = 0.0
        for some in base.groups(layers):
            scores += self._of(base, task, some, samples)
            passes += len(samples)
        method = f"gradient, {self._score}" + (" / parameter norm" if self._per_parameter else "")
        return Saliency(method, tuple(scores), passes, passes, time.perf_counter() - began)

    def _of(
        self, base: TaskModel, task: Task, layers: Sequence[Layer], samples: Sequence[Sample]
    ) -> list[LayerScore]:
        """Scores of layers from one pass over samples."""
        sites = [site for layer in layers for site in layer.sites]
        norms = {layer.index: 0.0 for layer in layers}
        sums: dict[Site, Tensor] = {}
        tokens = self._batch_tokens or base.pass_tokens
        for batch in batches_by_length(task, base, samples, tokens):
            seen = batch.encoded
            with tap(base.model, sites, len(batch.index)) as tape, base.thrifty():
                with torch.enable_grad():
                    outputs = forward(base, seen.inputs, seen.at)
                    logits = task.logits(base, outputs, seen.targets)
                    loss = task.losses(base, logits, seen.targets).sum()
                factors = tape.factors(loss)
            squares: dict[Site, Tensor] = {}
            for site, factor in factors.items():
                # Squares of half precision overflow, and so do sums over a matrix.
                pair = LowRank(wide(factor.u), wide(factor.v))
                squares[site] = pair.norm().square()  # (B,)
                if self._score == "mean_abs":  # the other needs no weight gradient
                    _accumulate(sums, site, pair)
            for layer in layers:  # of each sample's gradient over all matrices of the layer
                own = torch.stack([squares[site] for site in layer.sites]).sum(0)
                norms[layer.index] += float(own.sqrt().sum())
        scores = []
        for layer in layers:
            values = {"frobenius": norms[layer.index] / len(samples)}
            if sums:
                total = sum(float(sums[s].abs().sum()) for s in layer.sites)
                values = {"mean_abs": total / layer.n_parameters / len(samples)} | values
            size = _weight_norm(base, layer)
            score = values[self._score] / (size if self._per_parameter else 1.0)
            scores.append(LayerScore(layer.index, score, {**values, "weight_norm": size}))
        return scores


def _accumulate(sums: dict[Site, Tensor], site: Site, pair: LowRank) -> None:
    """Add the batch's gradient g^T u, one matrix product a site, into one running sum."""
    g, u = pair.v.flatten(0, 1), pair.u.flatten(0, 1)  # (N, D_out), (N, D_in)
    if site in sums:
        sums[site].addmm_(g.mT, u)
    else:
        sums[site] = g.mT @ u


def _weight_norm(base: TaskModel, layer: Layer) -> float:
    squares = 0.0
    for site in layer.sites:
        squares += float(base.weight(f"{site.name}.weight").float().norm() ** 2)
    return math.sqrt(squares)
