"""Blocks that run once more on the way back, in the place of keeping what they computed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop

from saledit.detour import forward_replaced


@contextmanager
def run_again(blocks: Iterable[nn.Module]) -> Iterator[None]:
    """Let blocks keep their inputs alone of a graph, and run once more in its backward pass.

    Both passes have to be inside, so that a block meets the same hooks. Source: Chen et al., 2016
    (arXiv:1604.06174), with a block for a segment.
    """
    with ExitStack() as stack:
        # A block that is stopped half-way would leave its last weights in place.
        stack.enter_context(set_checkpoint_early_stop(False))
        for block in blocks:
            forward = partial(checkpoint, block.forward, use_reentrant=False)
            stack.enter_context(forward_replaced(block, forward))
        yield


def can_run_again(block: nn.Module) -> bool:
    """Whether a block gives the same once more later: nothing hangs on it that may be gone then."""
    return not any(m._forward_hooks or m._forward_pre_hooks for m in block.modules())
