"""What a module gives, changed or looked at: everywhere, or at one position of each row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from saledit.forward.rows import Rows

#: What a module is given (R, T, D_in) and gives (R, T, D_out) -> what to give instead, or None.
Change = Callable[[Tensor, Tensor], Tensor | None]
#: The same at one position of each row, (R, D_in) and (R, D_out) -> what to add, or None.
Touch = Callable[[Tensor, Tensor], Tensor | None]


class Reached(Exception):
    """Raised by what looks at a module, to end a run that has nothing further to show."""


@contextmanager
def changed(module: nn.Module, n_rows: int, change: Change) -> Iterator[None]:
    """Change what a module gives inside a ``with`` block.

    Args:
        module: a linear map, or a block, of what it gives the first where that is several. (A
            block that is given its states by name alone is taken to be given what it gives.)
        n_rows: rows R; OPT's blocks put all tokens of a batch into one dimension.
        change: called each time the module runs.
    """

    def hook(_module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        first = output[0] if isinstance(output, tuple) else output
        y = first.reshape(n_rows, -1, first.shape[-1])
        x = args[0].reshape(n_rows, -1, args[0].shape[-1]) if args else y
        new = change(x, y)
        if new is None:
            return None
        new = new.view(first.shape)
        return (new, *output[1:]) if isinstance(output, tuple) else new

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def touched(
    module: nn.Module, places: Tensor, touch: Touch, rows: Rows | None = None
) -> Iterator[None]:
    """Read and change a module at one position of each row, inside a ``with`` block.

    Args:
        module: as in ``changed``.
        places: positions (R,) in the rows' tokens.
        touch: called each time the module runs.
        rows: what is run, where the module may be run at the scored positions alone, in the
            place of all tokens (``saledit.forward.suffix``).

    Raises:
        ValueError: the module is not run at a row's position.
    """

    def change(x: Tensor, y: Tensor) -> Tensor | None:
        index = _local(places, y.shape[1], rows)[:, None, None]
        here = index.expand(-1, 1, y.shape[-1])
        given = x.gather(1, index.expand(-1, 1, x.shape[-1])).squeeze(1)
        added = touch(given, y.gather(1, here).squeeze(1))
        return None if added is None else y.scatter_add(1, here, added[:, None].to(y.dtype))

    with changed(module, len(places), change):
        yield


def _local(places: Tensor, width: int, rows: Rows | None) -> Tensor:
    """Positions (R,) in what the module is run at, of so many."""
    at = None if rows is None else rows.at
    # A row of as many tokens as an answer has is run at all of them.
    if at is not None and rows is not None and width == at.shape[1] != rows.width:
        same = at == places[:, None]
        if bool(same.any(1).all()):
            return same.int().argmax(1)
    if int(places.max()) < width:
        return places
    raise ValueError(f"touched: expected positions that the module is run at, of {width}")
