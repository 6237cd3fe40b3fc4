"""Files that are whole or not there: written beside their place, synced, renamed."""

from __future__ import annotations

import errno
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from saledit.errors import JobError
from saledit.files.reading import check_regular


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a name beside a file's place, to be filled; it is synced and renamed there.

    A link at the place is replaced, never followed.

    Raises:
        JobError: the disk is full or the place cannot be written.
    """
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
    finally:
        with suppress(OSError):  # the file's folder itself may be missing
            part.unlink()


def beside(path: Path) -> Path:
    """A name of its own for this process and moment; made with the user's usual permissions."""
    return path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.part")


def _sync(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def open_to_append(path: Path) -> BinaryIO:
    """Open a file to write at its end; it is made where there is none.

    Raises:
        OSError: it cannot be written, is no file, or is a link: that would be written elsewhere.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    flags |= sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC"))
    try:
        number = os.open(path, flags, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "is a link; put the file itself there") from error
        raise
    try:
        check_regular(os.fstat(number).st_mode)
        return os.fdopen(number, "ab")
    except BaseException:
        os.close(number)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file, whole or not at all.

    Raises:
        JobError: the disk is full or the place cannot be written.
    """
    with replacing(path) as part:
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
    with replacing(path) as part, part.open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


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
    # Rights, a link or a folder in the lock's place, a name that no file has.
    except (OSError, NotImplementedError, ValueError) as error:
        raise JobError(f"{path}: cannot be written: {error}; nothing was changed") from error
    try:
        yield
    finally:
        lock.release()
