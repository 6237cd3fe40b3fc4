"""What caches may take of main memory, and what they took.

Cached tensors are mapped, not read: a page comes into memory when it is touched, and the system
drops it when it needs the room. Until then it counts as the process's, and where memory is limited
by quota rather than by need, somebody has to drop it sooner.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

_STATM = Path("/proc/self/statm")  # Linux: pages of the process; the third number is of files
_AROUND = 1 << 19  # bytes that may come with a touched one: 64 kB, or a large folio of the cache


class Mapped(Protocol):
    """Something mapped into memory that can be let go."""

    def drop(self) -> None:
        """Let it go; it is mapped again when it is asked for."""
        ...


@dataclass
class Room:
    """The room of one run's caches.

    Attributes:
        most: bytes of mapped pages to keep; 0 leaves it to the system.
        found: shards that were in the cache.
        made: those that were not.
        size: bytes on disk of the banks in use.
        seconds: time that making took, of this process.
        dropped: how often pages were dropped.
    """

    most: int = 0
    found: int = 0
    made: int = 0
    size: int = 0
    seconds: float = 0.0
    dropped: int = 0
    _maps: list[Mapped] = field(default_factory=list)
    _ground: int = -1
    _touched: int = 0

    def begin(self) -> None:
        """Before anything is mapped: what is in memory of files now is none of the caches'."""
        if self._ground < 0:
            self._ground = max(0, _file_pages())

    def hold(self, mapped: Mapped, size: int) -> None:
        """Take in something mapped of a size in bytes, of which a part was read."""
        self._maps.append(mapped)
        self.size += size
        self._touched += size
        self.look()

    def touched(self, rows: int, size: int) -> None:
        """Rows were gathered, of so many bytes together; drops pages where they are too many."""
        if not self.most:
            return
        self._touched += size + rows * _AROUND
        # No more can be in memory than was touched: only then is it worth asking.
        if self._touched > self.most:
            self.look()

    def look(self) -> None:
        """Drop pages where too many are in memory now."""
        if not self.most:
            return
        pages = _file_pages()
        here = self._touched if pages < 0 else pages - self._ground
        if here > self.most:
            for mapped in self._maps:
                mapped.drop()
            self.dropped += 1
            here = 0
        self._touched = here

    def count(self, *, is_new: bool) -> None:
        """Count a shard, by whichever process of the run it was found or made."""
        if is_new:
            self.made += 1
        else:
            self.found += 1

    @contextmanager
    def making(self) -> Iterator[None]:
        """Count the time that this process makes shards inside."""
        began = perf_counter()
        yield
        self.seconds += perf_counter() - began

    def as_json(self) -> dict[str, Any]:
        """For results: sizes in MB, and the share that was there."""
        total = self.found + self.made
        return {
            "size_mb": self.size / 2**20,
            "hit_rate": self.found / total if total else 1.0,
            "found": self.found,
            "made": self.made,
            "making_seconds": self.seconds,
            "memory_mb": self.most / 2**20,
            "times_dropped": self.dropped,
        }


def _file_pages() -> int:
    """Bytes of mapped files in this process's memory; -1 where the system does not say."""
    try:
        return int(_STATM.read_bytes().split()[2]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return -1
