"""Dividing records so that no text and no subject is on two sides."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from saledit.records import Record


def components(records: Sequence[Record]) -> list[list[int]]:
    """Group records that share a text, a rewording or a subject, directly or in a chain.

    Args:
        records: the records.

    Returns:
        Positions, grouped; groups and their members in order of first appearance.
    """
    parent = list(range(len(records)))

    def find(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    owner: dict[str, int] = {}
    for i, record in enumerate(records):
        for key in record.keys():  # noqa: SIM118  (a method of Record, not a dict)
            first = owner.setdefault(key, i)
            a, b = find(first), find(i)
            parent[max(a, b)] = min(a, b)
    groups: dict[int, list[int]] = {}
    for i in range(len(records)):
        groups.setdefault(find(i), []).append(i)
    return list(groups.values())


def partition(
    records: Sequence[Record], sizes: Sequence[int], seed: int
) -> list[tuple[Record, ...]]:
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
    ranks = [_rank(record, str(seed)) for record in records]
    groups = [sorted(group, key=ranks.__getitem__) for group in components(records)]
    # A component is ranked by one member that the seed has no say in. By the first of its
    # ranks large components would come first, and the parts would differ in kind.
    names = [_rank(record, "name") for record in records]
    groups.sort(key=lambda group: ranks[min(group, key=names.__getitem__)])
    room = list(sizes)
    parts: list[list[int]] = [[] for _ in range(len(sizes) + 1)]
    for group in groups:
        # A group larger than the room left would overfill a small part.
        place = next((p for p, free in enumerate(room) if free >= len(group)), len(sizes))
        parts[place] += group
        if place < len(sizes):
            room[place] -= len(group)
    return [tuple(records[i] for i in part) for part in parts]


def apart_from(records: Sequence[Record], others: Sequence[Record]) -> tuple[Record, ...]:
    """The records that share no text and no subject with any of the others."""
    taken: set[str] = set().union(*(other.keys() for other in others))
    return tuple(record for record in records if not taken & record.keys())


def _rank(record: Record, salt: str) -> bytes:
    text = "\x1f".join((salt, *record.sample.inputs, record.sample.target))
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
