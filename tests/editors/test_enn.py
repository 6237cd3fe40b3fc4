"""ENN against its definition: gradient descent on the weights of a whole model, in float64."""

from __future__ import annotations

import pytest
import torch
from editing import Case, E, K, SlowEdit, assert_near
from torch import Tensor

from saledit.delta import Edits
from saledit.editors.enn import EditableNetwork
from saledit.editors.looks import edits_for
from saledit.session import EditSession
from saledit.tasks.nli import Nli

RANK = 4


@pytest.fixture(scope="module", params=["bert", "gpt2", "llama"])
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


def edited(
    slow: SlowEdit, editor: EditableNetwork, changes: list[Tensor], steps: int
) -> list[Tensor]:
    """D_n, by the formula of the class."""
    rates = editor.log_rate.detach().double().exp()
    for _ in range(steps):
        gradients = torch.autograd.grad(slow.loss(changes), changes, create_graph=True)
        triples = zip(changes, gradients, rates, strict=True)
        changes = [change - rate * gradient for change, gradient, rate in triples]
    return changes


def make(case: Case, steps: int, second_order: bool = True) -> EditableNetwork:
    torch.manual_seed(0)
    editor = EditableNetwork(case.layer.sites, steps, 0.3, second_order)
    with torch.no_grad():
        for change in editor.changes:
            change.copy_(0.05 * torch.randn_like(change))
    return editor


@pytest.mark.parametrize("steps", [1, 3])
def test_an_edit_is_gradient_descent_from_the_trained_weights(case: Case, steps: int) -> None:
    editor = make(case, steps).eval()
    edits = edits_for(editor, case.request)
    for i in range(E):
        start = [c.detach().double().requires_grad_() for c in editor.changes]
        wants = edited(SlowEdit(case, i), editor, start, steps)
        for delta, want in zip(edits.values(), wants, strict=True):
            assert_near(delta.dense()[i].detach(), want.detach())


@pytest.mark.parametrize("steps", [1, 2])
def test_training_differentiates_through_the_steps(case: Case, steps: int) -> None:
    editor = make(case, steps).train()
    case.losses(edits_for(editor, case.request)).sum().backward()
    starts = [c.detach().double().requires_grad_() for c in editor.changes]
    total = torch.zeros((), dtype=torch.float64)
    for i in range(E):
        slow = SlowEdit(case, i)
        total = total + slow.loss(edited(slow, editor, starts, steps))
    for change, want in zip(editor.changes, torch.autograd.grad(total, starts), strict=True):
        assert change.grad is not None
        assert_near(change.grad, want, 3e-3)


def test_the_first_order_takes_gradients_for_constants(case: Case) -> None:
    """d loss(D + s) / dD with s held fixed is the gradient where the edit ends."""
    editor = make(case, 1, second_order=False).train()
    case.losses(edits_for(editor, case.request)).sum().backward()
    starts = [c.detach().double().requires_grad_() for c in editor.changes]
    wants = [torch.zeros_like(start) for start in starts]
    for i in range(E):
        slow = SlowEdit(case, i)
        ends = [e.detach().requires_grad_() for e in edited(slow, editor, starts, 1)]
        for want, gradient in zip(wants, torch.autograd.grad(slow.loss(ends), ends), strict=True):
            want += gradient
    for change, want in zip(editor.changes, wants, strict=True):
        assert change.grad is not None
        assert_near(change.grad, want)


def test_the_trained_weights_are_there_once_however_many_edits_pile_up(case: Case) -> None:
    editor = make(case, 1).eval()
    session = EditSession(case.base, Nli(), editor, case.layer, RANK, RANK)
    before = session.edits
    steps = [session.step(case.failures[:K]), session.step(case.failures[K : 2 * K])]
    for site, change in zip(case.layer.sites, editor.changes, strict=True):
        torch.testing.assert_close(before[site].dense(), change.detach())
        total = change.detach() + steps[0][site].dense() + steps[1][site].dense()
        torch.testing.assert_close(session.edits[site].dense(), total)
    # The second step starts where the first ended.
    again = EditSession(case.base, Nli(), editor, case.layer, RANK, RANK)
    alone = again.step(case.failures[K : 2 * K])
    assert isinstance(session.edits, Edits)
    assert any(not torch.allclose(steps[1][s].dense(), alone[s].dense()) for s in alone)
