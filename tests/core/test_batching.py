"""Groups of rows by their length."""

from __future__ import annotations

import itertools
import random

import pytest

from saledit.tasks.batching import tight_groups


def cost(groups: list[list[int]], sizes: list[int], a_run: int) -> int:
    return sum(a_run + len(group) * max(sizes[i] for i in group) for group in groups)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("a_run", [0, 1, 7, 1000])
def test_no_grouping_is_cheaper(seed: int, a_run: int) -> None:
    rng = random.Random(seed)
    sizes = rng.choices(range(1, 9), k=rng.randint(1, 7))
    found = tight_groups(sizes, a_run)
    assert sorted(itertools.chain(*found)) == list(range(len(sizes)))
    assert all(group == sorted(group) for group in found)
    # All ways to put rows into groups.
    least = min(
        cost([[i for i, g in enumerate(way) if g == k] for k in set(way)], sizes, a_run)
        for way in itertools.product(range(min(4, len(sizes))), repeat=len(sizes))
    )
    assert cost(found, sizes, a_run) <= least
    assert a_run < 1000 or len(found) == 1
