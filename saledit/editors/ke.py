"""KnowledgeEditor: a network that reads the failure and turns its gradient into an edit."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.rnn import pack_padded_sequence

from saledit.delta import Edits, LowRank
from saledit.editors.base import Editor
from saledit.editors.request import Request
from saledit.site import Site


class KnowledgeEditor(Editor):
    """A bidirectional LSTM reads each failure and says how to gate its gradient.

    From the input, the model's answer and the right one (``saledit.data.conditions``) comes a
    condition h. For each site a network of h gives five parts a, b, c, d and e, and with the
    gradient G the edit is

        dW = rate * sigmoid(e) * (G * softmax(a) b^T + softmax(c) d^T),

    * between matrices being their product entry by entry. A gate of rank one leaves the rank of G
    as it is, so that nothing dense is built. Source: De Cao et al., EMNLP 2021, section 4.2 and
    equations 3 and 4 (there all matrices of the model are edited, one failure at a time). What
    is else: the embeddings are the model's own and stay; of several failures in one edit the
    conditions are averaged; and b starts at -D_out, so that an untrained editor steps down
    the gradient. Published, it starts nowhere, with the sign to be learned, which in MEND's
    experiments it often did not get over.

    Args:
        sites: the sites to edit.
        embedding_size: of the model's embeddings.
        lstm: hidden units of the LSTM in each direction.
        condition: size of h.
        hidden: hidden units of a site's network.
        rate: first rate, before calibration.
    """

    needs_text = True

    def __init__(
        self, sites: Sequence[Site], embedding_size: int, lstm: int = 128, condition: int = 1024,
        hidden: int = 128, rate: float = 1.0,
    ) -> None:  # fmt: skip
        super().__init__(sites)
        self.reader = nn.LSTM(embedding_size, lstm, batch_first=True, bidirectional=True)
        self.told = nn.Linear(2 * lstm, condition)
        self.nets = nn.ModuleList(_gate(condition, hidden, site) for site in self.sites)
        self.log_rate = nn.Parameter(torch.full((len(self.sites),), math.log(rate)))

    def forward(self, request: Request) -> Edits:
        """Edits (E,) of gradients (E, R, .) and conditions (E, K, T, D)."""
        h = self._condition(*request.condition())
        deltas = {}
        for i, (site, pair) in enumerate(zip(self.sites, request.gradients, strict=True)):
            sizes = [site.d_out, site.d_in, site.d_out, site.d_in, 1]
            a, b, c, d, e = (part.unsqueeze(1) for part in self.nets[i](h).split(sizes, -1))
            scale = self.log_rate[i].exp() * e.sigmoid()  # (E, 1, 1)
            deltas[site] = LowRank(
                torch.cat([pair.u * b, d], 1),
                torch.cat([pair.v * a.softmax(-1), c.softmax(-1)], 1) * scale,
            )
        return Edits(deltas)

    def _condition(self, embedded: Tensor, real: Tensor) -> Tensor:
        """Condition h (E, H) of embeddings (E, K, T, D), bool (E, K, T): a mean over K."""
        n_edits, k = real.shape[:2]
        lengths = real.sum(-1).flatten().cpu()
        rows = embedded.flatten(0, 1).to(self.told.weight.dtype)
        packed = pack_padded_sequence(rows, lengths, batch_first=True, enforce_sorted=False)
        _, (last, _) = self.reader(packed)  # (2, E K, hidden)
        found: Tensor = self.told(torch.cat([last[0], last[1]], -1)).tanh()
        return found.view(n_edits, k, -1).mean(1)


def _gate(condition: int, hidden: int, site: Site) -> nn.Module:
    last = nn.Linear(hidden, 2 * (site.d_out + site.d_in) + 1)
    with torch.no_grad():
        last.bias[site.d_out : site.d_out + site.d_in] = -site.d_out
    return nn.Sequential(weight_norm(nn.Linear(condition, hidden)), nn.Tanh(), weight_norm(last))
