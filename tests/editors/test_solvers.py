"""Identities of the closed-form solvers, in double precision, against dense definitions."""

from __future__ import annotations

from dataclasses import replace

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from saledit.editors.solvers import (
    SOLVERS,
    Facts,
    Preserved,
    Solver,
    SolverSettings,
    alphaedit,
    emmet,
    memit,
    r_rome,
    rome,
)
from saledit.errors import ModelError

NUMBERS = SolverSettings(weight=15000.0, ridge=0.1, threshold=2e-2, norm=10.0)
EXACT = replace(NUMBERS, ridge=0.0)


def problem(
    seed: int, n: int, d_in: int = 12, d_out: int = 7, edits: int = 2
) -> tuple[Tensor, Facts, Preserved]:
    """A weight matrix, E edits of n facts each, and a covariance of full rank."""
    draws = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draws, dtype=torch.double)

    weight, keys = drawn(d_out, d_in), drawn(edits, n, d_in)
    bare = keys + 0.3 * drawn(edits, n, d_in)
    values = drawn(edits, n, d_out)
    # No scale next to nothing: in doubles a condition of 1e9 leaves no eight digits to compare.
    others = drawn(5 * d_in, d_in) * drawn(d_in).abs().clamp_min(0.05)
    facts = Facts(keys, values - keys @ weight.mT, bare, values - bare @ weight.mT)
    return weight, facts, Preserved(others.mT @ others / len(others))


seeds = st.integers(0, 10_000)
counts = st.integers(1, 6)


@given(seeds)
@settings(max_examples=25, deadline=None)
def test_rome_sets_the_bare_key_and_r_rome_the_mean_key(seed: int) -> None:
    weight, facts, kept = problem(seed, 1)
    for solver, keys, residuals in (
        (rome, facts.bare_keys, facts.bare_residuals),
        (r_rome, facts.keys, facts.residuals),
    ):
        change = solver(facts, kept, None, EXACT).dense()
        wanted = keys @ weight.mT + residuals
        torch.testing.assert_close(keys @ (weight + change).mT, wanted)


@given(seeds)
@settings(max_examples=25, deadline=None)
def test_rome_is_its_published_formula(seed: int) -> None:
    _, facts, kept = problem(seed, 1, edits=1)
    k, bare = facts.keys[0, 0], facts.bare_keys[0, 0]
    u = torch.linalg.inv(kept.moment) @ k
    dense = torch.outer(facts.bare_residuals[0, 0], u) / (bare @ u)
    torch.testing.assert_close(rome(facts, kept, None, EXACT).dense()[0], dense)
    dense = torch.outer(facts.residuals[0, 0], u) / (k @ u)
    torch.testing.assert_close(r_rome(facts, kept, None, EXACT).dense()[0], dense)


@given(seeds)
@settings(max_examples=25, deadline=None)
def test_emmet_of_one_fact_is_r_rome_and_with_one_key_rome(seed: int) -> None:
    _, facts, kept = problem(seed, 1)
    facts = replace(facts, bare_residuals=facts.residuals)
    one = emmet(facts, kept, None, NUMBERS).dense()
    torch.testing.assert_close(one, r_rome(facts, kept, None, EXACT).dense())
    same = replace(facts, bare_keys=facts.keys)
    torch.testing.assert_close(one, rome(same, kept, None, EXACT).dense())


@given(seeds, counts, st.sampled_from([0.0, 0.1]))
@settings(max_examples=40, deadline=None)
def test_emmet_is_its_dense_definition(seed: int, n: int, ridge: float) -> None:
    weight, facts, kept = problem(seed, n)
    change = emmet(facts, kept, None, replace(NUMBERS, ridge=ridge)).dense()
    inverse = torch.linalg.inv(kept.moment)
    for e in range(2):
        k, r = facts.keys[e].mT, facts.bare_residuals[e].mT  # columns are facts
        gram = k.mT @ inverse @ k + (ridge if n > 1 else 0) * torch.eye(n)
        dense = r @ torch.linalg.inv(gram) @ k.mT @ inverse
        torch.testing.assert_close(change[e], dense, rtol=1e-8, atol=1e-8)
        if ridge == 0:
            torch.testing.assert_close((weight + change[e]) @ k, weight @ k + r)


