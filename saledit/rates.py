"""Adam for an editor's training: which parameters learn at which rate, and how rates fall."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from saledit.config import TrainConfig
from saledit.losses import LEARNING_RATE, Multiplier

_LEAST = 0.02  # of a first rate


def adam(
    editor: nn.Module, multiplier: Multiplier | None, train: TrainConfig, fused: bool
) -> tuple[torch.optim.Adam, list[bool]]:
    """Adam in groups: the network, the edit rates (faster), a multiplier (that rises).

    Args:
        editor: is trained.
        multiplier: the weight of its locality, where that is learned.
        train: the rates.
        fused: one pass over the weights instead of a dozen.

    Returns:
        The optimizer, and which of its groups' rates may fall: a multiplier has to follow its
        margin, which is tightened to the end.
    """
    rates = [p for name, p in editor.named_parameters() if name.endswith("log_rate")]
    others = [p for name, p in editor.named_parameters() if not name.endswith("log_rate")]
    groups: list[dict[str, Any]] = [
        {"params": others, "lr": train.learning_rate},
        {"params": rates, "lr": train.rate_learning_rate},
    ]
    may_fall = [True, True]
    if multiplier:
        groups.append({"params": [multiplier.weight], "lr": LEARNING_RATE, "maximize": True})
        may_fall.append(False)
    return torch.optim.Adam(groups, fused=fused), may_fall


def falling(
    optimizer: torch.optim.Optimizer, may_fall: list[bool], train: TrainConfig, steps: int,
    seconds: Callable[[], float],
) -> LambdaLR:  # fmt: skip
    """Rates that fall on a line with what is used up of the steps, or of the time.

    Args:
        optimizer: its groups.
        may_fall: which of them.
        train: how long training may take.
        steps: of the optimizer, in all of it.
        seconds: how long training has taken.
    """

    def share(step: int) -> float:
        used = step / steps
        if train.seconds:
            used = max(used, seconds() / train.seconds)
        return max(_LEAST, 1 - used)

    return LambdaLR(optimizer, [share if falls else _one for falls in may_fall])


def _one(_step: int) -> float:
    return 1.0
