"""The tap: gradient factors are the weight gradients, and nothing else is written."""

from __future__ import annotations

import pytest
import torch
from tiny import FAMILIES, build, encode, random_edits, samples, targets, untouched
from torch import Tensor
from torch.nn import functional as F

from saledit.delta import LowRank
from saledit.models import TaskModel
from saledit.overlay import applied
from saledit.records import Sample
from saledit.site import Site
from saledit.tap import tap


@pytest.fixture(params=FAMILIES)
def base(request: pytest.FixtureRequest) -> TaskModel:
    return build(request.param)


def all_sites(base: TaskModel, attention: bool) -> list[Site]:
    maps = base.family.attention_maps + base.family.mlp if attention else base.family.mlp
    return [site for layer in base.layers(maps) for site in layer.sites]


def loss(base: TaskModel, chosen: list[Sample]) -> Tensor:
    logits = base.model(**encode(base, chosen)).logits
    return F.cross_entropy(logits, targets(base, chosen), reduction="sum")


def tapped(base: TaskModel, chosen: list[Sample], sites: list[Site]) -> dict[Site, LowRank]:
    with tap(base.model, sites) as tape:
        total = loss(base, chosen)
    return tape.factors(total)


def autograd(base: TaskModel, chosen: list[Sample], sites: list[Site]) -> dict[Site, Tensor]:
    """Weight gradients as (D_out, D_in), by plain autograd."""
    held = [base.model.get_submodule(site.name).weight for site in sites]
    for weight in held:
        weight.requires_grad_(True)
    try:
        grads = torch.autograd.grad(loss(base, chosen), held)
    finally:
        base.model.requires_grad_(False)
    return {s: g.T if s.transposed else g for s, g in zip(sites, grads, strict=True)}


def assert_same(got: Tensor, want: Tensor) -> None:
    assert want.abs().max() > 1e-5
    torch.testing.assert_close(got, want, rtol=1e-4, atol=2e-5 * float(want.abs().max()))


@pytest.mark.parametrize("attention", [False, True], ids=["mlp", "all maps"])
def test_factors_are_the_weight_gradient(base: TaskModel, attention: bool) -> None:
    chosen, sites = samples(4), all_sites(base, attention)
    with untouched(base.model):
        factors = tapped(base, chosen, sites)
    for site, want in autograd(base, chosen, sites).items():
        pair = factors[site]
        assert not pair.u.requires_grad
        assert not pair.v.requires_grad
        assert_same(pair.dense().sum(0), want)  # rows sum up to the batch


def test_each_row_has_its_own_gradient(base: TaskModel) -> None:
    chosen, sites = samples(4), all_sites(base, attention=False)
    factors = tapped(base, chosen, sites)  # padded together
    for i, sample in enumerate(chosen):
        alone = autograd(base, [sample], sites)
        for site in sites:
            assert_same(factors[site].dense()[i], alone[site])


def test_grad_fields_are_left_alone() -> None:
    base = build("bert")
    marks = {p: torch.full_like(p, 3.0) for p in base.model.parameters()}
    for parameter, mark in marks.items():
        parameter.grad = mark.clone()
    tapped(base, samples(3), all_sites(base, attention=False))
    assert all(torch.equal(p.grad, mark) for p, mark in marks.items() if p.grad is not None)
    assert all(p.grad is not None for p in marks)


def test_tapping_changes_no_logits() -> None:
    base = build("gpt2")
    inputs = encode(base, samples(3))
    plain = base.model(**inputs).logits
    with tap(base.model, all_sites(base, attention=False)):
        assert torch.equal(base.model(**inputs).logits, plain)


def test_nothing_below_the_lowest_site_is_differentiated() -> None:
    base = build("bert")
    top = base.layer(2).sites
    with tap(base.model, [*base.layer(1).sites[:1], *top]) as tape:
        loss(base, samples(3))
    assert tape.outputs[base.layer(1).sites[0]].is_leaf
    assert not any(tape.outputs[site].is_leaf for site in top)


def test_without_gradients_only_inputs_are_kept() -> None:
    base = build("bert")
    site = base.layer(0).sites[0]
    with torch.no_grad(), tap(base.model, [site]) as tape:
        loss(base, samples(3))
    assert not tape.outputs[site].requires_grad
    assert tape.inputs[site].shape[-1] == site.d_in


def test_gradients_are_those_of_the_edited_model(base: TaskModel) -> None:
    chosen, sites = samples(3), list(base.layer(1).sites)
    edits = random_edits(sites)
    with applied(base.model, edits):
        factors = tapped(base, chosen, sites)
        want = autograd(base, chosen, sites)
    for site in sites:
        assert_same(factors[site].dense().sum(0), want[site])


def test_an_exception_inside_takes_the_hooks_away() -> None:
    base = build("bert")
    with untouched(base.model), pytest.raises(KeyError), tap(base.model, base.layer(0).sites):
        raise KeyError
    with (
        untouched(base.model),
        pytest.raises(AttributeError),
        tap(base.model, [base.layer(0).sites[0], Site("bert.nowhere", 1, 1)]),
    ):
        pass


def test_a_retained_graph_serves_twice() -> None:
    base = build("bert")
    sites = list(base.layer(1).sites)
    with tap(base.model, sites) as tape:
        total = loss(base, samples(2))
    first, second = tape.factors(total, retain_graph=True), tape.factors(total)
    assert all(torch.equal(first[site].v, second[site].v) for site in sites)
