"""ENN against its definition: gradient descent on the weights of a whole model, in float64."""

from __future__ import annotations

import copy

import pytest
import torch
from editing import Case, E, K
from tiny import encode
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from saledit.delta import Edits
from saledit.editors.enn import EditableNetwork
from saledit.requests import edits_for
from saledit.session import EditSession
from saledit.tasks.nli import Nli

RANK = 4


@pytest.fixture(scope="module", params=["bert", "gpt2", "llama"])
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


class Slow:
    """One edit's losses with other weights in the place of the site's."""

    def __init__(self, case: Case, i: int) -> None:
        model = copy.deepcopy(case.base.model).double()
        encoded = encode(case.base, case.failures)
        self.rows = {name: t[i * K : (i + 1) * K] for name, t in encoded.items()}
        self.targets = case.bank.targets[i * K : (i + 1) * K]
        self.model, self.sites = model, case.layer.sites

    def loss(self, changes: list[Tensor]) -> Tensor:
        """Mean loss of the edit's failures under changes (D_out, D_in)."""
        weights = {}
        for site, change in zip(self.sites, changes, strict=True):
            old = self.model.get_submodule(site.name).weight
            weights[f"{site.name}.weight"] = old + (change.T if site.transposed else change)
        with sdpa_kernel(SDPBackend.MATH):  # the others have no second derivatives
            logits = functional_call(self.model, weights, kwargs=self.rows).logits
        return F.cross_entropy(logits, self.targets)

    def edited(self, editor: EditableNetwork, changes: list[Tensor], steps: int) -> list[Tensor]:
        """D_n, by the formula of the class."""
        rates = editor.log_rate.detach().double().exp()
        for _ in range(steps):
            gradients = torch.autograd.grad(self.loss(changes), changes, create_graph=True)
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


def assert_close(mine: Tensor, want: Tensor, rtol: float = 1e-3) -> None:
    want = want.float()
    torch.testing.assert_close(mine, want, rtol=rtol, atol=rtol * float(want.abs().max()))


@pytest.mark.parametrize("steps", [1, 3])
def test_an_edit_is_gradient_descent_from_the_trained_weights(case: Case, steps: int) -> None:
    editor = make(case, steps).eval()
    edits = edits_for(editor, case.request)
    for i in range(E):
        start = [c.detach().double().requires_grad_() for c in editor.changes]
        wants = Slow(case, i).edited(editor, start, steps)
        for delta, want in zip(edits.values(), wants, strict=True):
            assert_close(delta.dense()[i].detach(), want.detach())


@pytest.mark.parametrize("steps", [1, 2])
def test_training_differentiates_through_the_steps(case: Case, steps: int) -> None:
    editor = make(case, steps).train()
    case.losses(edits_for(editor, case.request)).sum().backward()
    starts = [c.detach().double().requires_grad_() for c in editor.changes]
    total = torch.zeros((), dtype=torch.float64)
    for i in range(E):
        slow = Slow(case, i)
        total = total + slow.loss(slow.edited(editor, starts, steps))
    for change, want in zip(editor.changes, torch.autograd.grad(total, starts), strict=True):
        assert change.grad is not None
        assert_close(change.grad, want, 3e-3)


def test_the_first_order_takes_gradients_for_constants(case: Case) -> None:
    """d loss(D + s) / dD with s held fixed is the gradient where the edit ends."""
    editor = make(case, 1, second_order=False).train()
    case.losses(edits_for(editor, case.request)).sum().backward()
    starts = [c.detach().double().requires_grad_() for c in editor.changes]
    wants = [torch.zeros_like(start) for start in starts]
    for i in range(E):
        slow = Slow(case, i)
        ends = [e.detach().requires_grad_() for e in slow.edited(editor, starts, 1)]
        for want, gradient in zip(wants, torch.autograd.grad(slow.loss(ends), ends), strict=True):
            want += gradient
    for change, want in zip(editor.changes, wants, strict=True):
        assert change.grad is not None
        assert_close(change.grad, want)


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
