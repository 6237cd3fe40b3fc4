"""How edited models write: against texts that are generated and judged one at a time."""

from __future__ import annotations

import math

import pytest
import tiny_text as text
import torch
from tiny import random_edits

from saledit.data.splits import Part
from saledit.delta import Edits
from saledit.records import Writing
from saledit.run.measures.fluency import Fluency, TfIdf, ngram_entropy
from saledit.tasks.decoding import continue_freely

BLOCK = 1


def test_varied_text_has_more_entropy_than_one_word_said_over_and_over() -> None:
    # Three different pairs and two different triples of "a b c d": log2(3) and log2(2) bits.
    assert ngram_entropy("a b c d") == pytest.approx((2 / 3 * math.log2(3) + 4 / 3) / 2)
    assert ngram_entropy("a a a a") == 0
    assert ngram_entropy("a") == ngram_entropy("") == 0


def test_tf_idf_by_hand() -> None:
    # Three documents; "river" is in two, "old" in one.
    found = TfIdf(["Old river!", "the river", "the hill"])
    river, old = math.log(4 / 3) + 1, math.log(4 / 2) + 1
    want = river / math.sqrt(river**2 + old**2)
    assert found.similarity("old RIVER", "river") == pytest.approx(want)
    assert found.similarity("river river", "river") == pytest.approx(1)
    assert found.similarity("hill", "river") == 0
    # Words that no document holds are no part of a vector, as scikit-learn's transform drops them.
    assert found.similarity("river zebra quokka", "river") == pytest.approx(1)
    assert found.similarity("zebra", "zebra") == 0
    assert found.similarity("", "river") == found.similarity("a", "river") == 0


@pytest.mark.long
def test_writing_is_judged_with_and_without_each_edit() -> None:
    base, task = text.build("gpt2"), text.task()
    fail = tuple(text.samples(5))
    writing = (
        Writing(("ba ka", "mi"), ("ba ba mi", "ka")), Writing(), Writing(("go",)),
        Writing(("ka",), ("mi mi",)), Writing(("ba",)),
    )  # fmt: skip
    edits = random_edits(base.layer(BLOCK).sites, batch=(3,))
    counted = Fluency(base, task, Part(fail, ((),) * 5, (), writing=writing), most=3)
    counted.count(torch.tensor([[0], [1]]), edits.map(lambda t: t[:2]))
    counted.count(torch.tensor([[2], [3], [4]]), edits)  # the last one is beyond the third
    seen = [(0, 0), (2, 0), (3, 1)]  # failure, edit
    index = TfIdf([t for own in writing for t in own.references])
    for when in ("before", "after"):
        entropies, likeness = [], []
        for i, e in seen:
            said = []
            for prompt in writing[i].prompts:
                sample = text.samples(1)[0]
                one = type(sample)("x", (prompt,), "ba")
                own = edits.map(lambda t, e=e: t[e : e + 1]) if when == "after" else None
                (found,) = continue_freely(
                    base, text.task(stop=""), [one], own, torch.zeros(1, dtype=torch.long), 100
                )
                entropies.append(ngram_entropy(found))
                said.append(prompt + found)
            if writing[i].references:
                likeness.append(index.similarity(" ".join(said), " ".join(writing[i].references)))
        got = counted.compute()
        assert got[f"fluency_{when}"] == pytest.approx(sum(entropies) / len(entropies))
        assert got[f"consistency_{when}"] == pytest.approx(sum(likeness) / len(likeness))


def test_nothing_is_said_of_records_without_beginnings() -> None:
    base = text.build("gpt2")
    counted = Fluency(base, text.task(), Part(tuple(text.samples(2)), ((), ()), ()), most=5)
    counted.count(torch.tensor([[0], [1]]), Edits({}))
    assert counted.compute() == {}
