"""Plain weights of quantised ones, made once.

What is kept of a model while an editor learns has to be that model's in whatever batch it is met,
and kernels for few bits do not promise it: bitsandbytes' for 8 bits rounds inputs by what else is
in the batch (docs/scaling.md, quantised bases). So the base is what the quantised weights stand
for, in the number format of the checkpoint; an edit is added to the outputs of a site
(``saledit.applied``, or as an adapter of peft) and finds its place in the quantised model, too.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    FineGrainedFP8Config,
    PreTrainedModel,
)

from saledit import distributed
from saledit.errors import JobError, ModelError
from saledit.files import file_hash, is_file, new_folder
from saledit.models.checking import READ, check_folder, check_loaded, check_size, quantised_by
from saledit.models.pretrained import SAFE, read_tokenizer

GGUF = ".gguf"
_Made = tuple[PreTrainedModel, Any]  # a model whose weights are plain, and its tokenizer
_Loaded = tuple[PreTrainedModel, dict[str, Any]]  # and what transformers tells of loading it


def plain_weights(source: str, cache: Path | None) -> str:
    """Where the plain weights of a model are.

    Args:
        source: a folder, a GGUF file, or a hub name.
        cache: folder for those that have to be made (15 s for 135 M parameters, 4 bytes each of a
            GGUF file, else as many as the checkpoint's number format has); None refuses them.

    Returns:
        ``source`` where its weights are plain, else a folder within ``cache``.

    Raises:
        ModelError: no such file; a method that is not known here, or whose package is not
            installed.
        OSError, ValueError: transformers cannot read it; it raises others, too.
    """
    if source.endswith(GGUF):
        if not is_file(Path(source)):
            raise ModelError(f"model.name: expected a GGUF file, got no such file '{source}'")
        return _made(source, file_hash(Path(source)), cache, _of_gguf)
    if Path(source).is_dir():
        check_folder(Path(source))
    config = AutoConfig.from_pretrained(source, **SAFE)
    method = quantised_by(config)
    if not method:
        return source
    if method not in _READERS:
        raise ModelError(
            f"model.name: expected plain weights in '{source}', or those of {', '.join(_READERS)} "
            f"or GGUF, got {method}; name the model that they were made of (with "
            "model.stream=true if it does not fit)"
        )
    return _made(source, getattr(config, "_commit_hash", None) or _mark(source), cache, _of)


def _made(source: str, mark: str, cache: Path | None, make: Callable[[str], _Made]) -> str:
    if cache is None:
        raise ModelError(
            f"model.name: expected plain weights in '{source}', got quantised ones; give cache, a "
            "folder in which to make them plain"
        )
    place = cache / f"dequantized-{Path(source).name.removesuffix(GGUF)}-{mark[:16]}"
    distributed.once(place, lambda: _write(make(source), place))
    return str(place)


def model_files(source: str) -> list[Path]:
    """The files that a model is read from: its weights, settings and tokenizer; none of a hub's."""
    path = Path(source)
    if path.is_dir():
        return sorted(found for found in path.iterdir() if found.suffix in READ and is_file(found))
    return [path] if path.is_file() else []


def _mark(source: str) -> str:
    told = "".join(f"{path.name} {file_hash(path)}\n" for path in model_files(source))
    return hashlib.sha256(told.encode()).hexdigest()


def _write(made: _Made, place: Path) -> None:
    found, tokenizer = made
    # The loaded model may say that it is quantised still, and then refuses to be saved.
    settings = found.config.to_dict()
    settings.pop("quantization_config", None)
    with torch.device("meta"):
        plain = type(found)(type(found.config).from_dict(settings))
    plain.load_state_dict(found.state_dict(), assign=True)
    plain.tie_weights()
    if hasattr(found, "generation_config"):
        plain.generation_config = found.generation_config
    with new_folder(place) as part:
        try:
            plain.save_pretrained(part)
            tokenizer.save_pretrained(part)
        except (OSError, SafetensorError) as error:
            raise JobError(f"{place}: cannot be written: {error}; nothing was changed") from error


def _of_gguf(source: str) -> _Made:
    path = Path(source)
    file = {"gguf_file": path.name, **SAFE}
    tokenizer = AutoTokenizer.from_pretrained(str(path.parent), **file)
    model = AutoModelForCausalLM.from_pretrained(str(path.parent), dtype=torch.float32, **file)
    return model, tokenizer


def _of(source: str) -> _Made:
    """A quantised checkpoint as the class that it was saved as."""
    config = AutoConfig.from_pretrained(source, **SAFE)
    name = next(iter(config.architectures or ()), "")
    kind = getattr(transformers, name, None) if name.isidentifier() else None
    if not (isinstance(kind, type) and issubclass(kind, PreTrainedModel)):
        raise ModelError(
            f"model.name: expected '{source}' to name one of transformers' classes under "
            f"architectures in its config.json, got {name!r:.60}"
        )
    tokenizer = read_tokenizer(source)
    if Path(source).is_dir():
        check_size(kind._from_config, config, check_folder(Path(source)), Path(source))
    dtype = config.dtype or torch.float32
    options = {"dtype": dtype, "use_safetensors": True, "output_loading_info": True, **SAFE}
    read = _READERS[quantised_by(config)]
    model, told = read(kind, source, config.quantization_config, options)
    check_loaded(told["missing_keys"], "", source)
    return model, tokenizer


def _bitsandbytes(kind: Any, source: str, _facts: Any, options: Mapping[str, Any]) -> _Loaded:
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ModelError(
            f"model.name: '{source}' is of bitsandbytes, which is not installed; "
            "pip install bitsandbytes"
        )
    model, told = kind.from_pretrained(source, device_map={"": "cpu"}, **options)
    return model.dequantize(dtype=options["dtype"]), told


def _fp8(kind: Any, source: str, facts: Any, options: Mapping[str, Any]) -> _Loaded:
    facts = facts if isinstance(facts, dict) else facts.to_dict()
    plainly = FineGrainedFP8Config(**{**facts, "dequantize": True})
    model, told = kind.from_pretrained(source, quantization_config=plainly, **options)
    return model, told


#: Closed: methods whose checkpoints are known to come out as what they stand for.
_READERS = {"bitsandbytes": _bitsandbytes, "fp8": _fp8}
