"""Task models: a frozen transformer with its tokenizer, family facts and fingerprint."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from saledit.errors import SiteError, did_you_mean
from saledit.families import Family
from saledit.models.detour import forward_replaced
from saledit.models.fingerprints import fingerprint, tokenizer_facts
from saledit.models.weights import Weights
from saledit.site import Layer, Site, list_sites, resolve

# Where a model came from, and which version wrote it down, say nothing about what it does.
_NOT_READ = ("_name_or_path", "transformers_version")
_OF_GENERATION = ("bos_token_id", "eos_token_id", "decoder_start_token_id", "forced_bos_token_id")

CLASSIFIER, CAUSAL, SEQ2SEQ = "classifier", "causal", "seq2seq"
UNKNOWN = "unknown"  # what a block returns
_TOKENS, _LOGITS = 4096, 100_000_000


@dataclass(frozen=True)
class TaskModel:
    """A frozen model, ready to be edited.

    Attributes:
        model: the transformers model, in eval mode, without gradients on its weights.
        weights: where these are.
        tokenizer: its tokenizer.
        name: what the user called it.
        family: names inside the architecture.
        blocks_path: dotted path of the list of blocks inside ``model``.
        kind: "classifier", "causal" or "seq2seq".
        head_path: dotted path of the stack whose output the language-model head reads.
    """

    model: PreTrainedModel
    weights: Weights
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

    def weight(self, name: str) -> torch.Tensor:
        """A weight by its name, detached, where the model runs."""
        return self.weights.read(name)

    def thrifty(self) -> AbstractContextManager[None]:
        """For a forward and a backward pass of the whole model over many tokens."""
        return self.weights.thrifty(self._blocks)

    @cached_property
    def no_cache(self) -> dict[str, bool]:
        """Arguments that keep a classifier from keeping keys and values; none where it does not."""
        takes = "use_cache" in inspect.signature(self.model.forward).parameters
        return {"use_cache": False} if takes else {}

    def groups(self, layers: Sequence[Layer]) -> Iterator[Sequence[Layer]]:
        """Layers that one pass looks at."""
        groups = self.weights.layer_groups
        size = len(layers) if groups == 1 else -(-self.n_blocks // groups)
        for start in range(0, len(layers), size):
            yield layers[start : start + size]

    @property
    def pass_tokens(self) -> int:
        """Padded tokens that a pass of the whole model takes at a time."""
        return int(_TOKENS * self.weights.token_share)

    @cached_property
    def reading(self) -> str:
        """Hash of all that decides what the model makes of a text, for the keys of caches.

        That is its weights, its configuration (activations, position base and label names are in
        no weight), the tokens that answers begin and end with, and its tokenizer with the chat
        template.
        """
        own = self.model.config.to_dict()
        for name in _NOT_READ:
            own.pop(name, None)
        # Where answers begin and end is in a file of its own.
        settings = getattr(self.model, "generation_config", None)
        ends = {name: getattr(settings, name, None) for name in _OF_GENERATION}
        head = [self.fingerprint, own, ends, *tokenizer_facts(self.tokenizer)]
        text = json.dumps(head, sort_keys=True, default=str)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    @property
    def device(self) -> torch.device:
        """Where the model reads its inputs."""
        return self.weights.device

    @property
    def dtype(self) -> torch.dtype:
        """What the model's states are of."""
        return self.model.dtype

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
        # Not label2id: whoever sets the names of a model's answers sets these.
        found = self.model.config.id2label or {}
        return {str(label): int(number) for number, label in found.items()}

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
        """Matrix and bias of the language-model head in a type, converted once where frozen."""
        head: Any = self.model.get_output_embeddings()
        if head.weight.requires_grad:  # in fine-tuning they learn, and change with every step
            return head.weight.to(dtype), None if head.bias is None else head.bias.to(dtype)
        kept = self._converted.get(dtype)
        if kept is None or kept[0].device != head.weight.device:
            bias = None if head.bias is None else head.bias.detach().to(dtype)
            kept = self._converted[dtype] = (head.weight.detach().to(dtype), bias)
        return kept

    def project(self, x: torch.Tensor, dtype: torch.dtype, biased: bool = True) -> torch.Tensor:
        """The product of the language-model head, (N, D) -> (N, C), in a type."""
        if self._own_head is not None:
            return self._own_head(x, dtype, biased)
        weight, bias = self.head_weights(dtype)
        return nn.functional.linear(x.to(dtype), weight, bias if biased else None)

    @cached_property
    def _own_head(self) -> Callable[..., torch.Tensor] | None:
        head = self.model.get_output_embeddings()
        paths = (path for path, module in self.model.named_modules() if module is head)
        return None if head is None else self.weights.head(next(paths))

    def leaving_head(self) -> AbstractContextManager[None]:
        """For runs with the model's own head, in the place of which another product may stand."""
        head: Any = self.model.get_output_embeddings()
        own = self._own_head
        return nullcontext() if own is None else forward_replaced(head, lambda x: own(x, x.dtype))

    @property
    def positions_at_once(self) -> int:
        """Scored positions whose logits are in memory at a time."""
        return int(_LOGITS * self.weights.logit_share) // self.vocabulary

    def thrifty_suffix(self, block: int) -> AbstractContextManager[None]:
        """For one suffix run from a block upward."""
        above = range(block + 1, self.n_blocks - 1)
        return self.weights.thrifty_suffix(self.block(i) for i in above)

    def passing_by(self, index: int, forward: Callable[..., Any]) -> AbstractContextManager[None]:
        """For passes in which another forward takes the place of a block."""
        return self.weights.passing_by(self._blocks, index, forward)

    @cached_property
    def _converted(self) -> dict[torch.dtype, tuple[torch.Tensor, torch.Tensor | None]]:
        return {}

    @cached_property
    def beginnings(self) -> dict[int, tuple[str, ...]]:
        """Texts that the unedited model came up with, by how many (``saledit.facts.contexts``)."""
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
        # RoBERTa and its kin count positions from behind the one of padding.
        words = self.model.get_input_embeddings()
        tables = (m for m in self.model.modules() if isinstance(m, nn.Embedding) and m is not words)
        padding = [m.padding_idx for m in tables if m.num_embeddings == table]
        taken = max((1 + place for place in padding if place is not None), default=0)
        return int(min(table - taken, self.tokenizer.model_max_length))

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
        for name in maps:
            if name not in known:
                raise SiteError(
                    f"site.maps: expected linear maps of a block, got '{name}'; "
                    + did_you_mean(name, known)
                )
            if list(maps).count(name) > 1:
                raise SiteError(f"site.maps: expected every map once, got '{name}' twice")
        # As they are called, whatever the order in which they are named.
        names = [n for n in known if n in maps] or [n for n in self.family.mlp if n in known]
        return [resolve(self.model, f"{inside}.{name}") for name in names]

    def layers(self, maps: Sequence[str] = ()) -> tuple[Layer, ...]:
        """The layers of all blocks, from the input up."""
        return tuple(self.layer(index, maps) for index in range(self.n_blocks))
