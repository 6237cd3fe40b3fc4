"""Dividing records so that no text and no subject is on two sides."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from saledit.data.hashes import number
from saledit.data.views import Picked
from saledit.records import Record

_Numbers = NDArray[np.uint64]
_Places = NDArray[np.int64]


def roots(records: Sequence[Record]) -> _Places:
    """Group records that share a text, a rewording or a subject, directly or in a chain.

    Args:
        records: the records.

    Returns:
        For each record the position of the first one of its group (N,).
    """
    numbers, owners, _ = _read(records)
    return _roots(numbers, owners, len(records))


def _read(records: Iterable[Record], *salts: str) -> tuple[_Numbers, _Places, tuple[_Numbers, ...]]:
    """What is asked of records, in one pass.

    Returns:
        Numbers of all their keys; which record each is of; and for each salt 16 bytes of every
        record that its text and the salt decide, as two numbers (N, 2).
    """
    numbers, owners = array("Q"), array("q")
    digests = tuple(bytearray() for _ in salts)
    for i, record in enumerate(records):
        for key in record.keys():  # noqa: SIM118  (a method of Record, not a dict)
            numbers.append(number(key))
            owners.append(i)
        for salt, digest in zip(salts, digests, strict=True):
            text = "\x1f".join((salt, *record.sample.inputs, record.sample.target))
            digest += hashlib.blake2b(text.encode(), digest_size=16).digest()
    ranks = (np.frombuffer(bytes(d), dtype=">u8").reshape(-1, 2) for d in digests)
    return (
        np.asarray(numbers, dtype=np.uint64),
        np.asarray(owners, dtype=np.int64),
        tuple(rank.astype(np.uint64) for rank in ranks),
    )


def _roots(numbers: _Numbers, owners: _Places, n: int) -> _Places:
    parent = array("q", range(n))

    def find(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    order = np.argsort(numbers, kind="stable")
    same = np.flatnonzero(numbers[order][1:] == numbers[order][:-1])
    for i in same.tolist():
        a, b = find(int(owners[order[i]])), find(int(owners[order[i + 1]]))
        parent[max(a, b)] = min(a, b)
    return np.fromiter((find(i) for i in range(n)), dtype=np.int64, count=n)


def partition(records: Sequence[Record], sizes: Sequence[int], seed: int) -> list[Sequence[Record]]:
    """Divide records into parts of about given sizes, whole components at a time.

    The order in which components and their members are dealt out depends on the seed and
    on the records' texts alone, not on their position in the file or on ids made from it.

    Args:
        records: the records.
        sizes: wanted size of each part but the last, which takes the rest.
        seed: the shuffle's seed.

    Returns:
        len(sizes) + 1 disjoint parts that cover all records.

    Example:
        >>> from saledit.records import Sample
        >>> facts = ("Lima", "Peru"), ("Quito", "Ecuador"), ("Cusco", "Peru"), ("Havana", "Cuba")
        >>> records = [Record(Sample(x, (x,), "yes"), subjects=(country,)) for x, country in facts]
        >>> small, rest = partition(records, [2], seed=0)
        >>> {r.subjects for r in small} & {r.subjects for r in rest}  # no subject on both sides
        set()
    """
    numbers, owners, (ranks, names) = _read(records, str(seed), "name")
    root = _roots(numbers, owners, len(records))
    # A component is ranked by one member that the seed has no say in. By the first of its
    # ranks large components would come first, and the parts would differ in kind.
    by_name = np.lexsort((names[:, 1], names[:, 0], root))
    first = np.flatnonzero(np.diff(root[by_name], prepend=-1))  # of each component, by name
    leader = by_name[first]
    order = np.lexsort((ranks[leader, 1], ranks[leader, 0]))  # of the components
    counts = np.diff(np.append(first, len(root)))[order]
    turn = np.empty(len(root), dtype=np.int64)  # of the component that begins with a record
    turn[root[leader][order]] = np.arange(len(order))
    dealt = np.lexsort((ranks[:, 1], ranks[:, 0], turn[root]))
    room, places = list(sizes), array("q")
    for count in counts.tolist():
        # A group larger than the room left would overfill a small part.
        place = next((p for p, free in enumerate(room) if free >= count), len(sizes))
        if place < len(sizes):
            room[place] -= count
        places.append(place)
    part_of = np.repeat(np.asarray(places, dtype=np.int64), counts)
    return [
        Picked(records, array("q", dealt[part_of == p].tolist())) for p in range(len(sizes) + 1)
    ]


def apart_from(records: Sequence[Record], others: Sequence[Record]) -> Sequence[Record]:
    """The records that share no text and no subject with any of the others."""
    numbers, owners, _ = _read(records)
    shared = owners[np.isin(numbers, _read(others)[0])]
    return Picked(records, np.setdiff1d(np.arange(len(records)), shared).tolist())
