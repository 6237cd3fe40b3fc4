"""The overlay: a hook is the changed weight, and nothing of it stays."""

from __future__ import annotations

import pytest
import torch
from tiny import FAMILIES, build, encode, random_edits, samples, untouched, weights
from torch import Tensor

from saledit.delta import Dense, Edits, LowRank
from saledit.models import TaskModel
from saledit.overlay import applied, merge
from saledit.site import Site

CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def logits(base: TaskModel, inputs: dict[str, Tensor]) -> Tensor:
    return base.model(**inputs).logits


def functional(base: TaskModel, edits: Edits, inputs: dict[str, Tensor]) -> Tensor:
    """The model with dense changed weights: the definition that the hook has to meet."""
    changed = {}
    for site, delta in edits.items():
        weight = base.model.get_submodule(site.name).weight
        dense = delta.v.mT @ delta.u if isinstance(delta, LowRank) else delta.w
        changed[f"{site.name}.weight"] = weight + (dense.T if site.transposed else dense)
    return torch.func.functional_call(base.model, changed, (), inputs).logits


@pytest.fixture(params=FAMILIES)
def base(request: pytest.FixtureRequest) -> TaskModel:
    return build(request.param)


def test_only_gpt2_stores_its_weights_transposed(base: TaskModel) -> None:
    stored = {site.transposed for layer in base.layers() for site in layer.sites}
    assert stored == {base.model.config.model_type == "gpt2"}


@pytest.mark.parametrize("kind", ["low rank", "dense"])
@torch.no_grad()
def test_hook_is_the_changed_weight(base: TaskModel, kind: str) -> None:
    inputs = encode(base, samples(5))
    plain = logits(base, inputs)
    for layer in base.layers():
        edits = random_edits(layer.sites, seed=layer.index)
        if kind == "dense":
            edits = Edits({site: Dense(delta.dense()) for site, delta in edits.items()})
        with untouched(base.model), applied(base.model, edits) as model:
            assert model is base.model
            edited = logits(base, inputs)
        torch.testing.assert_close(edited, functional(base, edits, inputs), **CLOSE)
        assert (edited - plain).abs().max() > 1e-2
        assert torch.equal(logits(base, inputs), plain)


@torch.no_grad()
def test_batched_deltas_are_one_by_one(base: TaskModel) -> None:
    edits = random_edits(base.layer(1).sites, batch=(3,))
    inputs = encode(base, samples(6))  # two rows an edit
    with applied(base.model, edits):
        together = logits(base, inputs)
    for i in range(3):
        rows = {name: tensor[2 * i : 2 * i + 2] for name, tensor in inputs.items()}
        one = Edits({s: d[i] for s, d in edits.items() if isinstance(d, LowRank)})
        with applied(base.model, one):
            alone = logits(base, rows)
        torch.testing.assert_close(together[2 * i : 2 * i + 2], alone, **CLOSE)


@torch.no_grad()
def test_rows_must_fall_into_equal_groups() -> None:
    base = build("bert")
    chosen = [s for s in samples(30) if len(" ".join(s.inputs).split()) == 9][:3]
    inputs = encode(base, chosen)
    assert inputs["input_ids"].numel() % 2 == 0  # tokens would divide, rows do not
    with (
        untouched(base.model),
        pytest.raises(ValueError, match="3 rows"),
        applied(base.model, random_edits(base.layer(0).sites, batch=(2,))),
    ):
        logits(base, inputs)


@torch.no_grad()
def test_nested_edits_add_up(base: TaskModel) -> None:
    sites = base.layer(1).sites
    first, second = random_edits(sites, seed=1), random_edits(sites[:1], rank=3, seed=2)
    inputs = encode(base, samples(4))
    with applied(base.model, first):
        only_first = logits(base, inputs)
        with applied(base.model, second):
            nested = logits(base, inputs)
        assert torch.equal(logits(base, inputs), only_first)
    with applied(base.model, first + second):
        summed = logits(base, inputs)
    torch.testing.assert_close(nested, summed, **CLOSE)
    assert (nested - only_first).abs().max() > 1e-3


def test_an_exception_inside_takes_the_hooks_away() -> None:
    base = build("bert")
    inputs = encode(base, samples(3))
    plain = logits(base, inputs)
    with (
        untouched(base.model),
        pytest.raises(KeyError),
        applied(base.model, random_edits(base.layer(0).sites)),
    ):
        raise KeyError
    assert torch.equal(logits(base, inputs), plain)


def test_an_unknown_site_takes_the_hooks_away() -> None:
    base = build("bert")
    sites = (*base.layer(0).sites, Site("bert.nowhere", 16, 16))
    edits = random_edits(sites)
    with untouched(base.model), pytest.raises(AttributeError), applied(base.model, edits):
        pass
    with untouched(base.model), pytest.raises(AttributeError):
        merge(base.model, edits)


def test_gradients_reach_the_factors(base: TaskModel) -> None:
    edits = random_edits(base.layer(1).sites, requires_grad=True)
    inputs = encode(base, samples(4))
    factors = [f for d in edits.values() if isinstance(d, LowRank) for f in (d.u, d.v)]
    with untouched(base.model), applied(base.model, edits):
        loss = logits(base, inputs).logsumexp(-1).sum()
        seen = torch.autograd.grad(loss, factors)
    loss = functional(base, edits, inputs).logsumexp(-1).sum()
    for got, want in zip(seen, torch.autograd.grad(loss, factors), strict=True):
        assert want.abs().max() > 1e-3
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5 * float(want.abs().max()))


@torch.no_grad()
def test_merge_is_the_overlay_and_restore_is_exact(base: TaskModel) -> None:
    edits = random_edits(base.layer(-1).sites)
    inputs = encode(base, samples(4))
    plain = logits(base, inputs)
    with applied(base.model, edits):
        expected = logits(base, inputs)
    before = weights(base.model)
    snapshot = merge(base.model, edits)
    torch.testing.assert_close(logits(base, inputs), expected, **CLOSE)
    after = weights(base.model)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {f"{site.name}.weight" for site in edits}
    snapshot.restore(base.model)
    assert all(torch.equal(before[name], now) for name, now in weights(base.model).items())
    assert torch.equal(logits(base, inputs), plain)


@pytest.mark.parametrize(
    ("held", "delta"), [(torch.float32, torch.bfloat16), (torch.bfloat16, torch.float32)]
)
@torch.no_grad()
def test_merge_sums_in_the_wider_dtype(held: torch.dtype, delta: torch.dtype) -> None:
    base = build("bert")
    base.model.to(held)
    site = base.layer(0).sites[0]
    pair = random_edits([site])[site]
    assert isinstance(pair, LowRank)
    edits = Edits({site: pair.to(delta)})
    weight = base.model.get_submodule(site.name).weight
    before = weight.clone()
    expected = (before.float() + edits[site].dense().float()).to(held)
    snapshot = merge(base.model, edits)
    assert weight.dtype == held
    assert torch.equal(weight, expected)
    snapshot.restore(base.model)
    assert torch.equal(weight, before)


def test_merge_refuses_a_batch() -> None:
    base = build("bert")
    with untouched(base.model), pytest.raises(ValueError, match="one edit"):
        merge(base.model, random_edits(base.layer(0).sites, batch=(2,)))


@torch.no_grad()
def test_a_wide_delta_keeps_the_dtype_of_the_model() -> None:
    base = build("bert")
    base.model.to(torch.bfloat16)
    with applied(base.model, random_edits(base.layer(0).sites)):
        assert logits(base, encode(base, samples(2))).dtype == torch.bfloat16
