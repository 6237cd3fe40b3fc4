"""The KL of locality: its laws, its gradient, and that taking it in parts changes nothing."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from saledit import losses
from saledit.config import LossConfig
from saledit.errors import ConfigError
from saledit.losses import PENALTIES, locality_kl, mean_of, penalty, root_kl, weighted_mean
from saledit.tasks.nli import Nli


def by_definition(base: Tensor, edited: Tensor) -> Tensor:
    p, q = base.softmax(-1), edited.softmax(-1)
    return (p * (p.log() - q.log())).sum(-1)


def logits(shape: tuple[int, ...], seed: int, size: float = 3.0) -> Tensor:
    return size * torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**16), st.integers(2, 9), st.lists(st.integers(1, 4), max_size=3))
def test_it_is_the_definition_in_any_shape(seed: int, classes: int, shape: list[int]) -> None:
    base, edited = (logits((*shape, classes), seed + i) for i in range(2))
    found = locality_kl(base, edited)
    assert found.shape == tuple(shape)
    torch.testing.assert_close(found, by_definition(base, edited), rtol=1e-9, atol=1e-12)
    assert bool((found >= 0).all())
    assert float(locality_kl(base, base).abs().max()) == 0
    # Adding a number to all logits changes no distribution.
    torch.testing.assert_close(locality_kl(base + 5, edited - 2), found, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("chunk", [1, 7, 20, 1 << 20])  # a row, rows that do not divide, all
def test_parts_do_not_show(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(losses, "_CHUNK", chunk)
    base, edited, weights = logits((5, 7), 0), logits((5, 7), 1), logits((5,), 2)
    edited.requires_grad_()
    found = locality_kl(base, edited)
    want = by_definition(base, edited)
    torch.testing.assert_close(found, want, rtol=1e-9, atol=1e-12)
    got, right = (torch.autograd.grad((x * weights).sum(), edited)[0] for x in (found, want))
    torch.testing.assert_close(got, right, rtol=1e-9, atol=1e-12)


def test_its_gradient_is_that_of_torch_s_own() -> None:
    base, edited = logits((3, 2, 6), 3), logits((3, 2, 6), 4).requires_grad_()
    own = F.kl_div(
        edited.log_softmax(-1), base.log_softmax(-1), log_target=True, reduction="none"
    ).sum()
    want = torch.autograd.grad(own, edited)[0]
    got = torch.autograd.grad(locality_kl(base, edited).sum(), edited)[0]
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-12)
    assert torch.autograd.gradcheck(lambda x: locality_kl(base, x), edited)


def test_it_stays_finite_where_a_probability_underflows() -> None:
    base = torch.tensor([[0.0, 500.0, -900.0]])
    edited = torch.tensor([[0.0, -500.0, 900.0]], requires_grad=True)
    found = locality_kl(base, edited)
    assert float(found.detach()) == pytest.approx(1400)
    assert bool(torch.autograd.grad(found.sum(), edited)[0].isfinite().all())


def test_no_gradient_is_made_where_none_is_asked_for_and_none_reaches_the_base() -> None:
    base, edited = logits((2, 3), 5).requires_grad_(), logits((2, 3), 6)
    with torch.no_grad():
        assert not locality_kl(base, edited).requires_grad
    edited.requires_grad_()
    grads = torch.autograd.grad(locality_kl(base, edited).sum(), (base, edited), allow_unused=True)
    assert grads[0] is None
    assert grads[1] is not None


def test_a_weighted_mean_of_nothing_is_nothing() -> None:
    assert float(weighted_mean(torch.ones(3), torch.zeros(3))) == 0
    assert float(weighted_mean(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 1.0]))) == 2


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 20, allow_subnormal=False), st.floats(1e-6, 5))
def test_the_root_rises_ever_more_slowly(kl: float, more: float) -> None:
    low, high = root_kl(torch.tensor([kl, kl + more], dtype=torch.float64)).tolist()
    assert 0 <= low < high
    if kl > 1e-9:
        assert high / (kl + more) < low / kl  # a nat counts the less the more there are


def test_the_root_bounds_what_an_event_can_gain() -> None:
    base, edited = logits((200, 5), 5), logits((200, 5), 6)
    moved = (base.softmax(-1) - edited.softmax(-1)).abs().sum(-1) / 2
    kl = locality_kl(base, edited)
    assert bool((moved <= (root_kl(kl) + 0.01) / 2**0.5).all())  # 0.01: the root of 1e-4
    # A tenth of the way has about a tenth of the root, but a hundredth of the KL.
    near = locality_kl(base, base + 0.1 * (edited - base))
    assert float(near.mean() / kl.mean()) < 0.02
    assert 0.05 < float(root_kl(near).mean() / root_kl(kl).mean()) < 0.12


def test_its_slope_at_no_change_is_finite() -> None:
    base = logits((4, 7), 7)
    edited = base.clone().requires_grad_()
    slope = torch.autograd.grad(root_kl(locality_kl(base, edited)).sum(), edited)[0]
    assert float(slope.abs().max()) < 1e-12


def test_kl_itself_is_the_default() -> None:
    kl = torch.rand(50, generator=torch.Generator().manual_seed(0))
    assert torch.equal(penalty(LossConfig().penalty)(kl), kl)
    assert torch.equal(penalty("root-kl")(kl), root_kl(kl))
    assert set(PENALTIES) == {"kl", "root-kl"}


def test_an_unknown_penalty_is_named() -> None:
    with pytest.raises(ConfigError, match=r"loss\.penalty: unknown name 'root_kl'.*'root-kl'"):
        penalty("root_kl")


def test_the_mean_of_nothing_is_nothing() -> None:
    kl = locality_kl(torch.zeros(2, 0, 3), torch.zeros(2, 0, 3))
    for name in PENALTIES:
        assert float(mean_of(penalty(name)(kl))) == 0
    assert float(mean_of(torch.tensor([[1.0, 2.0], [3.0, 6.0]]))) == 3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_classifier_of_half_precision_is_judged_in_single(dtype: torch.dtype) -> None:
    logits = torch.randn(7, 3, generator=torch.Generator().manual_seed(0)).mul(4).to(dtype)
    moved, targets = (logits.float() + 0.01 * torch.arange(3)).to(dtype), torch.arange(7) % 3
    base: Any = None
    for found, wanted in (
        (Nli().divergence(logits, moved, targets), locality_kl(logits.float(), moved.float())),
        (
            Nli().losses(base, logits, targets),
            torch.nn.functional.cross_entropy(logits.float(), targets, reduction="none"),
        ),
    ):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, wanted)
    assert not Nli().divergence(logits, logits, targets).any()


def test_the_root_by_hand() -> None:
    kl = torch.tensor([0.0, 1e-4, 0.01, 1.0], dtype=torch.double)
    want = [math.sqrt(k + 1e-4) - 0.01 for k in kl.tolist()]
    assert root_kl(kl).tolist() == pytest.approx(want)
