"""The largest part of a fix that keeps its bound."""

from __future__ import annotations

import torch

from saledit.delta import Dense, Edits
from saledit.run.fixes.guarding import largest_part
from saledit.site import Site

SITE = Site("a", 1, 1)


def test_of_two_that_mend_as_many_the_one_that_breaks_less() -> None:
    def measure(edits: Edits) -> tuple[int, float]:
        size = float(edits[SITE].dense())
        return (2 if size > 0.35 else 1), round(0.1 * size, 3)

    part = largest_part([Edits({SITE: Dense(torch.ones(1, 1))})], measure, 0.5)
    assert (part.n_fixed, part.step, part.drawdown) == (2, 0.4, 0.04)


def test_a_half_is_added_to_what_is_kept_before_it() -> None:
    """Each alone is within the bound, all together are not."""
    steps = [Edits({SITE: Dense(torch.full((1, 1), 2.0**i))}) for i in range(5)]

    def measure(edits: Edits) -> tuple[int, float]:
        total = float(edits[SITE].dense())
        n = bin(int(total)).count("1")
        return (n, 0.1 * n) if total == int(total) else (5, 1.0)

    part = largest_part(steps, measure, 0.25)
    assert list(part.kept) == [0, 1]
    assert part.drawdown <= 0.25
