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


def aggregate(factors: Sequence[LowRank], losses: Tensor, rank: int) -> list[LowRank]:
    """Sum the gradients of the failures of each edit, each as a step, and compress the sum.

    In a bare sum the steepest failure is the edit, and how steep a loss is where it stands does not
    say how far the failure has to be moved. So each gradient G is first scaled to the step
    that would bring its loss L to zero were the loss linear, L / |G|^2 G (Polyak, 1987), with |G|
    over all sites together: a failure that the model is sure of gets a longer step than one near
    the border. A failure without any gradient stays zero.

    SaLEM aggregates a batch of gradients before the low-rank step. The sum of K
    products of rank r has K r terms; above ``rank`` terms it is cut to its leading
    singular directions (SVD through QR, no dense gradient).

    Args:
        factors: for each site u (E, K, r, D_in), v (E, K, r, D_out).
        losses: each failure's loss (E, K), at least zero.
        rank: terms to keep.

    Returns:
        For each site u (E, R, D_in), v (E, R, D_out), R <= rank.
    """
    square = torch.stack([pair.norm() ** 2 for pair in factors]).sum(0)  # (E, K)
    step = losses / torch.where(square > 0, square, 1.0)
    # Half of it to each factor, so that the two stay of one size.
    scale = step.sqrt()[..., None, None]
    out = []
    for raw in factors:
        pair = LowRank(raw.u * scale, raw.v * scale)
        flat = LowRank(pair.u.flatten(1, 2), pair.v.flatten(1, 2))
        out.append(flat.compress(rank) if flat.rank > rank else flat)
    return out
