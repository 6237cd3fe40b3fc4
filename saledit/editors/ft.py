"""Fine-tuning of the site on an edit's failures, with its usual restraints."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from saledit.delta import Delta, Dense, Edits, LowRank
from saledit.editors.base import Editor
from saledit.editors.descent import Descent
from saledit.editors.request import Request
from saledit.errors import ConfigError
from saledit.site import Site


class FineTuning(Editor):
    """Adam on the change of the site's weights, edit by edit, from zero (``Descent``).

    - FT: a dense change, no restraint (De Cao et al., EMNLP 2021, section 5.1).
    - FT+KL (``kl`` > 0): Mitchell et al., ICLR 2022, appendix.
    - FT+L (``bound`` > 0): every weight within ``bound`` of its old value, by projection after
      each step (Zhu et al., 2020, arXiv 2012.00363, equation 5, L-infinity).
    - LoRA (``rank`` > 0): dW = v^T u, v from zero (Hu et al., ICLR 2022, section 4.1).

    Args:
        sites: the sites to edit.
        steps: steps at most.
        rate: learning rate of Adam before calibration.
        kl: weight of the KL.
        bound: largest change of a weight; 0 for none; of a dense change only.
        rank: rank of the change; 0 for a dense one.
        enough: mean loss in nats at which an edit ends.
    """

    is_trained = False
    needs_gradients = False
    looks_by_itself = True

    def __init__(
        self, sites: Sequence[Site], steps: int = 25, rate: float = 1e-3, kl: float = 0.0,
        bound: float = 0.0, rank: int = 0, enough: float = 0.1,
    ) -> None:  # fmt: skip
        super().__init__(sites)
        self.needs_held = kl > 0
        self._steps, self._kl, self._bound = steps, kl, bound
        self._rank, self._enough = rank, enough
        self.register_buffer("log_rate", torch.tensor(math.log(rate)))

    def forward(self, request: Request) -> Edits:
        """Edits (E,) after as many steps as each needs."""
        descent = Descent(self._steps, self._rate, self._kl, self._enough)
        return descent(request, self._start(request), self._edits, self._project)

    def _project(self, values: Sequence[Tensor]) -> None:
        if self._bound and not self._rank:
            for value in values:
                value.clamp_(-self._bound, self._bound)

    def _start(self, request: Request) -> list[Tensor]:
        """A change of zero, in what is learned of it: w a site, or u and v."""
        like, n = request.gradients[0].u, request.n_edits
        values = []
        # The same start for every edit, whatever stands beside it.
        draws = torch.Generator().manual_seed(0)
        for site in self.sites:
            if self._rank:
                u = torch.randn(1, self._rank, site.d_in, generator=draws) / math.sqrt(site.d_in)
                values.append(u.to(like).expand(n, -1, -1).clone())
                values.append(like.new_zeros(n, self._rank, site.d_out))
            else:
                values.append(like.new_zeros(n, site.d_out, site.d_in))
        return values

    def _edits(self, values: Sequence[Tensor]) -> Edits:
        deltas: dict[Site, Delta] = {}
        for i, site in enumerate(self.sites):
            if self._rank:
                deltas[site] = LowRank(values[2 * i], values[2 * i + 1])
            else:
                deltas[site] = Dense(values[i])
        return Edits(deltas)

    @property
    def _rate(self) -> float:
        return math.exp(float(self.log_rate))

    @classmethod
    def check(cls, settings: dict[str, object]) -> None:
        """Refuse a bound on a change of low rank, which a projection would give full rank.

        Raises:
            ConfigError: both are asked for.
        """
        bound, rank = settings["bound"], settings["rank"]
        if bound and rank:
            raise ConfigError(
                f"editor.ft.bound: expected 0 beside editor.ft.rank={rank}, whose change is not "
                f"projected, got {bound}; leave it out, or set editor.ft.rank=0"
            )
