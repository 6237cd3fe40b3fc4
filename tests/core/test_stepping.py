"""The search for an edit's length: the shortest that mends, else the best."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from saledit.artifact import make_search
from saledit.config import EditorConfig
from saledit.delta import Dense, Edits, LowRank
from saledit.errors import ConfigError
from saledit.site import Site
from saledit.stepping import StepSearch

SITE = Site("site", 3, 2)
FACTORS = (0.5, 1.0, 2.0, 4.0)


def ones(n: int) -> Edits:
    """Edits whose size is 1, so that a factor can be read off them."""
    return Edits({SITE: Dense(torch.ones(n, 2, 3))})


def sizes(edits: Edits) -> Tensor:
    return edits[SITE].dense()[:, 0, 0]


LOSS = st.floats(0, 3, width=32) | st.just(float("nan")) | st.just(float("inf"))


@given(
    st.lists(st.lists(LOSS, min_size=4, max_size=4), min_size=1, max_size=5),
    st.floats(0, 2, width=32),
)
def test_the_first_that_is_enough_else_the_least(table: list[list[float]], enough: float) -> None:
    def losses(tried: Edits) -> Tensor:
        column = [FACTORS.index(size) for size in sizes(tried).tolist()]
        assert len(set(column)) == 1
        return torch.tensor([row[column[0]] for row in table])

    found = sizes(StepSearch(FACTORS, enough)(ones(len(table)), losses)).tolist()
    for row, factor in zip(table, found, strict=True):
        kept = [float("inf") if loss != loss else torch.tensor(loss).item() for loss in row]
        mends = [f for f, loss in zip(FACTORS, kept, strict=True) if loss <= enough]
        assert factor == (mends[0] if mends else FACTORS[kept.index(min(kept))])


def test_without_lengths_to_try_nothing_is_run() -> None:
    edits = ones(2)
    assert StepSearch()(edits, lambda _: pytest.fail("asked")) is edits


def test_low_rank_edits_keep_their_precision_and_graph() -> None:
    u = torch.randn(2, 1, 3, dtype=torch.bfloat16)
    v = torch.randn(2, 1, 2, dtype=torch.bfloat16)
    found = StepSearch((1.0, 2.0), 0.0)(
        Edits({SITE: LowRank(u, v)}), lambda tried: -tried.norm().float()
    )[SITE]
    assert isinstance(found, LowRank)
    assert found.v.dtype == torch.bfloat16
    assert torch.equal(found.v, v), "a loss below zero is enough at the first length"


@pytest.mark.parametrize("steps", [[], [0.0, 1.0], [-1.0], [2.0, 1.0], [1.0, 1.0]])
def test_lengths_that_do_not_rise_are_refused(steps: list[float]) -> None:
    with pytest.raises(ConfigError, match=r"editor\.steps: expected rising numbers above 0"):
        make_search(EditorConfig(steps=steps))
