"""Tensors on disk: safetensors with a header that is checked before anything is mapped."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from saledit.errors import ArtifactError, JobError
from saledit.files.reading import open_regular, reason
from saledit.files.values import misfit, parse_json
from saledit.files.writing import replacing

_HEADER = 64 << 20  # bytes of a header at most
_LARGEST, _DIMENSIONS = 1 << 40, 16  # of a shape
_METADATA, _SEAL = "__metadata__", "seal"
_SEALED = 4096  # numbers of a tensor of floats up to which all of them are in the seal
_TENSOR = {"dtype": str, "shape": [int], "data_offsets": [int]}
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file, whole or not at all.

    Raises:
        JobError: the disk is full or the place cannot be written.
    """
    owned = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as part:
        try:
            # safetensors 0.8 writes a broken header for no tensors and empty metadata.
            save_file(owned, part, dict(metadata) if metadata else None)
        except SafetensorError as error:  # it reports a full disk in its own way
            raise JobError(f"{path}: cannot be written: {error}; nothing was changed") from error


def read_tensors(path: Path, what: str) -> dict[str, Tensor]:
    """Map a safetensors file into memory; pages are read when they are touched.

    Args:
        path: the file.
        what: what it should be, for messages.

    Raises:
        ArtifactError: missing, broken, or not safetensors (a pickle, say).
    """
    with _explained(path, what):
        for name in read_header(path):
            if not name.isprintable() or set(name) & set("/\\"):
                raise ValueError(f"the name {name[:60]!r} of a tensor")
        return load_file(path)


def read_metadata(path: Path, what: str) -> dict[str, str]:
    """Read the metadata of a safetensors file.

    Raises:
        ArtifactError: missing, broken, or not safetensors.
    """
    with _explained(path, what):
        found: dict[str, str] = read_header(path).get(_METADATA, {})
        return found


@contextmanager
def _explained(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise ArtifactError(f"{path}: expected {what}, got no such file; check the path") from None
    # torch names an impossible shape by a TypeError or a RuntimeError.
    except (SafetensorError, OSError, ValueError, TypeError, RuntimeError) as error:
        kind = "a pickle; saledit never reads one" if _is_pickle(path) else f"({reason(error)})"
        raise ArtifactError(f"{path}: expected {what} as safetensors, got {kind}") from error


def read_header(path: Path) -> dict[str, Any]:
    """The header of a safetensors file, in one meaning: no name twice, shapes that can be.

    Args:
        path: the file.

    Returns:
        By name ``dtype``, ``shape`` and ``data_offsets``; ``__metadata__`` where there is any.

    Raises:
        OSError: it cannot be read, or is no file.
        ValueError: it has no such header, or the data ends before or behind what it tells.
    """
    with open_regular(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        told = int.from_bytes(stream.read(8), "little")
        if size < 8 or told > min(size - 8, _HEADER):
            raise ValueError(f"a header of {told} bytes in a file of {size}")
        header = parse_json(stream.read(told))
    if fault := misfit(header, {f"{_METADATA}?": {str: str}}):
        raise ValueError(f"a header with {fault}")
    end = 0
    for name, about in header.items():
        if name == _METADATA:
            continue
        if fault := misfit(about, _TENSOR):
            raise ValueError(f"{fault} at {name:.60}")
        shape = about["shape"]
        if len(shape) > _DIMENSIONS or any(not 0 <= n <= _LARGEST for n in shape):
            raise ValueError(f"an impossible shape at {name:.60}: {shape!s:.60}")
        end = max(end, *about["data_offsets"], 0)
    if 8 + told + end != size:
        raise ValueError(f"{size - 8 - told} bytes of data, where the header tells of {end}")
    return header  # type: ignore[no-any-return]


def _is_pickle(path: Path) -> bool:
    try:
        with open_regular(path) as stream:
            head = stream.read(2)
    except OSError:
        return False
    # A torch.save file is a zip; a bare pickle of protocol 2 or later starts with 0x80.
    return head == b"PK" or head[:1] == b"\x80"


def check_numbers(tensors: Mapping[str, Tensor], where: object, what: str) -> None:
    """Refuse tensors of a kind that no editor and no edit is made of, or that are not finite.

    Args:
        tensors: by name.
        where: the file, for messages.
        what: what they are, for messages.

    Raises:
        ArtifactError: one is of no usual floating-point type, or holds NaN or an infinite number.
    """
    for name, tensor in tensors.items():
        if tensor.dtype not in FLOATS:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise ArtifactError(f"{where}: expected {what} of floating-point numbers, got {kind} "
                f"at {name:.80}; make it anew or take it from a backup")  # fmt: skip
        if not torch.isfinite(tensor).all():
            raise ArtifactError(f"{where}: expected {what} of finite numbers, got NaN or infinity "
                f"at {name:.80}; make it anew or take it from a backup")  # fmt: skip


def keep_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors that are to be read by ``kept_tensors``.

    Raises:
        JobError: the disk is full or the place cannot be written.
    """
    told = dict(metadata or {})
    write_tensors(path, tensors, {**told, _SEAL: _seal(tensors, told)})


def kept_tensors(path: Path, what: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Map tensors into memory, if they are those that were written.

    Names, types, shapes, metadata, all whole numbers (lengths, places, tokens) and tensors of up to
    some thousand floats are held against a seal; larger ones are not read here.

    Returns:
        The tensors and the metadata.

    Raises:
        ArtifactError: missing, broken, or changed since.
    """
    tensors, told = read_tensors(path, what), read_metadata(path, what)
    if told.pop(_SEAL, "") != _seal(tensors, told):
        raise ArtifactError(f"{path}: expected {what} as it was written, got another; delete it")
    return tensors, told


def _seal(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    digest.update(repr(sorted(metadata.items())).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        if not tensor.is_floating_point() or tensor.numel() <= _SEALED:
            data = tensor.detach().cpu().contiguous().reshape(-1)
            digest.update(data.view(torch.uint8).numpy().data if len(data) else b"")
    return digest.hexdigest()
