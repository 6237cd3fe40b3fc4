"""Edits on top of edits, as a sequence has them, in the batches of training."""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from editing import numbers
from quick import quick
from test_looks import Case, E, K, assert_same, case_of, one
from torch import Tensor

from saledit.config import LossConfig, TrainConfig
from saledit.delta import Edits
from saledit.editors.base import Editor
from saledit.editors.earlier import laid, n_earlier, one_of, turned
from saledit.editors.looks import edits_of_look, upon
from saledit.editors.request import Request
from saledit.editors.stepping import StepSearch
from saledit.module import EditModule
from saledit.outcomes import outcome

__all__ = ["case_of"]  # a fixture

NAMES = quick(["mend", "enn"], ["mend", "enn", "ke", "malmen"])


def test_each_number_of_edits_comes_as_often() -> None:
    seen = Counter(n_earlier(step, 5) for step in range(6000))
    assert set(seen) == set(range(6))
    assert max(seen.values()) - min(seen.values()) < 10
    assert {n_earlier(step, 0) for step in range(50)} == {0}


def test_each_of_those_below_is_judged_as_often_whatever_their_number() -> None:
    seen = Counter((n, one_of(step, n)) for step in range(30000) if (n := n_earlier(step, 4)))
    assert set(seen) == {(n, i) for n in range(1, 5) for i in range(1, n + 1)}
    for (n, _), times in seen.items():
        assert times == pytest.approx(30000 / 5 / n, rel=0.02)


@torch.no_grad()
def test_edits_are_turned_in_a_circle(case_of: Callable[..., Case]) -> None:
    case = case_of("bert", "classifier")
    editor = case.editor("mend").train()
    assert not laid(editor, case.request, 0)
    below = laid(editor, case.request, 1)
    assert editor.training
    steps = editor.eval()(case.request)
    for site, delta in below.items():
        for i in range(E):
            assert torch.equal(delta[i].dense(), steps[site][(i - 1) % E].dense())
        assert torch.equal(turned(steps, -1)[site][0].dense(), steps[site][1].dense())


