"""The two losses of an editor: make the failures right, leave the rest alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from saledit.errors import ConfigError, did_you_mean

_ROUND = 1e-4  # nats; about what bfloat16 makes of no edit at all (docs/tasks.md)
ANNEAL = 0.8  # factor of a multiplier's margin (De Cao et al.)
LEARNING_RATE = 0.1  # of a multiplier's weight
_CHUNK = 1 << 20  # logits taken at a time, so that what is made of them stays in a core's cache


def locality_kl(base: Tensor, edited: Tensor) -> Tensor:
    """KL(base || edited) of each row, in nats.

    Source: MEND (Mitchell et al., ICLR 2022), L_loc. Taken between log-softmaxes, so
    that it stays finite where a probability underflows.

    Args:
        base: logits without edits (..., C); no gradient reaches them.
        edited: logits with edits (..., C).

    Returns:
        (...), non-negative, 0 where the distributions are equal.

    Example:
        >>> base = torch.tensor([[0.0, 0.0], [0.0, 0.0]])
        >>> edited = torch.tensor([[1.0, 1.0], [0.0, 2.0]])  # a shift of all logits changes nothing
        >>> [round(float(kl), 4) for kl in locality_kl(base, edited)]
        [0.0, 0.4338]
    """
    size = edited.shape[-1]
    rows = (base.reshape(-1, size), edited.reshape(-1, size))
    divergence: Tensor = _Divergence.apply(*rows)  # type: ignore[no-untyped-call]
    return divergence.view(edited.shape[:-1])


def reverse_kl(base: Tensor, edited: Tensor) -> Tensor:
    """KL(edited || base) of each row, in nats, as the search of ROME's values counts it.

    Source: Meng et al., NeurIPS 2022 (ROME), equation 4.

    Args:
        base: logits without edits (..., C); no gradient reaches them.
        edited: logits with edits (..., C).
    """
    before, after = base.detach().log_softmax(-1), edited.to(base.dtype).log_softmax(-1)
    return (after.exp() * (after - before)).sum(-1)


def root_kl(kl: Tensor) -> Tensor:
    """sqrt(KL + e) - sqrt(e), with e = 1e-4 nats: what grows as probabilities move, not its square.

    By Pinsker's inequality the probability of any event moves by sqrt(KL / 2) at most, and which
    of two words that are about equally likely comes first turns with that. The mean of KL
    itself is ruled by a few rows: of SmolLM2's the hundredth has 200 times the median, and
    training on it lets all others move. Below e it is linear, so that its slope stays finite.
    """
    return (kl + _ROUND).sqrt() - math.sqrt(_ROUND)


#: What locality counts of each pass row's KL.
PENALTIES: dict[str, Callable[[Tensor], Tensor]] = {"kl": lambda kl: kl, "root-kl": root_kl}


def penalty(name: str) -> Callable[[Tensor], Tensor]:
    """What locality counts of the KL of pass rows.

    Raises:
        ConfigError: no such penalty.
    """
    if name not in PENALTIES:
        raise ConfigError(f"loss.penalty: unknown name '{name}'; {did_you_mean(name, PENALTIES)}")
    return PENALTIES[name]


class _Divergence(torch.autograd.Function):
    """KL of logits (P, C) and its gradient, softmax(edited) - softmax(base), in one pass.

    Over a vocabulary each of the dozen tensors of the same made by autograd is larger than all
    else in a training step, and writing them takes longer than the head's products.
    """

    @staticmethod
    def forward(ctx: Any, base: Tensor, edited: Tensor) -> Tensor:
        out = edited.new_empty(len(edited))
        slope = torch.empty_like(edited) if ctx.needs_input_grad[1] else None
        size = max(1, _CHUNK // max(1, edited.shape[1]))
        for start in range(0, len(edited), size):
            part = slice(start, start + size)
            before, after = base[part].log_softmax(-1), edited[part].log_softmax(-1)
            p = before.exp()
            out[part] = p.mul(before.sub_(after)).sum(-1)
            if slope is not None:
                torch.sub(after.exp_(), p, out=slope[part])
        ctx.save_for_backward(slope)
        return out.clamp_min_(0)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[None, Tensor]:
        (slope,) = ctx.saved_tensors
        return None, slope * upstream[:, None]


def mean_of(values: Tensor) -> Tensor:
    """Mean of values (...); 0 where there is none."""
    return values.mean() if values.numel() else values.sum()


def weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """Mean of values (...) under weights (...); 0 where all weights are 0."""
    return (values * weights).sum() / weights.sum().clamp_min(1e-12)


def with_slopes(loss: Tensor, tensors: Sequence[Tensor], slopes: Sequence[Tensor]) -> Tensor:
    """A loss () whose slopes in some tensors are known already, each of its tensor's shape."""
    sloped: Tensor = _Sloped.apply(loss, *tensors, *slopes)  # type: ignore[no-untyped-call]
    return sloped


def in_parts(
    losses: Iterable[Tensor], leaves: Sequence[Tensor], tensors: Sequence[Tensor], scale: float
) -> Tensor:
    """A sum of losses, of which the graph of one at a time is in memory.

    Args:
        losses: (), made one after another of the leaves.
        leaves: what they are made of.
        tensors: what the leaves were copied from, into which slopes go back.
        scale: what a loss is multiplied with before it goes back.
    """
    slopes = [torch.zeros_like(leaf) for leaf in leaves]
    total = torch.zeros((), device=leaves[0].device)
    for loss in losses:
        # Not by ``backward``: what it leaves in ``grad`` is cleared before a step's own pass.
        found = torch.autograd.grad(loss * scale, leaves, allow_unused=True)
        for slope, own in zip(slopes, found, strict=True):
            if own is not None:
                slope += own / scale
        total = total + loss.detach()
    return with_slopes(total, tensors, slopes)


class _Sloped(torch.autograd.Function):
    """A loss whose slopes in some tensors are known already."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, *tensors: Tensor) -> Tensor:
        """The loss; behind it n tensors and their n slopes."""
        ctx.save_for_backward(*tensors[len(tensors) // 2 :])
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """The slopes, as often as the loss is asked for."""
        slopes = ctx.saved_tensors
        return (None, *(gradients[0] * slope for slope in slopes), *(None for _ in slopes))


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
