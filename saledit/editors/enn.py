"""Editable neural networks: the site's weights are trained so that a few plain steps edit them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from saledit.delta import Delta, Dense, Edits
from saledit.editors.base import Editor
from saledit.editors.request import Request
from saledit.site import Site


class EditableNetwork(Editor):
    """Gradient descent from weights that were meta-trained to be edited by it.

    What is learned is a change D of the site's weights that stays (``resident``), and the
    step length a of each site. An edit is n steps from it,

        D_0 = D,   D_{i+1} = D_i - a dL(W + D_i) / dW,

    where L is the mean loss of the edit's failures. Training minimises the usual losses of the
    model with D_n (``EditModule``): its KL is from the base as it was. The paper's L_base, of the
    model with D alone, is left out: what D does before any edit is held by that KL only as far as
    the steps leave it in place, and is judged with every edit.
    Source: Sinitsin et al., ICLR 2020, section 3, with the differentiable steps of its equation 3;
    Mitchell et al., ICLR 2022, appendix, for one learned length a site. The paper trains all
    weights and this those of the site: the rest stays as it is, whoever edits.

    Args:
        sites: the sites to edit.
        steps: gradient steps an edit.
        rate: length of a step before calibration.
        second_order: differentiate through the steps' gradients; without it they are taken for
            constants (as first-order MAML does), which takes less memory and time.
    """

    has_resident = True
    needs_gradients = False
    looks_by_itself = True  # each of its steps is from where the one before has led

    def __init__(
        self, sites: Sequence[Site], steps: int = 1, rate: float = 1e-2, second_order: bool = True
    ) -> None:
        super().__init__(sites)
        self._steps, self._second_order = steps, second_order
        self.changes = nn.ParameterList(
            [nn.Parameter(torch.zeros(site.d_out, site.d_in)) for site in self.sites]
        )
        self.log_rate = nn.Parameter(torch.full((len(self.sites),), math.log(rate)))

    @property
    def resident(self) -> Edits:
        """The meta-trained change."""
        return Edits({s: Dense(w) for s, w in zip(self.sites, self.changes, strict=True)})

    def forward(self, request: Request) -> Edits:
        """The steps (E,) that edits take away from the resident change."""
        learns = self.training and torch.is_grad_enabled()
        keeps = learns and self._second_order
        start = self.resident.expand(request.n_edits)
        start = start if keeps else start.detach()
        steps = Edits({})
        with torch.enable_grad():
            for _ in range(self._steps):
                at = self._leaves(start + steps, keeps)
                # The fused kernels of attention have no second derivatives.
                with sdpa_kernel(SDPBackend.MATH):
                    total = request.losses(at).sum()
                    gradients = torch.autograd.grad(
                        total, [delta.dense() for delta in at.values()], create_graph=keeps
                    )
                steps = steps + self._scaled(gradients)
        return steps if learns else steps.detach()

    def _leaves(self, edits: Edits, keeps: bool) -> Edits:
        """The same deltas, to be differentiated by."""
        deltas: dict[Site, Delta] = {}
        for site, delta in edits.items():
            w = delta.dense()
            deltas[site] = Dense(w if keeps else w.detach().requires_grad_())
        return Edits(deltas)

    def _scaled(self, gradients: Sequence[Tensor]) -> Edits:
        rates = self.log_rate.exp()
        pairs = zip(self.sites, gradients, rates, strict=True)
        return Edits({site: Dense(-rate * gradient) for site, gradient, rate in pairs})
