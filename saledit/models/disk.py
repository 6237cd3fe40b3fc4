"""A model that stays on disk: a module has its weights for as long as its own forward lasts.

transformers leaves the weights in their safetensors files and accelerate puts those of each module
in place before its forward and takes them away behind it (``device_map="disk"``). What is added
here is the way back: autograd keeps the matrix of every linear map that a gradient passes through,
so a backward pass would end up with all blocks above the edited layer in memory. A saved weight is
replaced by its name instead, and read again when its turn comes. What remains are activations;
where a pass takes many tokens, blocks keep their inputs alone and run again on the way back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.hooks import AlignDevicesHook, ModelHook, add_hook_to_module
from torch import Tensor, nn
from transformers import PreTrainedModel

from saledit.models.again import ThriftyWeights
from saledit.models.heap import give_back_large_blocks
from saledit.models.reading import aligning, hooks_of, read_parts, read_weight


@dataclass(frozen=True, slots=True)
class _Saved:
    """A weight that a backward pass needs: its name, and how it is looked at."""

    name: str
    size: torch.Size
    stride: tuple[int, ...]


class DiskWeights(ThriftyWeights):
    """The weights of a model that is offloaded, and where its modules run.

    Args:
        model: the model; its modules get hooks that tell which weights are in place.
    """

    where, in_place = "on disk", False
    token_share, logit_share, layer_groups = 1 / 4, 1 / 8, 8

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__(model)
        self._hooks: list[AlignDevicesHook] = []
        # A model that was wrapped before has the hooks that tell already.
        telling = [h for m in model.modules() for h in hooks_of(m) if isinstance(h, _Telling)]
        # address of a weight that is in place -> its name
        self._here: dict[int, str] = telling[0].here if telling else {}
        for path, module in model.named_modules():
            for hook in aligning(module):
                own = {name: f"{path}.{name}" for name, _ in module.named_parameters(recurse=False)}
                self._hooks.append(hook)
                if not telling:
                    add_hook_to_module(module, _Telling(self._here, own), append=True)
        self._device = torch.device(self._hooks[0].execution_device or "cpu")
        give_back_large_blocks()

    @property
    def device(self) -> torch.device:
        """Where modules run."""
        return self._device

    def to(self, device: torch.device) -> None:
        """Let modules run on a device."""
        self._device = device
        for module in self._model.modules():
            # Also those of modules without weights of their own, which bring inputs to a device.
            for hook in hooks_of(module):
                if isinstance(hook, AlignDevicesHook):
                    hook.execution_device = device
            for name, buffer in module.named_buffers(recurse=False):
                if not buffer.is_meta:
                    setattr(module, name, buffer.to(device))

    def head(self, path: str) -> Callable[..., Tensor]:
        """The map whose rows are read in turn."""
        return RowsOnDisk(self._model, path)

    @contextmanager
    def graph(self) -> Iterator[None]:
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
