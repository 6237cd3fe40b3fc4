"""Folders of models, looked through before transformers reads them.

transformers takes a named pipe for weights, asks the terminal whether code of a folder may run,
follows an adapter to another model, leaves weights that are missing at random numbers, and makes
room for whatever sizes a configuration names.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from saledit.errors import ModelError
from saledit.files import read_bytes, read_header
from saledit.files.reading import check_regular
from saledit.models.reading import read_parts

ADAPTER, _INDEX = "adapter_config.json", "model.safetensors.index.json"
READ = (".json", ".safetensors", ".txt", ".model", ".jinja", ".bin")
_LAYERS = 4096  # blocks at most
_SPARE = 1 << 25  # numbers that a model may have beyond twice what its files hold: a fresh head


def check_folder(folder: Path) -> int:
    """Refuse a folder that is not plainly a model's.

    Links are followed: the hub's cache is made of them. Nothing is written here.

    Args:
        folder: with ``config.json`` and safetensors.

    Returns:
        How many numbers its weights are; 0 where there are none.

    Raises:
        ModelError: an adapter is no model; a shard lies elsewhere; impossibly many blocks.
        OSError, ValueError: a file is a pipe or a device, or is broken.
    """
    if (folder / ADAPTER).exists():
        raise ModelError(
            f"model.name: expected a model, got a PEFT adapter in {folder}; merge it into its base "
            "model first, or name that"
        )
    for path in sorted(folder.iterdir()):
        if path.suffix in READ and path.exists():
            try:
                check_regular(path.stat().st_mode)
            except OSError as error:
                raise OSError(f"{path} {error.strerror}") from error
    if (folder / "config.json").exists():
        _check_layers(_json(folder / "config.json"), folder)
    if (folder / _INDEX).exists():
        _check_index(_json(folder / _INDEX), folder)
    headers = [read_header(path) for path in sorted(folder.glob("*.safetensors"))]
    shapes = [about.get("shape", ()) for header in headers for about in header.values()]
    return sum(torch.Size(shape).numel() for shape in shapes if shape)


def _json(path: Path) -> Any:
    """A file of others, as leniently as transformers reads it."""
    try:
        return json.loads(read_bytes(path))
    except RecursionError:
        raise ValueError(f"{path} has too many lists in each other") from None


def _check_layers(config: Any, folder: Path) -> None:
    waiting = [config]
    while waiting:
        here = waiting.pop()
        for name, value in here.items() if isinstance(here, dict) else ():
            if isinstance(value, dict):
                waiting.append(value)
            elif isinstance(value, int) and "layer" in name and value > _LAYERS:
                raise ModelError(
                    f"model.name: expected at most {_LAYERS} blocks in {folder / 'config.json'}, "
                    f"got {name} = {value!s:.20}; take the file from a backup"
                )


def _check_index(index: Any, folder: Path) -> None:
    names = index.get("weight_map", {}) if isinstance(index, dict) else {}
    for name in set(names.values()) if isinstance(names, dict) else ():
        if not isinstance(name, str) or Path(name).name != name or not (folder / name).is_file():
            raise ModelError(
                f"model.name: expected {_INDEX} to name files of {folder}, got {name!r:.80}; take "
                "the file from a backup"
            )


def quantised_by(config: Any) -> str:
    """The method that a model's weights are quantised with; "" for plain ones."""
    found = getattr(config, "quantization_config", None)
    told = found if isinstance(found, dict) else found.to_dict() if found is not None else {}
    return str(told.get("quant_method") or "unnamed")[:40] if found is not None else ""


def check_size(
    build: Callable[[Any], torch.nn.Module], config: Any, stored: int, folder: Path
) -> None:
    """Refuse a configuration of a model far larger than its weights, before room is made for it.

    Args:
        build: makes the model of a configuration.
        config: the model's configuration.
        stored: how many numbers its files hold; 0 where that is not known.
        folder: where they are.

    Raises:
        ModelError: it is one.
    """
    if not stored:
        return
    with torch.device("meta"):
        model = build(config)
    told = sum(parameter.numel() for parameter in model.parameters())
    if told > 2 * stored + _SPARE:
        raise ModelError(
            f"model.name: expected {told:,} numbers as {folder / 'config.json'} tells, got "
            f"{stored:,}; take both files from one model"
        )


def check_finite(model: torch.nn.Module, blocks: int, name: str) -> None:
    """Refuse a model without blocks, or with weights that are NaN or infinite.

    Raises:
        ModelError: it is one.
    """
    if not blocks:
        raise ModelError(
            f"model.name: expected a model with blocks, got none in '{name}'; see its config.json"
        )
    for key, _ in model.named_parameters():
        parts = (part for part in read_parts(model, key) if part.numel())
        if not all(torch.isfinite(end) for part in parts for end in part.aminmax()):
            raise ModelError(
                f"model.name: expected finite weights in '{name}', got {key}, which is not finite; "
                "take the file from a backup"
            )


def check_loaded(
    names: Iterable[str], what: str, name: str, remedy: str = "name a whole model of this kind"
) -> None:
    """Refuse a model some of whose weights transformers has made up.

    Raises:
        ModelError: there are such.
    """
    found = sorted(names)
    if found:
        raise ModelError(
            f"model.name: expected all weights in '{name}', got none{what} for {found[0]}"
            f"{f' and {len(found) - 1} others' if found[1:] else ''}; {remedy}"
        )