@torch.no_grad()
def test_what_broke_is_not_beneath_the_others(case_of: Callable[..., Case]) -> None:
    case = case_of("bert", "classifier")
    editor = case.editor("mend")
    whole = laid(editor, case.request, 2)
    real, made = type(editor).forward, list[Edits]()

    def forward(self: Editor, request: Request) -> Edits:
        steps = real(self, request)
        if not made:  # the first of the edit at place 1
            steps = steps * torch.tensor([1.0, torch.nan, 1.0])
        made.append(steps)
        return steps

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(editor), "forward", forward)
        below = laid(editor, case.request, 2)
    assert below.finite().all()
    site = case.layer.sites[0]
    # Made first, last of two: beneath edit 0 it is the older one, beneath edit 2 it had none on it.
    assert not torch.allclose(below[site][0].dense(), whole[site][0].dense())
    assert torch.allclose(below[site][1].dense(), whole[site][1].dense(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("family", "kind"), [("bert", "classifier"), ("gpt2", "text")])
def test_a_step_on_top_is_the_next_step_of_a_sequence(
    case_of: Callable[..., Case], family: str, kind: str, name: str
) -> None:
    """What training is on is what ``EditSession`` does with the edits one after the other."""
    case, search = case_of(family, kind), StepSearch((1.0, 0.5), enough=1e-9, looks=2)
    editor = case.editor(name)
    below = laid(editor, case.request, 2, search)
    with torch.no_grad():
        steps = editor(upon(editor, case.request, below))
    bare = editor(case.request)
    for i in range(E):
        session = case.session(editor, search)
        session.step(case.own((i - 2) % E))
        session.step(case.own((i - 1) % E))
        made, _ = session.state
        for site, delta in made.items():  # single precision, twice over
            assert_same(numbers(one(below, i)[site]), numbers(delta), 1e-2)
        last = case.session(editor)
        last.go_on(*session.state)
        second = last.step(case.own(i))
        for site, delta in second.items():
            assert_same(numbers(one(steps, i)[site]), numbers(delta), 1e-2)
            alone = numbers(one(bare, i)[site]).detach()
            assert not torch.allclose(numbers(delta), alone, rtol=1e-2, atol=1e-6)


def module_of(case: Case, name: str, **train: int) -> EditModule:
    loss, search = LossConfig(edit=0.7, locality=1.3), StepSearch(looks=2, enough=1e-9)
    return EditModule(
        case.base, case.task, case.editor(name), case.banks.fail.entry, loss,
        TrainConfig(earlier=5, **train), search,
    )  # fmt: skip


def at_step(module: EditModule, step: int) -> EditModule:
    module._trainer = SimpleNamespace(global_step=step, training=False)  # type: ignore[assignment]
    return module


@pytest.mark.parametrize("looks", [1, 2])
def test_an_edit_is_judged_by_its_own_and_by_what_it_leaves_of_an_earlier_one(
    case_of: Callable[..., Case], looks: int
) -> None:
    case = case_of("bert", "classifier")
    begun, seen = module_of(case, "mend", looks=looks), set()
    for step in range(7):
        module = at_step(copy.deepcopy(begun).train(), step)
        n = n_earlier(step, E - 1)
        loss = module._loss(case.batch)[0].item()
        editor = copy.deepcopy(begun.editor).train()
        below = laid(editor, case.request, n, module.search)
        look = 0 if looks == 1 else int((step + 1) * (5**0.5 - 1) / 2 % 1 * 2)
        edits = edits_of_look(editor, case.request, look, 1e-9, below)

        def judged(edits: Edits) -> tuple[Tensor, Tensor]:
            entry = case.banks.fail.entry
            found = outcome(case.base, case.task, entry, edits, case.batch)
            return found.edit_nll, found.locality.mean()

        nll, kl = judged(edits)
        if n:
            # The failures of edit i under the edit that has i beneath it, as many places on.
            places = (torch.arange(E) + one_of(step, n)) % E
            more, again = judged(edits.map(lambda part, at=places: part[at]))  # type: ignore[misc]
            nll, kl = nll + more, (kl + again) / 2
        assert loss == pytest.approx(float(0.7 * nll + 1.3 / math.sqrt(K) * kl), rel=1e-5)
        seen.add(n)
    assert seen == {0, 1, 2}


def test_the_loss_is_the_same_in_parts(
    case_of: Callable[..., Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    case = case_of("bert", "classifier")
    begun = module_of(case, "mend")
    step = next(step for step in range(9) if n_earlier(step, E - 1) == 2)

    def found() -> tuple[float, dict[str, float], list[Tensor]]:
        module = at_step(copy.deepcopy(begun).train(), step)
        loss, told = module._loss(case.batch)
        slopes = torch.autograd.grad(loss, list(module.editor.parameters()))
        return loss.item(), {name: float(value) for name, value in told.items()}, list(slopes)

    whole = found()
    monkeypatch.setattr("saledit.outcomes._ROWS", len(case.batch) // 3)
    parts = found()
    assert parts[0] == pytest.approx(whole[0], rel=1e-5)
    assert parts[1] == pytest.approx(whole[1], rel=1e-5)
    for mine, want in zip(parts[2], whole[2], strict=True):
        assert_same(mine, want)


@pytest.mark.parametrize("name", NAMES)
def test_every_trained_editor_learns_on_top_of_its_edits(
    case_of: Callable[..., Case], name: str
) -> None:
    case = case_of("bert", "classifier")
    step = next(step for step in range(9) if n_earlier(step, E - 1) == 2)
    module = at_step(module_of(case, name).train(), step)
    loss, told = module._loss(case.batch)
    slopes = torch.autograd.grad(loss, list(module.editor.parameters()), allow_unused=True)
    assert any(slope is not None and slope.any() for slope in slopes)
    assert told["locality_kl"] > 0
