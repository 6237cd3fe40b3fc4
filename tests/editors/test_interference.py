"""Decoupling the terms of an edit: its algebra."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from saledit.delta import LowRank
from saledit.editors.interference import decouple


def terms(seed: int, n: int = 4, d_in: int = 9, d_out: int = 5) -> tuple[LowRank, Tensor]:
    """A delta whose terms read their own inputs best, and those inputs."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(2, n, d_in, generator=g, dtype=torch.float64)
    u = x + 0.3 * torch.randn(x.shape, generator=g, dtype=torch.float64)
    return LowRank(u, torch.randn(2, n, d_out, generator=g, dtype=torch.float64)), x


def own_share(delta: LowRank, x: Tensor) -> Tensor:
    """(u_i . x_i) v_i for each term (E, R, D_out)."""
    return (delta.u * x).sum(-1, keepdim=True) * delta.v


@given(seed=st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_at_full_strength_every_input_gets_its_own_share_alone(seed: int) -> None:
    delta, x = terms(seed)
    apart = decouple(delta, x, 1.0, ridge=0.0)
    torch.testing.assert_close(apart(x), own_share(delta, x), rtol=1e-5, atol=1e-6)


@given(seed=st.integers(0, 10_000), strength=st.floats(0.1, 0.9))
@settings(max_examples=30, deadline=None)
def test_strength_is_a_damped_solve_of_the_definition(seed: int, strength: float) -> None:
    delta, x = terms(seed)
    found = decouple(delta, x, strength, ridge=0.0)
    torch.testing.assert_close(found.u, delta.u)
    for e in range(2):
        a = torch.empty(4, 4, dtype=torch.float64)
        for i in range(4):
            for j in range(4):
                a[i, j] = (delta.u[e, j] @ x[e, i]) / (delta.u[e, i] @ x[e, i])
        back = (1 - strength) * found.v[e] + strength * a @ found.v[e]
        torch.testing.assert_close(back, delta.v[e], rtol=1e-5, atol=1e-6)


@given(seed=st.integers(0, 10_000), strength=st.floats(0.1, 1.0), ridge=st.floats(0.01, 1.0))
@settings(max_examples=30, deadline=None)
def test_the_ridge_is_the_least_squares_of_the_definition(
    seed: int, strength: float, ridge: float
) -> None:
    delta, x = terms(seed)
    found = decouple(delta, x, strength, ridge)
    for e in range(2):
        unit = x[e] / x[e].norm(dim=-1, keepdim=True)
        r = torch.stack([torch.stack([u @ row for u in delta.u[e]]) for row in unit])
        d = r.diagonal().diag()
        n = d + strength * (r - d)
        held = (ridge * r.square().sum() / 4).sqrt() * torch.eye(4, dtype=r.dtype)
        left, right = torch.cat([n, held]), torch.cat([d @ delta.v[e], held @ delta.v[e]])
        expected = torch.linalg.lstsq(left, right).solution
        torch.testing.assert_close(found.v[e], expected)


@given(seed=st.integers(0, 10_000), n=st.integers(2, 30), strength=st.floats(0.1, 1.0))
@settings(max_examples=60, deadline=None)
def test_terms_stay_bounded_whatever_they_read(seed: int, n: int, strength: float) -> None:
    """A network's own u may read its input with the wrong sign: no solve makes sense of that."""
    g = torch.Generator().manual_seed(seed)
    u, x, v = (torch.randn(n, size, generator=g, dtype=torch.float64) for size in (9, 9, 5))
    found = decouple(LowRank(u, v), x, strength, ridge := 0.1)
    bound = 1 + strength * n**0.5 / (2 * ridge**0.5)  # |(N'N + a^2)^-1 N'| <= 1 / 2a
    assert found.v.norm() <= bound * v.norm() * (1 + 1e-9)


def test_nothing_happens_at_zero_with_one_term_or_with_orthogonal_inputs() -> None:
    delta, x = terms(0)
    assert decouple(delta, x, 0.0) is delta
    one = LowRank(delta.u[:, :1], delta.v[:, :1])
    assert decouple(one, x[:, :1], 1.0) is one
    basis = torch.linalg.qr(torch.randn(9, 9, dtype=torch.float64)).Q[:4]
    apart = LowRank(basis * 3, delta.v[0])
    torch.testing.assert_close(decouple(apart, basis, 1.0).v, apart.v)


def test_scale_of_inputs_and_padding_do_not_matter() -> None:
    delta, x = terms(1)
    expected = decouple(delta, x, 0.5)
    torch.testing.assert_close(decouple(delta, 7 * x, 0.5).v, expected.v)
    zeros = torch.zeros(2, 3, 9, dtype=torch.float64)
    nothing = torch.zeros(2, 3, 5, dtype=torch.float64)
    u = torch.cat([delta.u, torch.ones_like(zeros)], 1)  # what a network makes of padding
    padded = LowRank(u, torch.cat([delta.v, nothing], 1))
    found = decouple(padded, torch.cat([x, zeros], 1), 0.5)
    torch.testing.assert_close(found.v, torch.cat([expected.v, nothing], 1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_term_blind_to_its_own_input_stays_finite(dtype: torch.dtype) -> None:
    delta, x = terms(2)
    u = delta.u - x * (delta.u * x).sum(-1, keepdim=True) / (x * x).sum(-1, keepdim=True)
    blind = LowRank(u.to(dtype), delta.v.to(dtype))
    found = decouple(blind, x.to(dtype), 0.5)
    assert found.v.dtype == dtype
    assert found.v.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_changes_nothing(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA's autocast makes products in half precision and hands a solve what it gets."""
    wide, x = terms(3)
    delta, x = LowRank(wide.u.to(dtype), wide.v.to(dtype)), x.to(dtype)
    solve, seen = torch.linalg.solve, []
    monkeypatch.setattr(
        torch.linalg, "solve", lambda a, b: seen.append({a.dtype, b.dtype}) or solve(a, b)
    )
    plain = decouple(delta, x, 0.5)
    with torch.autocast("cpu", torch.bfloat16):
        cast = decouple(delta, x, 0.5)
    assert seen == [{torch.float32}] * 2
    assert torch.equal(cast.v, plain.v)
    assert cast.v.dtype == dtype


@given(seed=st.integers(0, 10_000), strength=st.floats(0.1, 1.0))
@settings(max_examples=30, deadline=None)
def test_each_failure_gets_back_what_all_its_own_terms_give(seed: int, strength: float) -> None:
    """Answers of several words have several terms, which are no rivals."""
    delta, x = terms(seed)
    owners = torch.tensor([[0, 0, 1, 2], [0, 1, 1, 1]])
    found = decouple(delta, x, 1.0, ridge=0.0, owners=owners)
    for e in range(2):
        for owner in owners[e].unique():
            mine = owners[e] == owner
            alone = LowRank(delta.u[e, mine], delta.v[e, mine])(x[e, mine])
            together = LowRank(found.u[e], found.v[e])(x[e, mine])
            torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)
    one = decouple(delta, x, strength, owners=torch.zeros(2, 4, dtype=torch.long))
    torch.testing.assert_close(one.v, delta.v)
    each = decouple(delta, x, strength, owners=torch.arange(4).expand(2, 4))
    torch.testing.assert_close(each.v, decouple(delta, x, strength).v)
