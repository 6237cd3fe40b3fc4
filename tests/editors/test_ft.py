"""Fine-tuning against torch's own Adam on the weights of a whole model, in float64."""

from __future__ import annotations

import pytest
import torch
from editing import Case, E, SlowEdit, assert_near
from torch import Tensor

from saledit import config as configuration
from saledit.building import check_editor
from saledit.delta import LowRank
from saledit.editors.ft import FineTuning
from saledit.errors import ConfigError

STEPS, RATE, KL = 3, 0.01, 5.0


@pytest.fixture(scope="module", params=["bert", "gpt2", "llama"])
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


def slow(case: Case, i: int, bound: float = 0.0, kl: float = 0.0) -> list[Tensor]:
    edit = SlowEdit(case, i)
    changes = [
        torch.zeros(s.d_out, s.d_in, dtype=torch.float64, requires_grad=True) for s in edit.sites
    ]
    adam = torch.optim.Adam(changes, lr=RATE)
    for _ in range(STEPS):
        adam.zero_grad()
        (edit.loss(changes) + kl * edit.damage(changes)).backward()
        adam.step()
        if bound:
            for change in changes:
                change.data.clamp_(-bound, bound)
    return [change.detach() for change in changes]


@pytest.mark.parametrize(
    ("bound", "kl"), [(0.0, 0.0), (0.015, 0.0), (0.0, KL)], ids=["ft", "ft-l", "ft-kl"]
)
def test_it_is_adam_on_the_site(case: Case, bound: float, kl: float) -> None:
    editor = FineTuning(case.layer.sites, STEPS, RATE, kl, bound, enough=0.0)
    edits = editor(case.request)
    for i in range(E):
        for delta, want in zip(edits.values(), slow(case, i, bound, kl), strict=True):
            # Adam's first step is a sign, which rounding turns where a gradient is about zero.
            off = (delta.dense()[i] - want.float()).abs() > 1e-3
            assert off.float().mean() < 0.02
            assert not bound or delta.dense().abs().max() <= bound
    if bound:
        free = FineTuning(case.layer.sites, STEPS, RATE, enough=0.0)(case.request)
        assert all(delta.dense().abs().max() > bound for delta in free.values())


def test_a_low_rank_change_is_adam_on_its_factors(case: Case) -> None:
    editor = FineTuning(case.layer.sites, STEPS, RATE, rank=2, enough=0.0)
    edits = editor(case.request)
    starts = editor._edits([v.detach() for v in editor._start(case.request)])
    for i in range(E):
        edit, factors = SlowEdit(case, i), []
        for delta in starts.values():
            assert isinstance(delta, LowRank)
            assert not delta.v.any()
            factors += [t[i].double().requires_grad_() for t in (delta.u, delta.v)]
        adam = torch.optim.Adam(factors, lr=RATE)
        for _ in range(STEPS):
            adam.zero_grad()
            pairs = zip(factors[::2], factors[1::2], strict=True)
            edit.loss([v.T @ u for u, v in pairs]).backward()
            adam.step()
        for j, delta in enumerate(edits.values()):
            assert_near(delta.dense()[i], (factors[2 * j + 1].T @ factors[2 * j]).detach(), 0.02)


def test_an_edit_ends_when_its_failures_are_mended(case: Case) -> None:
    losses = case.losses(FineTuning(case.layer.sites, 200, RATE, enough=0.1)(case.request))
    assert (losses <= 0.1).all()
    none = FineTuning(case.layer.sites, 200, RATE, enough=1e9)(case.request)
    assert not any(delta.dense().any() for delta in none.values())


def test_a_bound_on_a_change_of_low_rank_is_refused() -> None:
    config = configuration.load(None, ["editor.ft.bound=0.1"], ["editors/lora-ft"])
    with pytest.raises(
        ConfigError, match=r"^editor\.ft\.bound: expected 0 beside .*rank=8.*got 0\.1"
    ):
        check_editor(config.editor)
    for preset in ("ft-l", "lora-ft"):
        check_editor(configuration.load(None, [], [f"editors/{preset}"]).editor)


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_edits_that_end_at_different_steps_are_those_alone(family: str) -> None:
    case = Case(family)
    probe = FineTuning(case.layer.sites, 6, 0.01, enough=0.0)(case.request)
    levels = case.losses(probe).sort().values
    enough = float((levels[0] + levels[1]) / 2)  # after 6 steps one has ended, others not
    editor = FineTuning(case.layer.sites, 12, 0.01, enough=enough)
    together = editor(case.request)
    for i in range(E):
        alone = editor(case.alone(i))
        for site in together:
            want = alone[site].dense()[0]
            torch.testing.assert_close(
                together[site].dense()[i], want, rtol=1e-3, atol=1e-3 * float(want.abs().max())
            )


@pytest.mark.parametrize("rank", [0, 2])
def test_a_caller_s_autocast_keeps_no_value_as_it_was_at_first(rank: int) -> None:
    case = Case("bert")
    editor = FineTuning(case.layer.sites, 20, 0.05, rank=rank, enough=0.0)
    torch.manual_seed(0)
    plain = case.losses(editor(case.request))
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = editor(case.request)
    before = case.losses(editor(case.request) * 0.0)
    assert (plain < 0.5 * before).all()
    torch.testing.assert_close(case.losses(mixed), plain, rtol=0.2, atol=0.02)
