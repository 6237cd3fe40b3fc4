"""The two losses of an editor: make the failures right, leave the rest alone."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def locality_kl(base: Tensor, edited: Tensor) -> Tensor:
    """KL(base || edited) of each row, in nats.

    Source: MEND (Mitchell et al., ICLR 2022), L_loc. Taken between log-softmaxes, so
    that it stays finite where a probability underflows.

    Args:
        base: logits without edits (..., C).
        edited: logits with edits (..., C).

    Returns:
        (...), non-negative, 0 where the distributions are equal.
    """
    divergence = F.kl_div(
        edited.log_softmax(-1), base.log_softmax(-1), log_target=True, reduction="none"
    )
    return divergence.sum(-1).clamp_min(0)


def weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """Mean of values (...) under weights (...); 0 where all weights are 0."""
    return (values * weights).sum() / weights.sum().clamp_min(1e-12)
