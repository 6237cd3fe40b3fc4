"""The hypernetwork of MEND: residual low-rank blocks that start as the identity."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Block(nn.Module):
    """One residual block with a low-rank weight and a scale and shift for each site.

    ``published``: z + relu(s * (U V z + b) + o), as in MEND's equation 3a/b.
    ``bottleneck``: z + U relu(s * (V z + b) + o): the same parameters, but what is added
    can have either sign.

    Args:
        size: D.
        rank: columns of V.
        n_sites: sites that share the block, each with its own s and o.
        style: ``published`` or ``bottleneck``.
    """

    def __init__(self, size: int, rank: int, n_sites: int, style: str) -> None:
        super().__init__()
        inner = rank if style == "bottleneck" else size
        self.style = style
        self.down = nn.Parameter(torch.randn(size, rank) / math.sqrt(size))
        self.up = nn.Parameter(torch.zeros(rank, size))  # 0: the block starts as the identity
        self.bias = nn.Parameter(torch.zeros(inner))
        self.scale = nn.Parameter(torch.ones(n_sites, inner))
        self.shift = nn.Parameter(torch.zeros(n_sites, inner))

    def forward(self, z: Tensor, site: int) -> Tensor:
        """(..., D) -> (..., D) for the site at a position."""
        low = z @ self.down  # (..., rank)
        if self.style == "bottleneck":
            return z + torch.relu(self.scale[site] * (low + self.bias) + self.shift[site]) @ self.up
        # It starts at 0, where relu has no slope and would stay for ever; a clamp has one.
        return z + (self.scale[site] * (low @ self.up + self.bias) + self.shift[site]).clamp(min=0)


class Hypernet(nn.Module):
    """A stack of blocks over z = [u; g], shared by all sites of one shape.

    Args:
        size: D = D_in + D_out.
        rank: rank of each block, at most D.
        n_blocks: number of blocks (2 in MEND).
        n_sites: sites that share it.
        style: see ``Block``.
    """

    def __init__(self, size: int, rank: int, n_blocks: int, n_sites: int, style: str) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            Block(size, min(rank, size), n_sites, style) for _ in range(n_blocks)
        )

    def forward(self, z: Tensor, site: int) -> Tensor:
        """(..., D) -> (..., D)."""
        for block in self.blocks:
            z = block(z, site)
        return z
