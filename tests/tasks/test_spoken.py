"""Spoken answers: teacher forcing knows what free generation would say."""

from __future__ import annotations

from dataclasses import replace

import pytest
from quick import quick
from tiny import random_edits
from tiny_text import (
    BOS,
    CAUSAL_NAMES,
    ENDS,
    EOS,
    NAMES,
    SEQ2SEQ_NAMES,
    build,
    greedy,
    run_whole,
    samples,
    spell,
    task,
)

from saledit.delta import Edits
from saledit.models import TaskModel
from saledit.overlay import applied
from saledit.records import Sample
from saledit.tasks.decoding import generate
from saledit.tasks.generation import Generation
from saledit.tasks.prompts import IGNORED
from saledit.tasks.text import TextTask

MOST = 8
QA = task(max_new_tokens=MOST)
GENERATION = Generation(max_length=60)


@pytest.fixture(scope="module", params=quick(["gpt2", "llama", "gemma2", "t5"], NAMES))
def base(request: pytest.FixtureRequest) -> TaskModel:
    return build(request.param)


def drafts(base: TaskModel) -> list[Sample]:
    """What a model says by itself, and answers near to it and far from it."""
    out = samples(4, seed=1)
    for i, sample in enumerate(samples(14)):
        tokens = greedy(base, sample, most=MOST)
        answer = spell(tokens).split()[: len(tokens) - 1]
        if tokens[-1] in ENDS and answer:
            wrong = [answer[0], *answer], [*answer, "ba"], answer[:-1], [*answer[:-1], "gu"]
            out += [replace(sample, target=" ".join(a)) for a in (answer, wrong[i % 4]) if a]
    return out


def assert_spoken(base: TaskModel, of: TextTask, chosen: list[Sample], edits: Edits) -> list[bool]:
    encoded = of.encode(base, chosen)
    logits = run_whole(base, encoded, edits)[encoded.targets != IGNORED]
    spoken = of.spoken(base, logits, encoded.targets)
    found = generate(base, of, chosen, edits)
    assert spoken.tolist() == [a.text == s.target for a, s in zip(found, chosen, strict=True)]
    assert not (spoken & ~of.correct(logits, encoded.targets)).any()
    assert ((of.leads(base, logits, encoded.targets) > 0) == spoken).all()
    assert all(answer.right for answer, said in zip(found, spoken.tolist(), strict=True) if said)
    return spoken.tolist()


def test_spoken_is_what_free_generation_says(base: TaskModel) -> None:
    chosen = drafts(base)
    spoken = assert_spoken(base, QA, chosen, Edits({}))
    assert any(spoken)
    assert not all(spoken)
    with applied(base.model, edits := random_edits(base.layer(1).sites) * 0.3):
        edited = drafts(base)
    assert any(assert_spoken(base, QA, edited, edits))


@pytest.mark.parametrize("name", CAUSAL_NAMES)
def test_a_continuation_is_spoken_if_generation_begins_with_it(name: str) -> None:
    base = build(name)
    said = []
    for i, sample in enumerate(samples(8)):
        tokens = greedy(base, sample, (EOS,), most=1 + i % 3)
        if EOS not in tokens and tokens[0] not in ENDS:
            said.append(replace(sample, target=spell(tokens)))
    spoken = assert_spoken(base, GENERATION, [*said, *samples(4)], Edits({}))
    assert all(spoken[: len(said)])
    assert len(said) > 2


@pytest.mark.parametrize("setting", ["forced_bos_token_id", "decoder_start_token_id"])
@pytest.mark.parametrize("name", SEQ2SEQ_NAMES)
def test_a_decoder_begins_as_it_does_in_generation(name: str, setting: str) -> None:
    base = build(name)
    setattr(base.model.generation_config, setting, BOS)
    chosen = samples(30)
    said = [
        replace(sample, target=answer.text)
        for sample, answer in zip(chosen, generate(base, QA, chosen), strict=True)
        if answer.text and len(answer.text.split()) < MOST - 2 and answer.text not in ".,?"
    ]
    assert all(assert_spoken(base, QA, said, Edits({})))
    assert said
