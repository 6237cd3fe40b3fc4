"""Sequences that make their values when they are asked for, of other sequences."""

from __future__ import annotations

from abc import abstractmethod
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any, TypeVar, overload

T = TypeVar("T")
S = TypeVar("S")


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


class Flat(Lazy[T]):
    """The values of groups, one behind another; to be gone through rather than picked from.

    Args:
        groups: the groups.
    """

    def __init__(self, groups: Sequence[Sequence[T]]) -> None:
        self._groups = groups
        self._ends = array("q", accumulate(map(len, groups)))

    def __len__(self) -> int:
        """How many values there are in all."""
        return self._ends[-1] if self._ends else 0

    def at(self, i: int) -> T:
        """The value at a position; makes its group."""
        which = bisect_right(self._ends, i)
        return self._groups[which][i - (self._ends[which - 1] if which else 0)]

    def __iter__(self) -> Iterator[T]:
        """All values, each group made once."""
        for group in self._groups:
            yield from group
