"""A model that is divided between processes: each holds its part of every block.

torch's FSDP2 (``fully_shard``) does it: the weights of a block are gathered from all processes
before it runs and given up behind it, forward and backward. So every pass needs all processes, in
step: they run the same passes, or passes of the same shape, in the same order. What is outside of
the blocks (embeddings, head) each process holds whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any, TypeVar

import torch
from accelerate.hooks import remove_hook_from_module
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from saledit import distributed
from saledit.errors import ModelError
from saledit.models.again import ThriftyWeights
from saledit.models.base import SEQ2SEQ, TaskModel
from saledit.models.reading import read_weight

T = TypeVar("T")


def divided(base: TaskModel, device: torch.device) -> TaskModel:
    """Divide a model between the processes that share the run.

    A model that lies on disk is read block by block, so that no process ever holds it whole.

    Args:
        base: the task model, loaded or on disk; its model is changed in place.
        device: where this process runs its passes.

    Returns:
        The task model, to be used in the place of the given one.

    Raises:
        ModelError: weights of one block are of several types.
    """
    model: Any = base.model
    blocks = [base.block(i) for i in range(base.n_blocks)]
    mesh = init_device_mesh(device.type, (distributed.world_size(),))
    for i, block in enumerate(blocks):
        _bring(block)
        if len({parameter.dtype for parameter in block.parameters()}) > 1:
            raise ModelError(
                f"trainer.strategy: expected blocks of one type of weights, got several in block "
                f"{i} of {base.name}; use model.stream=true in the place of fsdp"
            )
        # Position biases of T5's kin, which are asked for outside of their block's forward.
        tables = {p for m in block.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
        fully_shard(block, mesh=mesh, ignored_params=tables)
    _bring(model)
    model.tie_weights()  # what was tied has been read twice
    outside = {weight for weight in model.parameters() if not isinstance(weight, DTensor)}
    for parameter in outside:
        parameter.data = parameter.data.to(device)
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, buffer.to(device))
    # The model itself has nothing to divide, but knows where a pass begins and ends.
    fully_shard(model, mesh=mesh, ignored_params=outside)
    model.requires_grad_(False)
    model._is_fsdp_managed_module = True  # so that generation ends in all processes at once
    model.register_forward_hook(_forget_passes)
    _run_once(base, device)
    return replace(base, weights=DividedWeights(model, device))


class DividedWeights(ThriftyWeights):
    """The weights of a divided model.

    Args:
        model: the model.
        device: where this process runs its passes.
    """

    where, in_place, is_divided = "divided", False, True
    layer_groups = 8

    def __init__(self, model: PreTrainedModel, device: torch.device) -> None:
        super().__init__(model)
        self._device = device

    @property
    def device(self) -> torch.device:
        """Where this process runs its passes."""
        return self._device

    def to(self, device: torch.device) -> None:
        """Stay: the parts are where they were put."""

    def thrifty_suffix(self, blocks: Iterable[nn.Module]) -> AbstractContextManager[None]:
        """As others; but only where autocast is on, whose copies of weights a graph would keep."""
        if not torch.is_autocast_enabled(self._device.type):
            return nullcontext()
        return super().thrifty_suffix(blocks)

    @property
    def writes(self) -> bool:
        """All processes make the same; the first one writes it."""
        return distributed.is_main()

    def broadcast(self, value: T) -> T:
        """The first process's value, a tensor on this one's device."""
        found: Any = value.detach().cpu() if isinstance(value, Tensor) else value
        found = distributed.broadcast(found)
        own: T = found.to(value.device) if isinstance(value, Tensor) else found
        return own

    @contextmanager
    def passing_by(
        self, blocks: nn.ModuleList, index: int, forward: Callable[..., Any]
    ) -> Iterator[None]:
        """Another module in the place of a block, whose weights nobody then gathers."""
        block = blocks[index]
        blocks[index] = _InPlaceOf(block, forward)
        try:
            yield
        finally:
            blocks[index] = block


class _InPlaceOf(nn.Module):
    """A block with another forward; everything else is that block's."""

    def __init__(self, block: nn.Module, forward: Callable[..., Any]) -> None:
        super().__init__()
        vars(self)["_block"] = block  # not a module of this one
        self.forward = forward

    def __getattr__(self, name: str) -> Any:
        return getattr(vars(self)["_block"], name)


@torch.no_grad()
def _run_once(base: TaskModel, device: torch.device) -> None:
    """Run all of the model: FSDP learns in its first pass which module is the root.

    Generation of an encoder-decoder would begin with the encoder alone.
    """
    ids = torch.zeros((1, 1), dtype=torch.long, device=device)
    more = {"decoder_input_ids": ids} if base.kind == SEQ2SEQ else {}
    base.model(input_ids=ids, attention_mask=torch.ones_like(ids), **more)


def _forget_passes(model: Any, _args: object, _output: object) -> None:
    """Forget in which order blocks ran: FSDP notes it for a way back, and forgets it there."""
    if torch.is_grad_enabled():
        return
    groups = [state._fsdp_param_group for state in model._get_fsdp_state()._state_ctx.all_states]
    for group in (group for group in groups if group is not None):
        group.comm_ctx.post_forward_order.clear()
        group._post_forward_indices.clear()


def _bring(module: nn.Module) -> None:
    """Put in place what lies on disk."""
    lying = [name for name, parameter in module.named_parameters() if parameter.is_meta]
    for name in lying:
        path, _, own = name.rpartition(".")
        holder = module.get_submodule(path)
        weight = read_weight(module, name).clone()  # not a view of the file
        holder.register_parameter(own, nn.Parameter(weight, requires_grad=False))
    remove_hook_from_module(module, recurse=True)
