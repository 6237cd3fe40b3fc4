"""From values at scored positions, one after another, back to one value a sample."""

from __future__ import annotations

import torch
from torch import Tensor

from saledit.tasks.prompts import IGNORED


def least_by_sample(values: Tensor, targets: Tensor) -> Tensor:
    """Minima (...) of values (P,) over each sample's positions, targets (..., A)."""
    placed = values.new_full(targets.shape, torch.inf).masked_scatter(targets != IGNORED, values)
    return placed.amin(-1)


def mean_by_sample(values: Tensor, targets: Tensor) -> Tensor:
    """Means (...) of values (P,) over each sample's positions, targets (..., A)."""
    real = targets != IGNORED
    placed = values.new_zeros(targets.shape).masked_scatter(real, values)
    return placed.sum(-1) / real.sum(-1).clamp_min(1)


def all_by_sample(values: Tensor, targets: Tensor) -> Tensor:
    """Whether values (P,) hold at all of each sample's positions: bool (...)."""
    real = targets != IGNORED
    return torch.ones_like(real).masked_scatter(real, values).all(-1)
