"""MEMoE: experts beside the frozen site, routed by what a row is about."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from saledit.delta import Edits
from saledit.delta.routed import Mixture, Routed
from saledit.editors.base import Editor
from saledit.editors.descent import Descent
from saledit.editors.request import Request
from saledit.errors import ConfigError
from saledit.site import Site


class MixtureOfExperts(Editor):
    """A mixture of low-rank experts beside each site, fitted to an edit's failures (``Descent``).

    The site stays as it is; what is added at a position is ``Routed``: the experts that the gate
    chooses by the site's input and the row's anchor. All of it, gate and experts, is fitted to each
    edit's own failures, from experts that add nothing (v = 0) and a random gate. Edits pile up
    as mixtures beside each other.

    Source: Wang and Li, 2024 (MEMoE, arXiv 2405.19086). What is else: experts of low rank in the
    place of whole matrices, beside each matrix of the layer in the place of the whole MLP; the
    softmax and the noise (see ``Routed``); the anchor (see ``saledit.delta.anchor``); and the KL on
    pass samples, which keeps the rest of the model where no expert is far from any row. With
    ``top_k = 1`` the one expert's weight is always 1, and the gate stays as it begins.

    Args:
        sites: the sites to edit.
        embedding_size: of the model's embeddings.
        experts: experts of a mixture.
        top_k: experts that act at a position.
        rank: rank of an expert.
        steps: steps at most.
        rate: learning rate of Adam.
        kl: weight of the KL.
        enough: mean loss in nats at which an edit ends.
    """

    needs_anchor = True
    needs_calibration = False  # an edit takes the steps that it needs
    is_trained = False
    needs_gradients = False
    looks_by_itself = True

    def __init__(
        self, sites: Sequence[Site], embedding_size: int, experts: int = 8, top_k: int = 2,
        rank: int = 2, steps: int = 50, rate: float = 1e-3, kl: float = 30.0, enough: float = 0.3,
    ) -> None:  # fmt: skip
        super().__init__(sites)
        self.needs_held = kl > 0
        self._mixture, self._anchor_size = Mixture(experts, rank, top_k), embedding_size
        self._steps, self._kl, self._enough = steps, kl, enough
        self._rate = rate

    def forward(self, request: Request) -> Edits:
        """Edits (E,) after as many steps as each needs."""
        descent = Descent(self._steps, self._rate, self._kl, self._enough)
        return descent(request, self._start(request), self._edits)

    def _start(self, request: Request) -> list[Tensor]:
        """Gate, u and v of each site, (E, ...) each."""
        like, n = request.gradients[0].u, request.n_edits
        experts, rank, _ = self._mixture
        # The same start for every edit, whatever stands beside it.
        draws = torch.Generator().manual_seed(0)

        def drawn(rows: int, size: int) -> Tensor:
            value = torch.randn(1, rows, size, generator=draws) / math.sqrt(size)
            return value.to(like).expand(n, -1, -1).clone()

        values = []
        for site in self.sites:
            values.append(drawn(experts, site.d_in + self._anchor_size))
            values.append(drawn(experts * rank, site.d_in))
            values.append(like.new_zeros(n, experts * rank, site.d_out))
        return values

    def _edits(self, values: Sequence[Tensor]) -> Edits:
        parts = zip(values[::3], values[1::3], values[2::3], strict=True)
        return Edits(
            {
                site: Routed((self._mixture,), *own)
                for site, own in zip(self.sites, parts, strict=True)
            }
        )

    @classmethod
    def check(cls, settings: dict[str, object]) -> None:
        """Refuse numbers that make no mixture or no step.

        Raises:
            ConfigError: a number out of its range.
        """
        least = {"experts": 1, "top_k": 1, "rank": 1, "steps": 1, "kl": 0, "enough": 0}
        for name, low in least.items():
            value = float(str(settings[name]))
            if not (low <= value < math.inf):
                raise ConfigError(
                    f"editor.memoe.{name}: expected at least {low}, got {value:g}; "
                    f"e.g. {max(low, 1)}"
                )
        if not 0 < float(str(settings["rate"])) < math.inf:
            raise ConfigError(
                f"editor.memoe.rate: expected above 0, got {settings['rate']}; e.g. 1e-3"
            )
        experts, top_k = int(str(settings["experts"])), int(str(settings["top_k"]))
        if top_k > experts:
            raise ConfigError(
                f"editor.memoe.top_k: expected at most editor.memoe.experts ({experts}), got "
                f"{top_k}; lower it, or raise experts"
            )
