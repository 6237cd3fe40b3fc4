"""Rows: padded samples, ready for a suffix run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from saledit.suffix import States


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
