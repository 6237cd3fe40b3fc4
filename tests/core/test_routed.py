"""Routed deltas: their algebra in float64, and the definition in slow code."""

from __future__ import annotations

import math

import pytest
import torch
from test_delta import low_rank, tensor
from torch import Tensor

from saledit.delta import Dense, Edits
from saledit.delta.routed import Mixture, Routed
from saledit.errors import UserError
from saledit.site import Site

EXACT = {"rtol": 1e-9, "atol": 1e-10}
D_IN, D_OUT, D_A, N = 5, 4, 3, 7
MIXTURE = Mixture(experts=4, rank=2, top_k=2)
OTHER = Mixture(experts=3, rank=1, top_k=1)


def routed(*mixtures: Mixture, seed: int = 0, batch: tuple[int, ...] = ()) -> Routed:
    """A random routed delta."""
    experts = sum(m.experts for m in mixtures)
    terms = sum(m.experts * m.rank for m in mixtures)
    return Routed(
        mixtures,
        tensor(*batch, experts, D_IN + D_A, seed=seed + 1),
        tensor(*batch, terms, D_IN, seed=seed + 2),
        tensor(*batch, terms, D_OUT, seed=seed + 3),
    )


def given(batch: tuple[int, ...] = (), seed: int = 99) -> tuple[Tensor, Tensor]:
    """Inputs and anchors."""
    return tensor(*batch, N, D_IN, seed=seed), tensor(*batch, N, D_A, seed=seed + 1)


def slow(delta: Routed, x: Tensor, anchor: Tensor) -> Tensor:
    """The definition, position by position and expert by expert."""
    out = []
    for one, about in zip(x, anchor, strict=True):
        total, row, term = torch.zeros(D_OUT, dtype=x.dtype), 0, 0
        for experts, rank, top_k in delta.mixtures:
            logits = [float(delta.gate[row + e] @ torch.cat([one, about])) for e in range(experts)]
            chosen = sorted(range(experts), key=lambda e: -logits[e])[:top_k]
            scale = sum(math.exp(logits[e]) for e in chosen)
            for e in chosen:
                own = slice(term + e * rank, term + (e + 1) * rank)
                matrix = delta.v[own].T @ delta.u[own]
                total = total + math.exp(logits[e]) / scale * (matrix @ one)
            row, term = row + experts, term + experts * rank
        out.append(total)
    return torch.stack(out)


@pytest.mark.parametrize(
    "mixtures",
    [
        (MIXTURE,),
        (OTHER,),
        (MIXTURE, MIXTURE),
        (MIXTURE, OTHER, OTHER, MIXTURE),
        (Mixture(3, 2, 3),),
    ],
    ids=str,
)
def test_it_is_its_definition(mixtures: tuple[Mixture, ...]) -> None:
    delta = routed(*mixtures)
    torch.testing.assert_close(delta(*given()), slow(delta, *given()), **EXACT)


def test_a_single_expert_is_a_low_rank_delta() -> None:
    delta = routed(Mixture(1, 3, 1))
    x, anchor = given()
    plain = low_rank(3, D_IN, D_OUT, seed=0)
    alone = Routed(delta.mixtures, delta.gate, plain.u, plain.v)
    torch.testing.assert_close(alone(x, anchor), plain(x), **EXACT)


def test_all_experts_are_a_full_softmax() -> None:
    delta = routed(Mixture(4, 2, 4))
    x, anchor = given()
    shares = (torch.cat([x, anchor], -1) @ delta.gate.T).softmax(-1)
    parts = [(x @ delta.u[2 * e : 2 * e + 2].T) @ delta.v[2 * e : 2 * e + 2] for e in range(4)]
    want = sum(shares[:, e : e + 1] * part for e, part in enumerate(parts))
    torch.testing.assert_close(delta(x, anchor), want, **EXACT)


def test_experts_of_one_mind_are_one_expert() -> None:
    """The weights of the chosen add up to 1, whatever the gate and top_k."""
    plain = low_rank(2, D_IN, D_OUT, seed=3)
    for top_k in (1, 2, 3):
        delta = routed(Mixture(3, 2, top_k))
        same = Routed(delta.mixtures, delta.gate, plain.u.repeat(3, 1), plain.v.repeat(3, 1))
        torch.testing.assert_close(same(*given()), plain(given()[0]), **EXACT)


def test_a_batch_is_one_by_one() -> None:
    delta = routed(MIXTURE, OTHER, batch=(3,))
    assert delta.batch_shape == (3,)
    x, anchor = given((3,))
    for i in range(3):
        torch.testing.assert_close(delta(x, anchor)[i], delta[i](x[i], anchor[i]), **EXACT)
    picked = delta[torch.tensor([2, 0])]
    torch.testing.assert_close(picked(x[:2], anchor[:2])[1], delta[0](x[1], anchor[1]), **EXACT)
    one = routed(MIXTURE)
    torch.testing.assert_close(one.expand(3)(x, anchor)[1], one(x[1], anchor[1]), **EXACT)


