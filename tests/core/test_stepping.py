"""The search for an edit's length: the shortest that mends, else the best."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from saledit.building import make_search
from saledit.config import EditorConfig
from saledit.delta import Dense, Edits, LowRank
from saledit.editors.stepping import StepSearch
from saledit.errors import ConfigError
from saledit.site import Site

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


@given(
    st.lists(st.lists(LOSS, min_size=4, max_size=4), min_size=1, max_size=5),
    st.floats(0, 2, width=32),
)
def test_no_length_is_tried_beyond_the_one_by_which_all_have_mended(
    table: list[list[float]], enough: float
) -> None:
    tried: list[int] = []

    def losses(edits: Edits) -> Tensor:
        tried.append(FACTORS.index(float(sizes(edits)[0])))
        return torch.tensor([row[tried[-1]] for row in table])

    edits, left = StepSearch(FACTORS, enough).searched(ones(len(table)), losses)
    first = [next((i for i, loss in enumerate(row) if loss <= enough), 9) for row in table]
    assert tried == [*range(min(max(first) + 1, len(FACTORS)))]
    # What is left is what was seen at each one's length; NaN is as bad as it gets.
    assert left is not None
    columns = [FACTORS.index(size) for size in sizes(edits).tolist()]
    seen = torch.tensor([row[i] for row, i in zip(table, columns, strict=True)])
    assert torch.equal(left, seen.masked_fill(seen.isnan(), torch.inf))


def test_what_is_left_is_told_only_of_what_was_measured() -> None:
    """Not where no length was tried, nor where a bound has cut one."""
    loss, cost = torch.tensor([2.0]), [0.0]
    for factors, bound in (((1.0,), 0.0), ((2.0,), 0.0), ((1.0, 2.0), 0.1)):
        search = StepSearch(factors, 0.0, bound=bound)
        cost[0] = 0.3
        assert search.searched(ones(1), lambda _: loss, lambda e: cost[0] * sizes(e))[1] is None
    cost[0] = 0.01
    assert search.searched(ones(1), lambda _: loss, lambda e: cost[0] * sizes(e))[1] == loss


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


@pytest.mark.parametrize("factors", [(1.0,), (1.0, 2.0)])
def test_what_costs_too_much_is_cut(factors: tuple[float, ...]) -> None:
    """At lengths of 1 or 2 (the failures want the longer one) an edit may cost .1."""
    cost = torch.tensor([0.01, 0.3, float("nan"), 1e3])  # a unit of length
    seen = []

    def damage(tried: Edits) -> Tensor:
        seen.append(sizes(tried).tolist())
        return cost * sizes(tried)

    search = StepSearch(factors, 0.0, bound=0.1)
    found = sizes(search(ones(4), lambda tried: 3 - sizes(tried), damage))
    longest = factors[-1]
    assert found.tolist() == [longest, 0.25, 0.0, 0.0]
    assert seen[0] == [longest] * 4
    assert len(seen) == 6
    free = sizes(StepSearch(factors)(ones(4), lambda tried: 3 - sizes(tried)))
    assert free.tolist() == [longest] * 4


def test_a_bound_that_is_kept_costs_one_look() -> None:
    seen = []
    search = StepSearch((1.0,), 0.3, bound=0.1)
    edits = ones(2)
    found = search(
        edits, lambda _: pytest.fail("asked"),
        lambda tried: (seen.append(1), torch.zeros(2))[1],
    )  # fmt: skip
    assert sizes(found).tolist() == [1.0, 1.0]
    assert len(seen) == 1


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_an_edit_that_is_no_number_is_not_made(bad: float) -> None:
    u, v = torch.ones(2, 1, 3), torch.ones(2, 1, 2)
    v[0, 0, 1] = bad
    edits = Edits({SITE: LowRank(u, v)})
    found = StepSearch((1.0,), 0.3, bound=0.1)(
        edits, lambda _: torch.ones(2), lambda e: e.norm() / 99
    )
    assert not found[SITE].dense()[0].any()
    assert found[SITE].dense()[1].all()


@pytest.mark.parametrize("bound", [-0.1, float("nan"), float("inf")])
def test_a_bound_that_is_none_is_refused(bound: float) -> None:
    with pytest.raises(ConfigError, match=r"editor\.bound: expected at least 0 nats"):
        make_search(EditorConfig(bound=bound))


@pytest.mark.parametrize("steps", [[], [0.0, 1.0], [-1.0], [2.0, 1.0], [1.0, 1.0]])
def test_lengths_that_do_not_rise_are_refused(steps: list[float]) -> None:
    with pytest.raises(ConfigError, match=r"editor\.steps: expected rising numbers above 0"):
        make_search(EditorConfig(steps=steps))
