"""MEND's editor; with one layer, picked by saliency, it is SaLEM's.

Source: Mitchell et al., Fast Model Editing at Scale, ICLR 2022 (MEND); Mishra et al.,
Findings of EACL 2024 (SaLEM: one layer, gradients of a batch aggregated).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from saledit.delta import Edits, LowRank
from saledit.editors.base import Editor
from saledit.editors.hypernet import Hypernet
from saledit.editors.interference import decouple
from saledit.moments import Normalizer, whitener
from saledit.site import Site


class Mend(Editor):
    """Transforms each term (u, g) of the gradient and sums the transformed terms.

    With z the normalised [W u; g] and [u~; g~] = hypernet(z) the delta of a site is

        dW = - rate / sqrt(D_in D_out) * sum over terms of g~ u~^T.

    The minus sign is the editor's: g points up the loss, and at the identity start the
    delta is a step *down* the normalised gradient. (MEND's published code adds a
    positive rate times the raw gradient factors and has to learn the sign.) ``rate`` is
    learned per site as exp(log_rate), so it stays positive. W is the identity, or with
    ``whiten`` > 0 the regularised inverse second moment of the site's inputs, which
    makes the step local from the start. Terms of one edit are kept out of each other's way
    by ``decouple``.

    Args:
        sites: the sites to edit; those of equal shape share a hypernetwork.
        rank: rank of the hypernetwork's blocks.
        n_blocks: number of blocks.
        style: ``bottleneck`` or ``published``, see ``Block``.
        whiten: relative ridge of the whitening; 0 turns it off.
        decouple: strength of the solve between the terms of an edit, in [0, 1]; 0 for none
            (as published: a plain sum).
        rate: first edit rate, about the Frobenius norm of a one-term delta.
    """

    def __init__(
        self,
        sites: Sequence[Site],
        rank: int = 256,
        n_blocks: int = 2,
        style: str = "bottleneck",
        whiten: float = 0.1,
        decouple: float = 0.5,
        rate: float = 0.5,
    ) -> None:
        super().__init__(sites)
        self.needs_moments = whiten > 0
        self._ridge = whiten
        self._decouple = decouple
        shapes = [(site.d_in, site.d_out) for site in self.sites]
        self._shared = [f"{d_in}x{d_out}" for d_in, d_out in shapes]
        # Position of each site among the sites that share its hypernetwork.
        self._place = [self._shared[:i].count(key) for i, key in enumerate(self._shared)]
        self.nets = nn.ModuleDict(
            {
                key: Hypernet(sum(shape), rank, n_blocks, self._shared.count(key), style)
                for key, shape in dict(zip(self._shared, shapes, strict=True)).items()
            }
        )
        self.normalizers = nn.ModuleList(Normalizer(sum(shape)) for shape in shapes)
        self.log_rate = nn.Parameter(torch.full((len(shapes),), math.log(rate)))
        for i, (d_in, _) in enumerate(shapes):
            self.register_buffer(f"whitener_{i}", torch.eye(d_in) if self.needs_moments else None)

    def forward(self, gradients: Sequence[LowRank]) -> Edits:
        """Edits (E,) from gradients (E, R, .); in training the normaliser learns too."""
        deltas = {}
        for i, (site, pair) in enumerate(zip(self.sites, gradients, strict=True)):
            z, real = self._terms(i, pair)
            if self.training:
                self._normalizer(i).update(z.detach()[real])
            out = self.nets[self._shared[i]](self.normalizers[i](z), self._place[i])
            u, g = out.split([site.d_in, site.d_out], -1)
            rate = self.log_rate[i].exp() / math.sqrt(site.d_in * site.d_out)
            delta = LowRank(u, g * (-rate * real.unsqueeze(-1)))
            deltas[site] = decouple(delta, pair.u * real.unsqueeze(-1), self._decouple)
        return Edits(deltas)

    def _normalizer(self, i: int) -> Normalizer:
        found = self.normalizers[i]
        assert isinstance(found, Normalizer)
        return found

    def _terms(self, i: int, pair: LowRank) -> tuple[Tensor, Tensor]:
        """Terms z (E, R, D) and which of them are real, not padding: bool (E, R)."""
        real = (pair.v != 0).any(-1)
        matrix = getattr(self, f"whitener_{i}")
        u = pair.u if matrix is None else pair.u @ matrix
        return torch.cat([u, pair.v], -1), real

    @torch.no_grad()
    def prime(self, gradients: Sequence[LowRank], moments: Sequence[Tensor] | None) -> None:
        """Compute the whitening and take the first statistics."""
        for i, pair in enumerate(gradients):
            if moments is not None and self.needs_moments:
                getattr(self, f"whitener_{i}").copy_(whitener(moments[i], self._ridge))
            z, real = self._terms(i, pair)
            self._normalizer(i).update(z[real])

    @torch.no_grad()
    def scale_rate(self, factor: float) -> None:
        """Multiply every rate."""
        self.log_rate.add_(math.log(factor))