@given(seeds, counts, st.sampled_from([1e-3, 1.0, 20.0, 15000.0]))
@settings(max_examples=40, deadline=None)
def test_memit_is_its_dense_definition(seed: int, n: int, weight: float) -> None:
    _, facts, kept = problem(seed, n)
    change = memit(facts, kept, None, replace(NUMBERS, weight=weight)).dense()
    for e in range(2):
        k, r = facts.keys[e].mT, facts.bare_residuals[e].mT
        # In doubles the definition itself is off by 1e-8: its matrix has a condition of 1e8.
        with mpmath.workdps(40):
            keys, moment = mpmath.matrix(k.tolist()), mpmath.matrix(kept.moment.tolist())
            inverse = mpmath.inverse(mpmath.mpf(weight) * moment + keys * keys.T)
            dense = (mpmath.matrix(r.tolist()) * keys.T * inverse).tolist()
        wanted = torch.tensor([[float(x) for x in row] for row in dense], dtype=torch.double)
        torch.testing.assert_close(change[e], wanted, rtol=1e-8, atol=1e-8)


@given(seeds, counts)
@settings(max_examples=25, deadline=None)
def test_memit_without_weight_is_emmet(seed: int, n: int) -> None:
    _, facts, kept = problem(seed, n)
    lacks = []
    for weight in (1.0, 1e-3, 1e-6, 1e-9):
        change = memit(facts, kept, None, replace(NUMBERS, weight=weight)).dense()
        lacks.append(float((facts.keys @ change.mT - facts.bare_residuals).norm()))
    assert lacks == sorted(lacks, reverse=True)
    assert lacks[-1] < 1e-6 * (1 + lacks[0])
    exact = emmet(facts, kept, None, EXACT).dense()
    torch.testing.assert_close(change, exact, rtol=1e-5, atol=1e-6)


@given(seeds, counts)
@settings(max_examples=25, deadline=None)
def test_emmet_changes_the_rest_least(seed: int, n: int) -> None:
    _, facts, kept = problem(seed, n, edits=1)
    change = emmet(facts, kept, None, EXACT).dense()[0]

    def cost(delta: Tensor) -> float:
        return float((delta @ kept.moment @ delta.mT).trace())

    # Any other change that gives the same values differs by one that the keys do not see.
    draws = torch.Generator().manual_seed(seed)
    other = torch.randn(7, 12, generator=draws, dtype=torch.double)
    q = torch.linalg.qr(facts.keys[0].mT)[0]
    other = other - other @ q @ q.mT
    assert cost(change) <= cost(change + 0.01 * other)
    assert cost(change) <= cost(change - 0.01 * other)


def narrow(seed: int, n: int) -> tuple[Facts, Preserved, Tensor]:
    """Inputs that must stay span but eight of twelve dimensions; they are the last value."""
    _, facts, _ = problem(seed, n, edits=1)
    draws = torch.Generator().manual_seed(seed + 1)
    others = torch.randn(40, 8, generator=draws, dtype=torch.double)
    others = others @ torch.randn(8, 12, generator=draws, dtype=torch.double)
    return facts, Preserved(others.mT @ others / 40), others


