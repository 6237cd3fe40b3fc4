"""Scoring: what the head reads at given positions is all that the model's logits need."""

from __future__ import annotations

import pytest
import torch
from tiny import FAMILIES, random_edits, untouched
from tiny import build as build_classifier
from tiny import encode as encode_pairs
from tiny import samples as pairs
from tiny_text import STACKED, VOCABULARY, build, samples, task
from torch import Tensor

from saledit.forward.scoring import base_logits, forward, logits_beside, logits_of
from saledit.models import TaskModel
from saledit.overlay import applied
from saledit.tasks.base import Encoded
from saledit.tasks.prompts import IGNORED

CLOSE = {"rtol": 1e-4, "atol": 1e-5}
QA = task()


@pytest.fixture(scope="module", params=STACKED)
def base(request: pytest.FixtureRequest) -> TaskModel:
    return build(request.param)


@pytest.fixture(scope="module")
def encoded(base: TaskModel) -> Encoded:
    return QA.encode(base, samples(6))


def own_logits(base: TaskModel, encoded: Encoded) -> Tensor:
    """At every position (B, T, C), by the model's own forward, masks and head."""
    with torch.no_grad():
        logits: Tensor = base.model(**encoded.inputs).logits
    return logits


def picked(logits: Tensor, at: Tensor) -> Tensor:
    return torch.stack([row[places] for row, places in zip(logits, at, strict=True)])


def any_positions(base: TaskModel, encoded: Encoded) -> Tensor:
    """Five random positions (B, 5) within each row, in any order, some of them twice."""
    assert encoded.scored is not None
    real = encoded.inputs["attention_mask"] if base.kind == "causal" else encoded.scored
    share = torch.rand(len(real), 5, generator=torch.Generator().manual_seed(0))
    return (share * real.sum(1, keepdim=True)).long()


@torch.no_grad()
def test_logits_at_positions_are_the_model_s_own(base: TaskModel, encoded: Encoded) -> None:
    assert encoded.at is not None
    everywhere = own_logits(base, encoded)
    at = any_positions(base, encoded)
    with untouched(base.model):
        outputs = forward(base, encoded.inputs, at)
        logits = logits_of(base, outputs)
    assert outputs.shape == (*at.shape, base.model.get_output_embeddings().weight.shape[1])
    assert logits.shape == (*at.shape, len(VOCABULARY))
    torch.testing.assert_close(logits, picked(everywhere, at), **CLOSE)
    torch.testing.assert_close(base_logits(base, encoded.inputs, at), logits, **CLOSE)
    assert logits.std() > 0.1

    scored = encoded.scored
    want = picked(everywhere, encoded.at)[scored]
    got = base_logits(base, encoded.inputs, encoded.at)[scored]
    torch.testing.assert_close(got, want, **CLOSE)


@torch.no_grad()
def test_only_wanted_positions_in_any_grouping(base: TaskModel, encoded: Encoded) -> None:
    assert encoded.at is not None
    outputs = forward(base, encoded.inputs, encoded.at)
    whole = logits_of(base, outputs)
    wanted = encoded.targets != IGNORED
    torch.testing.assert_close(logits_of(base, outputs, wanted), whole[wanted], **CLOSE)
    torch.testing.assert_close(
        QA.logits(base, outputs, encoded.targets), whole[encoded.scored], **CLOSE
    )
    grouped = [tensor.unflatten(0, (2, 3)) for tensor in (outputs, wanted, whole)]
    torch.testing.assert_close(logits_of(base, grouped[0]), grouped[2], **CLOSE)
    torch.testing.assert_close(logits_of(base, *grouped[:2]), whole[wanted], **CLOSE)


def test_where_nothing_is_scored_there_are_no_logits(base: TaskModel) -> None:
    width = base.model.get_output_embeddings().weight.shape[1]
    outputs, targets = torch.zeros(2, 0, 3, width), torch.zeros(2, 0, 3, dtype=torch.long)
    found = [QA.logits(base, outputs, targets), *QA.logits_beside(base, *2 * (outputs,), targets)]
    assert all(logits.shape == (0, len(VOCABULARY)) for logits in found)
    assert QA.answer_losses(base, found[0], targets).shape == (2, 0)
    assert QA.divergence(*found[1:], targets).shape == QA.correct(found[0], targets).shape == (2, 0)


@torch.no_grad()
def test_logits_of_are_the_base_s_whatever_is_edited(base: TaskModel, encoded: Encoded) -> None:
    assert encoded.at is not None
    outputs = forward(base, encoded.inputs, encoded.at)
    want = logits_of(base, outputs)
    with untouched(base.model), applied(base.model, random_edits(base.layer(1).sites)):
        torch.testing.assert_close(logits_of(base, outputs), want, **CLOSE)


