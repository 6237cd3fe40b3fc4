"""Rows: padded samples, ready for a suffix run, and the run of many edits at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from saledit.delta import Edits
from saledit.models import TaskModel
from saledit.overlay import applied
from saledit.suffix import Entry, States, run

_CHUNKS = 3  # by length; more save little and make small matrices


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows for a suffix run.

    Attributes:
        inputs: ``input_ids`` and the like, (B, T) each.
        states: cached hidden states, (B, T, D) or (B, 1, D) each.
    """

    inputs: dict[str, Tensor]
    states: States

    def to(self, device: torch.device | str) -> Rows:
        """The same rows on a device."""
        return Rows(
            {name: tensor.to(device) for name, tensor in self.inputs.items()},
            {name: tensor.to(device) for name, tensor in self.states.items()},
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

    def grouped(tensors: list[Tensor]) -> Tensor:
        width = max(tensor.shape[1] for tensor in tensors)
        views = []
        for tensor, size in zip(tensors, sizes, strict=True):
            gap = width - tensor.shape[1]
            tail = (0,) * (2 * (tensor.dim() - 2))
            padded = torch.nn.functional.pad(tensor, (*tail, 0, gap)) if gap else tensor
            views.append(padded.view(n_groups, size, *padded.shape[1:]))
        return torch.cat(views, 1).flatten(0, 1)

    return Rows(
        {name: grouped([part.inputs[name] for part in parts]) for name in parts[0].inputs},
        {name: grouped([part.states[name] for part in parts]) for name in parts[0].states},
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
        Logits (E, S, C), in the order of ``rows``.
    """
    n_edits = edits.batch_shape.numel()
    with applied(base.model, edits):
        if entry.first_token_only or "attention_mask" not in rows.inputs:
            logits = run(base, entry, rows.states, rows.inputs)
            return logits.view(n_edits, -1, *logits.shape[1:])
        lengths = rows.inputs["attention_mask"].sum(1).view(n_edits, -1)  # (E, S)
        order = lengths.argsort(1)
        first = torch.arange(n_edits, device=order.device)[:, None] * lengths.shape[1]
        out = []
        for chunk in order.tensor_split(_CHUNKS, dim=1):
            if chunk.shape[1] == 0:
                continue
            index = (first + chunk).flatten()
            width = int(lengths.gather(1, chunk).max())
            inputs = {name: tensor[index, :width] for name, tensor in rows.inputs.items()}
            states = {name: tensor[index, :width] for name, tensor in rows.states.items()}
            logits = run(base, entry, states, inputs)
            out.append(logits.view(n_edits, -1, *logits.shape[1:]))
    places = order.argsort(1)[..., None]
    sorted_logits = torch.cat(out, 1)  # (E, S, C)
    return sorted_logits.gather(1, places.expand(-1, -1, sorted_logits.shape[-1]))
