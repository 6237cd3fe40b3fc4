"""Values by key on disk: looked up where they lie, added without writing the rest again.

An SQLite file, so that a change is there whole or not at all and a reader takes no more memory
than what it asks for. It is a cache: what is damaged in it is as if it had never been there.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from saledit.errors import ArtifactError, JobError
from saledit.files.reading import reason
from saledit.files.values import parse_json

_TABLE = """CREATE TABLE IF NOT EXISTS kept (key TEXT PRIMARY KEY, value TEXT, seal BLOB)
WITHOUT ROWID"""
_FIND = "SELECT key, value, seal FROM kept WHERE key IN (SELECT value FROM json_each(?))"
_WAIT = 60.0  # seconds for another process's change
#: What is the disk's fault and not the file's.
_OUTER = {
    sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_NOMEM,
}  # fmt: skip


class Store:
    """Values that JSON can hold, by text keys.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def find(self, keys: Sequence[str]) -> dict[str, Any]:
        """Those of the values that are there and as they were written.

        Raises:
            ArtifactError: a folder has the file's name.
        """
        if not self._is_file():
            return {}
        found: dict[str, Any] = {}
        try:
            with self._opened(is_new=False) as store:
                rows = store.execute(_FIND, (json.dumps(list(keys)),))
                found |= {k: parse_json(v.encode()) for k, v, s in rows if s == _seal(k, v)}
        except (sqlite3.Error, ValueError, RecursionError, OverflowError):
            return found  # what was read before the damage was sealed
        return found

    def keep(self, values: Mapping[str, Any]) -> None:
        """Add values, in one change; a damaged file is begun anew.

        Raises:
            ArtifactError: a folder has the file's name.
            JobError: the disk is full or the place cannot be written.
        """
        texts = {key: json.dumps(value) for key, value in values.items()}
        rows = [(key, text, _seal(key, text)) for key, text in texts.items()]
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if not self._is_file():
                self._forget()
            try:
                self._add(rows)
            except sqlite3.DatabaseError as error:
                if _code(error) in _OUTER:
                    raise
                self._forget()
                self._add(rows)
        except (OSError, sqlite3.Error) as error:
            raise JobError(f"{self._path}: cannot be written: {reason(error)}") from error

    def _add(self, rows: Sequence[tuple[str, str, bytes]]) -> None:
        with self._opened(is_new=True) as store, store:  # one change: all of them, or none
            store.execute(_TABLE)
            store.executemany("INSERT OR REPLACE INTO kept VALUES (?, ?, ?)", rows)

    @contextmanager
    def _opened(self, is_new: bool) -> Iterator[sqlite3.Connection]:
        mode = "rwc" if is_new else "rw"  # a reader may have to take back a change that was cut off
        address = f"{self._path.absolute().as_uri()}?mode={mode}"
        with closing(sqlite3.connect(address, _WAIT, uri=True)) as store:
            store.execute("PRAGMA trusted_schema = OFF")
            store.execute("PRAGMA cell_size_check = ON")
            yield store

    def _is_file(self) -> bool:
        """Whether the file itself is there; whatever else has its name is not opened.

        Raises:
            ArtifactError: it is a folder.
        """
        try:
            mode = self._path.lstat().st_mode
        except OSError:
            return False
        if stat.S_ISDIR(mode):
            raise ArtifactError(f"{self._path}: expected a file, got a folder; remove it")
        return stat.S_ISREG(mode)

    def _forget(self) -> None:
        for name in (self._path.name, f"{self._path.name}-journal"):
            self._path.with_name(name).unlink(missing_ok=True)


def _seal(key: object, value: object) -> bytes:
    return hashlib.blake2b(f"{key}|{value}".encode(errors="replace"), digest_size=16).digest()


def _code(error: sqlite3.Error) -> int:
    """The primary result code; extended ones hold it in their low byte."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