def test_gradients_are_those_of_the_model_s_own_forward(base: TaskModel, encoded: Encoded) -> None:
    assert encoded.at is not None
    edits = random_edits(base.layer(1).sites, requires_grad=True)
    factors = [factor for delta in edits.values() for factor in (delta.u, delta.v)]
    with untouched(base.model), applied(base.model, edits):
        short = logits_of(base, forward(base, encoded.inputs, encoded.at), encoded.scored)
        got = torch.autograd.grad(short.logsumexp(-1).sum(), factors)
        whole = picked(base.model(**encoded.inputs).logits, encoded.at)[encoded.scored]
        want = torch.autograd.grad(whole.logsumexp(-1).sum(), factors)
    for a, b in zip(got, want, strict=True):
        assert b.abs().max() > 0
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4 * float(b.abs().max()))


@pytest.mark.parametrize("name", ["llama", "t5 gated", "gemma2", "t5", "bart"])
@torch.no_grad()
def test_a_product_with_the_head_s_weights_is_not_always_enough(name: str) -> None:
    # Gemma 2 caps its logits, T5 scales what its tied head reads, BART adds a bias.
    base = build(name)
    head = base.model.get_output_embeddings()
    outputs = torch.randn(2, 3, head.weight.shape[1])
    plain = outputs @ head.weight.T
    same = torch.allclose(logits_of(base, outputs), plain, **CLOSE)
    assert same == (name in ("llama", "t5 gated"))


@pytest.mark.parametrize("name", ["gpt2", "gemma2", "t5", "bart", "phi"])  # phi's head has a bias
@torch.no_grad()
def test_under_autocast_logits_are_nearly_the_same(name: str) -> None:
    base = build(name)
    encoded = QA.encode(base, samples(4))
    assert encoded.at is not None
    with torch.autocast("cpu", torch.bfloat16):
        outputs = forward(base, encoded.inputs, encoded.at)
        rounded = logits_of(base, outputs)
    whole = logits_of(base, outputs.float())
    torch.testing.assert_close(rounded.float(), whole, rtol=0.05, atol=0.05)
    assert (rounded.float() - whole).abs().max() > 0
    assert torch.equal(logits_of(base, outputs.float()), whole)  # float32 again afterwards


class TestBeside:
    """Logits of a reference and of outputs near it."""

    NAMES = ("gpt2", "gemma2", "t5", "bart", "phi")  # caps, scales and biases among them

    @pytest.mark.parametrize("name", NAMES)
    @torch.no_grad()
    def test_they_are_the_logits_of_both(self, name: str) -> None:
        base = build(name)
        width = base.model.get_output_embeddings().weight.shape[1]
        reference, outputs = torch.randn(2, 2, 3, width)
        scored = torch.tensor([[True, True, False], [True, False, False]])
        found = logits_beside(base, reference, outputs, scored)
        for logits, x in zip(found, (reference, outputs), strict=True):
            torch.testing.assert_close(logits, logits_of(base, x, scored), **CLOSE)

    @pytest.mark.parametrize("name", NAMES)
    @torch.no_grad()
    def test_under_autocast_what_rounds_is_the_difference(self, name: str) -> None:
        base = build(name)
        width = base.model.get_output_embeddings().weight.shape[1]
        reference = 4 * torch.randn(1, 50, width)
        outputs = reference + 1e-3 * torch.randn(1, 50, width)
        scored = torch.ones(1, 50, dtype=torch.bool)
        true = logits_of(base, outputs, scored) - logits_of(base, reference, scored)
        with torch.autocast("cpu", torch.bfloat16):
            before, after = logits_beside(base, reference, outputs, scored)
            same, again = logits_beside(base, reference, reference, scored)
            rounded = logits_of(base, outputs, scored) - logits_of(base, reference, scored)
        assert before.dtype == after.dtype == torch.float32
        torch.testing.assert_close(before, logits_of(base, reference, scored), **CLOSE)
        assert torch.equal(same, again)
        error, before_error = (after - before - true).norm(), (rounded - true).norm()
        assert error < 0.05 * true.norm() < before_error

    def test_its_gradient_is_that_of_the_logits(self) -> None:
        base = build("gemma2")
        width = base.model.get_output_embeddings().weight.shape[1]
        reference = torch.randn(1, 4, width)
        outputs = torch.randn(1, 4, width, requires_grad=True)
        scored = torch.ones(1, 4, dtype=torch.bool)
        before, after = logits_beside(base, reference, outputs, scored)
        assert not before.requires_grad
        own = torch.autograd.grad(logits_of(base, outputs, scored).logsumexp(-1).sum(), outputs)
        torch.testing.assert_close(
            torch.autograd.grad(after.logsumexp(-1).sum(), outputs), own, rtol=1e-4, atol=1e-6
        )


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_a_classifier_s_outputs_are_its_logits(family: str) -> None:
    base = build_classifier(family)
    inputs = encode_pairs(base, pairs(4))
    outputs = forward(base, inputs)
    assert torch.equal(outputs, base.model(**inputs).logits)
    assert torch.equal(logits_of(base, outputs), outputs)
