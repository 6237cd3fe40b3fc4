"""Metrics of editing, as torchmetrics: they reduce over processes and reset like any other."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


class Accuracy(Metric):
    """Share of answers that are right, under weights; NaN before the first update."""

    higher_is_better = True
    full_state_update = False
    right: Tensor
    total: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("right", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, correct: Tensor, weights: Tensor | None = None) -> None:
        """Count answers: bool (...), weights (...) or 1 each."""
        weights = torch.ones_like(correct, dtype=torch.float64) if weights is None else weights
        self.right += (correct * weights).sum().to(self.right.device)
        self.total += weights.sum().to(self.total.device)

    def compute(self) -> Tensor:
        """Right / total."""
        return self.right / self.total


class Drawdown(Metric):
    """Accuracy on pass samples before the edit minus after it; negative where it rose."""

    higher_is_better = False
    full_state_update = False
    before: Tensor
    after: Tensor
    total: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name in ("before", "after", "total"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, before: Tensor, after: Tensor) -> None:
        """Count pass samples: bool (...) right without and with the edit."""
        self.before += before.sum().to(self.before.device)
        self.after += after.sum().to(self.after.device)
        self.total += before.numel()

    def compute(self) -> Tensor:
        """(before - after) / total."""
        return (self.before - self.after) / self.total


class Mean(Metric):
    """Weighted mean of values, such as the locality KL in nats."""

    full_state_update = False
    value: Tensor
    total: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name in ("value", "total"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, values: Tensor, weights: Tensor | None = None) -> None:
        """Take in values (...), weighing 1 each or as given; what weighs nothing may be NaN."""
        weights = torch.ones_like(values) if weights is None else weights.to(values.device)
        values = torch.where(weights == 0, 0.0, values.double() * weights)
        self.value += values.sum().to(self.value.device)
        self.total += weights.sum().to(self.total.device)

    def count(self) -> float:
        """The sum of all weights, of all processes."""
        with self.sync_context():
            return float(self.total)

    def compute(self) -> Tensor:
        """The mean."""
        return self.value / self.total


def numbers_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """Results without what is no number, which no file holds: a broken model may give none.

    Example:
        >>> numbers_of({"right": 0.0, "kl": float("nan"), "generated": {"f1": float("inf")}})
        {'right': 0.0, 'generated': {}}
    """
    told: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            told[name] = numbers_of(value)
        elif not isinstance(value, float) or math.isfinite(value):
            told[name] = value
    return told
