"""Other matters: what a pass sample may be, and what may not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import tiny
from tiny_text import build, task

from saledit.data.matters import Begun, add_kept
from saledit.data.partition import apart_from, partition
from saledit.data.splits import Limits, make_part
from saledit.data.spool import samples_in
from saledit.records import TEXT, Answer, Record, Sample
from saledit.tasks.answering import answers
from saledit.tasks.nli import Nli

NLI = Nli()


def passage(name: str, text: str) -> Sample:
    return Sample(name, ("",), text, TEXT)


def test_passages_are_told_by_what_they_say() -> None:
    """They have no inputs: by these alone all of them were one."""
    records = [Record(passage(str(i), f"ba be {i}")) for i in range(100)]
    assert [len(side) for side in partition(records, [20, 30], 0)] == [20, 30, 50]
    assert len(apart_from(records, records[:1])) == 99
    assert records[0].keys() == Record(passage("other", "Ba be 0.")).keys()


@pytest.mark.parametrize("name", ["f", "f@0", "a@b", "other"])
def test_a_passage_that_begins_with_a_failure_is_told_by_its_words(name: str) -> None:
    """By its name another one might be left out, or its own be taken."""
    failures = [Record(Sample("f", ("ba be bi",), "bo")), Record(Sample("g", ("da di",), "bo"))]
    begun = Begun(failures)
    assert begun.by(passage(name, "ba be bi bo bu"))
    assert begun.by(passage(name, "da  di"))
    assert not begun.by(passage(name, "be bi bo bu"))
    assert not begun.by(passage(name, "ba be"))
    assert not begun.by(passage(name, ""))


@pytest.mark.parametrize("own_answers", [True, False])
@pytest.mark.parametrize("passages", [True, False])
def test_a_passage_is_learned_from_and_judged_by_its_perplexity_alone(
    own_answers: bool, passages: bool, tmp_path: Path
) -> None:
    """Nobody says one to the end: judged as an answer, it would be lost under every edit."""
    samples = [passage("p", "da de di do du"), Sample("q", ("ba be",), "bo")]
    passing = samples_in(tmp_path)
    add_kept(
        passing, samples, Begun([]), 9, lambda asked: [Answer(s.target, True, 1.0) for s in asked],
        own_answers, passages,
    )  # type: ignore[arg-type]  # fmt: skip
    assert [s.id for s in passing] == (["p", "q"] if own_answers or passages else ["q"])


def test_what_is_measured_is_no_pass_sample_of_the_training(tmp_path: Path) -> None:
    base, qa = build("llama"), task(max_new_tokens=2)
    records = [Record(Sample(str(i), (f"ba be b{v}",), "du di do")) for i, v in enumerate("aeiou")]
    others = [passage("p", "da de di do du"), passage("q", "do du")]
    limits = Limits("data.train", 2, 9, 0, own_answers=True)
    free = make_part(base, qa, records, limits, None, tmp_path, locality=others)
    assert [s.id for s in free.passing][:2] == ["p", "q"]
    seen = frozenset({("", others[0].target)})
    left = make_part(base, qa, records, limits, None, tmp_path, locality=others, seen=seen)
    assert [s.id for s in left.passing] == [s.id for s in free.passing if s.id != "p"]


def test_a_right_answer_that_is_measured_is_no_pass_sample_of_the_training(tmp_path: Path) -> None:
    base = tiny.build("bert")
    records = [Record(s) for s in tiny.samples(12)]
    said = answers(base, NLI, [r.sample for r in records])
    records = [
        Record(replace(r.sample, target=a.text if i else other(a.text)))
        for i, (r, a) in enumerate(zip(records, said, strict=True))
    ]
    limits = Limits("data.train", 2, 9, 0, own_answers=True)
    seen = frozenset({records[3].sample.words})
    free = make_part(base, NLI, records, limits, None, tmp_path)
    left = make_part(base, NLI, records, limits, None, tmp_path, seen=seen)
    assert records[3].sample in free.passing
    assert records[3].sample not in left.passing
    assert len(left.passing) == 9
    # Nor is it a failure, or a failure that it rewords.
    near = frozenset({records[0].sample.words})
    assert records[0].sample in free.fail
    reworded = Record(replace(records[0].sample, id="r", inputs=("a", "b")), (records[0].sample,))
    failing = [records[0], reworded, Record(replace(records[1].sample, target=other(said[1].text)))]
    kept = make_part(base, NLI, [*failing, *records[2:]], limits, None, tmp_path, seen=near)
    assert [s.id for s in kept.fail] == [records[1].sample.id]


def other(label: str) -> str:
    return next(one for one in tiny.LABELS if one != label)
