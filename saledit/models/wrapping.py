"""From a loaded model to a task model: its kind, its family, and where its blocks are."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from saledit.errors import ModelError, did_you_mean
from saledit.families import ENCODERS, FAMILIES, Family
from saledit.models.attention import prefer_float_attention
from saledit.models.base import CAUSAL, CLASSIFIER, SEQ2SEQ, UNKNOWN, TaskModel
from saledit.models.disk import DiskWeights
from saledit.models.weights import Weights
from saledit.site import list_sites

_STACKS = ("decoder", "encoder")


def wrap(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    name: str,
    stack: str = "decoder",
    blocks: str = "",
) -> TaskModel:
    """Freeze a loaded model and look up its family.

    Args:
        model: a transformers model: a classifier, a causal or an encoder-decoder language model;
            accelerate may have left its weights in main memory or on disk.
        tokenizer: its tokenizer.
        name: what to call it in messages and results.
        stack: which stack of an encoder-decoder is edited, "decoder" or "encoder".
        blocks: path of the list of blocks, for an architecture that is not in the family table.

    Returns:
        The task model; ``model`` itself is frozen in place (eval mode, no gradients).

    Raises:
        ModelError: the architecture is not in the family table, or has no such stack.
    """
    kind = _kind(model)
    family, path = _family(model, name, kind, stack, blocks)
    head = ""
    if kind == CAUSAL:
        head = path.rpartition(".")[0]
    elif kind == SEQ2SEQ:
        head = _stack_of(model, "decoder")
    prefer_float_attention(model)
    model.requires_grad_(False)
    model.eval()
    is_offloaded = any(parameter.is_meta for parameter in model.parameters())
    weights = DiskWeights(model) if is_offloaded else Weights(model)
    return TaskModel(model, weights, tokenizer, name, family, path, kind, head)


def _kind(model: PreTrainedModel) -> str:
    if not model.can_generate():
        return CLASSIFIER
    return SEQ2SEQ if model.config.is_encoder_decoder else CAUSAL


def _family(
    model: PreTrainedModel, name: str, kind: str, stack: str, blocks: str
) -> tuple[Family, str]:
    """The family of a model and the path of its blocks."""
    if stack not in _STACKS:
        raise ModelError(f"model.stack: unknown name '{stack}'; {did_you_mean(stack, _STACKS)}")
    architecture = model.config.model_type
    if stack == "encoder" and kind != SEQ2SEQ:
        raise ModelError(
            f"model.stack: {name} ({architecture}) has one stack and no encoder of its own, "
            "expected 'decoder'; leave model.stack out"
        )
    if kind == CLASSIFIER and model.config.is_encoder_decoder:
        raise ModelError(
            f"model.name: {name} is an encoder-decoder classifier, expected a classifier of one "
            "stack (BERT, RoBERTa, GPT-2, Llama, ...), or task.name: qa for this architecture"
        )
    if blocks:
        return _given(model, blocks), blocks
    family = (ENCODERS if stack == "encoder" else FAMILIES).get(architecture)
    if family is None:
        raise ModelError(_unknown(model, name, architecture, stack))
    if kind != CLASSIFIER and not family.generates:
        raise ModelError(
            f"model.name: {name} is of family '{architecture}', which classifies and does not "
            "write; expected a causal or an encoder-decoder language model, or task.name: nli"
        )
    return family, _blocks_path(model, family)


def _blocks_path(model: PreTrainedModel, family: Family) -> str:
    prefix = model.base_model_prefix
    backbone = prefix if hasattr(model, prefix) else ""
    return f"{backbone}.{family.blocks}".strip(".")


def _given(model: PreTrainedModel, blocks: str) -> Family:
    """A family of which nothing is known but where its blocks are: runs enter at the block."""
    try:
        found = model.get_submodule(blocks)
    except AttributeError:
        found = None
    if not isinstance(found, nn.ModuleList):
        lists = [name for name, m in model.named_modules() if isinstance(m, nn.ModuleList)]
        raise ModelError(
            f"model.blocks: expected the path of a list of blocks, got '{blocks}'; "
            + did_you_mean(blocks, lists)
        )
    maps = tuple(name for name, m in found[0].named_modules() if _is_linear(m))
    family = Family(blocks=blocks, mlp=maps)
    return family if _gives_states(model, found[0]) else replace(family, block_returns=UNKNOWN)


@torch.no_grad()
def _gives_states(model: PreTrainedModel, block: nn.Module) -> bool:
    """Whether a block returns its states and nothing else."""
    seen: list[bool] = []
    handle = block.register_forward_hook(
        lambda _module, _args, output: seen.append(isinstance(output, torch.Tensor))
    )
    ids = torch.zeros((1, 1), dtype=torch.long, device=model.device)
    inputs = {"input_ids": ids}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = ids
    try:
        model(**inputs)
    finally:
        handle.remove()
    return all(seen)


def _is_linear(module: nn.Module) -> bool:
    return next(iter(list_sites(nn.ModuleDict({"m": module}))), None) is not None and not list(
        module.children()
    )


def _stack_of(model: PreTrainedModel, stack: str) -> str:
    """Path of the decoder or encoder of an encoder-decoder; "" of other models."""
    if not model.config.is_encoder_decoder:
        return ""
    wanted = model.get_encoder() if stack == "encoder" else model.get_decoder()
    return next(str(path) for path, module in model.named_modules() if module is wanted)


def _unknown(model: PreTrainedModel, name: str, architecture: str, stack: str) -> str:
    """Which linear maps there are, and the two lines that make the model work."""
    inside = _stack_of(model, stack)
    lists = [
        (path, m)
        for path, m in model.named_modules()
        if isinstance(m, nn.ModuleList)
        and path.startswith(inside)
        and any(_is_linear(inner) for inner in m.modules())
    ]
    known = ", ".join(sorted(FAMILIES))
    if not lists:
        return (
            f"model.name: {name} is of family '{architecture}', expected one of {known}; "
            "it has no list of blocks with linear maps"
        )
    path, found = max(lists, key=lambda pair: len(pair[1]))
    maps = [inner for inner, m in found[0].named_modules() if _is_linear(m)]
    likely = [m for m in maps if "attn" not in m and "attention" not in m.lower()] or maps
    return (
        f"model.name: {name} is of family '{architecture}', expected one of {known}; its blocks "
        f"hold the linear maps {', '.join(maps)}; these two settings make it work: "
        f"model.blocks={path} site.maps=[{','.join(likely)}]"
    )
