"""Routed deltas: low-rank changes whose terms depend on what the row is about.

Letters as in ``saledit.delta``, and here
    X experts       D_A size of an anchor       M mixtures
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from typing import NamedTuple, Never

import torch
from torch import Tensor

from saledit.delta.parts import Parts
from saledit.errors import UserError


class Mixture(NamedTuple):
    """Experts that share one softmax.

    Attributes:
        experts: how many.
        rank: terms of each.
        top_k: how many of them act at a position.
    """

    experts: int
    rank: int
    top_k: int


@dataclass(frozen=True, slots=True, eq=False)
class Routed(Parts):
    """A change by mixtures of low-rank experts, or E of them at once.

    At a position with input x whose row has the anchor a (``saledit.delta.anchor``) a mixture adds

        sum over experts e of G_e V_e^T U_e x,
        G = softmax over the top_k largest of the logits gate [x ; a], and 0 for all others.

    Several mixtures add up, each with a softmax of its own. The change of a position thus is no
    matrix: there is nothing to be merged into weights or cut to a lower rank.

    Source: Wang and Li, 2024 (MEMoE, arXiv 2405.19086), h = W_0 x + lambda sum_e G_e W_e x with
    G = top_k(softmax(W_g [x ; embed(anchor)] + noise)). Here the softmax is over those that are
    chosen (Shazeer et al., ICLR 2017, equations 3 and 5), so that the weights add up to 1 whatever
    top_k; W_e is of low rank, lambda is in V, and there is no noise: an edit is a value.

    Attributes:
        mixtures: the experts of each mixture, in order.
        gate: (..., X, D_in + D_A), the mixtures' rows below each other.
        u: (..., R, D_in) directions that the site's input is read along: the terms of each
            expert side by side, in the order of the experts.
        v: (..., R, D_out) directions that are added to its output.
    """

    mixtures: tuple[Mixture, ...]
    gate: Tensor
    u: Tensor
    v: Tensor

    def __post_init__(self) -> None:
        """Check that the parts belong together."""
        for mixture in self.mixtures:
            if not (1 <= mixture.top_k <= mixture.experts and mixture.rank >= 1):
                raise ValueError(f"Routed: expected 1 <= top_k <= experts, got {mixture}")
        experts = sum(mixture.experts for mixture in self.mixtures)
        terms = sum(mixture.experts * mixture.rank for mixture in self.mixtures)
        batch = self.v.shape[:-2]
        d_in, width = self.u.shape[-1], self.gate.shape[-1]
        wanted = ((*batch, experts, width), (*batch, terms, d_in), (*batch, terms))
        got = (self.gate.shape, self.u.shape, self.v.shape[:-1])
        if wanted != got or width <= d_in:
            raise ValueError(
                f"Routed: expected {experts} experts of {terms} terms, got gate "
                f"{tuple(self.gate.shape)}, u {tuple(self.u.shape)} and v {tuple(self.v.shape)}"
            )

    @property
    def anchor_size(self) -> int:
        """D_A."""
        return self.gate.shape[-1] - self.u.shape[-1]

    def __call__(self, x: Tensor, anchor: Tensor) -> Tensor:
        """Apply to inputs (..., N, D_in) with the anchors (..., N, D_A): (..., N, D_out)."""
        d_in = self.u.shape[-1]
        # In full precision: a rounding must not choose the expert (Fedus et al., JMLR 2022, 2.4).
        with torch.autocast(x.device.type, enabled=False):
            # [x ; a] without building it.
            about = anchor @ self.gate[..., d_in:].mT
            logits = x @ self.gate[..., :d_in].mT + about  # (..., N, X)
        return ((x @ self.u.mT) * self.weights(logits)) @ self.v

    def weights(self, logits: Tensor) -> Tensor:
        """What each term counts: (..., N, X) -> (..., N, R)."""
        return torch.cat(list(self._weights(logits)), -1)

    def _weights(self, logits: Tensor) -> Iterator[Tensor]:
        start = 0
        # Edits that pile up are alike: as many at once as stand beside each other.
        for mixture, alike in groupby(self.mixtures):
            n = len(list(alike))
            own = logits[..., start : start + n * mixture.experts]
            own = own.reshape(*own.shape[:-1], n, mixture.experts)
            best = own.topk(mixture.top_k, -1)
            shares = torch.zeros_like(own).scatter(-1, best.indices, best.values.softmax(-1))
            yield shares.flatten(-2).repeat_interleave(mixture.rank, -1)
            start += n * mixture.experts

    def __add__(self, other: Routed) -> Routed:
        """Both act together, each by its own routing."""
        return Routed(
            self.mixtures + other.mixtures,
            torch.cat([self.gate, other.gate], -2),
            torch.cat([self.u, other.u], -2),
            torch.cat([self.v, other.v], -2),
        )

    def __mul__(self, scale: float | Tensor) -> Routed:
        """Scale by a number, or by one number a delta of shape (E, 1, 1)."""
        return replace(self, v=self.v * scale)

    __rmul__ = __mul__

    def beside(self, u: Tensor, v: Tensor) -> Routed:
        """A low-rank delta, which acts whatever the anchor, in this form: a single expert."""
        gate = self.gate.new_zeros(*u.shape[:-2], 1, self.gate.shape[-1])
        return Routed((Mixture(1, u.shape[-2], 1),), gate, u, v)

    def dense(self) -> Never:
        """Refuse: the change is another matrix at every position."""
        raise UserError(
            "a routed edit (editor: memoe) is no matrix: it cannot be merged, written as LoRA or "
            "added to a dense change; keep it as a delta, for `with saledit.applied(...)`"
        )

    def compress(self, rank: int) -> Never:
        """Refuse: a cut would mix the experts."""
        raise UserError(
            f"a routed edit (editor: memoe) cannot be cut to rank {rank}: its terms belong to "
            "experts; lower editor.memoe.rank"
        )

    def norm(self) -> Never:
        """Refuse, as ``dense`` does."""
        raise UserError("a routed edit (editor: memoe) is no matrix: it has no norm")
