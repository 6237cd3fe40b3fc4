"""Task models: a frozen transformer with its tokenizer, family facts and fingerprint."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from saledit.attention import prefer_float_attention
from saledit.errors import ModelError, SiteError, did_you_mean
from saledit.families import FAMILIES, Family
from saledit.site import Layer, list_sites, resolve

_PACKAGE = "package:"


@dataclass(frozen=True)
class TaskModel:
    """A frozen model, ready to be edited.

    Attributes:
        model: the transformers model, in eval mode, without gradients on its weights.
        tokenizer: its tokenizer.
        name: what the user called it.
        family: names inside the architecture.
        blocks_path: dotted path of the list of blocks inside ``model``.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    family: Family
    blocks_path: str

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
    def max_length(self) -> int:
        """Longest input in tokens: the tokenizer's limit or the position table's."""
        table = getattr(self.model.config, "max_position_embeddings", 512)
        # RoBERTa keeps two rows of its position table for padding.
        table -= 2 if self.model.config.model_type == "roberta" else 0
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
        names = tuple(maps) or self.family.mlp
        known = [
            s.name.removeprefix(f"{inside}.")
            for s in list_sites(self.model)
            if s.name.startswith(f"{inside}.")
        ]
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


def wrap(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str) -> TaskModel:
    """Freeze a loaded model and look up its family.

    Args:
        model: a transformers model of a known family.
        tokenizer: its tokenizer.
        name: what to call it in messages and results.

    Returns:
        The task model; ``model`` itself is frozen in place (eval mode, no gradients).

    Raises:
        ModelError: the architecture is not in the family table.
    """
    kind = model.config.model_type
    family = FAMILIES.get(kind)
    if family is None:
        maps = sorted({s.name.rsplit(".", 1)[-1] for s in list_sites(model)})
        raise ModelError(
            f"model.name: {name} is of family '{kind}', expected one of "
            f"{', '.join(sorted(FAMILIES))}; its linear maps are called {', '.join(maps)}"
        )
    prefix = model.base_model_prefix
    backbone = prefix if hasattr(model, prefix) else ""
    prefer_float_attention(model)
    model.requires_grad_(False)
    model.eval()
    path = f"{backbone}.{family.blocks}".strip(".")
    return TaskModel(model, tokenizer, name, family, path)


def find_weights(name: str) -> str:
    """Turn a model name into what ``from_pretrained`` takes.

    Args:
        name: a local folder, a hub name, or ``package:NAME`` for a Python package that
            carries a model.

    Returns:
        A folder, or the hub name unchanged.

    Raises:
        ModelError: the package is not installed or carries no model.
    """
    if not name.startswith(_PACKAGE):
        return name
    package = name.removeprefix(_PACKAGE)
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(
            f"model.name: package '{package}' is not installed; pip install 'saledit[demo]'"
        )
    root = Path(next(iter(spec.submodule_search_locations)))
    for config in sorted(root.rglob("config.json"), key=lambda path: len(path.parts)):
        if any(config.parent.glob("*.safetensors")):
            return str(config.parent)
    raise ModelError(f"model.name: package '{package}' carries no safetensors model under {root}")


def load_classifier(name: str, labels: Sequence[str] | None = None) -> TaskModel:
    """Load a sequence classifier.

    Args:
        name: a local folder, a hub name, or ``package:NAME``.
        labels: label names for a fresh classification head (about to be fine-tuned);
            None where the model brings its own.

    Returns:
        The frozen task model.

    Raises:
        ModelError: nothing there, not a safetensors model, or an unknown family.
    """
    source = find_weights(name)
    extra: Mapping[str, object] = {}
    if labels is not None:
        extra = {
            "ignore_mismatched_sizes": True,  # another task's head gives way to a fresh one
            "id2label": dict(enumerate(labels)),
            "label2id": {label: i for i, label in enumerate(labels)},
        }
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
        model = AutoModelForSequenceClassification.from_pretrained(
            source, use_safetensors=True, **extra
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ModelError(
            f"model.name: cannot load '{name}': {reason}; expected a folder with config.json and "
            "model.safetensors (a pickled .bin is never read), a hub name, or package:NAME"
        ) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    return wrap(model, tokenizer, name)
