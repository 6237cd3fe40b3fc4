"""A Lagrange multiplier in place of a fixed weight of locality."""

from __future__ import annotations

import torch
from torch import Tensor, nn

ANNEAL = 0.8
LEARNING_RATE = 0.1


class Multiplier(nn.Module):
    """The weight c_loc of KL(base || edited), learned so that the KL stays within a margin.

    The loss is minimised in the editor and maximised in the weight:

        c_edit NLL + weight (KL - margin),    weight >= 0,

    so that the weight grows while the KL is above the margin and falls while it is below. The
    margin is multiplied by 0.8 after each validation that kept it, down to ``least``. Source: De
    Cao et al., EMNLP 2021, section 4.1. Learning rate and factor are those of its code; that
    keeping the margin is what tightens it is ours.

    Args:
        start: first weight.
        margin: nats, above 0.
        least: smallest margin.
    """

    margin: Tensor

    def __init__(self, start: float, margin: float, least: float = 0.0) -> None:
        super().__init__()
        self._least = min(least, margin)
        self.weight = nn.Parameter(torch.tensor(float(start)))
        self.register_buffer("margin", torch.tensor(float(margin)))

    def forward(self, damage: Tensor) -> Tensor:
        """What locality adds to the loss."""
        return self.weight * (damage - self.margin)

    @torch.no_grad()
    def project(self) -> None:
        """Back to weights that are not negative, after a step."""
        self.weight.clamp_(min=0)

    @torch.no_grad()
    def anneal(self, kl: float) -> None:
        """Tighten the margin where a validation's mean KL has kept it."""
        if kl <= self.margin:
            self.margin.mul_(ANNEAL).clamp_(min=self._least)
