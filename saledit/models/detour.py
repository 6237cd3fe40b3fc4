"""A detour: one module with another ``forward`` for as long as a ``with`` block lasts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def forward_replaced(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Give one module another ``forward``; an instance attribute, so weights stay put."""
    own = vars(module).get("forward")  # accelerate's offloading puts one there, too
    module.forward = forward
    try:
        yield
    finally:
        if own is None:
            del module.forward  # the class's own forward shows again
        else:
            module.forward = own
