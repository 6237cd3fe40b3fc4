"""Gradient factors of single samples, from one term a token to the few that editors read."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from saledit.delta import LowRank
from saledit.site import Site
from saledit.widths import wide, wide_type


def masks_of(
    inputs: Sequence[Tensor], tokens: Tensor, read: Tensor, encoded: Tensor | None
) -> list[Tensor]:
    """Which tokens of each site's input are real, bool (B, T).

    Args:
        inputs: what the sites read (B, T, D_in).
        tokens: bool (B, T), of the prompt.
        read: bool (B, T), of what the edited stack reads.
        encoded: what the encoder gave, where its decoder is edited: cross attention reads it.
    """
    across = None if encoded is None else encoded.data_ptr()
    return [tokens if x.data_ptr() == across else read for x in inputs]


def no_factors(
    sites: Sequence[Site], shape: Sequence[int], dtype: torch.dtype, device: torch.device | str
) -> list[LowRank]:
    """Gradient factors that nobody has asked for: u (..., 0, D_in), v (..., 0, D_out) a site."""

    def empty(size: int) -> Tensor:
        return torch.zeros(*shape, 0, size, dtype=wide_type(dtype), device=device)

    return [LowRank(empty(site.d_in), empty(site.d_out)) for site in sites]


def compressed(
    inputs: Sequence[Tensor], slopes: Sequence[Tensor], masks: Sequence[Tensor], rank: int
) -> list[LowRank]:
    """Each sample's own gradient at each site, in its leading terms.

    Args:
        inputs: for each site (B, T, D_in).
        slopes: gradients of the samples' losses at its outputs (B, T, D_out).
        masks: which tokens are real, bool (B, T).
        rank: terms to keep; zeros fill up where a text has fewer tokens.

    Returns:
        For each site u (B, rank, D_in), v (B, rank, D_out), in single precision at least.
    """
    out = []
    for x, slope, real in zip(inputs, slopes, masks, strict=True):
        # Padding has no gradient, but its u would have a say in the terms' signs.
        # Neither an SVD nor an editor works in half precision.
        pair = LowRank(wide(x * real[..., None]), wide(slope)).compress(rank)
        gap = (0, 0, 0, rank - pair.rank)
        out.append(LowRank(*(torch.nn.functional.pad(f, gap) for f in (pair.u, pair.v))))
    return out
