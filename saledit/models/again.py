"""Blocks that run once more on the way back, in the place of keeping what they computed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop
from transformers import PreTrainedModel

from saledit.models.detour import forward_replaced
from saledit.models.weights import Weights


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
    """Whether a block gives the same once more later: nothing hangs inside that may be gone then.

    What hangs on the block itself is no part of its ``forward``, and does not run again.
    """
    inside = (module for module in block.modules() if module is not block)
    return not any(m._forward_hooks or m._forward_pre_hooks for m in inside)


class ThriftyWeights(Weights):
    """Weights of which less is in memory than activations would take: blocks run again."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__(model)
        self._runs_again = False

    def thrifty(self, blocks: Iterable[nn.Module]) -> AbstractContextManager[None]:
        """Inside, blocks keep their inputs alone of a graph."""
        return run_again(blocks)

    @contextmanager
    def once_more(self) -> Iterator[None]:
        """Let suffix runs keep the inputs of blocks alone; a backward pass may come later."""
        before, self._runs_again = self._runs_again, True
        try:
            yield
        finally:
            self._runs_again = before

    def thrifty_suffix(self, blocks: Iterable[nn.Module]) -> AbstractContextManager[None]:
        """Inside of ``once_more`` some blocks of a suffix run keep their inputs alone."""
        if not self._runs_again:
            return nullcontext()
        return run_again(block for block in blocks if can_run_again(block))
