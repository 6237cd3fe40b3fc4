"""Files that are whole or not there: written beside their place, synced, renamed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from saledit.errors import ArtifactError, JobError


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    part = beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
        mode = part.stat().st_mode
        yield part
        part.chmod(mode)  # safetensors makes files that nobody else can read
        _sync(part)
        part.replace(path)
    except OSError as error:
        raise JobError(
            f"{path}: cannot be written: {error.strerror or error}; nothing was changed"
        ) from error
    except SafetensorError as error:  # safetensors reports a full disk in its own way
        raise JobError(f"{path}: cannot be written: {error}; nothing was changed") from error
    finally:
        with suppress(OSError):  # the file's folder itself may be missing
            part.unlink()


def beside(path: Path) -> Path:
    """A name of its own for this process and moment; made with the user's usual permissions."""
    return path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.part")


def _sync(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file, whole or not at all.

    Raises:
        JobError: the disk is full or the place cannot be written.
    """
    with _replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write JSON, whole or not at all; NaN is refused.

    Raises:
        JobError: the disk is full, or a number is NaN or infinite.
    """
    try:
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise JobError(f"{path}: a result is NaN or infinite and was not written") from error
    write_text(path, text + "\n")


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write JSON lines, whole or not at all.

    Raises:
        JobError: the disk is full.
    """
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_json(path: Path, what: str) -> Any:
    """Read JSON.

    Args:
        path: the file.
        what: what it should be, for messages.

    Raises:
        ArtifactError: missing or broken.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(f"{path}: expected {what}, got no such file; check the path") from None
    except (ValueError, OSError) as error:
        raise ArtifactError(f"{path}: expected {what}, got a broken file: {error}") from error


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file, whole or not at all.

    Raises:
        JobError: the disk is full or the place cannot be written.
    """
    owned = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with _replacing(path) as part:
        # safetensors 0.8 writes a broken header for no tensors and empty metadata.
        save_file(owned, part, dict(metadata) if metadata else None)


def read_tensors(path: Path, what: str) -> dict[str, Tensor]:
    """Map a safetensors file into memory; pages are read when they are touched.

    Args:
        path: the file.
        what: what it should be, for messages.

    Raises:
        ArtifactError: missing, broken, or not safetensors (a pickle, say).
    """
    try:
        return load_file(path)
    except FileNotFoundError:
        raise ArtifactError(f"{path}: expected {what}, got no such file; check the path") from None
    except (SafetensorError, OSError, ValueError) as error:
        kind = "a pickle; saledit never reads one" if _is_pickle(path) else f"({error})"
        raise ArtifactError(f"{path}: expected {what} as safetensors, got {kind}") from error


def read_metadata(path: Path, what: str) -> dict[str, str]:
    """Read the metadata of a safetensors file.

    Raises:
        ArtifactError: missing, broken, or not safetensors.
    """
    try:
        with safe_open(path, framework="pt") as stream:
            return stream.metadata() or {}
    except FileNotFoundError:
        raise ArtifactError(f"{path}: expected {what}, got no such file; check the path") from None
    except (SafetensorError, OSError, ValueError) as error:
        kind = "a pickle; saledit never reads one" if _is_pickle(path) else f"({error})"
        raise ArtifactError(f"{path}: expected {what} as safetensors, got {kind}") from error


def file_hash(path: Path) -> str:
    """SHA-256 of a file in hexadecimal digits; "" where there is none."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return ""


def _is_pickle(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            head = stream.read(2)
    except OSError:
        return False
    # A torch.save file is a zip; a bare pickle of protocol 2 or later starts with 0x80.
    return head == b"PK" or head[:1] == b"\x80"


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Fill a folder beside its place and rename it there when all went well.

    Args:
        path: where the folder shall be; an old one is replaced.

    Yields:
        The folder to fill.

    Raises:
        JobError: the disk is full or the place cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = beside(path)
        part.mkdir()
    except OSError as error:
        raise JobError(
            f"{path}: cannot be written: {error.strerror or error}; nothing was changed"
        ) from error
    try:
        (part / "new").mkdir()
        yield part / "new"
        if path.is_dir():  # kept aside until the new one stands, so nothing is lost on a failure
            path.replace(part / "old")
        try:
            (part / "new").replace(path)
        except OSError:
            if (part / "old").exists():
                (part / "old").replace(path)
            raise
    except OSError as error:
        raise JobError(
            f"{path}: cannot be written: {error.strerror or error}; nothing was changed"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Let one process at a time make a file; others wait here and then find it made.

    The lock is the system's (``flock``), so a process that is killed leaves none behind; its
    empty file stays.

    Args:
        path: what is made. Look for it once more inside.

    Raises:
        JobError: the place cannot be written.
    """
    with _locked(path, wait=True):
        yield


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Keep a folder for one process, or say at once that another has it.

    Args:
        path: the folder; it need not exist.

    Raises:
        JobError: another process is writing there, or the place cannot be written.
    """
    with _locked(path, wait=False):
        yield


@contextmanager
def _locked(path: Path, wait: bool) -> Iterator[None]:
    lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=-1 if wait else 0)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise JobError(
            f"{path}: another saledit is writing there; wait for its end, then try again"
        ) from None
    except (OSError, NotImplementedError) as error:
        raise JobError(f"{path}: cannot be written: {error}; nothing was changed") from error
    try:
        yield
    finally:
        lock.release()
