"""Rows of many edits run in chunks of like length; nobody can tell from the numbers."""

from __future__ import annotations

import pytest
import torch
from tiny import build, samples
from torch import Tensor

from saledit.cache.bank import BankSpec
from saledit.cache.opening import memory_bank
from saledit.delta import Edits, LowRank
from saledit.forward.rows import run_edits
from saledit.forward.suffix import run
from saledit.models import TaskModel
from saledit.overlay import applied
from saledit.tasks.nli import Nli


@pytest.fixture(scope="module")
def base() -> TaskModel:
    return build("bert")


def random_edits(base: TaskModel, block: int, n_edits: int) -> Edits:
    torch.manual_seed(block)
    deltas = {}
    for site in base.layer(block).sites:
        u, v = torch.randn(n_edits, 2, site.d_in), torch.randn(n_edits, 2, site.d_out)
        deltas[site] = LowRank(u, 0.3 * v)
    return Edits(deltas)


@pytest.mark.parametrize("block", [0, 1])
@pytest.mark.parametrize(("n_edits", "size"), [(1, 1), (2, 2), (3, 7)])
def test_chunks_by_length_change_nothing(
    base: TaskModel, block: int, n_edits: int, size: int
) -> None:
    bank = memory_bank(base, Nli(), samples(n_edits * size), BankSpec(base.layer(block)))
    rows = bank.rows(torch.arange(n_edits * size))
    assert n_edits * size == 1 or len(set(bank.lengths.tolist())) > 1
    edits = random_edits(base, block, n_edits)
    with applied(base.model, edits):
        whole = run(base, bank.entry, rows.states, rows.inputs)
    chunked = run_edits(base, bank.entry, rows, edits)
    assert chunked.shape == (n_edits, size, whole.shape[-1])
    torch.testing.assert_close(chunked.flatten(0, 1), whole)
    assert (whole - bank.logits).abs().max() > 1e-3, "an edit that changes nothing proves nothing"


def test_under_autocast_it_is_nearly_the_same_and_differentiable(base: TaskModel) -> None:
    bank = memory_bank(base, Nli(), samples(6), BankSpec(base.layer(0)))
    rows = bank.rows(torch.arange(6))
    gradients: list[Tensor] = []
    logits: list[Tensor] = []
    for enabled in (False, True):
        edits = random_edits(base, 0, 2)
        leaf = next(iter(edits.values())).u.requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            logits.append(run_edits(base, bank.entry, rows, edits).float())
        gradients += torch.autograd.grad(logits[-1].square().sum(), leaf)
    torch.testing.assert_close(logits[1], logits[0], rtol=0.05, atol=0.05)
    assert (logits[1] - logits[0]).abs().max() > 0, "bfloat16 rounds"
    assert (gradients[1] - gradients[0]).norm() < 0.1 * gradients[0].norm()
