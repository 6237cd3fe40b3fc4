"""The plainest editor: one step down the gradient, as long as it may be."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from saledit.delta import Edits, LowRank
from saledit.editors.base import Editor
from saledit.editors.request import Request
from saledit.moments import whitened, whitener
from saledit.site import Site

_LADDER = tuple(2.0**i for i in range(-10, 8))  # norms of 0.001 to 128
_HALVINGS = 3  # of the rung in which a length ends: known to 2^(1/8)


class Step(Editor):
    """One step along the normalised gradient of an edit's failures; nothing is learned.

    With the aggregated gradient G (``aggregate``: of Polyak steps) of all sites together,

        dW = - s G W / |G W|,

    where W is the identity, or with ``whiten`` > 0 the regularised inverse second moment of
    the site's inputs. s is the shortest length that brings the mean loss of the edit's failures
    to ``enough``, or where that would cost more than ``bound``, the longest that does not; the
    cost is KL(base || edited) on held pass samples. Lengths are doubled from a thousandth
    until one is either, then halved in between (both in the logarithm). A failure that the
    shortest step is too dear for is left alone. What a learned editor does not do better it
    has not learned.

    Args:
        sites: the sites to edit.
        whiten: relative ridge of the whitening; 0 turns it off.
        bound: mean KL in nats that a step may cost.
        enough: mean loss in nats at which failures count as mended.
    """

    needs_held = True
    needs_calibration = False
    is_trained = False

    def __init__(
        self, sites: Sequence[Site], whiten: float = 0.1, bound: float = 0.02, enough: float = 0.3
    ) -> None:
        super().__init__(sites)
        self.needs_moments = whiten > 0
        self._ridge, self._bound, self._enough = whiten, bound, enough
        for i, site in enumerate(self.sites):
            matrix = torch.eye(site.d_in) if self.needs_moments else None
            self.register_buffer(f"whitener_{i}", matrix)

    @torch.no_grad()
    def forward(self, request: Request) -> Edits:
        """Edits (E,), each at its own length."""
        unit = self._direction(request.gradients)
        # Each edit's length lies between `low`, which it can afford, and `high`, which either
        # mends (`mends`) or is too dear.
        low = request.gradients[0].u.new_zeros(request.n_edits)
        high, mends = torch.full_like(low, torch.inf), torch.zeros_like(low, dtype=torch.bool)
        for rung in (*_LADDER, *[None] * _HALVINGS):
            if rung is None:
                length = torch.where(high.isfinite(), (low * high).sqrt(), low)
                open_ = (low > 0) & high.isfinite()
            else:
                length, open_ = torch.full_like(low, rung), high.isinf()
            open_ = request.broadcast(open_)
            if not open_.any():
                continue
            tried = unit * length
            affordable = request.damage(tried) <= self._bound  # also refuses NaN
            enough = affordable & (request.losses(tried) <= self._enough)
            ends = open_ & (enough | ~affordable)
            low = torch.where(open_ & ~ends, length, low)
            high, mends = torch.where(ends, length, high), torch.where(ends, enough, mends)
        return unit * torch.where(mends, high, low)

    def _direction(self, gradients: Sequence[LowRank]) -> Edits:
        """Down the gradient, of norm 1 over all sites; zero where there is none."""
        deltas = {}
        for i, (site, pair) in enumerate(zip(self.sites, gradients, strict=True)):
            deltas[site] = LowRank(whitened(pair.u, getattr(self, f"whitener_{i}")), -pair.v)
        edits = Edits(deltas)
        norm = edits.norm()
        return edits * (1 / torch.where(norm > 0, norm, 1.0))

    @torch.no_grad()
    def prime(self, gradients: Sequence[LowRank], moments: Sequence[Tensor] | None) -> None:
        """Compute the whitening."""
        if moments is not None and self.needs_moments:
            for i, moment in enumerate(moments):
                getattr(self, f"whitener_{i}").copy_(whitener(moment, self._ridge))
