"""The terms of an edit: its failures' gradients side by side, each as a step of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from saledit.delta import LowRank


@dataclass(frozen=True, slots=True)
class Ranks:
    """Terms that are kept of gradients.

    Attributes:
        sample: of each failure's own.
        aggregated: of those of an edit together, see ``aggregate``.
    """

    sample: int
    aggregated: int


@dataclass(frozen=True, slots=True)
class Terms:
    """Terms of the aggregated gradient of each of E edits.

    Attributes:
        pairs: for each site u (E, R, D_in), v (E, R, D_out); terms of zeros are padding.
        owners: which of an edit's failures each term is of, (E, R).
    """

    pairs: list[LowRank]
    owners: Tensor

    def to(self, device: torch.device | str) -> Terms:
        """The same terms on a device."""
        return Terms([pair.to(device) for pair in self.pairs], self.owners.to(device))


def aggregate(factors: Sequence[LowRank], losses: Tensor, rank: int) -> Terms:
    """Put the gradients of the failures of each edit side by side, each as a step.

    In a bare sum the steepest failure is the edit, and how steep a loss is where it stands does not
    say how far the failure has to be moved. So each gradient G is first scaled to the step
    that would bring its loss L to zero were the loss linear, L / |G|^2 G (Polyak, 1987), with |G|
    over all sites together: a failure that the model is sure of gets a longer step than one near
    the border. A failure without any gradient stays zero.

    SaLEM aggregates a batch of gradients before the low-rank step. The sum of K products of rank r
    has K r terms, many of them padding of short answers. Above ``rank`` real ones the largest of
    all failures are kept, of each at least its own largest: the leading singular directions of the
    sum would be nearer to it, but each a mixture of failures, which nothing behind can tell apart.

    Args:
        factors: for each site u (E, K, r, D_in), v (E, K, r, D_out), in terms that are orthogonal.
        losses: each failure's loss (E, K), at least zero.
        rank: terms to keep, at least K of them; 0 for all.

    Returns:
        R <= max(rank, K) terms, or all that are real in some edit; those of a failure side by side,
        and the same ones at all sites. Of factors of no terms there are none.

    Example:
        >>> steep, flat = torch.tensor([[4.0, 0.0]]), torch.tensor([[0.0, 0.5]])
        >>> pair = LowRank(torch.stack([steep, flat])[None], torch.ones(1, 2, 1, 1))  # E = 1, K = 2
        >>> [step] = aggregate([pair], losses=torch.tensor([[1.0, 1.0]]), rank=0).pairs
        >>> step.dense()  # 1 / |G|^2 G of each: the flat failure gets the longer step
        tensor([[[0.2500, 2.0000]]])
    """
    if not factors[0].rank:
        none = [pair.map(lambda part: part.flatten(1, 2)) for pair in factors]
        return Terms(none, none[0].u.new_zeros(none[0].u.shape[:2], dtype=torch.long))
    square = torch.stack([pair.norm() ** 2 for pair in factors]).sum(0)  # (E, K)
    # A loss of nothing may come out rounded below it.
    step = losses.clamp_min(0) / torch.where(square > 0, square, 1.0)
    # Half of it to each factor, so that the two stay of one size.
    scale = step.sqrt()[..., None, None]
    scaled = [LowRank(raw.u * scale, raw.v * scale) for raw in factors]
    index = _largest(scaled, rank)
    pairs = [
        pair.map(lambda part: part.flatten(1, 2).take_along_dim(index[..., None], 1))
        for pair in scaled
    ]
    return Terms(pairs, index // scaled[0].rank)


def _largest(pairs: Sequence[LowRank], rank: int) -> Tensor:
    """Places (E, R) of the terms that ``aggregate`` keeps, among the K r of each edit."""
    sizes = [pair.u.norm(dim=-1) * pair.v.norm(dim=-1) for pair in pairs]  # (E, K, r) each
    # A term's share of each site: sites differ in scale by orders of magnitude.
    tiny = torch.finfo(sizes[0].dtype).tiny
    shares = torch.stack([s / s.amax((1, 2), True).clamp_min(tiny) for s in sizes]).sum(0)
    n_real = int((shares > 0).flatten(1).sum(1).max())
    most = max(rank, shares.shape[1]) if rank else shares[0].numel()
    ahead = shares.argmax(-1, keepdim=True)  # each failure's largest, before all others
    ranked = shares.scatter_add(-1, ahead, torch.full_like(shares[..., :1], len(pairs) + 1))
    ranked = torch.where(shares > 0, ranked, 0)
    kept = ranked.flatten(1).topk(max(1, min(most, n_real)), dim=1).indices
    return kept.sort(1).values