@pytest.mark.parametrize("batch", [(), (2,)], ids=str)
def test_a_sum_acts_as_both(batch: tuple[int, ...]) -> None:
    a, b = routed(MIXTURE, batch=batch), routed(OTHER, seed=10, batch=batch)
    plain = low_rank(3, D_IN, D_OUT, seed=5, batch=batch)
    x, anchor = given(batch)
    site = Site("a", D_IN, D_OUT)

    def total(first: Routed, *others: object) -> Tensor:
        edits = Edits({site: first})
        for other in others:
            edits = edits + Edits({site: other})
        delta = edits[site]
        assert isinstance(delta, Routed)
        return delta(x, anchor)

    torch.testing.assert_close(total(a, b), a(x, anchor) + b(x, anchor), **EXACT)
    torch.testing.assert_close(total(a, a, b), 2 * a(x, anchor) + b(x, anchor), **EXACT)
    want = a(x, anchor) + plain(x) + b(x, anchor)
    torch.testing.assert_close(total(a, plain, b), want, **EXACT)
    torch.testing.assert_close(total(plain, a, b), want, **EXACT)
    torch.testing.assert_close((a * -2.5)(x, anchor), -2.5 * a(x, anchor), **EXACT)
    torch.testing.assert_close((2 * a)(x, anchor), 2 * a(x, anchor), **EXACT)
    if batch:
        each = Edits({site: a}) * torch.tensor([1.0, 3.0])
        torch.testing.assert_close(each[site](x, anchor)[1], 3 * a(x, anchor)[1], **EXACT)


def test_gradients_reach_gate_and_experts() -> None:
    delta = routed(MIXTURE).map(lambda part: part.requires_grad_())
    grads = torch.autograd.grad(delta(*given()).square().sum(), delta.tensors())
    assert all(grad.abs().max() > 1e-6 for grad in grads)
    alone = routed(Mixture(4, 2, 1)).map(lambda part: part.requires_grad_())
    gate, *_ = torch.autograd.grad(alone(*given()).square().sum(), alone.tensors())
    assert not gate.any()  # the one expert's weight is 1


def test_parts_keep_dtype_and_device() -> None:
    delta = routed(MIXTURE).map(lambda part: part.to(torch.bfloat16))
    assert delta.dtype == torch.bfloat16
    assert delta(*(part.to(torch.bfloat16) for part in given())).dtype == torch.bfloat16
    moved = delta.to("meta")
    assert moved.device.type == "meta"
    assert moved.mixtures == delta.mixtures
    assert all(part.device.type == "meta" for part in moved.tensors())


@pytest.mark.parametrize(
    ("mixture", "gate", "u", "v"),
    [
        (Mixture(4, 2, 5), (4, 8), (8, 5), (8, 4)),
        (Mixture(4, 2, 0), (4, 8), (8, 5), (8, 4)),
        (Mixture(4, 0, 1), (4, 8), (0, 5), (0, 4)),
        (MIXTURE, (3, 8), (8, 5), (8, 4)),
        (MIXTURE, (4, 8), (7, 5), (7, 4)),
        (MIXTURE, (4, 8), (8, 5), (7, 4)),
        (MIXTURE, (4, 5), (8, 5), (8, 4)),
        (MIXTURE, (2, 4, 8), (8, 5), (8, 4)),
    ],
    ids=str,
)
def test_parts_that_do_not_fit_are_refused(
    mixture: Mixture, gate: tuple[int, ...], u: tuple[int, ...], v: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match="Routed: expected"):
        Routed((mixture,), torch.zeros(gate), torch.zeros(u), torch.zeros(v))


def test_what_is_no_matrix_is_refused_in_one_line() -> None:
    delta, site = routed(MIXTURE), Site("a", D_IN, D_OUT)
    dense = Edits({site: Dense(torch.zeros(D_OUT, D_IN, dtype=torch.float64))})
    edits = Edits({site: delta})
    refused = {
        "merged": delta.dense,
        "cut to rank 1": lambda: delta.compress(1),
        "no norm": edits.norm,
        "dense": lambda: edits + dense,
        "dense one": lambda: dense + edits,
    }
    for said, do in refused.items():
        with pytest.raises(UserError, match=said) as caught:
            do()
        assert "\n" not in str(caught.value)
    assert edits.compress(1)[site] is delta  # as dense ones, it is left as it is


def test_the_gate_is_in_full_precision_under_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    delta = routed(MIXTURE).map(lambda value: value.float())
    x, anchor = (value.float() for value in given())
    seen, real = [], Routed._weights

    def weights(self: Routed, logits: Tensor) -> Tensor:
        seen.append(logits.clone())
        return real(self, logits)

    monkeypatch.setattr(Routed, "_weights", weights)
    delta(x, anchor)
    with torch.autocast("cpu", torch.bfloat16):
        delta(x, anchor)
    assert seen[1].dtype == torch.float32
    assert torch.equal(seen[0], seen[1])
