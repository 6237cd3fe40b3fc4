"""Banks: cached samples of one layer, gathered into rows for suffix runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from saledit.cache.factors import no_factors
from saledit.cache.room import Room
from saledit.cache.running import means
from saledit.delta import LowRank
from saledit.forward.rows import Rows
from saledit.forward.suffix import Entry
from saledit.site import Layer, Site
from saledit.tasks.prompts import IGNORED
from saledit.widths import wide


@dataclass(frozen=True, slots=True)
class BankSpec:
    """What a bank is of.

    Attributes:
        layer: the layer to edit.
        rank: terms to keep of each sample's gradient factors; 0 for none.
        moments: True to sum up the second moments of the sites' inputs.
        batch_tokens: padded tokens a batch of the building pass; 0 for the model's own.
        dtype: what states and gradient factors are kept as; None for as they are computed.
    """

    layer: Layer
    rank: int = 0
    moments: bool = False
    batch_tokens: int = 0
    dtype: torch.dtype | None = None


#: Keys of a shard begin with what they run along; all others hold one entry a sample.
TOKENS, ANSWERS = "tokens.", "answers."


class Bank:
    """Cached samples of one layer.

    Args:
        shards: the tensors of each shard.
        entry: where suffix runs enter.
        layer: the edited layer.
        device: where the model is; what is gathered is put there, what is kept stays on disk.
        room: what mapped shards may take.
        dtype: what states are computed in; factors are in single precision at least.
        sums: second moments, as ``RunningSums.tensors`` gives them; None where none were asked for.

    Attributes:
        targets: right answers: (n,) of a classifier, else (n, A) tokens.
        losses: of the right answers (n,).
        lengths: tokens of each sample (n,).
        answer_lengths: scored positions of each sample (n,); None of a classifier.
    """

    def __init__(
        self, shards: Sequence[Mapping[str, Tensor]], entry: Entry, layer: Layer,
        device: torch.device | str = "cpu", room: Room | None = None,
        dtype: torch.dtype = torch.float32, sums: Mapping[str, Tensor] | None = None,
    ) -> None:  # fmt: skip
        self.entry, self.layer, self.device = entry, layer, device
        self._room, self._dtype = room or Room(), dtype
        self._shards, self._sums = shards, sums
        self._per_shard = len(shards[0]["losses"])  # all but the last are full
        names = ("losses", "lengths", "answer_lengths", "targets")
        parts = self._copied([name for name in names if name in shards[0]])
        self.losses, self.lengths = torch.cat(parts["losses"]), torch.cat(parts["lengths"])
        self._starts = {TOKENS: _starts(parts["lengths"])}
        self.answer_lengths: Tensor | None = None
        self._at: Tensor | None = None
        if "answer_lengths" in parts:
            self.answer_lengths = torch.cat(parts["answer_lengths"])
            self._starts[ANSWERS] = _starts(parts["answer_lengths"])
            every = torch.arange(len(self))
            self.targets = self._along(ANSWERS, "answers.targets", every, IGNORED).long()
            self._at = self._along(ANSWERS, "answers.at", every).long()
        else:
            self.targets = torch.cat(parts["targets"])

    def _copied(self, names: Sequence[str]) -> dict[str, list[Tensor]]:
        """Small tensors of each shard, in memory of their own.

        Shard by shard: with each a few pages come in, and what still points to them keeps them.
        """
        parts: dict[str, list[Tensor]] = {name: [] for name in names}
        for shard in self._shards:
            for name, found in parts.items():
                found.append(shard[name].clone())
            self._room.look()
        return parts

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.losses)

    @property
    def logits(self) -> Tensor:
        """Logits (n, C) of a classifier's samples."""
        return torch.cat([s["outputs"] for s in self._shards]).to(self.device)

    def rows(self, index: Tensor) -> Rows:
        """Gather samples into padded rows.

        Args:
            index: (B,) positions in the bank; may repeat.

        Returns:
            The rows, in the order of ``index``.
        """
        inputs, states, short = {}, {}, set()
        for key in sorted(self._shards[0]):
            along, _, name = key.partition(".")
            kind, _, name = name.partition(".")
            if kind not in {"inputs", "states"}:
                continue
            if along + "." == ANSWERS:
                short.add(name)
            if kind == "inputs":
                inputs[name] = self._along(along + ".", key, index).long()
            elif self.entry.first_token_only:
                found = self._pick(key, index, (index % self._per_shard)[:, None])
                states[name] = found.to(self._dtype)
            else:
                states[name] = self._along(along + ".", key, index).to(self._dtype)
        lengths = self.lengths[index]
        inputs["attention_mask"] = (torch.arange(int(lengths.max())) < lengths[:, None]).long()
        at = None if self._at is None else self._at[index, : self.width(index)]
        return Rows(inputs, states, at, frozenset(short)).to(self.device)

    @property
    def first_scored(self) -> Tensor:
        """The first position of each sample of text (n,) whose next token counts.

        A decoder that is told how to begin (BART's ``forced_bos_token_id``) is asked for nothing at
        its first.
        """
        assert self._at is not None
        first = (self.targets != IGNORED).int().argmax(1)
        return self._at.gather(1, first[:, None]).squeeze(1)

    def width(self, index: Tensor) -> int:
        """The most scored positions A that samples have."""
        assert self.answer_lengths is not None
        return int(self.answer_lengths[index].max())

    def targets_of(self, index: Tensor) -> Tensor:
        """Targets of samples: index (...) -> (...) of a classifier, else (..., A)."""
        found = self.targets[index]
        if self.answer_lengths is not None:
            found = found[..., : self.width(index)]
        return found.to(self.device)

    def losses_of(self, index: Tensor) -> Tensor:
        """Losses of samples' right answers, of the shape of the index."""
        return self.losses[index].to(self.device)

    def outputs(self, index: Tensor) -> Tensor:
        """What the base's head reads: index (...) -> (..., A, D), or a classifier's logits."""
        flat = index.flatten()
        if self.answer_lengths is None:
            found = self._pick("outputs", flat, flat % self._per_shard)
        else:
            found = self._along(ANSWERS, "answers.outputs", flat)
        return found.view(*index.shape, *found.shape[1:]).to(self.device)

    def _along(self, group: str, key: str, index: Tensor, fill: int | None = None) -> Tensor:
        """Gather what runs along the tokens or the answers, padded: (B, T, ...)."""
        lengths = self.lengths if group == TOKENS else self.answer_lengths
        assert lengths is not None
        sizes = lengths[index]
        span = torch.arange(int(sizes.max()))
        # Beyond a row's end its last entry is repeated; masks hide it.
        inside = torch.minimum(span, sizes[:, None] - 1)  # (B, T)
        found = self._pick(key, index, self._starts[group][index][:, None] + inside)
        return found if fill is None else found.masked_fill(span >= sizes[:, None], fill)

    def factors(self, index: Tensor) -> list[LowRank]:
        """Gradient factors of samples, a pair for each site of the layer.

        Args:
            index: any shape (...) of positions.

        Returns:
            For each site u (..., r, D_in), v (..., r, D_out); of no terms where none are kept.
        """
        if "u.0" not in self._shards[0]:
            return no_factors(self.layer.sites, index.shape, self._dtype, self.device)
        flat = index.flatten()
        local = flat % self._per_shard
        out = []
        for i in range(len(self.layer.sites)):
            u, v = (wide(self._pick(f"{side}.{i}", flat, local)) for side in "uv")
            pair = LowRank(u.view(*index.shape, *u.shape[1:]), v.view(*index.shape, *v.shape[1:]))
            out.append(pair.to(self.device))
        return out

    def moments(self, sites: Sequence[Site] | None = None) -> list[Tensor]:
        """Mean of x x^T over the inputs x of each site, (D_in, D_in); of one input the same one.

        Args:
            sites: some of the layer's; None for all.
        """
        assert self._sums is not None
        every = self.layer.sites
        wanted = every if sites is None else sites
        return means(self._sums, self.device, [every.index(site) for site in wanted])

    def _pick(self, name: str, index: Tensor, places: Tensor) -> Tensor:
        if len(self._shards) == 1:
            out = self._shards[0][name][places]
            self._room.touched(len(index), out.nbytes)
        else:
            shard_of = index // self._per_shard
            first = self._shards[0][name]
            out = first.new_empty((*places.shape, *first.shape[1:]))
            touched, counts = torch.unique(shard_of, return_counts=True)
            groups = torch.split(shard_of.argsort(stable=True), counts.tolist())
            for shard, rows in zip(touched.tolist(), groups, strict=True):
                out[rows] = self._shards[shard][name][places[rows]]
                self._room.touched(len(rows), out.nbytes * len(rows) // max(1, len(out)))
        return out


def _starts(lengths: Sequence[Tensor]) -> Tensor:
    """Where each sample's entries begin inside its shard, (n,)."""
    return torch.cat([part.cumsum(0) - part for part in lengths])
