"""Task models: a frozen transformer with its tokenizer, family facts and fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from saledit.errors import SiteError, did_you_mean
from saledit.families import Family
from saledit.site import Layer, Site, list_sites, resolve

# Where a model came from, and which version wrote it down, say nothing about what it does.
_NOT_READ = ("_name_or_path", "transformers_version")

CLASSIFIER, CAUSAL, SEQ2SEQ = "classifier", "causal", "seq2seq"
UNKNOWN = "unknown"  # what a block returns


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

    @cached_property
    def reading(self) -> str:
        """Hash of all that decides what the model makes of a text, for the keys of caches.

        That is its weights, its configuration (activations, position base and label names are in
        no weight) and its tokenizer with the chat template.
        """
        own = self.model.config.to_dict()
        for name in _NOT_READ:
            own.pop(name, None)
        head = [self.fingerprint, own, *_tokenizer_facts(self.tokenizer)]
        text = json.dumps(head, sort_keys=True, default=str)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    @property
    def device(self) -> torch.device:
        """Where the model reads its inputs."""
        return self.model.device

    @property
    def embedding_size(self) -> int:
        """Size of the embeddings that tokens are read as."""
        table = self.model.get_input_embeddings().weight
        assert isinstance(table, torch.Tensor)
        return table.shape[1]

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

    @cached_property
    def beginnings(self) -> dict[int, tuple[str, ...]]:
        """Texts that the unedited model has come up with, by how many (``saledit.contexts``)."""
        return {}

    @property
    def skips_blocks(self) -> bool:
        """True where blocks that a suffix run leaves out may be short-circuited.

        A block of an architecture that is not in the table may hand on more than its states
        (T5's kin a position bias); then the blocks below run, and what they give is replaced.
        """
        return self.family.block_returns != UNKNOWN

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

    def layer(self, index: int, maps: Sequence[str] = (), span: int = 1) -> Layer:
        """The layer of a block, or of several.

        Args:
            index: block index; negative counts from the top.
            maps: names of linear maps below the block; empty for the whole MLP.
            span: blocks: this one and those right below it.

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
        first = index - span + 1
        if not 0 <= first <= index:
            raise SiteError(
                f"site.span: expected 1 to {index + 1} blocks up to block {index}, got {span}; "
                "lower it, or edit a higher layer"
            )
        blocks = range(first, index + 1)
        return Layer(first, tuple(site for i in blocks for site in self._sites(i, maps)))

    def _sites(self, index: int, maps: Sequence[str]) -> list[Site]:
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
        return [resolve(self.model, f"{inside}.{name}") for name in names]

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


def _tokenizer_facts(tokenizer: PreTrainedTokenizerBase) -> list[object]:
    """All that decides which tokens a text becomes."""
    rules: Any = sorted(tokenizer.get_vocab().items())
    if backend := getattr(tokenizer, "backend_tokenizer", None):
        rules = json.loads(backend.to_str())
        for name in ("padding", "truncation"):  # are of the last call, not of the tokenizer
            rules.pop(name, None)
    limits = [tokenizer.model_max_length, tokenizer.special_tokens_map]
    return [rules, limits, tokenizer.chat_template]
