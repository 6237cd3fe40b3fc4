"""The multiplier: it finds the weight at which a constraint is just kept."""

from __future__ import annotations

import pytest
import torch

from saledit.config import TrainConfig
from saledit.losses import ANNEAL, Multiplier
from saledit.rates import adam, falling


def test_the_saddle_is_the_constrained_optimum() -> None:
    """min (x - 2)^2 where x^2 <= 1: x = 1, and the weight at which its slope is zero is 1."""
    multiplier, x = Multiplier(0.0, margin=1.0), torch.tensor(0.3, requires_grad=True)
    optimizer = torch.optim.SGD(
        [{"params": [x]}, {"params": [multiplier.weight], "maximize": True}], lr=0.02
    )
    for _ in range(2000):
        optimizer.zero_grad()
        ((x - 2) ** 2 + multiplier(x**2)).backward()
        optimizer.step()
        multiplier.project()
    assert x.item() == pytest.approx(1.0, abs=1e-3)
    assert multiplier.weight.item() == pytest.approx(1.0, abs=1e-2)


def test_a_kept_constraint_costs_nothing_and_the_weight_stays_at_zero() -> None:
    multiplier = Multiplier(0.05, margin=1.0)
    optimizer = torch.optim.SGD([{"params": [multiplier.weight], "maximize": True}], lr=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        multiplier(torch.tensor(0.1)).backward()
        optimizer.step()
        multiplier.project()
    assert multiplier.weight.item() == 0


def test_rates_fall_and_a_multiplier_s_does_not() -> None:
    """It has to follow its margin to the end."""
    train = TrainConfig(learning_rate=1e-3, rate_learning_rate=1e-2)
    multiplier = Multiplier(1.0, margin=1.0)
    for steps in (10, 6):
        optimizer, may_fall = adam(torch.nn.Linear(2, 2), multiplier, train, fused=False)
        schedule = falling(optimizer, may_fall, train, steps, lambda: 0.0)
        for _ in range(steps // 2):
            optimizer.step()
            schedule.step()
        assert schedule.get_last_lr() == pytest.approx([5e-4, 5e-3, 0.1])
        for _ in range(steps):
            optimizer.step()
            schedule.step()
        assert schedule.get_last_lr() == pytest.approx([2e-5, 2e-4, 0.1])
    plain, may_fall = adam(torch.nn.Linear(2, 2), None, train, fused=False)
    assert len(plain.param_groups) == len(may_fall) == 2


def test_the_margin_tightens_only_as_it_is_kept_and_not_below_its_least() -> None:
    multiplier = Multiplier(1.0, margin=0.1, least=0.07)
    multiplier.anneal(0.11)
    assert multiplier.margin.item() == pytest.approx(0.1)
    multiplier.anneal(0.09)
    assert multiplier.margin.item() == pytest.approx(0.1 * ANNEAL)
    multiplier.anneal(0.0)
    assert multiplier.margin.item() == pytest.approx(0.07)
