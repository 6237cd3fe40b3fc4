"""Locate-then-solve editors: what they set, what they remember, what they refuse."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest
import tiny_text as text
import torch
from tiny import untouched

from saledit.bank import BankSpec
from saledit.cache import memory_bank
from saledit.config.editors import LocateConfig
from saledit.contexts import sampled
from saledit.editors.locate import Locate
from saledit.editors.solvers import SOLVERS
from saledit.errors import ConfigError, DataError, UserError
from saledit.facts import find_facts
from saledit.overlay import applied
from saledit.records import Sample
from saledit.session import EditSession

BLOCK, QA = 1, text.task()
BASE = text.build("llama")
LAYER = BASE.layer(BLOCK)
SITE = LAYER.sites[-1]
NUMBERS = LocateConfig(
    contexts=2, weight=1e-3, value_rate=0.1, shrink=0.1, threshold=5.0, norm=0.01
)


def asked(n: int) -> list[Sample]:
    chosen = text.samples(n)
    return [replace(s, subject=s.inputs[0].split()[len(s.inputs[0].split()) // 2]) for s in chosen]


FAILURES = asked(6)


def editor(solver: str, **settings: object) -> Locate:
    numbers = asdict(replace(NUMBERS, solver=solver, **settings))  # type: ignore[arg-type]
    made = Locate(LAYER.sites, **numbers)
    bank = memory_bank(BASE, QA, text.samples(40), BankSpec(LAYER, moments=True))
    made.prime([], bank.moments())
    return made.eval()


def session(made: Locate) -> EditSession:
    return EditSession(BASE, QA, made, LAYER, 4, 4)


@pytest.mark.parametrize("solver", SOLVERS)
def test_an_edit_makes_its_failure_likelier(solver: str) -> None:
    made = editor(solver)
    with untouched(BASE.model):
        edits = session(made).step(FAILURES[:1])
    assert list(edits) == [SITE]
    before = memory_bank(BASE, QA, FAILURES[:1], BankSpec(LAYER))
    with applied(BASE.model, edits):
        after = memory_bank(BASE, QA, FAILURES[:1], BankSpec(LAYER))
    assert float(after.losses) < 0.97 * float(before.losses)


@pytest.mark.parametrize("solver", ["r-rome", "emmet"])
def test_an_exact_edit_gives_its_key_the_wanted_output(solver: str) -> None:
    made = editor(solver)
    own = FAILURES[:1]
    edits = session(made).step(own)
    facts = find_facts(BASE, QA, BLOCK, SITE, own, made._spec, text_contexts(made))
    torch.testing.assert_close(
        facts.keys @ edits[SITE].dense().mT, facts.residuals, rtol=1e-4, atol=1e-5
    )


def text_contexts(made: Locate) -> tuple[str, ...]:
    return sampled(BASE, made._spec.contexts)


@pytest.mark.parametrize("solver", ["rome", "r-rome"])
def test_one_fact_at_a_time(solver: str) -> None:
    with pytest.raises(UserError, match=rf"{solver} solves for one failure at a time"):
        session(editor(solver)).step(FAILURES[:2])


def test_alphaedit_remembers_the_keys_of_a_sequence() -> None:
    made, others = editor("alphaedit"), FAILURES[2:4]
    known = session(made)
    known.step(FAILURES[:2])
    second = known.step(others)
    facts = find_facts(BASE, QA, BLOCK, SITE, FAILURES[:2], made._spec, text_contexts(made))
    forgetful = session(made)
    forgetful.step(FAILURES[:2])
    forgetful._memory = None
    other = forgetful.step(others)

    def moves(edits) -> float:
        return float((facts.keys @ edits[SITE].dense().mT).norm())

    assert moves(second) < 0.9 * moves(other)


def test_a_failure_without_a_subject_is_named() -> None:
    bare = replace(FAILURES[0], subject="", id="q17")
    with pytest.raises(DataError, match="q17: expected a subject in its text"):
        session(editor("memit")).step([bare])
    assert session(editor("memit", at="last")).step([bare])


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("solver", "romme", r"editor.locate.solver: unknown name 'romme'; did you mean 'rome'"),
        ("at", "first", r"editor.locate.at: unknown name 'first'"),
        ("contexts", -1, r"editor.locate.contexts: expected at least 0, got -1"),
        ("value_steps", 0, r"editor.locate.value_steps: expected at least 1, got 0"),
        ("clamp", 0.0, r"editor.locate.clamp: expected above 0, got 0"),
        ("weight", float("nan"), r"editor.locate.weight: expected above 0, got nan"),
    ],
)
def test_bad_settings_are_refused(key: str, value: object, line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        Locate.check({**asdict(LocateConfig()), key: value})
