"""Banks: cached samples of one layer, gathered into rows for suffix runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from saledit.delta import LowRank
from saledit.rows import Rows
from saledit.site import Layer
from saledit.suffix import Entry


@dataclass(frozen=True, slots=True)
class BankSpec:
    """What a bank is of.

    Attributes:
        layer: the layer to edit.
        rank: terms to keep of each sample's gradient factors; 0 for none.
        moments: True to sum up the second moments of the sites' inputs.
        batch_tokens: padded tokens a batch of the building pass may hold.
    """

    layer: Layer
    rank: int = 0
    moments: bool = False
    batch_tokens: int = 4096


class Bank:
    """Cached samples of one layer.

    Args:
        shards: the tensors of each shard.
        entry: where suffix runs enter.
        layer: the edited layer.
    """

    def __init__(self, shards: Sequence[dict[str, Tensor]], entry: Entry, layer: Layer) -> None:
        self.entry, self.layer = entry, layer
        self._shards = shards
        self._per_shard = len(shards[0]["targets"])  # all but the last are full
        self.logits = torch.cat([s["logits"] for s in shards])  # (n, C)
        self.targets = torch.cat([s["targets"] for s in shards])  # (n,)
        self.losses = torch.cat([s["losses"] for s in shards])  # (n,) of the right answers
        self.lengths = torch.cat([s["lengths"] for s in shards])  # (n,) tokens
        # Where each sample's tokens begin inside its shard.
        self._starts = torch.cat([s["lengths"].cumsum(0) - s["lengths"] for s in shards])
        self._states = sorted(k for k in shards[0] if k.startswith("states."))
        self._inputs = sorted(k for k in shards[0] if k.startswith("inputs."))

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.targets)

    def rows(self, index: Tensor) -> Rows:
        """Gather samples into padded rows.

        Args:
            index: (B,) positions in the bank; may repeat.

        Returns:
            The rows, in the order of ``index``.
        """
        lengths, starts = self.lengths[index], self._starts[index]
        width = int(lengths.max())
        span = torch.arange(width)
        # Beyond a row's end its last token is repeated; the attention mask hides it.
        inside = torch.minimum(span, lengths[:, None] - 1)  # (B, T)
        places = starts[:, None] + inside
        inputs = {
            name.removeprefix("inputs."): self._pick(name, index, places).long()
            for name in self._inputs
        }
        inputs["attention_mask"] = (span < lengths[:, None]).long()
        if self.entry.first_token_only:
            places = (index % self._per_shard)[:, None]
        states = {
            name.removeprefix("states."): self._pick(name, index, places) for name in self._states
        }
        return Rows(inputs, states)

    def factors(self, index: Tensor) -> list[LowRank]:
        """Gradient factors of samples, a pair for each site of the layer.

        Args:
            index: any shape (...) of positions.

        Returns:
            For each site u (..., r, D_in), v (..., r, D_out).
        """
        flat = index.flatten()
        local = flat % self._per_shard
        out = []
        for i in range(len(self.layer.sites)):
            u, v = (self._pick(f"{side}.{i}", flat, local) for side in "uv")
            out.append(
                LowRank(u.view(*index.shape, *u.shape[1:]), v.view(*index.shape, *v.shape[1:]))
            )
        return out

    def moments(self) -> list[Tensor]:
        """Mean of x x^T over the inputs x of each site, (D_in, D_in)."""
        count = torch.stack([s["moment.count"] for s in self._shards]).sum()
        return [
            torch.stack([s[f"moment.{i}"] for s in self._shards]).sum(0) / count
            for i in range(len(self.layer.sites))
        ]

    def _pick(self, name: str, index: Tensor, places: Tensor) -> Tensor:
        if len(self._shards) == 1:
            return self._shards[0][name][places]
        shard_of = index // self._per_shard
        first = self._shards[0][name]
        out = first.new_empty((*places.shape, *first.shape[1:]))
        for shard in sorted(set(shard_of.tolist())):
            rows = shard_of == shard
            out[rows] = self._shards[shard][name][places[rows]]
        return out
