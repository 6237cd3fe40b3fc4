"""What all kinds of deltas share: they are values made of tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """A value made of tensors (..., A, B), all with the same leading shape.

    A kind is a frozen dataclass; its fields that are tensors are its parts, the last of which is
    what is added to outputs.
    """

    def tensors(self) -> list[Tensor]:
        """The parts, in order."""
        return list(self._parts().values())

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """The same kind of other parts."""
        return replace(self, **{name: function(part) for name, part in self._parts().items()})

    def _parts(self) -> dict[str, Tensor]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}

    @property
    def batch_shape(self) -> torch.Size:
        """Leading shape: () for one delta, (E,) for a batch of them."""
        return self.tensors()[-1].shape[:-2]

    @property
    def dtype(self) -> torch.dtype:
        """Of what is added to outputs."""
        return self.tensors()[-1].dtype

    @property
    def device(self) -> torch.device:
        """Where the parts are."""
        return self.tensors()[-1].device

    def to(self, device: torch.device | str) -> Self:
        """The same values on a device."""
        return self.map(lambda part: part.to(device))

    def __getitem__(self, index: int | slice | Tensor) -> Self:
        """Pick deltas out of a batch."""
        return self.map(lambda part: part[index])

    def expand(self, n: int) -> Self:
        """A batch (n,) of this one delta, without copies."""
        return self.map(lambda part: part.expand(n, -1, -1))
