"""Weights read by name, wherever they are: in place, on disk, or divided between processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from accelerate.hooks import AlignDevicesHook, ModelHook, SequentialHook
from accelerate.utils.offload import PrefixedDataset
from safetensors import safe_open
from torch import Tensor, nn

_PART = 1 << 21  # numbers of a matrix that are read at a time


def read_weight(model: nn.Module, name: str) -> Tensor:
    """A parameter or buffer of a model, from where accelerate has it if it is not in place.

    Of a divided model all processes have to come here together.

    Raises:
        AttributeError: the model has none of that name.
    """
    path, _, own = name.rpartition(".")
    module = model.get_submodule(path)
    found: Tensor = getattr(module, own).detach()
    for hook in aligning(module) if found.is_meta else ():
        assert hook.weights_map is not None
        found = hook.weights_map[own]
    # A DTensor holds this process's part, and every process asks for the whole at once.
    whole = getattr(found, "full_tensor", None)
    return found if whole is None else whole()


def read_parts(model: nn.Module, name: str) -> Iterator[Tensor]:
    """A weight in parts along its first dimension, some megabytes each where it lies on disk."""
    path, _, own = name.rpartition(".")
    module = model.get_submodule(path)
    told: Tensor = getattr(module, own)
    shape, hooks = told.shape, aligning(module) if told.is_meta else []
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


def aligning(module: nn.Module) -> list[AlignDevicesHook]:
    """The hooks that put a module's own weights in place for as long as it runs."""
    return [h for h in hooks_of(module) if isinstance(h, AlignDevicesHook) and h.offload]


def hooks_of(module: nn.Module) -> Sequence[ModelHook]:
    """What accelerate has hung on a module."""
    hook = getattr(module, "_hf_hook", None)
    return hook.hooks if isinstance(hook, SequentialHook) else [] if hook is None else [hook]
