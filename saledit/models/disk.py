"""A model that stays on disk: a module has its weights for as long as its own forward lasts.

transformers leaves the weights in their safetensors files and accelerate puts those of each module
in place before its forward and takes them away behind it (``device_map="disk"``). What is added
here is the way back: autograd keeps the matrix of every linear map that a gradient passes through,
so a backward pass would end up with all blocks above the edited layer in memory. A saved weight is
replaced by its name instead, and read again when its turn comes. What remains are activations;
where a pass takes many tokens, blocks keep their inputs alone and run again on the way back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from accelerate.hooks import AlignDevicesHook, ModelHook, SequentialHook, add_hook_to_module
from accelerate.utils.offload import PrefixedDataset
from safetensors import safe_open
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop

from saledit.detour import forward_replaced
from saledit.models.heap import give_back_large_blocks

_PART = 1 << 21  # numbers of a matrix that are read at a time


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


def read_parts(model: nn.Module, name: str) -> Iterator[Tensor]:
    """A weight in parts along its first dimension, some megabytes each where it lies on disk."""
    path, _, own = name.rpartition(".")
    module = model.get_submodule(path)
    told: Tensor = getattr(module, own)
    shape, hooks = told.shape, _aligning(module) if told.is_meta else []
    place = next((found for hook in hooks if (found := _place(hook, own)) is not None), None)
    if place is None or len(shape) < 2 or shape.numel() <= _PART:
        yield read_weight(model, name)
        return
    file, stored, dtype = place
    each = max(1, _PART * shape[0] // shape.numel())
    for start in range(0, shape[0], each):
        # Opened anew: pages stay with a mapping until it is closed.
        with safe_open(file, framework="pt") as stream:
            yield stream.get_slice(stored)[start : start + each].to(dtype)


class DiskWeights:
    """The weights of a model that is offloaded, and where its modules run.

    Args:
        model: the model; its modules get hooks that tell which weights are in place.

    Attributes:
        device: where modules run.
        runs_again: inside of ``once_more``.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._hooks: list[AlignDevicesHook] = []
        # A model that was wrapped before has the hooks that tell already.
        telling = [h for m in model.modules() for h in _hooks(m) if isinstance(h, _Telling)]
        # address of a weight that is in place -> its name
        self._here: dict[int, str] = telling[0].here if telling else {}
        for path, module in model.named_modules():
            for hook in _aligning(module):
                own = {name: f"{path}.{name}" for name, _ in module.named_parameters(recurse=False)}
                self._hooks.append(hook)
                if not telling:
                    add_hook_to_module(module, _Telling(self._here, own), append=True)
        self.device = torch.device(self._hooks[0].execution_device or "cpu")
        self.runs_again = False
        give_back_large_blocks()

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
    def once_more(self) -> Iterator[None]:
        """Let suffix runs keep the inputs of blocks alone; a backward pass may come later."""
        before, self.runs_again = self.runs_again, True
        try:
            yield
        finally:
            self.runs_again = before

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
        self.here, self._names = here, names
        self._addresses: list[int] = []

    def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """The module is about to run."""
        named = dict(module.named_parameters(recurse=False))
        found = {named[own].data_ptr(): full for own, full in self._names.items()}
        self._addresses = list(found)
        self.here |= found
        return args, kwargs

    def post_forward(self, module: nn.Module, output: Any) -> Any:
        """The module has run."""
        for address in self._addresses:
            self.here.pop(address, None)
        return output


class RowsOnDisk:
    """A matrix whose rows are read a few at a time: the head of a language model.

    Args:
        model: the model.
        path: of the module.
    """

    def __init__(self, model: nn.Module, path: str) -> None:
        self._model, self._path = model, path
        self._bias = getattr(model.get_submodule(path), "bias", None) is not None

    def __call__(self, x: Tensor, dtype: torch.dtype, biased: bool = True) -> Tensor:
        """The product (..., D) -> (..., C) in a type, with the bias or without."""
        out: Tensor = _RowProduct.apply(x.to(dtype), self)  # type: ignore[no-untyped-call]
        if biased and self._bias:
            bias = read_weight(self._model, f"{self._path}.bias")
            out = out + bias.to(out.device, dtype)
        return out

    def parts(self) -> Iterator[Tensor]:
        """Rows of the matrix, in order, some megabytes at a time."""
        return read_parts(self._model, f"{self._path}.weight")


class _RowProduct(torch.autograd.Function):
    """x W^T with the rows of W read anew for each pass, so that a graph holds none of them."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: RowsOnDisk) -> Tensor:
        ctx.matrix = matrix
        return torch.cat([x @ rows.to(x).mT for rows in matrix.parts()], -1)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        return _RowProductBack.apply(slope, ctx.matrix), None  # type: ignore[no-untyped-call]


class _RowProductBack(torch.autograd.Function):
    """y W; linear as well, so that a slope of a slope can be taken."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, matrix: RowsOnDisk) -> Tensor:
        ctx.matrix, start, out = matrix, 0, None
        for rows in matrix.parts():
            part = y[..., start : start + len(rows)] @ rows.to(y)
            out, start = part if out is None else out + part, start + len(rows)
        assert out is not None
        return out

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        return _RowProduct.apply(slope, ctx.matrix), None  # type: ignore[no-untyped-call]


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


def _place(hook: AlignDevicesHook, own: str) -> tuple[str, str, torch.dtype] | None:
    """File, name there and type of a weight that lies in a safetensors file."""
    weights = hook.weights_map
    if not isinstance(weights, PrefixedDataset):
        return None
    full = f"{weights.prefix}{own}"
    about = getattr(weights.dataset, "index", {}).get(full, {})
    if full in getattr(weights.dataset, "state_dict", {}) or not about.get("safetensors_file"):
        return None
    dtype = getattr(torch, str(about.get("dtype", "")), None)
    if not isinstance(dtype, torch.dtype):
        return None
    return about["safetensors_file"], about.get("weight_name", full), dtype


def _aligning(module: nn.Module) -> list[AlignDevicesHook]:
    return [h for h in _hooks(module) if isinstance(h, AlignDevicesHook) and h.offload]


def _hooks(module: nn.Module) -> Sequence[ModelHook]:
    hook = getattr(module, "_hf_hook", None)
    return hook.hooks if isinstance(hook, SequentialHook) else [] if hook is None else [hook]
