"""Suffix runs: the same numbers as the whole model, and only the blocks that can differ."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from quick import quick
from tiny import (
    DECODERS,
    ENCODERS,
    ENDS,
    FAMILIES,
    N_BLOCKS,
    build,
    encode,
    random_edits,
    samples,
    targets,
    untouched,
)
from torch import Tensor
from torch.nn import functional as F

from saledit.delta import Edits, LowRank
from saledit.forward.scoring import base_logits
from saledit.forward.suffix import Entry, States, capture, entry_for, run
from saledit.models import TaskModel
from saledit.overlay import applied
from saledit.site import Layer, list_sites

CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(params=FAMILIES)
def base(request: pytest.FixtureRequest) -> TaskModel:
    return build(request.param)


@pytest.fixture(params=quick(ENDS, range(N_BLOCKS)))
def block(request: pytest.FixtureRequest) -> int:
    return request.param


def layer_of(base: TaskModel, block: int, where: str) -> Layer:
    return base.layer(block, () if where == "mlp" else base.family.attention_maps)


def enter(base: TaskModel, layer: Layer, inputs: dict[str, Tensor]) -> tuple[Entry, States]:
    entry = entry_for(base, layer.index, tuple(site.name for site in layer.sites))
    with torch.no_grad(), capture(base, entry) as states:
        base.model(**inputs)
    return entry, states


@contextmanager
def computed(base: TaskModel) -> Iterator[set[str]]:
    """Names of the linear maps that are called."""
    seen: set[str] = set()
    handles = [
        base.model.get_submodule(site.name).register_forward_hook(
            lambda _module, _args, _output, name=site.name: seen.add(name)
        )
        for site in list_sites(base.model)
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("where", ["mlp", "attention"])
@torch.no_grad()
def test_run_is_the_whole_model(base: TaskModel, block: int, where: str) -> None:
    layer = layer_of(base, block, where)
    for n in (1, 5):  # one row without padding, and a padded batch
        inputs = encode(base, samples(n))
        with untouched(base.model):
            entry, states = enter(base, layer, inputs)
            logits = run(base, entry, states, inputs)
        torch.testing.assert_close(logits, base_logits(base, inputs), **CLOSE)


@pytest.mark.parametrize("where", ["mlp", "attention"])
@pytest.mark.parametrize("batch", [(), (3,)], ids=["one edit", "three edits"])
@torch.no_grad()
def test_run_is_the_whole_model_under_edits(
    base: TaskModel, block: int, where: str, batch: tuple[int, ...]
) -> None:
    layer = layer_of(base, block, where)
    inputs = encode(base, samples(6))
    entry, states = enter(base, layer, inputs)
    edits = random_edits(layer.sites, batch=batch, seed=block)
    with applied(base.model, edits):
        whole = base_logits(base, inputs)
        torch.testing.assert_close(run(base, entry, states, inputs), whole, **CLOSE)
    assert (whole - base_logits(base, inputs)).abs().max() > 1e-2  # the edits do act


def test_gradients_are_those_of_the_whole_model(base: TaskModel, block: int) -> None:
    chosen = samples(6)
    inputs, labels = encode(base, chosen), targets(base, chosen)
    layer = base.layer(block)
    entry, states = enter(base, layer, inputs)
    edits = random_edits(layer.sites, batch=(3,), requires_grad=True)
    factors = [f for d in edits.values() if isinstance(d, LowRank) for f in (d.u, d.v)]
    with untouched(base.model), applied(base.model, edits):
        short = F.cross_entropy(run(base, entry, states, inputs), labels)
        whole = F.cross_entropy(base.model(**inputs).logits, labels)
    for got, want in zip(
        torch.autograd.grad(short, factors), torch.autograd.grad(whole, factors), strict=True
    ):
        assert want.abs().max() > 1e-4
        torch.testing.assert_close(got, want, **CLOSE)


@pytest.mark.parametrize("where", ["mlp", "attention"])
@torch.no_grad()
def test_only_what_can_differ_is_computed(base: TaskModel, block: int, where: str) -> None:
    inputs = encode(base, samples(3))
    entry, states = enter(base, layer_of(base, block, where), inputs)
    with computed(base) as seen:
        run(base, entry, states, inputs)
    below = {base.block_name(i) for i in range(block)}
    attention = {f"{base.block_name(block)}.{name}" for name in base.family.attention_maps}
    assert not {name for name in seen if any(name.startswith(f"{b}.") for b in below)}
    assert seen >= {site.name for site in base.layer(block).sites}
    if where == "mlp":
        assert not seen & attention
    else:
        assert seen >= attention
    for above in range(block + 1, N_BLOCKS):
        assert seen >= {site.name for site in base.layer(above).sites}


@torch.no_grad()
def test_states_depend_on_their_row_alone(base: TaskModel) -> None:
    # Run on other rows' states, the logits are the other rows'.
    inputs = encode(base, samples(4))
    entry, states = enter(base, base.layer(1), inputs)
    order = torch.tensor([2, 0, 0, 3])
    picked = run(
        base,
        entry,
        {name: tensor[order] for name, tensor in states.items()},
        {name: tensor[order] for name, tensor in inputs.items()},
    )
    torch.testing.assert_close(picked, base_logits(base, inputs)[order], **CLOSE)


@torch.no_grad()
def test_what_stands_beyond_a_row_s_end_is_padding(base: TaskModel, block: int) -> None:
    # Rows gathered from a bank hold arbitrary tokens and states there; the mask is what counts.
    inputs = encode(base, samples(5))
    entry, states = enter(base, base.layer(block), inputs)
    beyond = inputs["attention_mask"] == 0
    assert beyond.any()
    noisy = {**inputs, "input_ids": inputs["input_ids"].masked_fill(beyond, 9)}
    if not entry.first_token_only:
        states = {k: v.masked_fill(beyond.unsqueeze(-1), 0.7) for k, v in states.items()}
    logits = run(base, entry, states, noisy)
    torch.testing.assert_close(logits, base_logits(base, inputs), **CLOSE)
    assert (noisy["input_ids"][beyond] == 9).all()  # the caller's tensors stay


@pytest.mark.parametrize("family", FAMILIES)
def test_first_token_pruning_only_where_nothing_else_is_read(family: str) -> None:
    base = build(family)
    inputs = encode(base, samples(4))
    for block in range(N_BLOCKS):
        for where in ("mlp", "attention"):
            entry, states = enter(base, layer_of(base, block, where), inputs)
            allowed = family in ENCODERS and block == N_BLOCKS - 1 and where == "mlp"
            assert entry.first_token_only == allowed
            assert entry.after_attention == (where == "mlp")
            width = 1 if allowed else inputs["input_ids"].shape[1]
            assert states
            assert {tensor.shape[:2] for tensor in states.values()} == {(4, width)}
            assert not any(tensor.requires_grad for tensor in states.values())


def test_a_layer_with_maps_of_both_kinds_enters_below_the_attention() -> None:
    for family in (*ENCODERS, *DECODERS):
        base = build(family)
        names = (base.family.mlp[0], base.family.attention_maps[0])
        inside = base.block_name(2)
        entry = entry_for(base, 2, tuple(f"{inside}.{name}" for name in names))
        assert entry == Entry(2, after_attention=False, first_token_only=False)


def test_the_model_is_untouched_after_an_exception(base: TaskModel, block: int) -> None:
    inputs = encode(base, samples(3))
    layer = base.layer(block)
    plain = base_logits(base, inputs)
    entry, states = enter(base, layer, inputs)
    broken = {name: tensor[..., :-1] for name, tensor in states.items()}
    with untouched(base.model), pytest.raises(RuntimeError):
        run(base, entry, broken, inputs)
    with untouched(base.model), pytest.raises(KeyError), capture(base, entry):
        raise KeyError
    edits = random_edits(layer.sites)
    with untouched(base.model), pytest.raises(RuntimeError), applied(base.model, edits):
        run(base, entry, broken, inputs)
    assert torch.equal(base_logits(base, inputs), plain)


@torch.no_grad()
def test_a_forward_that_somebody_else_replaced_survives() -> None:
    # accelerate offloads weights through such instance attributes.
    base = build("bert")
    inputs = encode(base, samples(3))
    calls = []

    def wrapped(module: torch.nn.Module) -> Any:
        inner = module.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            calls.append(module)
            return inner(*args, **kwargs)

        return forward

    for i in range(N_BLOCKS):
        base.block(i).forward = wrapped(base.block(i))
    attention = base.block(1).get_submodule(base.family.attention)
    attention.forward = wrapped(attention)
    before = {m: vars(m).get("forward") for m in base.model.modules()}
    entry, states = enter(base, base.layer(1), inputs)
    run(base, entry, states, inputs)
    assert {m: vars(m).get("forward") for m in base.model.modules()} == before
    calls.clear()
    base_logits(base, inputs)
    assert len(calls) == N_BLOCKS + 1


@torch.no_grad()
def test_captured_states_are_the_base_s_even_if_upper_layers_are_edited() -> None:
    base = build("bert")
    inputs = encode(base, samples(3))
    _, plain = enter(base, base.layer(1), inputs)
    upper: Edits = random_edits(base.layer(2).sites)
    with applied(base.model, upper):
        _, edited = enter(base, base.layer(1), inputs)
    assert all(torch.equal(plain[name], edited[name]) for name in plain)
