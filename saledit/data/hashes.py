"""Texts that were seen, as 64-bit numbers: a million of them takes 16 MB.

Two texts of the same number are taken for one; among a million texts the odds are 1 to 40 million.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable

import numpy as np


def number(*words: str) -> int:
    """A 64-bit number that stands for some words."""
    text = "\x1f".join(words)
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big")


class Known:
    """Which words were seen, and where.

    Args:
        numbers: what ``number`` gives of them, in order.
    """

    def __init__(self, numbers: Iterable[int] = ()) -> None:
        found = np.asarray(array("Q", numbers), dtype=np.uint64)
        self._order = np.argsort(found, kind="stable")
        self._sorted = found[self._order]

    def place(self, *words: str) -> int:
        """The last position that had these words; -1 where none did."""
        wanted = np.uint64(number(*words))
        i = int(np.searchsorted(self._sorted, wanted, side="right")) - 1
        return int(self._order[i]) if i >= 0 and self._sorted[i] == wanted else -1

    def __contains__(self, words: object) -> bool:
        """Whether any position had these words, a tuple of them."""
        return isinstance(words, tuple) and self.place(*words) >= 0

    def twice(self) -> tuple[int, int] | None:
        """The first position that has the words of an earlier one, and that one; None for none."""
        same = np.flatnonzero(self._sorted[1:] == self._sorted[:-1])
        if not len(same):
            return None
        i = same[np.argmin(self._order[same + 1])]
        return int(self._order[i + 1]), int(self._order[i])
