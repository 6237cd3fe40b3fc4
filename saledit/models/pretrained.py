"""What transformers reads, with no code of the model's own and its errors in one line."""

from __future__ import annotations

import contextlib
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase

from saledit.errors import ModelError, SaleditError
from saledit.files import is_file, is_folder
from saledit.models.checking import check_folder, check_size, quantised_by

#: Code that comes with a model never runs, and nobody is asked whether it may.
SAFE: Mapping[str, Any] = {"trust_remote_code": False}


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
        # Where a run was made elsewhere, the path that it names may be a relative one.
        path = Path(name)
        here = "" if is_file(path) or is_folder(path) else f" (no {path.absolute()})"
        raise ModelError(
            f"model.name: cannot load '{name}': {reason}; expected a folder with config.json and "
            f"model.safetensors{here} (a pickled .bin is never read), a hub name, or package:NAME"
        ) from error


def read_tokenizer(source: str) -> PreTrainedTokenizerBase:
    """Read a tokenizer; of a folder that was looked through.

    Raises:
        ModelError: the folder is not plainly a model's, or holds no tokenizer.
        OSError, ValueError: a file is missing, broken, a pipe or a device; transformers raises
            others, too.
    """
    if Path(source).is_dir():
        check_folder(Path(source))
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(source, **SAFE)
    # Of a folder without a tokenizer's files transformers makes one that knows no word.
    if not tokenizer.get_vocab().keys() - set(tokenizer.all_special_tokens):
        raise ModelError(
            f"model.name: expected tokenizer files in '{source}', got none that hold a word; save "
            "the tokenizer there, too (tokenizer.save_pretrained)"
        )
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
    config = AutoConfig.from_pretrained(source, **SAFE)
    if method := quantised_by(config):
        raise ModelError(f"model.name: expected plain weights in '{source}', got {method} ones")
    check_size(partial(kind.from_config, **SAFE), config, stored, Path(source))
    options = {**options, **SAFE, "use_safetensors": True, "output_loading_info": True}
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
