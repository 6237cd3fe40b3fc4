"""Counting what edits mended and broke."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection

from saledit.data.episodes import EditBatch
from saledit.judging.judged import Judged
from saledit.metrics import Accuracy, Drawdown, Mean
from saledit.tasks.prompts import IGNORED

_LOG_MOST = 690.0  # of perplexities, which stay below what a comparison can add up


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

    def update(self, batch: EditBatch, seen: Judged, spoken: bool = False) -> None:
        """Count one batch, by what is right after the right words or (``spoken``) by itself."""
        told = (seen.edit, seen.base, seen.passing)
        right, before, after = (heard.spoken if spoken else heard.right for heard in told)
        self.count_edits(right[:, : batch.n_fail], right[:, batch.n_fail :], batch.weights)
        self.count_passes(before, after, seen.locality)
        if seen.base.nll is not None and seen.passing.nll is not None:
            self.count_texts(seen.base.nll, seen.passing.nll, batch.pass_targets)

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

    def count_texts(self, before: Tensor, after: Tensor, targets: Tensor) -> None:
        """Count pass texts: mean negative log-likelihood (...) a token, of targets (..., A)."""
        tokens = (targets != IGNORED).sum(-1)
        for name, told in (("before", before), ("after", after)):
            self.nll[name].update(told, tokens)

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
