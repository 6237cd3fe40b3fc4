"""The contract of every registered editor on classifiers of every family, of presets on one."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from editing import RANK, Case, E, K, asked_by, fresh, numbers, pairs, sites_of
from tiny import FAMILIES, untouched
from torch.nn import functional as F

from saledit.cache.factors import no_factors
from saledit.delta import Edits, LowRank
from saledit.delta.routed import Routed
from saledit.editors.looks import edits_for
from saledit.editors.terms import aggregate
from saledit.files import read_tensors, write_tensors
from saledit.registry import EDITORS, look_up

case_of = cache(Case)


@pytest.fixture(params=pairs(FAMILIES, ["bert"], of_presets="bert"))
def pair(request: pytest.FixtureRequest) -> tuple[str, str]:
    return request.param


@pytest.fixture
def case(pair: tuple[str, str]) -> Case:
    return case_of(pair[0], *asked_by(pair[1]))


@pytest.fixture
def name(pair: tuple[str, str]) -> str:
    return pair[1]


def assert_same(a: Edits, b: Edits) -> None:
    assert list(a) == list(b)
    for site in a:
        assert torch.equal(numbers(a[site]), numbers(b[site]))


@pytest.mark.parametrize("pair", pairs(FAMILIES, ["bert"], "bert", every=True), indirect=True)
def test_training_mends_failures_and_leaves_the_base_alone(case: Case, name: str) -> None:
    with untouched(case.base.model):
        editor = case.editor(name)
        begun = {name: p.detach().clone() for name, p in editor.named_parameters()}
        losses = case.train(editor, 20)
        editor.eval()
        edits = edits_for(editor, case.request)
        final = case.losses(edits).mean().item()
    assert all(math.isfinite(loss) for loss in losses)
    assert editor.is_trained == any(p.requires_grad for p in editor.parameters())
    if editor.is_trained:
        assert final < 0.8 * losses[0]
    dead = [n for n, p in editor.named_parameters() if p.requires_grad and torch.equal(p, begun[n])]
    assert not dead, "what nothing ever changes is not trained"
    assert final < F.cross_entropy(case.bank.logits, case.bank.targets).item()
    assert list(edits) == sites_of(editor, case.layer)
    assert edits.batch_shape == (E,)
    for site, delta in edits.items():
        assert isinstance(delta, Routed) or delta.dense().shape == (E, site.d_out, site.d_in)
        assert numbers(delta).isfinite().all()
        assert numbers(delta).flatten(1).any(1).all()


def test_same_seed_same_bytes(case: Case, name: str, tmp_path: Path) -> None:
    for run_name in ("a", "b"):
        editor = case.editor(name, seed=7)
        case.train(editor, 5)
        write_tensors(tmp_path / run_name, editor.state_dict())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_state_dict_is_the_whole_editor(case: Case, name: str, tmp_path: Path) -> None:
    editor = case.editor(name)
    case.train(editor, 3)
    editor.eval()
    write_tensors(tmp_path / "editor", editor.state_dict())
    torch.manual_seed(99)
    loaded = fresh(name, case.base, case.layer)
    loaded.load_state_dict(read_tensors(tmp_path / "editor", "an editor"))
    loaded.eval()
    assert_same(editor(case.request), loaded(case.request))


def test_using_an_editor_does_not_change_it(case: Case, name: str) -> None:
    editor = case.editor(name).eval()
    before = {key: value.clone() for key, value in editor.state_dict().items()}
    given = [LowRank(pair.u.clone(), pair.v.clone()) for pair in case.gradients]
    first, second = editor(case.request), editor(case.request)
    assert_same(first, second)
    assert all(torch.equal(before[key], value) for key, value in editor.state_dict().items())
    for pair, old in zip(case.gradients, given, strict=True):
        assert torch.equal(pair.u, old.u)
        assert torch.equal(pair.v, old.v)


def test_edits_of_a_batch_are_one_by_one(case: Case, name: str) -> None:
    editor = case.editor(name)
    case.train(editor, 3)
    editor.eval()
    together = editor(case.request)
    for i in range(E):
        alone = editor(case.alone(i))
        for site in together:
            want = numbers(together[site])[i].detach()
            scale = float(want.abs().max())
            torch.testing.assert_close(
                numbers(alone[site])[0].detach(), want, rtol=1e-4, atol=1e-4 * scale
            )


def test_zero_terms_are_padding(case: Case, name: str) -> None:
    editor = case.editor(name)
    case.train(editor, 3)
    padded = [
        LowRank(F.pad(pair.u, (0, 0, 1, 2)), F.pad(pair.v, (0, 0, 1, 2))) for pair in case.gradients
    ]
    owners = F.pad(case.owners, (1, 2))  # of no term: as good as any
    editor.eval()
    plain, more = (
        editor(case.request).detach(),
        editor(replace(case.request, gradients=padded, owners=owners)).detach(),
    )
    for site in plain:
        want = numbers(plain[site])
        scale = float(want.abs().max())
        torch.testing.assert_close(numbers(more[site]), want, rtol=1e-4, atol=1e-5 * scale)


def test_what_needs_no_gradients_makes_its_edits_without(case: Case, name: str) -> None:
    editor = case.editor(name).eval()
    if editor.needs_gradients:
        return
    assert editor.looks_by_itself
    none = aggregate(
        no_factors(case.layer.sites, (E, K), torch.float32, "cpu"), torch.ones(E, K), RANK
    )
    request = replace(case.request, gradients=none.pairs, owners=none.owners)
    assert request.n_edits == E
    assert_same(editor(request).detach(), editor(case.request).detach())


@pytest.mark.parametrize(("name", "says"), [("step", True), ("mend", False)])
def test_what_says_the_wrong_thing_about_being_trained_is_refused(
    name: str, says: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(look_up(EDITORS, name, "editor.name"), "is_trained", says)
    found = "without" if says else "with"
    message = f"expected is_trained = {not says} of an editor {found} parameters, got {says}"
    with pytest.raises(AssertionError, match=message):
        fresh(name, case_of("bert").base, case_of("bert").layer)
