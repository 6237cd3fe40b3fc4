"""Other matters: samples that edits should leave as they are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice
from operator import attrgetter

from saledit.data.asking import Asked
from saledit.data.hashes import Known, number
from saledit.data.spool import Spool
from saledit.data.views import Flat, Mapped
from saledit.records import OWN, TEXT, Answer, Record, Sample
from saledit.tasks.base import Task

CHUNK = 256  # records asked at a time


class Begun:
    """The prompts of failures, as passages may begin with them."""

    def __init__(self, failing: Sequence[Record]) -> None:
        prompts = [record.sample.inputs[0].split() for record in failing]
        self._lengths = sorted({len(words) for words in prompts} - {0})
        self._known = Known(number(*words) for words in prompts)

    def by(self, passage: Sample) -> bool:
        """Whether a passage begins with one of them."""
        words = passage.target.split()
        return any(tuple(words[:n]) in self._known for n in self._lengths)


def add_right(passing: Spool[Sample], samples: Iterable[Sample], most: int, ask: Asked) -> None:
    """Fill pass samples up, to so many at most, with those that are answered right."""
    while len(passing) < most and (chunk := list(islice(samples, CHUNK))):
        found = zip(chunk, ask(chunk), strict=True)
        right = (own(answer, sample) for sample, answer in found if answer.right)
        passing.extend(islice(right, most - len(passing)))


def add_kept(
    passing: Spool[Sample], samples: Iterable[Sample], begun: Begun, most: int, ask: Asked,
    own_answers: bool, passages: bool,
) -> None:  # fmt: skip
    """Fill up with other matters: answered right, in training also with the model's own answers.

    Args:
        passing: is filled up.
        samples: further ones.
        begun: what failures ask.
        most: how many there are to be.
        ask: asks the model.
        own_answers: whether what the model says is right as it is, as in training.
        passages: whether passages are judged, by their perplexity. Others can only be learned from:
            none is right or wrong, and nobody says one to the end.
    """
    # A passage that begins with the prompt of a failure is no other matter.
    others = (s for s in samples if s.kind != TEXT or not begun.by(s))
    if not own_answers:  # what has no right answer cannot be answered right
        others = (s for s in others if (passages if s.kind == TEXT else s.target))
    known: set[int] = set()
    while len(passing) < most and (chunk := list(islice(others, CHUNK))):
        for sample, answer in zip(chunk, ask(chunk), strict=True):
            # Words that were cut off are no answer: a row of them is long, and half of its
            # positions are of a kind that no question is judged by.
            if answer.text and (answer.right or (answer.ended and own_answers)):
                kept = own(answer, sample)
                mark = number(*kept.inputs, kept.target)
                if mark not in known and len(passing) < most:
                    known.add(mark)
                    passing.append(kept)


def own(answer: Answer, sample: Sample) -> Sample:
    """A sample with the model's own words for a target: they are what must not change."""
    if (
        sample.kind == TEXT
        or not answer.text
        or (answer.right and sample.target and not sample.accepted)
    ):
        return sample
    if answer.right:
        return replace(sample, target=answer.text)
    return replace(sample, target=answer.text, accepted=(answer.text,), kind=OWN)


def other_matters(task: Task, records: Sequence[Record]) -> Sequence[Sample]:
    """What must stay as it is in records that are given for that: passages, or the questions."""
    if task.by_perplexity:
        return Flat(Mapped(lambda record: record.locality or (record.sample,), records))
    return Mapped(attrgetter("sample"), records)
