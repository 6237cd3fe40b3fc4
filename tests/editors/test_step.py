"""The step against its definition: its direction, and the shortest length that will do."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from editing import Case, E, SlowEdit, assert_near
from quick import quick
from torch import Tensor

from saledit.editors.step import Step
from saledit.moments import whitener

_NEXT = 2 ** (1 / 8)  # what a length is known to


@pytest.fixture(scope="module", params=["bert", "gpt2", "llama"])
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


def make(case: Case, **settings: float) -> Step:
    editor = Step(case.layer.sites, **settings)
    editor.prime(case.gradients, case.bank.moments() if editor.needs_moments else None)
    return editor


@torch.no_grad()
def wanted(case: Case, i: int, whiten: float) -> list[Tensor]:
    """- G W / |G W| over all sites, dense."""
    out = []
    for pair, moment in zip(case.gradients, case.bank.moments(), strict=True):
        dense = pair.dense()[i].double()
        out.append(-dense @ whitener(moment, whiten).double() if whiten else -dense)
    norm = torch.stack([step.square().sum() for step in out]).sum().sqrt()
    return [step / norm for step in out]


@pytest.mark.parametrize("whiten", quick([0.1], [0.0, 0.1]))
@pytest.mark.parametrize(("bound", "enough"), [(1e3, 0.3), (1e-3, 0.0)], ids=["mends", "bound"])
def test_a_step_is_as_long_as_it_has_to_and_may_be(
    case: Case, whiten: float, bound: float, enough: float
) -> None:
    edits = make(case, whiten=whiten, bound=bound, enough=enough)(case.request)
    norms = edits.norm()
    assert norms.min() < 127
    for i in range(E):
        direction, slow = wanted(case, i, whiten), SlowEdit(case, i)
        for delta, unit in zip(edits.values(), direction, strict=True):
            assert_near(delta.dense()[i], unit * norms[i].double())
        now, shorter, longer = (
            [unit * float(norms[i]) * factor for unit in direction]
            for factor in (1.0, 1 / _NEXT, _NEXT)
        )
        if enough and norms[i] > 127:
            # No length of the ladder brings it there, and the bound allows them all.
            assert all(slow.loss([unit * 2.0**n for unit in direction]) > enough for n in range(8))
        elif enough:
            assert slow.loss(now) <= enough * 1.001 < slow.loss(shorter) * 1.002
        else:
            assert slow.damage(now) <= bound * 1.01
            assert slow.damage(longer) > bound * 0.99


def test_what_is_too_dear_from_the_start_is_left_alone(case: Case) -> None:
    # Less than nothing: the KL of the shortest step may come out as nothing.
    assert not make(case, bound=-1.0, enough=0.0)(case.request).norm().any()


@pytest.mark.parametrize("family", ["bert", "gpt2"])
@torch.no_grad()
def test_a_step_that_mends_may_be_too_dear(family: str) -> None:
    case = Case(family)

    def make(bound: float) -> Step:
        editor = Step(case.layer.sites, whiten=0.1, bound=bound, enough=0.3)
        editor.prime(case.gradients, case.bank.moments())
        return editor

    checked = 0
    for i in range(E):
        free = make(1e3)(case.alone(i))
        if case.damage(free) > 100 or free.norm() > 127:
            continue
        bound = 0.9 * float(case.damage(free))
        held = make(bound)(case.alone(i))
        assert float(case.damage(held)) <= bound * 1.001
        checked += 1
    assert checked


def test_a_step_of_no_number_is_too_dear() -> None:
    case = Case("bert")
    editor = Step(case.layer.sites, whiten=0.0, bound=1e9, enough=0.0)
    bad = replace(case.request, damage=lambda e: case.damage(e) * float("nan"))
    assert not editor(bad).norm().any()
