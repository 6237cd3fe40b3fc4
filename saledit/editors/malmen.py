"""MALMEN: MEND's terms of any number of failures, put together by least squares."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from saledit.delta import Delta, Dense, LowRank
from saledit.editors.mend import Mend
from saledit.site import Site
from saledit.widths import wide_type


class Malmen(Mend):
    """The change that comes closest to what each term alone would do to its own input.

    A term j of MEND, -g~_j u~_j^T, changes the output at its own input k_j by
    D_j = -(u~_j . k_j) g~_j. Summed up, a thousand terms do to each input what all others
    want, too; so the delta is the ridge solution for all of them,

        dW = argmin sum over j of |dW k_j - D_j|^2 + exp(lambda) |dW|^2
           = D^T K (K^T K + exp(lambda) I)^-1,

    with rows k_j of K (R, D_in), D_j of D (R, D_out), and lambda learned per site. Source: Tan et
    al., ICLR 2024 (MALMEN), section 3.2, equation 4. Two things differ. The inputs are those of
    the terms that are kept of each failure's gradient, its singular directions (one token's input
    where it has one), and of unit length, since such a term does not say how long its input was.
    And with ``whiten`` > 0 the second moment M of the site's inputs takes the place of I beside
    exp(lambda), up to its own ridge: inputs that others have in common are dear.

    Few terms are solved among themselves, R x R, and stay low-rank; many among the dimensions of
    the input, D_in x D_in. Both are the same matrix.

    The paper's other half, a backward pass that is split between the model and the hypernetwork
    so that the model's share of memory does not grow with the number of failures, is
    ``EditModule``'s, for all editors. The hypernetwork's own graph still holds all terms: some
    600 kB a failure at rank 1,920 and widths of 384 and 1,536 (measured).

    Args:
        sites: the sites to edit; those of equal shape share a hypernetwork.
        rank: rank of the hypernetwork's blocks.
        n_blocks: number of blocks.
        style: of the hypernetwork, see ``Mend``.
        whiten: relative ridge of the whitening; 0 turns it off. As published: 0, with the style
            ``published``.
        rate: first edit rate, as in ``Mend``.
    """

    name = "malmen"

    def __init__(
        self, sites: Sequence[Site], rank: int = 256, n_blocks: int = 2, style: str = "bottleneck",
        whiten: float = 0.1, rate: float = 0.5,
    ) -> None:  # fmt: skip
        super().__init__(sites, rank, n_blocks, style, whiten, 0.0, rate)
        self.log_ridge = nn.Parameter(torch.zeros(len(self.sites)))

    def _together(self, i: int, terms: LowRank, inputs: Tensor, owners: Tensor | None) -> Delta:
        del owners  # every term is an equation
        # A solve has no half precision, which autocast would hand it.
        wide = wide_type(terms.v.dtype)
        with torch.autocast(terms.v.device.type, enabled=False):
            keys = nn.functional.normalize(inputs.to(wide), dim=-1)  # padding stays zero
            own = (terms.u.to(wide) * keys).sum(-1, keepdim=True)
            wanted = terms.v.to(wide) * own  # (E, R, D_out)
            matrix = getattr(self, f"whitener_{i}")
            read = keys if matrix is None else keys @ matrix.to(wide)
            ridge = self.log_ridge[i].exp().to(wide)
            if terms.rank <= keys.shape[-1]:
                gram = keys @ read.mT
                return LowRank(read, torch.linalg.solve(_plus(gram, ridge), wanted))
            gram = keys.mT @ read  # K^T K W; (K^T K W + r I)^-1 of the transposed solution
            change = torch.linalg.solve(_plus(gram, ridge).mT, read.mT @ wanted)
            return Dense(change.mT)


def _plus(gram: Tensor, ridge: Tensor) -> Tensor:
    eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    return gram + ridge * eye
