"""Suffix runs of language models: the same numbers as the whole model, in every stack."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from quick import quick
from tiny import ENDS, N_BLOCKS, random_edits, untouched
from tiny_text import CAUSAL_NAMES, STACKED, build, layers_of, run_whole, samples, task
from torch import Tensor

from saledit.forward.scoring import forward, logits_of
from saledit.forward.suffix import ENCODER, Entry, States, capture, entry_for, run
from saledit.models import TaskModel
from saledit.overlay import applied
from saledit.site import Layer, list_sites
from saledit.tasks.base import Encoded

CLOSE = {"rtol": 1e-4, "atol": 1e-5}
QA = task()


@pytest.fixture(scope="module", params=STACKED)
def base(request: pytest.FixtureRequest) -> TaskModel:
    return build(request.param)


@pytest.fixture(params=quick(ENDS, range(N_BLOCKS)))
def block(request: pytest.FixtureRequest) -> int:
    return request.param


def run_short(base: TaskModel, entry: Entry, states: States, encoded: Encoded) -> Tensor:
    """Logits (B, A, C), by a suffix run."""
    return logits_of(base, run(base, entry, states, encoded.inputs, encoded.at))


def enter(base: TaskModel, layer: Layer, encoded: Encoded) -> tuple[Entry, States]:
    entry = entry_for(base, layer.index, tuple(site.name for site in layer.sites))
    with torch.no_grad(), capture(base, entry) as states:
        forward(base, encoded.inputs, encoded.at)
    return entry, states


@torch.no_grad()
def test_run_is_the_whole_model(base: TaskModel, block: int) -> None:
    for n in (1, 5):  # one row without padding, and a padded batch
        encoded = QA.encode(base, samples(n))
        want = run_whole(base, encoded)
        for layer in layers_of(base, block):
            with untouched(base.model):
                entry, states = enter(base, layer, encoded)
                got = run_short(base, entry, states, encoded)
            torch.testing.assert_close(got, want, **CLOSE)
            edits = random_edits(layer.sites, batch=(n,) if n > 1 else (), seed=block)
            edited = run_whole(base, encoded, edits)
            with applied(base.model, edits):
                got = run_short(base, entry, states, encoded)
            torch.testing.assert_close(got, edited, **CLOSE)
            assert (edited - want).abs().max() > 1e-2  # the edits do act


@torch.no_grad()
def test_what_stands_beyond_a_row_s_end_does_not_matter(base: TaskModel, block: int) -> None:
    # Rows gathered from a bank hold arbitrary tokens and states there.
    encoded = QA.encode(base, samples(5))
    assert encoded.scored is not None
    want = run_whole(base, encoded)[encoded.scored]
    layer = base.layer(block)
    entry, states = enter(base, layer, encoded)

    tokens, answers = encoded.inputs["attention_mask"].bool(), encoded.scored
    inputs = dict(encoded.inputs)
    inputs["input_ids"] = inputs["input_ids"].masked_fill(~tokens, 9)
    if "decoder_input_ids" in inputs:
        inputs["decoder_input_ids"] = inputs["decoder_input_ids"].masked_fill(~answers, 9)
    noisy = replace(encoded, inputs=inputs)
    whole = run_whole(base, noisy)
    torch.testing.assert_close(whole[answers], want, **CLOSE)

    in_decoder = base.kind == "seq2seq" and not base.in_encoder
    for name in states:
        inside = answers if in_decoder and name != ENCODER else tokens
        states[name] = states[name].masked_fill(~inside[..., None], 0.7)
    got = run_short(base, entry, states, noisy)
    torch.testing.assert_close(got[answers], want, **CLOSE)


def test_gradients_are_those_of_the_whole_model(base: TaskModel, block: int) -> None:
    encoded = QA.encode(base, samples(4))
    layer = base.layer(block)
    entry, states = enter(base, layer, encoded)
    edits = random_edits(layer.sites, batch=(2,), requires_grad=True)
    factors = [factor for delta in edits.values() for factor in (delta.u, delta.v)]

    def gradients(outputs: Tensor) -> tuple[Tensor, ...]:
        logits = QA.logits(base, outputs, encoded.targets)
        return torch.autograd.grad(QA.losses(base, logits, encoded.targets).sum(), factors)

    with untouched(base.model), applied(base.model, edits):
        short = gradients(run(base, entry, states, encoded.inputs, encoded.at))
        whole = gradients(forward(base, encoded.inputs, encoded.at))
    for got, want in zip(short, whole, strict=True):
        assert want.abs().max() > 1e-4
        torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-4 * float(want.abs().max()))


@torch.no_grad()
def test_only_what_can_differ_is_computed(base: TaskModel, block: int) -> None:
    encoded = QA.encode(base, samples(2))
    for layer, in_mlp in zip(layers_of(base, block), (True, False), strict=True):
        entry, states = enter(base, layer, encoded)
        assert entry == Entry(block, after_attention=in_mlp, first_token_only=False)
        assert (ENCODER in states) == (base.kind == "seq2seq" and not base.in_encoder)
        assert not any(tensor.requires_grad for tensor in states.values())
        seen: set[str] = set()
        handles = [
            base.model.get_submodule(site.name).register_forward_hook(
                lambda _module, _args, _output, name=site.name, seen=seen: seen.add(name)
            )
            for site in list_sites(base.model)
        ]
        run(base, entry, states, encoded.inputs, encoded.at)
        for handle in handles:
            handle.remove()
        inside = f"{base.block_name(block)}."
        for name in seen:
            below = any(name.startswith(f"{base.block_name(i)}.") for i in range(block))
            assert not below, f"{name} is frozen"
            encoder = name.removeprefix("model.").startswith("encoder.")
            assert base.in_encoder or not encoder, f"{name} is frozen"
        attention = {inside + name for name in base.family.attention_maps}
        assert seen >= {site.name for site in layer.sites}
        assert not seen & attention if in_mlp else seen >= attention
        for above in range(block + 1, N_BLOCKS):
            assert seen >= {site.name for site in base.layer(above).sites}


@pytest.mark.parametrize("name", [*CAUSAL_NAMES, "t5", "t5 gated", "bart"])
def test_the_model_is_untouched_after_an_exception(name: str) -> None:
    base = build(name)
    encoded = QA.encode(base, samples(3))
    entry, states = enter(base, base.layer(1), encoded)
    plain = run_whole(base, encoded)
    broken = {key: tensor[..., :-1] for key, tensor in states.items()}
    with untouched(base.model), pytest.raises(RuntimeError):
        run(base, entry, broken, encoded.inputs, encoded.at)
    with untouched(base.model), pytest.raises(KeyError), capture(base, entry):
        raise KeyError
    with untouched(base.model), pytest.raises((RuntimeError, IndexError)):
        forward(base, encoded.inputs, None if encoded.at is None else encoded.at + 99)
    assert torch.equal(run_whole(base, encoded), plain)
