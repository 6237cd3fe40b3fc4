"""Task models: a frozen transformer with its tokenizer, family facts and fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from saledit.attention import prefer_float_attention
from saledit.errors import ModelError, SiteError, did_you_mean
from saledit.families import ENCODERS, FAMILIES, Family
from saledit.site import Layer, list_sites, resolve

CLASSIFIER, CAUSAL, SEQ2SEQ = "classifier", "causal", "seq2seq"
_STACKS = ("decoder", "encoder")


@dataclass(frozen=True)
class TaskModel:
    """A frozen model, ready to be edited.

    Attributes:
        model: the transformers model, in eval mode, without gradients on its weights.
        tokenizer: its tokenizer.
        name: what the user called it.
        family: names inside the architecture.
        blocks_path: dotted path of the list of blocks inside ``model``.
        kind: "classifier", "causal" or "seq2seq".
        head_path: dotted path of the stack whose output the language-model head reads.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    family: Family
    blocks_path: str
    kind: str = CLASSIFIER
    head_path: str = ""

    @cached_property
    def fingerprint(self) -> str:
        """Hash of every weight; two models with it are the same model."""
        return fingerprint(self.model)

    @property
    def n_blocks(self) -> int:
        """Number of blocks."""
        return len(self._blocks)

    @property
    def pools_first_token(self) -> bool:
        """True where only the first token of the last block reaches the logits."""
        return self.family.pools_first_token

    @cached_property
    def labels(self) -> dict[str, int]:
        """Label names of a classifier and their numbers."""
        found = self.model.config.label2id or {}
        return {str(label): int(number) for label, number in found.items()}

    @property
    def in_encoder(self) -> bool:
        """True where the edited stack is the encoder of an encoder-decoder."""
        return self.kind == SEQ2SEQ and not self.blocks_path.startswith(self.head_path)

    @property
    def vocabulary(self) -> int:
        """Logits a scored position; 1 of a classifier, whose few do not count."""
        if self.kind == CLASSIFIER:
            return 1
        head = self.model.get_output_embeddings()
        assert isinstance(head.weight, torch.Tensor)
        return len(head.weight)

    def head_weights(self, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Matrix and bias of the language-model head in a type, converted once: they are frozen."""
        head: Any = self.model.get_output_embeddings()
        kept = self._converted.get(dtype)
        if kept is None or kept[0].device != head.weight.device:
            bias = None if head.bias is None else head.bias.detach().to(dtype)
            kept = self._converted[dtype] = (head.weight.detach().to(dtype), bias)
        return kept

    @cached_property
    def _converted(self) -> dict[torch.dtype, tuple[torch.Tensor, torch.Tensor | None]]:
        return {}

    @property
    def max_length(self) -> int:
        """Longest input in tokens: the tokenizer's limit or the position table's."""
        config = self.model.config
        # T5 has no table; its positions are relative.
        table = getattr(config, "max_position_embeddings", getattr(config, "n_positions", 512))
        # RoBERTa keeps two rows of its position table for padding.
        table -= 2 if config.model_type == "roberta" else 0
        return int(min(table, self.tokenizer.model_max_length))

    @cached_property
    def _blocks(self) -> nn.ModuleList:
        blocks = self.model.get_submodule(self.blocks_path)
        assert isinstance(blocks, nn.ModuleList)
        return blocks

    def block(self, index: int) -> nn.Module:
        """The block at an index."""
        return self._blocks[index]

    def block_name(self, index: int) -> str:
        """Dotted name of the block at an index."""
        return f"{self.blocks_path}.{index}"

    def layer(self, index: int, maps: Sequence[str] = ()) -> Layer:
        """The layer of a block.

        Args:
            index: block index; negative counts from the top.
            maps: names of linear maps below the block; empty for the whole MLP.

        Returns:
            The layer with its sites in call order.

        Raises:
            SiteError: no such block, or no such map in it.
        """
        if not -self.n_blocks <= index < self.n_blocks:
            raise SiteError(
                f"site.layer: expected a block from 0 to {self.n_blocks - 1}, got {index}; "
                f"{self.name} has {self.n_blocks} blocks"
            )
        index %= self.n_blocks
        inside = self.block_name(index)
        known = [
            s.name.removeprefix(f"{inside}.")
            for s in list_sites(self.model)
            if s.name.startswith(f"{inside}.")
        ]
        names = tuple(maps) or tuple(name for name in self.family.mlp if name in known)
        for name in names:
            if name not in known:
                raise SiteError(
                    f"site.maps: expected linear maps of a block, got '{name}'; "
                    + did_you_mean(name, known)
                )
        return Layer(index, tuple(resolve(self.model, f"{inside}.{name}") for name in names))

    def layers(self, maps: Sequence[str] = ()) -> tuple[Layer, ...]:
        """The layers of all blocks, from the input up."""
        return tuple(self.layer(index, maps) for index in range(self.n_blocks))


def fingerprint(model: nn.Module) -> str:
    """Hash names, shapes, types and bytes of all weights and buffers that are saved.

    Args:
        model: any module.

    Returns:
        32 hexadecimal digits (BLAKE2b).
    """
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}|{tuple(tensor.shape)}|{tensor.dtype}|".encode())
        data = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(data.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def wrap(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    name: str,
    stack: str = "decoder",
    blocks: str = "",
) -> TaskModel:
    """Freeze a loaded model and look up its family.

    Args:
        model: a transformers model: a classifier, a causal or an encoder-decoder language model.
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
    if kind != CLASSIFIER:
        decoder = path
        if stack == "encoder":
            decoder = _blocks_path(model, FAMILIES[model.config.model_type])
        head = decoder.rpartition(".")[0]
    prefer_float_attention(model)
    model.requires_grad_(False)
    model.eval()
    return TaskModel(model, tokenizer, name, family, path, kind, head)


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
        raise ModelError(_unknown(model, name, architecture))
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
    maps = [name for name, m in found[0].named_modules() if _is_linear(m)]
    return Family(blocks=blocks, mlp=tuple(maps))


def _is_linear(module: nn.Module) -> bool:
    return next(iter(list_sites(nn.ModuleDict({"m": module}))), None) is not None and not list(
        module.children()
    )


def _unknown(model: PreTrainedModel, name: str, architecture: str) -> str:
    """Which linear maps there are, and the two lines that make the model work."""
    lists = [
        (path, m)
        for path, m in model.named_modules()
        if isinstance(m, nn.ModuleList) and any(_is_linear(inner) for inner in m.modules())
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
