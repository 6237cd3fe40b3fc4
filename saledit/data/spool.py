"""Sequences whose values are not in main memory: they lie in a file, or in another sequence.

A million records as Python objects take gigabytes, and hardly ever is more than a chunk of them
looked at. What stays in memory is a number for each.
"""

from __future__ import annotations

import json
import os
import tempfile
from abc import abstractmethod
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, TypeVar, overload

from saledit.errors import JobError
from saledit.files import reason
from saledit.records import Record, Sample, Writing

T = TypeVar("T")
S = TypeVar("S")
_BLOCK = 1 << 18  # bytes that are written, or read ahead, at a time


class Lazy(Sequence[T]):
    """A sequence that makes its values when they are asked for. Slices are lists."""

    @abstractmethod
    def at(self, i: int) -> T:
        """The value at a position from 0 to its length - 1."""

    @overload
    def __getitem__(self, index: int) -> T: ...

    @overload
    def __getitem__(self, index: slice) -> list[T]: ...

    def __getitem__(self, index: int | slice) -> T | list[T]:
        """A value, or a list of some."""
        if isinstance(index, slice):
            return [self.at(i) for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"{index} of {len(self)}")
        return self.at(index % len(self))

    def __iter__(self) -> Iterator[T]:
        """All values, one after another."""
        return (self.at(i) for i in range(len(self)))

    def __eq__(self, other: object) -> bool:
        """Whether another sequence has the same values."""
        if not isinstance(other, Sequence) or len(self) != len(other):
            return NotImplemented if not isinstance(other, Sequence) else False
        return all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """What it is, and how long."""
        return f"<{type(self).__name__} of {len(self)}>"


class Spool(Lazy[T]):
    """Values in a file that has no name and goes with the process; what is appended stays.

    Args:
        plain: turns a value into what JSON can hold.
        made: turns that into the value.
        folder: where the file is; not in memory, as a system's folder for short-lived files may be.

    Raises:
        JobError: the disk is full or the folder cannot be written; here and while appending.
    """

    def __init__(self, plain: Callable[[T], Any], made: Callable[[Any], T], folder: Path) -> None:
        self._plain, self._made, self._folder = plain, made, folder
        self._ends = array("q", [0])
        self._open: list[bytes] = []
        self._n_open = 0
        with self._reported():
            folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115

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
        self._write()
        start, end = self._ends[i], self._ends[i + 1]
        return self._made(json.loads(os.pread(self._file.fileno(), end - start, start)))

    def __iter__(self) -> Iterator[T]:
        """All values, read a block at a time."""
        self._write()
        i, n = 0, len(self)
        while i < n:
            start = self._ends[i]
            last = max(i + 1, bisect_right(self._ends, start + _BLOCK, i, n + 1) - 1)
            block = os.pread(self._file.fileno(), self._ends[last] - start, start)
            bounds = [end - start for end in self._ends[i : last + 1]]
            for a, b in pairwise(bounds):
                yield self._made(json.loads(block[a:b]))
            i = last

    def _write(self) -> None:
        if not self._open:
            return
        data = b"".join(self._open)
        place = self._ends[-1] - len(data)
        with self._reported():
            while data:
                n = os.pwrite(self._file.fileno(), data, place)
                data, place = data[n:], place + n
        self._open, self._n_open = [], 0

    @contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise JobError(
                f"{self._folder}: cannot be written ({reason(error)}); make room, or name another "
                "folder: output=..."
            ) from error


class Picked(Lazy[T]):
    """Some values of another sequence, in an order of their own.

    Args:
        source: the sequence.
        index: positions in it.
    """

    def __init__(self, source: Sequence[T], index: Iterable[int]) -> None:
        self._index = index if isinstance(index, array) else array("q", index)
        self._source = source
        if isinstance(source, Picked):  # one step, however often
            self._index = array("q", (source._index[i] for i in self._index))
            self._source = source._source

    def __len__(self) -> int:
        """How many there are."""
        return len(self._index)

    def at(self, i: int) -> T:
        """The value at a position."""
        return self._source[self._index[i]]


class Joined(Lazy[T]):
    """Sequences one behind another."""

    def __init__(self, *parts: Sequence[T]) -> None:
        self._parts = [part for part in parts if len(part)]
        self._ends = list(accumulate(map(len, self._parts)))

    def __len__(self) -> int:
        """How many values there are in all."""
        return self._ends[-1] if self._ends else 0

    def at(self, i: int) -> T:
        """The value at a position."""
        which = bisect_right(self._ends, i)
        return self._parts[which][i - (self._ends[which - 1] if which else 0)]

    def __iter__(self) -> Iterator[T]:
        """All values, each part as it goes through its own."""
        for part in self._parts:
            yield from part


class Mapped(Lazy[T]):
    """What a function makes of the values of another sequence.

    Args:
        function: makes it.
        source: the sequence.
    """

    def __init__(self, function: Callable[[S], T], source: Sequence[S]) -> None:
        self._function: Callable[[Any], T] = function
        self._source = source

    def __len__(self) -> int:
        """How many there are."""
        return len(self._source)

    def at(self, i: int) -> T:
        """The value at a position."""
        return self._function(self._source[i])

    def __iter__(self) -> Iterator[T]:
        """All values, as the source goes through its own."""
        return map(self._function, self._source)


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
