"""What an editor is: gradient factors of failures in, edits out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from saledit.delta import Edits, LowRank
from saledit.site import Site


class Editor(nn.Module, ABC):
    """An editor of one or more sites.

    Everything that it learns or measures is a parameter or a buffer, so that its
    ``state_dict`` is the whole editor.

    Args:
        sites: the sites it changes, in the order in which factors are given.

    Attributes:
        needs_moments: True where ``prime`` wants second moments of the sites' inputs.
    """

    needs_moments: bool = False

    def __init__(self, sites: Sequence[Site]) -> None:
        super().__init__()
        self.sites = tuple(sites)

    @abstractmethod
    def forward(self, gradients: Sequence[LowRank]) -> Edits:
        """Turn aggregated gradients into edits.

        Args:
            gradients: for each site the factors u (E, R, D_in), v (E, R, D_out) of the
                gradient of the failures' loss; terms of zeros are padding.

        Returns:
            Edits with batch shape (E,), differentiable in the editor's parameters.
        """

    @abstractmethod
    def prime(self, gradients: Sequence[LowRank], moments: Sequence[Tensor] | None) -> None:
        """Measure statistics before training.

        Args:
            gradients: as in ``forward``.
            moments: mean of x x^T over each site's inputs (D_in, D_in), where needed.
        """

    @abstractmethod
    def scale_rate(self, factor: float) -> None:
        """Multiply the size of every delta; used once, to calibrate the first step."""


def aggregate(factors: Sequence[LowRank], rank: int) -> list[LowRank]:
    """Sum the gradients of the failures of each edit, alike in weight, and compress the sum.

    Each failure's gradient is first divided by its Frobenius norm over all sites together: how
    far a failure has to be moved is not said by how steep its loss is where it stands, and
    in a bare sum the steepest failure is the edit. A failure without any gradient stays zero.

    SaLEM aggregates a batch of gradients before the low-rank step. The sum of K
    products of rank r has K r terms; above ``rank`` terms it is cut to its leading
    singular directions (SVD through QR, no dense gradient).

    Args:
        factors: for each site u (E, K, r, D_in), v (E, K, r, D_out).
        rank: terms to keep.

    Returns:
        For each site u (E, R, D_in), v (E, R, D_out), R <= rank.
    """
    square = torch.stack([pair.norm() ** 2 for pair in factors]).sum(0)  # (E, K)
    # Half of the norm to each factor, so that the two stay of one size.
    scale = torch.where(square > 0, square, 1.0).pow(-0.25)[..., None, None]
    out = []
    for raw in factors:
        pair = LowRank(raw.u * scale, raw.v * scale)
        flat = LowRank(pair.u.flatten(1, 2), pair.v.flatten(1, 2))
        out.append(flat.compress(rank) if flat.rank > rank else flat)
    return out
