"""Sequences whose values are not in main memory: they lie in a file.

A million records as Python objects take gigabytes, and hardly ever is more than a chunk of them
looked at. What stays in memory is a number for each.
"""

from __future__ import annotations

import json
import tempfile
import weakref
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

from saledit.data.views import Lazy
from saledit.errors import JobError
from saledit.files import reason
from saledit.records import Record, Sample, Writing

T = TypeVar("T")
_BLOCK = 1 << 18  # bytes that are written, or read ahead, at a time


class Spool(Lazy[T]):
    """Values in a file that has no name and goes with the process; what is appended stays.

    Args:
        plain: turns a value into what JSON can hold.
        made: turns that into the value.
        folder: where the file is; where it cannot be written, the system's folder for short-lived
            files (which may be in memory).

    Raises:
        JobError: the disk is full or broken; while appending or reading.
    """

    def __init__(self, plain: Callable[[T], Any], made: Callable[[Any], T], folder: Path) -> None:
        self._plain, self._made, self._folder = plain, made, folder
        self._ends = array("q", [0])
        self._open: list[bytes] = []
        self._n_open = 0
        self._file: Any = None

    def append(self, value: T) -> None:
        """Add a value at the end."""
        text = json.dumps(self._plain(value)).encode("ascii")
        self._open.append(text)
        self._n_open += len(text)
        self._ends.append(self._ends[-1] + len(text))
        if self._n_open >= _BLOCK:
            self._write()

    def extend(self, values: Iterable[T]) -> None:
        """Add values at the end."""
        for value in values:
            self.append(value)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._ends) - 1

    def at(self, i: int) -> T:
        """The value at a position, read anew."""
        start, end = self._ends[i], self._ends[i + 1]
        return self._made(json.loads(self._read(start, end)))

    def __iter__(self) -> Iterator[T]:
        """All values, read a block at a time."""
        i, n = 0, len(self)
        while i < n:
            start = self._ends[i]
            last = max(i + 1, bisect_right(self._ends, start + _BLOCK, i, n + 1) - 1)
            block = self._read(start, self._ends[last])
            bounds = [end - start for end in self._ends[i : last + 1]]
            for a, b in pairwise(bounds):
                yield self._made(json.loads(block[a:b]))
            i = last

    def _read(self, start: int, end: int) -> bytes:
        self._write()
        with self._reported("read"):
            self._file.seek(start)
            found = bytearray()
            while len(found) < end - start:
                part = self._file.read(end - start - len(found))
                if not part:
                    raise OSError(f"it has ended after {start + len(found)} bytes")
                found += part
        return bytes(found)

    def _write(self) -> None:
        if not self._open:
            return
        data = memoryview(b"".join(self._open))
        with self._reported("written"):
            if self._file is None:
                self._file = self._new_file()
            self._file.seek(self._ends[-1] - len(data))
            while data:
                data = data[self._file.write(data) :]
        self._open, self._n_open = [], 0

    def _new_file(self) -> Any:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            file: Any = tempfile.TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115
        except OSError:  # a cache that may only be read
            file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
        weakref.finalize(self, file.close)
        return file

    @contextmanager
    def _reported(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise JobError(
                f"{self._folder}: a file of records cannot be {what} ({reason(error)}); make room "
                "on a disk of this machine, or name another folder: output=..."
            ) from error


def samples_in(folder: Path) -> Spool[Sample]:
    """An empty sequence of samples that lies in a file."""
    return Spool(_plain, _sample, folder)


def groups_in(folder: Path) -> Spool[tuple[Sample, ...]]:
    """An empty sequence of groups of samples that lies in a file."""
    return Spool(_plains, _samples, folder)


def records_in(folder: Path) -> Spool[Record]:
    """An empty sequence of records that lies in a file."""
    return Spool(_plain_record, _record, folder)


def _plain(s: Sample) -> list[Any]:
    return [s.id, s.inputs, s.target, s.kind, s.accepted, s.subject, s.rival]


def _sample(found: list[Any]) -> Sample:
    name, inputs, target, kind, accepted, subject, rival = found
    return Sample(name, tuple(inputs), target, kind, tuple(accepted), subject, rival)


def _plains(samples: Sequence[Sample]) -> list[Any]:
    return [_plain(sample) for sample in samples]


def _samples(found: list[Any]) -> tuple[Sample, ...]:
    return tuple(_sample(one) for one in found)


def _plain_record(r: Record) -> list[Any]:
    head = [_plain(r.sample), _plains(r.rewordings), r.subjects, _plains(r.locality)]
    return [*head, r.writing.prompts, r.writing.references]


def _record(found: list[Any]) -> Record:
    sample, rewordings, subjects, locality, prompts, references = found
    writing = Writing(tuple(prompts), tuple(references)) if prompts or references else Writing()
    return Record(
        _sample(sample), _samples(rewordings), tuple(subjects), _samples(locality), writing
    )
