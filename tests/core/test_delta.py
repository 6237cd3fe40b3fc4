"""Deltas: the algebra of changes, in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import random_edits
from torch import Tensor

from saledit.delta import Dense, Edits, LowRank
from saledit.site import Site

EXACT = {"rtol": 1e-9, "atol": 1e-10}
SITES = (Site("a", 5, 4), Site("b", 4, 6))


def tensor(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def low_rank(rank: int, d_in: int, d_out: int, seed: int, batch: tuple[int, ...] = ()) -> LowRank:
    return LowRank(
        tensor(*batch, rank, d_in, seed=seed), tensor(*batch, rank, d_out, seed=seed + 10**6)
    )


sizes = st.integers(1, 7)
seeds = st.integers(0, 10**5)
batches = st.sampled_from([(), (1,), (3,)])
laws = settings(max_examples=40, deadline=None, derandomize=True)


@laws
@given(sizes, sizes, sizes, sizes, seeds, batches)
def test_low_rank_acts_like_its_matrix(
    rank: int, d_in: int, d_out: int, n: int, seed: int, batch: tuple[int, ...]
) -> None:
    delta = low_rank(rank, d_in, d_out, seed, batch)
    x = tensor(*batch, n, d_in, seed=seed + 1)
    assert delta.dense().shape == (*batch, d_out, d_in)
    torch.testing.assert_close(delta(x), x @ delta.dense().mT, **EXACT)
    torch.testing.assert_close(Dense(delta.dense())(x), delta(x), **EXACT)


def test_orientation_is_out_times_in() -> None:
    delta = LowRank(torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[0.0, 2.0]]))
    assert delta.dense().tolist() == [[0, 0, 0], [2, 0, 0]]
    assert delta(torch.tensor([[3.0, 5.0, 7.0]])).tolist() == [[0, 6]]


@laws
@given(sizes, sizes, sizes, sizes, seeds, batches, st.floats(-3, 3))
def test_sum_and_scale_are_those_of_the_matrices(
    r1: int, r2: int, d_in: int, d_out: int, seed: int, batch: tuple[int, ...], c: float
) -> None:
    a, b = low_rank(r1, d_in, d_out, seed, batch), low_rank(r2, d_in, d_out, seed + 7, batch)
    assert (a + b).rank == r1 + r2
    torch.testing.assert_close((a + b).dense(), a.dense() + b.dense(), **EXACT)
    torch.testing.assert_close((a + b).dense(), (b + a).dense(), **EXACT)
    torch.testing.assert_close((a * c).dense(), a.dense() * c, **EXACT)
    torch.testing.assert_close((c * a).dense(), a.dense() * c, **EXACT)
    dense = Dense(a.dense())
    torch.testing.assert_close((dense + b).dense(), a.dense() + b.dense(), **EXACT)
    torch.testing.assert_close((c * dense).dense(), a.dense() * c, **EXACT)


@pytest.mark.parametrize(("r1", "r2", "kind"), [(1, 1, LowRank), (2, 1, Dense), (3, 3, Dense)])
def test_a_sum_of_edits_is_dense_where_its_factors_would_be_larger(
    r1: int, r2: int, kind: type
) -> None:
    site = Site("a", 4, 4)  # 2 terms are 16 numbers, as the matrix is
    a, b = low_rank(r1, 4, 4, 0), low_rank(r2, 4, 4, 1)
    total = (Edits({site: a}) + Edits({site: b}))[site]
    assert isinstance(total, kind)
    torch.testing.assert_close(total.dense(), a.dense() + b.dense(), **EXACT)


@laws
@given(sizes, sizes, sizes, seeds, batches)
def test_norm_is_the_frobenius_norm(
    rank: int, d_in: int, d_out: int, seed: int, batch: tuple[int, ...]
) -> None:
    delta = low_rank(rank, d_in, d_out, seed, batch)
    expected = torch.linalg.matrix_norm(delta.dense())
    assert delta.norm().shape == batch
    torch.testing.assert_close(delta.norm(), expected, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(Dense(delta.dense()).norm(), expected, **EXACT)


def test_norm_of_terms_that_cancel_is_zero() -> None:
    delta = low_rank(3, 5, 4, 0)
    torch.testing.assert_close((delta + -1.0 * delta).norm(), torch.zeros((), dtype=torch.float64))


@laws
@given(sizes, sizes, sizes, sizes, seeds, batches)
def test_compress_is_the_best_approximation(
    rank: int, keep: int, d_in: int, d_out: int, seed: int, batch: tuple[int, ...]
) -> None:
    delta = low_rank(rank, d_in, d_out, seed, batch)
    small = delta.compress(keep)
    singular = torch.linalg.svdvals(delta.dense())
    error = torch.linalg.matrix_norm(delta.dense() - small.dense())
    torch.testing.assert_close(error, singular[..., keep:].norm(dim=-1), rtol=1e-7, atol=1e-7)
    assert small.rank == min(keep, rank, d_in, d_out)
    assert small.batch_shape == batch
    if keep >= min(rank, d_in, d_out):
        torch.testing.assert_close(small.dense(), delta.dense(), **EXACT)


@laws
@given(sizes, sizes, sizes, seeds, batches)
def test_compress_gives_balanced_orthogonal_terms_with_a_fixed_sign(
    rank: int, d_in: int, d_out: int, seed: int, batch: tuple[int, ...]
) -> None:
    delta = low_rank(rank, d_in, d_out, seed, batch)
    small = delta.compress(rank)
    singular = torch.linalg.svdvals(delta.dense())[..., : small.rank]
    for factor in (small.u, small.v):
        gram = factor @ factor.mT
        torch.testing.assert_close(gram, torch.diag_embed(singular), rtol=1e-7, atol=1e-7)
    along = (small.u * delta.u.mean(-2, keepdim=True)).sum(-1)
    assert (along > -1e-9).all()
    # Turning a term round twice (u and v) is no change, so neither is the result.
    order = torch.randperm(rank, generator=torch.Generator().manual_seed(seed))
    again = LowRank(delta.u[..., order, :], delta.v[..., order, :]).compress(rank)
    if (along.abs() > 1e-6).all() and (singular.diff(dim=-1).abs() > 1e-4).all():
        torch.testing.assert_close(again.u, small.u, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(again.v, small.v, rtol=1e-6, atol=1e-6)


def test_compress_of_a_batch_is_one_by_one() -> None:
    delta = low_rank(4, 6, 5, 3, (3,))
    together = delta.compress(2)
    for i in range(3):
        alone = delta[i].compress(2)
        torch.testing.assert_close(together[i].u, alone.u, **EXACT)
        torch.testing.assert_close(together[i].v, alone.v, **EXACT)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_compress_leaves_exact_zeros_where_there_is_nothing(dtype: torch.dtype) -> None:
    # Zero terms are padding to an editor; rounding noise would pass for a real term.
    two = low_rank(2, 8, 7, 5).to(dtype)
    u, v = tensor(6, 8, seed=6).to(dtype), torch.zeros(6, 7, dtype=dtype)
    u[[1, 4]], v[[1, 4]] = two.u, two.v  # the other terms are tokens without a gradient
    padded = LowRank(u, v)
    small = padded.compress(5)
    assert (small.v != 0).any(-1).tolist() == [True, True, False, False, False]
    assert (small.u != 0).any(-1).tolist() == [True, True, False, False, False]
    twice = (two + two + 0.3 * two).compress(5)
    assert (twice.v != 0).any(-1).tolist() == [True, True, False, False, False]
    torch.testing.assert_close(small.dense(), two.dense())
    nothing = (padded * 0.0).compress(3)
    assert not nothing.u.any()
    assert not nothing.v.any()


@pytest.mark.parametrize("n", [1, 4])
def test_batched_call_is_one_by_one(n: int) -> None:
    delta, x = low_rank(2, 5, 4, 1, (3,)), tensor(3, n, 5, seed=2)
    for i in range(3):
        torch.testing.assert_close(delta(x)[i], delta[i](x[i]), **EXACT)


def test_factors_must_belong_together() -> None:
    with pytest.raises(ValueError, match=r"u \(2, 5\) and v \(3, 4\)"):
        LowRank(torch.zeros(2, 5), torch.zeros(3, 4))


def test_edits_add_site_by_site() -> None:
    a, b = random_edits(SITES, seed=1), random_edits(SITES[1:], rank=1, seed=2)
    total = a + b
    assert list(total) == list(SITES)
    torch.testing.assert_close(total[SITES[0]].dense(), a[SITES[0]].dense())
    torch.testing.assert_close(total[SITES[1]].dense(), a[SITES[1]].dense() + b[SITES[1]].dense())
    assert len(a) == 2  # the summands are values: they stay
    assert len(b) == 1


def test_edits_that_pile_up_stay_small() -> None:
    total = Edits({})
    expected = torch.zeros(6, 4)
    for seed in range(20):
        step = random_edits(SITES[1:], seed=seed)
        expected += step[SITES[1]].dense()
        total = total + step
    assert isinstance(total[SITES[1]], Dense)  # 40 terms hold more numbers than 6 x 4
    torch.testing.assert_close(total[SITES[1]].dense(), expected)


def test_edits_scale_norm_and_compress() -> None:
    edits = random_edits(SITES, batch=(3,), rank=3)
    torch.testing.assert_close((2.0 * edits).norm(), 2 * edits.norm())
    squares = sum(torch.linalg.matrix_norm(delta.dense()) ** 2 for delta in edits.values())
    assert isinstance(squares, Tensor)
    torch.testing.assert_close(edits.norm(), squares.sqrt())
    small = edits.compress(1)
    assert small.batch_shape == (3,)
    for site in SITES:
        delta, kept = edits[site], small[site]
        assert isinstance(kept, LowRank)
        assert kept.rank == 1
        error = torch.linalg.matrix_norm(delta.dense() - kept.dense())
        tail = torch.linalg.svdvals(delta.dense())[..., 1:].norm(dim=-1)
        torch.testing.assert_close(error, tail, rtol=1e-4, atol=1e-5)
    dense = Edits({SITES[0]: Dense(torch.ones(4, 5))})
    assert dense.compress(1)[SITES[0]] is dense[SITES[0]]


def test_edits_share_one_batch_shape() -> None:
    with pytest.raises(ValueError, match="one batch shape"):
        Edits({SITES[0]: LowRank(torch.zeros(2, 1, 5), torch.zeros(2, 1, 4)),
               SITES[1]: LowRank(torch.zeros(1, 4), torch.zeros(1, 6))})  # fmt: skip
    assert Edits({}).batch_shape == ()


def test_detach_cuts_the_graph() -> None:
    edits = random_edits(SITES, requires_grad=True)
    assert all(delta.dense().requires_grad for delta in edits.values())
    assert not any(delta.dense().requires_grad for delta in edits.detach().values())