@given(seeds, counts)
@settings(max_examples=25, deadline=None)
def test_alphaedit_is_its_dense_definition_and_leaves_the_rest(seed: int, n: int) -> None:
    facts, kept, others = narrow(seed, n)
    numbers = replace(NUMBERS, threshold=1e-9, norm=0.5)
    draws = torch.Generator().manual_seed(seed)
    before = torch.randn(3, 12, generator=draws, dtype=torch.double)
    past = before.mT @ before  # P of the paper
    delta = alphaedit(facts, kept, before, numbers)
    values, vectors = torch.linalg.eigh(kept.moment)
    p = vectors[:, values < 1e-9] @ vectors[:, values < 1e-9].mT
    assert round(float(p.trace())) == 4
    k, r = facts.keys[0].mT, facts.bare_residuals[0].mT
    dense = r @ k.mT @ p @ torch.linalg.inv((past + k @ k.mT) @ p + 0.5 * torch.eye(12))
    torch.testing.assert_close(delta.dense()[0], dense, rtol=1e-8, atol=1e-8)
    change = (others @ delta.dense()[0].mT).abs().max()
    assert change < 1e-8 * (1 + delta.norm().max())


def inside(kept: Preserved, past: Tensor, facts: Facts, numbers: SolverSettings) -> Tensor:
    """AlphaEdit's change by the dense metric of its null space."""
    values, vectors = torch.linalg.eigh(kept.moment)
    q = vectors[:, values < numbers.threshold]
    k, r = facts.keys[0] @ q, facts.bare_residuals[0]
    metric = q.mT @ past.mT @ past @ q + k.mT @ k
    metric.diagonal().add_(numbers.norm)
    return r.mT @ k @ torch.linalg.inv(metric) @ q.mT


