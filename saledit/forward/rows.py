"""Rows: padded samples, ready for a suffix run, and the run of many edits at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from saledit.delta import Edits
from saledit.forward.suffix import ATTENTION, HIDDEN, Entry, States, run
from saledit.models import TaskModel
from saledit.overlay import applied

_CHUNKS = 3  # by length; more save little and make small matrices


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows for a suffix run.

    Attributes:
        inputs: ``input_ids`` and the like, (B, T) each.
        states: cached hidden states, (B, T, D) or (B, 1, D) each.
        at: positions (B, A) whose next token is scored; None for a classifier.
        along_answer: names of inputs and states that run along the answer instead, (B, A, ...).
    """

    inputs: dict[str, Tensor]
    states: States
    at: Tensor | None = None
    along_answer: frozenset[str] = frozenset()

    @property
    def width(self) -> int:
        """Tokens T that a run is given of each row."""
        return self.states[HIDDEN if HIDDEN in self.states else ATTENTION].shape[1]

    def to(self, device: torch.device | str) -> Rows:
        """The same rows on a device."""
        return Rows(
            {name: tensor.to(device) for name, tensor in self.inputs.items()},
            {name: tensor.to(device) for name, tensor in self.states.items()},
            None if self.at is None else self.at.to(device),
            self.along_answer,
        )

    def pick(self, index: Tensor, width: int | None = None) -> Rows:
        """Some rows, cut to the longest of them where its tokens are given."""

        def cut(name: str, tensor: Tensor) -> Tensor:
            return tensor[index] if name in self.along_answer else tensor[index, :width]

        return Rows(
            {name: cut(name, tensor) for name, tensor in self.inputs.items()},
            {name: cut(name, tensor) for name, tensor in self.states.items()},
            None if self.at is None else self.at[index],
            self.along_answer,
        )


def join(parts: Sequence[Rows], n_groups: int, sizes: Sequence[int]) -> Rows:
    """Put rows of several banks together, group by group.

    Args:
        parts: for each bank n_groups x size rows.
        n_groups: number of groups E.
        sizes: rows that each bank gives to a group.

    Returns:
        E x sum(sizes) rows; those of a group lie side by side.
    """

    def grouped(tensors: Sequence[Tensor]) -> Tensor:
        width = max(tensor.shape[1] for tensor in tensors)
        views = []
        for tensor, size in zip(tensors, sizes, strict=True):
            gap = width - tensor.shape[1]
            tail = (0,) * (2 * (tensor.dim() - 2))
            padded = torch.nn.functional.pad(tensor, (*tail, 0, gap)) if gap else tensor
            views.append(padded.view(n_groups, size, *padded.shape[1:]))
        return torch.cat(views, 1).flatten(0, 1)

    first = parts[0]
    return Rows(
        {name: grouped([part.inputs[name] for part in parts]) for name in first.inputs},
        {name: grouped([part.states[name] for part in parts]) for name in first.states},
        None if first.at is None else grouped([p.at for p in parts if p.at is not None]),
        first.along_answer,
    )


def run_edits(base: TaskModel, entry: Entry, rows: Rows, edits: Edits) -> Tensor:
    """Run rows under a batch of edits.

    Each edit's rows are put in order of length and cut into a few chunks, so that little
    is spent on padding, while each chunk still holds equally many rows of every edit.

    Args:
        base: the task model.
        entry: where the states were captured.
        rows: E x S rows; those of an edit lie side by side.
        edits: batch shape (E,).

    Returns:
        What the head reads (E, S, A, D), or a classifier's logits (E, S, C), in the order of
        ``rows``.
    """
    n_edits = edits.batch_shape.numel()

    def outputs(part: Rows) -> Tensor:
        found = run(base, entry, part.states, part.inputs, part.at)
        return found.view(n_edits, -1, *found.shape[1:])

    with applied(base.model, edits):
        if entry.first_token_only or "attention_mask" not in rows.inputs:
            return outputs(rows)
        lengths = rows.inputs["attention_mask"].sum(1).view(n_edits, -1)  # (E, S)
        order = lengths.argsort(1)
        first = torch.arange(n_edits, device=order.device)[:, None]
        size = lengths.shape[1]
        chunks = [chunk for chunk in order.tensor_split(_CHUNKS, dim=1) if chunk.shape[1]]
        out = [
            outputs(
                rows.pick((first * size + chunk).flatten(), int(lengths.gather(1, chunk).max()))
            )
            for chunk in chunks
        ]
    return torch.cat(out, 1)[first, order.argsort(1)]
