"""An append-only file of entries, each of which holds the hash of the one before it.

One JSON object a line, for people as well. A changed, missing or moved entry breaks the chain. An
entry counts from its newline on: what an interrupted writer left behind the last one is no entry.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from saledit.errors import ArtifactError, JobError
from saledit.files import misfit, parse_json, read_bytes, reason
from saledit.files.writing import open_to_append

BEGIN, FIX, UNDO = "begin", "fix", "undo"
_ACTIONS = (BEGIN, FIX, UNDO)
_OWN = {"id": int, "action": str, "time": str, "previous": str, "hash": str}


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that was done.

    Attributes:
        id: counted from 0, the beginning.
        action: ``BEGIN``, ``FIX`` or ``UNDO``.
        time: when, in UTC (ISO 8601).
        facts: what else is told of it.
        previous: hash of the entry before; "" of the first.
        hash: SHA-256 of all of it, the hash of the entry before included.
    """

    id: int
    action: str
    time: str
    facts: Mapping[str, Any]
    previous: str
    hash: str

    def line(self) -> str:
        """The entry as it stands in the file, without a newline."""
        head = {"id": self.id, "action": self.action, "time": self.time}
        tail = {"previous": self.previous, "hash": self.hash}
        return json.dumps({**head, **self.facts, **tail}, ensure_ascii=False, allow_nan=False)


def follow(entries: Sequence[Entry], action: str, facts: Mapping[str, Any]) -> Entry:
    """The entry that comes behind others.

    Raises:
        JobError: a number in it is NaN or infinite.
    """
    last = entries[-1] if entries else None
    time = datetime.now(UTC).isoformat(timespec="seconds")
    id_, previous = (0, "") if last is None else (last.id + 1, last.hash)
    try:
        return Entry(id_, action, time, facts, previous, _hash(id_, action, time, facts, previous))
    except ValueError as error:
        raise JobError("a result is NaN or infinite; nothing was changed") from error


def append(path: Path, entries: Sequence[Entry]) -> None:
    """Put entries behind the others, on disk when this returns.

    Raises:
        JobError: the disk is full or the place cannot be written; the file is as it was.
    """
    try:
        with open_to_append(path) as stream:
            whole = _whole(read_bytes(path))
            stream.truncate(whole)  # what an interrupted writer left
            try:
                stream.write("".join(f"{entry.line()}\n" for entry in entries).encode())
                stream.flush()
                os.fsync(stream.fileno())
            except OSError:
                os.ftruncate(stream.fileno(), whole)
                raise
    except OSError as error:
        raise JobError(
            f"{path}: cannot be written: {error.strerror or error}; nothing was changed"
        ) from error


def read(path: Path) -> list[Entry]:
    """Read all entries and follow their chain; none where there is no file.

    Raises:
        ArtifactError: an entry is broken, was changed, or is missing.
    """
    try:
        data = read_bytes(path)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ArtifactError(
            f"{path}: expected a ledger, got one that {reason(error)}; take the file from a backup"
        ) from error
    out: list[Entry] = []
    for number, line in enumerate(data[: _whole(data)].split(b"\n")[:-1], start=1):
        entry = _entry(f"{path}:{number}", line)
        last = out[-1].hash if out else ""
        if entry.id != number - 1 or entry.previous != last:
            raise ArtifactError(
                f"{path}:{number}: expected entry {number - 1} behind the one before it, got entry "
                f"{entry.id} of another chain: an entry is missing or was moved; take the file "
                "from a backup"
            )
        out.append(entry)
    return out


def _whole(data: bytes) -> int:
    """Bytes up to the last newline."""
    return data.rfind(b"\n") + 1


def _entry(where: str, line: bytes) -> Entry:
    try:
        row = parse_json(line)
        if fault := misfit(row, _OWN):
            raise ValueError(fault)
        facts = {key: value for key, value in row.items() if key not in _OWN}
        id_, action, time, previous = row["id"], row["action"], row["time"], row["previous"]
        if action not in _ACTIONS:
            raise ValueError(f"unknown action '{action:.40}'")
        hash_ = _hash(id_, action, time, facts, previous)
    except ValueError as error:
        raise ArtifactError(
            f"{where}: expected an entry of a ledger, got a broken line ({error!s:.60}); take the "
            "file from a backup"
        ) from error
    if row["hash"] != hash_:
        raise ArtifactError(
            f"{where}: expected entry {id_} as it was written, got one that was changed since; "
            "take the file from a backup"
        )
    return Entry(id_, action, time, facts, previous, hash_)


def _hash(id_: int, action: str, time: str, facts: Mapping[str, Any], previous: str) -> str:
    row = {**facts, "id": id_, "action": action, "time": time, "previous": previous}
    text = json.dumps(row, sort_keys=True, ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
