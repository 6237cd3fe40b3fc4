"""Reading files that somebody else may have made: regular ones, and no more than there may be.

A named pipe would be waited for without end, a device has no end, and a file can be larger than
memory. What is refused here is an ``OSError`` whose ``strerror`` says why (see ``reason``).
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import stat
from functools import cache
from pathlib import Path
from typing import BinaryIO, cast

MOST = 256 << 20  # bytes of a file that is read as a whole

_KINDS = (
    (stat.S_ISDIR, "is a folder"),
    (stat.S_ISFIFO, "is a named pipe"),
    (stat.S_ISSOCK, "is a socket"),
    (stat.S_ISCHR, "is a device"),
    (stat.S_ISBLK, "is a device"),
)
# Opening a pipe must not wait for a writer, nor may a terminal become the process's own.
_FLAGS = os.O_RDONLY | sum(
    getattr(os, name, 0) for name in ("O_NONBLOCK", "O_CLOEXEC", "O_NOCTTY", "O_BINARY")
)


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading; whatever else has its name is refused at once.

    Args:
        path: the file; links to one are followed.

    Raises:
        OSError: there is none, it cannot be read, or it is a folder, a pipe or a device.
    """
    try:
        number = os.open(path, _FLAGS)
    except ValueError as error:  # a null byte, half of a surrogate pair
        raise OSError(errno.EINVAL, f"is no name of a file ({error})") from error
    try:
        check_regular(os.fstat(number).st_mode)
        return os.fdopen(number, "rb")
    except BaseException:
        os.close(number)
        raise


def check_regular(mode: int) -> None:
    """Refuse what is not a file, by its ``st_mode``.

    Raises:
        OSError: it is a folder, a pipe, a socket or a device.
    """
    if not stat.S_ISREG(mode):
        kind = next((text for test, text in _KINDS if test(mode)), "is of an unknown kind")
        raise OSError(errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL, f"{kind}, not a file")


def read_bytes(path: Path, most: int = MOST) -> bytes:
    """All of a file.

    Args:
        path: the file.
        most: bytes at most.

    Raises:
        OSError: see ``open_regular``; or there is more than that.
    """
    with open_regular(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        data = b"" if size > most else stream.read(most + 1)
    if max(size, len(data)) > most:
        raise OSError(errno.EFBIG, f"is larger than {most:,} bytes")
    return data


def read_text(path: Path, most: int = MOST) -> str:
    """All of a text in UTF-8.

    Raises:
        OSError: see ``read_bytes``.
        UnicodeDecodeError: it is none.
    """
    return read_bytes(path, most).decode("utf-8")


def is_file(path: Path) -> bool:
    """Whether there is a regular file; a name that no file can have is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_folder(path: Path) -> bool:
    """Whether there is a folder; a name that no folder can have is none."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def file_hash(path: Path) -> str:
    """SHA-256 of a file in hexadecimal digits; "" where there is none."""
    try:
        with open_regular(path) as stream:
            return hashlib.file_digest(cast(io.BufferedReader, stream), "sha256").hexdigest()
    except OSError:
        return ""


def known_hash(path: Path) -> str:
    """As ``file_hash``, read once by this process for as long as size and time stay as they are.

    Raises:
        OSError: there is no such file.
    """
    found = path.stat()
    return _hash_of(path, found.st_mtime_ns, found.st_size)


@cache
def _hash_of(path: Path, _changed: int, _size: int) -> str:
    return file_hash(path)


def reason(error: BaseException) -> str:
    """Why something went wrong, in one line."""
    told = getattr(error, "strerror", None) or str(error)
    return next(iter(str(told).strip().splitlines()), type(error).__name__)