@given(seeds, st.lists(st.integers(1, 7), min_size=1, max_size=9), st.sampled_from([0.1, 10.0]))
@settings(max_examples=25, deadline=None)
def test_alphaedit_step_by_step_is_its_dense_definition(
    seed: int, steps: list[int], norm: float
) -> None:
    """From fewer keys than there are directions (4) to many more, some of them the same."""
    numbers = replace(NUMBERS, threshold=1e-9, norm=norm)
    _, kept, _ = narrow(seed, 1)
    past = torch.zeros(0, 12, dtype=torch.double)
    for number, n in enumerate(steps):
        facts, _, _ = narrow(seed + number // 2, n)
        found = alphaedit(facts, kept, past, numbers).dense()[0]
        want = inside(kept, past, facts, numbers)
        torch.testing.assert_close(found, want, rtol=1e-8, atol=1e-8)
        at_once = alphaedit(facts, Preserved(kept.moment), past, numbers).dense()[0]
        torch.testing.assert_close(at_once, want, rtol=1e-8, atol=1e-8)
        past = torch.cat([past, facts.keys[0]])
    rows = kept.null_space(1e-9)._rows
    assert len(rows) <= 6, "no more than the directions need"


def test_keys_of_another_sequence_are_not_taken_for_ones_of_this() -> None:
    facts, kept, _ = narrow(0, 2)
    draws = torch.Generator().manual_seed(9)
    one, other = torch.randn(2, 3, 12, generator=draws, dtype=torch.double)
    numbers = replace(NUMBERS, threshold=1e-9, norm=0.5)
    for past, own in (
        (one, numbers), (other, numbers), (other[:2], numbers), (one, numbers),
        (torch.cat([one, other]), numbers), (one, replace(numbers, norm=2.0)),
    ):  # fmt: skip
        found = alphaedit(facts, kept, past, own).dense()[0]
        torch.testing.assert_close(found, inside(kept, past, facts, own), rtol=1e-8, atol=1e-8)


def test_what_is_worked_out_of_remembered_keys_is_not_worked_out_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a step only its own keys are projected, and nothing is decomposed but once."""
    facts, kept, _ = narrow(0, 1)
    numbers, solved = replace(NUMBERS, threshold=1e-9, norm=0.5), []
    for name in ("eigh", "cholesky_ex"):
        real = getattr(torch.linalg, name)
        monkeypatch.setattr(
            torch.linalg, name, lambda x, real=real: solved.append(x.shape[-1]) or real(x)
        )
    past = torch.randn(3, 12, generator=torch.Generator().manual_seed(1), dtype=torch.double)
    alphaedit(facts, kept, past, numbers)
    assert solved == [12, 3, 1]  # C, the keys that are remembered, the fact
    solved.clear()
    alphaedit(facts, kept, torch.cat([past, facts.keys[0]]), numbers)
    assert solved == [1, 1]


def test_a_norm_that_is_lost_beside_the_keys_is_refused() -> None:
    facts, kept, _ = narrow(0, 1)
    past = 1e9 * facts.keys[0].repeat(3, 1)
    with pytest.raises(
        ModelError, match=r"editor\.locate\.norm: expected more beside the keys of 3"
    ):
        alphaedit(facts, kept, past, replace(NUMBERS, threshold=1e-9, norm=1e-9))


def test_alphaedit_keeps_earlier_edits_better_for_remembering_them() -> None:
    first, kept, _ = narrow(3, 2)
    second, _, _ = narrow(4, 2)
    numbers = replace(NUMBERS, threshold=1e-9, norm=1e-3)
    one = alphaedit(first, kept, None, numbers)

    def forgotten(past: Tensor | None) -> float:
        two = alphaedit(second, kept, past, numbers)
        return float((first.keys[0] @ two.dense()[0].mT).norm())

    assert one.rank == 2
    assert forgotten(first.keys[0]) < 0.1 * forgotten(None)


@pytest.mark.parametrize("name", SOLVERS)
def test_single_precision_in_single_precision_out(name: str) -> None:
    _, facts, kept = problem(0, 1)
    single = Facts(
        facts.keys.float(), facts.residuals.float(), facts.bare_keys.float(),
        facts.bare_residuals.float(),
    )  # fmt: skip
    narrow = Preserved(kept.moment.float())
    numbers = replace(NUMBERS, threshold=0.5)
    delta = SOLVERS[name](single, narrow, None, numbers)
    assert delta.u.dtype == delta.v.dtype == torch.float32
    assert delta.u.shape == (2, 1, 12)
    assert delta.v.shape == (2, 1, 7)
    wide = SOLVERS[name](facts, kept, None, numbers)
    torch.testing.assert_close(delta.dense().double(), wide.dense(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("solver", [rome, r_rome, emmet])
def test_a_sink_does_not_make_the_ridge(solver: Solver) -> None:
    """One token in a hundred, a thousand times as large as the others, and what it leaves alone."""
    _, facts, _ = problem(5, 1, d_in=40)
    others = torch.randn(2000, 40, generator=torch.Generator().manual_seed(5), dtype=torch.double)
    sink = torch.zeros(40, dtype=torch.double)
    sink[7] = 1000.0
    moment = 0.99 * others.mT @ others / len(others) + 0.01 * torch.outer(sink, sink)
    # In mean eigenvalues the ridge is as large as most eigenvalues.
    assert 1e-2 * moment.diagonal().mean() > moment.diagonal().median()
    edit = solver(facts, Preserved(moment, shrink=1e-2), None, EXACT).dense()
    exact = solver(facts, Preserved(moment), None, EXACT).dense()
    assert (edit - exact).norm() < 1e-2 * exact.norm()


def test_inputs_that_are_always_0_are_not_typical() -> None:
    """As of a ReLU: most of them would make no ridge at all."""
    moment = torch.diag(torch.tensor([0.0, 0.0, 0.0, 2.0, 4.0, 6.0, 0.0], dtype=torch.double))
    _, facts, _ = problem(0, 1, d_in=7)
    with pytest.raises(ModelError, match=r"raise editor\.locate\.shrink"):
        r_rome(facts, Preserved(moment), None, EXACT)
    kept = Preserved(moment, shrink=0.5)
    torch.testing.assert_close(kept.factor @ kept.factor.mT, moment + 2 * torch.eye(7))


@pytest.mark.parametrize("name", ["rome", "r-rome", "memit", "emmet"])
def test_a_singular_covariance_is_refused(name: str) -> None:
    facts, kept, _ = narrow(0, 1)
    flat = Preserved(kept.moment * 0)
    with pytest.raises(ModelError, match=r"covariance: expected one of full rank \(12\)"):
        SOLVERS[name](facts, flat, None, EXACT)
