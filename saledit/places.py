"""One position of each row: what a module is given and gives there, and what is added to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

#: What a module is given (R, D_in) and gives (R, D_out) at the positions -> what to add, or None.
Touch = Callable[[Tensor, Tensor], Tensor | None]


@contextmanager
def touched(
    module: nn.Module, places: Tensor, touch: Touch, at: Tensor | None = None
) -> Iterator[None]:
    """Read and change a module at one position of each row, inside a ``with`` block.

    Args:
        module: a linear map, or a block, which may give more than its states.
        places: positions (R,) in the rows' tokens.
        touch: called each time the module runs.
        at: positions (R, A) that the module may be run at alone, in the place of all tokens
            (``saledit.suffix``).

    Raises:
        ValueError: the module is not run at a row's position.
    """

    def hook(_module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        rows, first = len(places), output[0] if isinstance(output, tuple) else output
        y = first.reshape(rows, -1, first.shape[-1])
        x = args[0].reshape(rows, -1, args[0].shape[-1]) if args else y
        index = _local(places, y.shape[1], at)[:, None, None]
        here = index.expand(-1, 1, y.shape[-1])
        given = x.gather(1, index.expand(-1, 1, x.shape[-1])).squeeze(1)
        added = touch(given, y.gather(1, here).squeeze(1))
        if added is None:
            return None
        new = y.scatter_add(1, here, added[:, None].to(y.dtype)).view(first.shape)
        return (new, *output[1:]) if isinstance(output, tuple) else new

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
