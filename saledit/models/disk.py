"""A model that stays on disk: a module has its weights for as long as its own forward lasts.

transformers leaves the weights in their safetensors files and accelerate puts those of each module
in place before its forward and takes them away behind it (``device_map="disk"``). What is added
here is the way back: autograd keeps the matrix of every linear map that a gradient passes through,
so a backward pass would end up with all blocks above the edited layer in memory. A saved weight is
replaced by its name instead, and read again when its turn comes. What remains are activations;
where a pass takes many tokens, blocks keep their inputs alone and run again on the way back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from accelerate.hooks import AlignDevicesHook, ModelHook, SequentialHook, add_hook_to_module
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop

from saledit.detour import forward_replaced


@dataclass(frozen=True, slots=True)
class _Saved:
    """A weight that a backward pass needs: its name, and how it is looked at."""

    name: str
    size: torch.Size
    stride: tuple[int, ...]


def is_offloaded(model: nn.Module) -> bool:
    """Whether weights of a model are elsewhere until they are needed."""
    return any(parameter.is_meta for parameter in model.parameters())


def read_weight(model: nn.Module, name: str) -> Tensor:
    """A parameter or buffer of a model, from where accelerate has it if it is not in place.

    Raises:
        AttributeError: the model has none of that name.
    """
    path, _, own = name.rpartition(".")
    module = model.get_submodule(path)
    found: Tensor = getattr(module, own).detach()
    for hook in _aligning(module) if found.is_meta else ():
        assert hook.weights_map is not None
        found = hook.weights_map[own]
    return found


class DiskWeights:
    """The weights of a model that is offloaded, and where its modules run.

    Args:
        model: the model; its modules get hooks that tell which weights are in place.

    Attributes:
        device: where modules run.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._hooks: list[AlignDevicesHook] = []
        self._here: dict[int, str] = {}  # address of a weight that is in place -> its name
        for path, module in model.named_modules():
            for hook in _aligning(module):
                own = {name: f"{path}.{name}" for name, _ in module.named_parameters(recurse=False)}
                self._hooks.append(hook)
                add_hook_to_module(module, _Telling(self._here, own), append=True)
        self.device = torch.device(self._hooks[0].execution_device or "cpu")

    def to(self, device: torch.device) -> None:
        """Let modules run on a device."""
        self.device = device
        for hook in self._hooks:
            hook.execution_device = device
        for module in self._model.modules():
            for name, buffer in module.named_buffers(recurse=False):
                if not buffer.is_meta:
                    setattr(module, name, buffer.to(device))

    @contextmanager
    def by_name(self) -> Iterator[None]:
        """Let a graph that is built inside keep the names of weights, not the weights."""

        def pack(tensor: Tensor) -> Tensor | _Saved:
            name = self._here.get(tensor.data_ptr()) if self._here else None
            if name is None:
                return tensor
            return _Saved(name, tensor.size(), tensor.stride())

        def unpack(kept: Tensor | _Saved) -> Tensor:
            if isinstance(kept, Tensor):
                return kept
            return (
                read_weight(self._model, kept.name)
                .to(self.device)
                .as_strided(kept.size, kept.stride)
            )

        with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
            yield


class _Telling(ModelHook):  # type: ignore[misc]
    """Notes which weights are in place while a module runs; comes behind accelerate's own hook."""

    def __init__(self, here: dict[int, str], names: Mapping[str, str]) -> None:
        self._here, self._names = here, names
        self._addresses: list[int] = []

    def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """The module is about to run."""
        named = dict(module.named_parameters(recurse=False))
        found = {named[own].data_ptr(): full for own, full in self._names.items()}
        self._addresses = list(found)
        self._here |= found
        return args, kwargs

    def post_forward(self, module: nn.Module, output: Any) -> Any:
        """The module has run."""
        for address in self._addresses:
            self._here.pop(address, None)
        return output


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


def _aligning(module: nn.Module) -> list[AlignDevicesHook]:
    hook = getattr(module, "_hf_hook", None)
    hooks = hook.hooks if isinstance(hook, SequentialHook) else [hook]
    return [h for h in hooks if isinstance(h, AlignDevicesHook) and h.offload]
