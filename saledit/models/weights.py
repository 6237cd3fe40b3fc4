"""Where a model's weights are, and what follows from it for passes through the model.

In place (this file), on disk (``disk``), or divided between processes (``divided``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from saledit.models.detour import forward_replaced
from saledit.models.reading import read_weight

T = TypeVar("T")


class Weights:
    """Weights that are in place, all of them.

    Args:
        model: the model.

    Attributes:
        where: that in words.
        in_place: whether they are.
        is_divided: whether every pass needs all processes, which then go in step.
        token_share: of the tokens that a pass may take, where activations are all that takes room.
        logit_share: of the logits.
        layer_groups: passes that look at all layers, where what is kept of each (a mean gradient,
            second moments) may be as large as the layer.
    """

    where = "in place"
    in_place = True
    is_divided = False
    token_share = logit_share = 1.0
    layer_groups = 1

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        return self._model.device

    def to(self, device: torch.device) -> None:
        """Let the model run on a device."""
        self._model.to(device)  # type: ignore[arg-type]

    def read(self, name: str) -> Tensor:
        """A weight by its name, detached, where the model runs."""
        return read_weight(self._model, name).to(self.device)

    def graph(self) -> AbstractContextManager[None]:
        """For building a graph in."""
        return nullcontext()

    def thrifty(self, _blocks: Iterable[nn.Module]) -> AbstractContextManager[None]:
        """For a forward and a backward pass of the whole model over many tokens."""
        return nullcontext()

    def once_more(self) -> AbstractContextManager[None]:
        """For suffix runs whose graph is gone through once, without a slope of a slope."""
        return nullcontext()

    def thrifty_suffix(self, _blocks: Iterable[nn.Module]) -> AbstractContextManager[None]:
        """For one suffix run, inside of ``once_more`` or not."""
        return nullcontext()

    def head(self, _path: str) -> Callable[..., Tensor] | None:
        """The product of the module at a path, where it is better not run as it is."""
        return None

    @property
    def writes(self) -> bool:
        """Whether what is made of passes is this process's to write: in step the first one's."""
        return True

    def broadcast(self, value: T) -> T:
        """What decides about passes to come: of processes in step the first one's.

        Sums on a GPU may differ in their last digit from one process to the next.
        """
        return value

    def passing_by(
        self, blocks: nn.ModuleList, index: int, forward: Callable[..., Any]
    ) -> AbstractContextManager[None]:
        """For passes in which another forward takes the place of a block."""
        return forward_replaced(blocks[index], forward)
