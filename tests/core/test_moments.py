"""Running moments: the order and size of batches do not matter."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from saledit.moments import Normalizer, layers_at_once, whitener
from saledit.site import Layer, Site

laws = settings(max_examples=40, deadline=None, derandomize=True)


def rows(n: int, size: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    scale = 10 ** torch.randn(size, dtype=dtype, generator=generator)
    return torch.randn(n, size, dtype=dtype, generator=generator) * scale + 3 * scale


@laws
@given(st.lists(st.integers(0, 6), min_size=1, max_size=6), st.randoms(), st.integers(0, 10**5))
def test_any_batches_in_any_order_are_the_whole(
    sizes: list[int], rng: random.Random, seed: int
) -> None:
    x = rows(sum(sizes), 4, seed)
    batches = list(x.split(sizes))
    rng.shuffle(batches)
    moments = Normalizer(4).double()
    for batch in batches:
        moments.update(batch)
    assert moments.count.item() == len(x)
    if len(x):
        torch.testing.assert_close(moments.mean, x.mean(0))
        std = x.std(0, correction=0)
        torch.testing.assert_close(
            moments.std, std + moments.eps * std.mean(), rtol=1e-7, atol=1e-9
        )


def test_float32_keeps_small_spreads_on_a_large_mean() -> None:
    x = rows(4000, 3, 0, torch.float32) + 1000
    moments = Normalizer(3)
    for batch in x.split(7):
        moments.update(batch)
    torch.testing.assert_close(moments.mean.double(), x.double().mean(0), rtol=1e-5, atol=0)
    std = x.double().std(0, correction=0)
    torch.testing.assert_close(
        moments.std.double(), std + moments.eps * std.mean(), rtol=1e-3, atol=0
    )


def test_normalised_rows_have_mean_zero_and_variance_one() -> None:
    x = rows(500, 5, 1)
    moments = Normalizer(5, eps=0).double()
    moments.update(x)
    z = moments(x)
    torch.testing.assert_close(z.mean(0), torch.zeros(5, dtype=torch.float64))
    torch.testing.assert_close(z.std(0, correction=0), torch.ones(5, dtype=torch.float64))


def test_before_the_first_update_it_is_the_identity() -> None:
    x = rows(3, 4, 0)
    moments = Normalizer(4).double()
    assert moments(x) is x
    moments.update(x[:0])
    assert moments(x) is x


def test_a_unit_that_was_silent_so_far_is_no_thousand_deviations() -> None:
    """As those of ReLU are; an edit would else be as much too long."""
    x = rows(500, 5, 1)
    x[:, 2] = 0
    moments = Normalizer(5).double()
    moments.update(x)
    seen = moments(x)
    assert seen.abs().max() < 10, "no unit that has spoken is held back"
    x[0, 2] = x.abs().max()
    loud = moments(x)
    assert 10 < loud[0, 2] <= 30
    loud[0, 2] = seen[0, 2]
    assert torch.equal(loud, seen)


def test_a_constant_dimension_divides_by_no_zero() -> None:
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    x[:, 1] = 7
    moments = Normalizer(3)
    moments.update(x)
    assert moments(x).isfinite().all()
    assert moments(x)[:, 1].abs().max() < 1


def test_state_dict_round_trip_goes_on_to_the_same_bits() -> None:
    first, second = rows(10, 4, 0, torch.float32), rows(9, 4, 1, torch.float32)
    moments, loaded = Normalizer(4), Normalizer(4)
    moments.update(first)
    loaded.load_state_dict(moments.state_dict())
    assert set(moments.state_dict()) == {"count", "mean", "m2"}
    for each in (moments, loaded):
        each.update(second)
    for name, value in moments.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name])
    assert torch.equal(moments(first), loaded(first))


def test_statistics_carry_no_gradient() -> None:
    moments = Normalizer(4)
    moments.update(rows(6, 4, 0, torch.float32).requires_grad_())
    assert not moments.mean.requires_grad
    assert not moments.m2.requires_grad


@laws
@given(st.integers(1, 8), st.integers(1, 12), st.floats(1e-3, 10), st.integers(0, 10**5))
def test_whitener_is_symmetric_with_eigenvalues_up_to_one(
    size: int, n: int, ridge: float, seed: int
) -> None:
    x = rows(n, size, seed)
    moment = x.T @ x / n
    w = whitener(moment, ridge)
    torch.testing.assert_close(w, w.T, rtol=1e-9, atol=1e-11)
    eigenvalues = torch.linalg.eigvalsh(w)
    assert eigenvalues.min() > 0
    assert eigenvalues.max() <= 1 + 1e-9
    c = ridge * torch.linalg.eigvalsh(moment).mean()
    eye = torch.eye(size, dtype=torch.float64)
    torch.testing.assert_close(w @ (moment + c * eye), c * eye, rtol=1e-6, atol=1e-6 * float(c))


def test_whitener_shrinks_what_inputs_share() -> None:
    moment = torch.diag(torch.tensor([99.0, 1.0]))
    shared, rare = whitener(moment, 0.1).diagonal()  # c = 0.1 x 50
    assert shared.item() == pytest.approx(5 / 104)
    assert rare.item() == pytest.approx(5 / 6)


def test_layers_whose_moments_fit_beside_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = [3, 1, 1, 5, 1, 2]
    layers = [Layer(i, (Site(f"{i}", n, 4, False),)) for i, n in enumerate(sizes)]
    for room, wanted in (
        (8 * 11, [[0, 1, 2], [3], [4, 2 + 3]]), (1, [[i] for i in range(6)]),
        (1 << 30, [[0, 1, 2, 3, 4, 5]]),
    ):  # fmt: skip
        monkeypatch.setattr("saledit.moments._ROOM", room)
        assert [[layer.index for layer in some] for some in layers_at_once(layers)] == wanted
    assert list(layers_at_once([])) == []
