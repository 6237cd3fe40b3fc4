"""Tails of rows: runs from one position of each row on, where nothing before it can change.

A causal model's states at a token hang on the tokens before it alone. So where a run changes a
module at one position, all earlier tokens are as they were: their keys and values are computed
once, and every further run holds only what stands from there on. A prompt behind a beginning
of ten tokens, changed at the last token of its subject, has a tail of three to six.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from saledit.forward.rows import Rows
from saledit.forward.suffix import Entry, capture, run
from saledit.models import CAUSAL, TaskModel


@dataclass(frozen=True, slots=True)
class Tails:
    """Rows from one position of each on.

    Attributes:
        entry: where runs enter the model.
        rows: what runs are given, (R, W, ...).
        places: the position (R,) in them that a tail begins with; where rows are not cut, its own.
        lengths: tokens (R,) of each tail.
        before: tokens (R,) that stand before each tail; 0 where rows are not cut.
        past: keys and values (R, H, P, D) of these, of each block from the entry's on.
    """

    entry: Entry
    rows: Rows
    places: Tensor
    lengths: Tensor
    before: Tensor
    past: Sequence[tuple[Tensor, Tensor]] = ()

    def pick(self, index: Tensor) -> Tails:
        """Some of the rows, cut to the longest of them."""
        rows = index.to(self.before.device)
        lengths, before = self.lengths[index], self.before[rows]
        width = int(before.max())
        past = [(keys[rows, :, :width], values[rows, :, :width]) for keys, values in self.past]
        return replace(
            self, rows=self.rows.pick(index, int(lengths.max())), places=self.places[index],
            lengths=lengths, before=before, past=past,
        )  # fmt: skip

    def outputs(self, base: TaskModel) -> Tensor:
        """What the head reads (R, A, D), as of a run of the whole rows."""
        extra = self._continued(base) if self.past else {}
        return run(base, self.entry, self.rows.states, self.rows.inputs, self.rows.at, **extra)

    def _continued(self, base: TaskModel) -> dict[str, Any]:
        """Arguments by which a model goes on behind its past."""
        start = self.rows.inputs["input_ids"]
        span = torch.arange(start.shape[1], device=start.device)
        cache = DynamicCache()
        first = self.entry.block + 1
        # Blocks below have no past, as they are not run.
        for (keys, values), index in zip(self.past, range(first, base.n_blocks), strict=True):
            cache.update(keys, values, index)
        width = self.past[0][0].shape[2]
        earlier = torch.arange(width, device=start.device) < self.before[:, None, None]  # (R, 1, P)
        later = (span <= span[:, None]).expand(len(start), -1, -1)  # (R, W, W)
        seen = torch.cat([earlier.expand(-1, len(span), -1), later], 2)[:, None]
        kind = self.past[0][0].dtype
        mask = torch.zeros(seen.shape, dtype=kind, device=seen.device)
        return {
            "past_key_values": cache,
            "position_ids": self.before[:, None] + span,
            "attention_mask": mask.masked_fill(~seen, torch.finfo(kind).min),
        }


@torch.no_grad()
def tails_of(base: TaskModel, entry: Entry, higher: Entry, rows: Rows, places: Tensor) -> Tails:
    """Cut rows at a position of each; where that cannot be, they stay whole.

    Args:
        base: the task model, with whatever edits are applied to it.
        entry: where the rows' states were captured.
        higher: where runs of the tails are to enter; not below ``entry``.
        rows: whole rows (R, T).
        places: the first position (R,) that a run may change anything at.
    """
    lengths = rows.inputs["attention_mask"].sum(1)
    places = places.to(lengths.device)
    whole = Tails(entry, rows, places, lengths.cpu(), torch.zeros_like(places))
    if not _can_cut(base, higher, rows, places):
        return whole
    cache = DynamicCache()
    with capture(base, higher) as above:
        run(base, entry, rows.states, rows.inputs, rows.at, past_key_values=cache)
    # Where a run enters, what stands there is put in the place of what the model has.
    states = rows.states if higher == entry else above
    left = lengths - places
    index = places[:, None] + torch.arange(int(left.max()), device=places.device)
    index = torch.minimum(index, lengths[:, None] - 1)  # (R, W)
    assert rows.at is not None
    tail = Rows(
        {name: tensor.gather(1, index) for name, tensor in rows.inputs.items()},
        {name: _at(tensor, index) for name, tensor in states.items()},
        rows.at - places[:, None],
    )
    before = int(places.max())
    layers: Any = cache.layers[higher.block + 1 :]
    past = [(layer.keys[:, :, :before], layer.values[:, :, :before]) for layer in layers]
    return Tails(higher, tail, torch.zeros_like(places), left.cpu(), places, past)


def _can_cut(base: TaskModel, higher: Entry, rows: Rows, places: Tensor) -> bool:
    """Whether a model goes on behind keys and values, and the rows have any that are worth it."""
    width = rows.inputs["input_ids"].shape[1]
    window = getattr(base.model.config, "sliding_window", None) or width
    return (
        base.kind == CAUSAL
        and base.family.continues
        and higher.after_attention
        and higher.block + 1 < base.n_blocks
        and width <= window
        and bool((places > 0).any())
        and rows.at is not None
        and bool((rows.at >= places[:, None]).all())
    )


def _at(states: Tensor, index: Tensor) -> Tensor:
    return states.gather(1, index[..., None].expand(-1, -1, states.shape[-1]))
