"""Tails: the outputs of whole rows, whatever is changed at the place that a tail begins with."""

from __future__ import annotations

import pytest
import torch
from quick import quick
from tiny import N_BLOCKS, untouched
from tiny_text import STACKED, build, samples, task

from saledit.cache.bank import BankSpec
from saledit.cache.opening import memory_bank
from saledit.forward.places import touched
from saledit.forward.rows import Rows
from saledit.forward.suffix import entry_for, run
from saledit.forward.tails import Tails, tails_of
from saledit.models import CAUSAL, TaskModel

QA = task()
N = 6


@pytest.fixture(scope="module", params=STACKED)
def base(request: pytest.FixtureRequest) -> TaskModel:
    return build(request.param)


def cut(base: TaskModel, block: int, higher: int) -> tuple[Tails, Rows, torch.Tensor, str]:
    """Rows whose places lie in the middle of their prompts, and their tails."""
    bank = memory_bank(base, QA, samples(N, seed=1), BankSpec(base.layer(block)))
    rows = bank.rows(torch.arange(N))
    assert rows.at is not None
    # The last MLP is run where something is scored alone.
    places = rows.at[:, 0] if higher == N_BLOCKS - 1 else rows.at[:, 0] // 2
    site = base.layer(higher).sites[-1].name
    tails = tails_of(base, bank.entry, entry_for(base, higher, (site,)), rows, places)
    return tails, rows, places, site


@pytest.mark.parametrize(
    ("block", "higher"),
    quick(
        ["0-1", "1-2", "2-2"],
        {f"{b}-{h}": (b, h) for b in range(N_BLOCKS) for h in range(b, N_BLOCKS)},
    ),
)
def test_outputs_are_those_of_whole_rows(base: TaskModel, block: int, higher: int) -> None:
    with untouched(base.model):
        tails, rows, places, site = cut(base, block, higher)
    module = base.model.get_submodule(site)
    delta = torch.randn(N, module(torch.zeros(1, base.layer(higher).sites[-1].d_in)).shape[-1])
    entry = entry_for(base, block, tuple(s.name for s in base.layer(block).sites))
    for some in (torch.arange(N), torch.tensor([4, 1])):
        given = [delta[some].clone().requires_grad_() for _ in range(2)]
        part, own = rows.pick(some, int(rows.inputs["attention_mask"][some].sum(1).max())), None
        with touched(module, places[some], lambda _x, _y: given[0], part):  # noqa: B023
            own = run(base, entry, part.states, part.inputs, part.at)
        few = tails.pick(some)
        with touched(module, few.places, lambda _x, _y: given[1], few.rows):  # noqa: B023
            got = few.outputs(base)
        torch.testing.assert_close(got, own, rtol=1e-4, atol=1e-5)
        slopes = [
            torch.autograd.grad(y.square().sum(), x)[0]
            for y, x in zip((own, got), given, strict=True)
        ]
        torch.testing.assert_close(slopes[1], slopes[0], rtol=1e-3, atol=1e-4)


def test_a_causal_model_s_rows_are_cut(base: TaskModel) -> None:
    tails, rows, places, _ = cut(base, 0, 0)
    lengths = rows.inputs["attention_mask"].sum(1)
    # Behind a window tokens see fewer than all before them; such rows stay whole.
    window = getattr(base.model.config, "sliding_window", None) or 1000
    is_cut = base.kind == CAUSAL and window >= int(lengths.max())
    assert bool(tails.past) == is_cut
    if is_cut:
        assert torch.equal(tails.lengths, lengths - places)
        assert tails.rows.inputs["input_ids"].shape[1] == int((lengths - places).max())
        assert len(tails.past) == N_BLOCKS - 1


def test_rows_that_are_read_before_their_place_stay_whole(base: TaskModel) -> None:
    """A tail holds only what stands from the place on; what is scored earlier is not in it."""
    bank = memory_bank(base, QA, samples(N, seed=1), BankSpec(base.layer(0)))
    rows = bank.rows(torch.arange(N))
    assert rows.at is not None
    places = rows.at[:, 0] // 2
    places[2] = rows.at[2, 0] + 1
    site = base.layer(0).sites[-1].name
    assert not tails_of(base, bank.entry, entry_for(base, 0, (site,)), rows, places).past
