"""One position of each row: what a module is given and gives there, and what is added to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

#: What a module is given (R, D_in) and gives (R, D_out) at the positions -> what to add, or None.
Touch = Callable[[Tensor, Tensor], Tensor | None]


@contextmanager
def touched(
    module: nn.Module, places: Tensor, touch: Touch, at: Tensor | None = None
) -> Iterator[None]:
    """Read and change a linear map at one position of each row, inside a ``with`` block.

    Args:
        module: a linear map.
        places: positions (R,) in the rows' tokens.
        touch: called each time the module runs.
        at: positions (R, A) that the module may be run at alone, in the place of all tokens
            (``saledit.suffix``).

    Raises:
        ValueError: the module is not run at a row's position.
    """

    def hook(_module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        rows = len(places)
        x, y = (
            args[0].reshape(rows, -1, args[0].shape[-1]),
            output.reshape(rows, -1, output.shape[-1]),
        )
        index = _local(places, y.shape[1], at)[:, None, None]
        here = index.expand(-1, 1, y.shape[-1])
        added = touch(
            x.gather(1, index.expand(-1, 1, x.shape[-1])).squeeze(1), y.gather(1, here).squeeze(1)
        )
        if added is None:
            return None
        return y.scatter_add(1, here, added[:, None].to(y.dtype)).view(output.shape)

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def _local(places: Tensor, width: int, at: Tensor | None) -> Tensor:
    """Positions (R,) in what the module is run at."""
    if int(places.max()) < width and not (at is not None and width == at.shape[1]):
        return places
    if at is not None and width == at.shape[1]:
        same = at == places[:, None]
        if bool(same.any(1).all()):
            return same.int().argmax(1)
        if int(places.max()) < width:
            return places
    raise ValueError(f"touched: expected positions that the module is run at, of {width}")


def first_real(mask: Tensor) -> Tensor:
    """The first real position (R,) of each row of a mask (R, T)."""
    return mask.int().argmax(1)


def last_real(mask: Tensor) -> Tensor:
    """The last real position (R,) of each row of a mask (R, T)."""
    return (mask * torch.arange(mask.shape[1], device=mask.device)).amax(1)
