"""Records, samples and answers: the values that data turns into.

A *record* is one line of a data file. A *sample* is one text that a model is run on:
a record's own inputs, or one of its rewordings.
"""

from __future__ import annotations

from dataclasses import dataclass

TEXT = "text"  # kind of a sample that is a passage, scored at all of its positions
OWN = "own"  # kind of one whose target is what the model says though it is not right


@dataclass(frozen=True, slots=True)
class Sample:
    """One text with its right answer.

    Attributes:
        id: unique within a data set; a rewording's id extends its record's.
        inputs: the text fields, e.g. (premise, hypothesis) or (claim,).
        target: the right answer.
        kind: for a rewording, how it was made ("paraphrase", "synonym", ...); ``TEXT``, ``OWN`` or
            "" otherwise.
        accepted: all answers that count as right, where there are others than the target.
        subject: what it is about, as it stands in the text; "" where the data does not say.
        rival: the answer whose probability the target's is compared with; "" for none.
    """

    id: str
    inputs: tuple[str, ...]
    target: str
    kind: str = ""
    accepted: tuple[str, ...] = ()
    subject: str = ""
    rival: str = ""

    @property
    def words(self) -> tuple[str, ...]:
        """What it is told by: its inputs, and of a passage, which has none, what it says."""
        return (*self.inputs, self.target) if self.kind == TEXT else self.inputs


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model says to a sample.

    Attributes:
        text: its answer in words; a label of a classifier.
        right: whether it is right; of words by SQuAD's normalised exact match.
        f1: SQuAD's token F1 with the accepted answer nearest to it; 0 or 1 of a classifier.
        ended: False where words were cut off by ``task.max_new_tokens``.
    """

    text: str
    right: bool
    f1: float
    ended: bool = True


@dataclass(frozen=True, slots=True)
class Writing:
    """What a model is let write on, to see how it writes when it is edited.

    Attributes:
        prompts: beginnings.
        references: texts on what the right answer is about, which the writing is held against.
    """

    prompts: tuple[str, ...] = ()
    references: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a data set.

    Attributes:
        sample: the record's own text.
        rewordings: other texts of the same meaning and target, where the data has them.
        subjects: what the record is about; no subject is shared between splits.
        locality: samples of other matters that the data gives to be left as they are.
        writing: what the model is let write on.
    """

    sample: Sample
    rewordings: tuple[Sample, ...] = ()
    subjects: tuple[str, ...] = ()
    locality: tuple[Sample, ...] = ()
    writing: Writing = Writing()

    def keys(self) -> frozenset[str]:
        """Everything that must stay on one side of a split: texts and subjects.

        Example:
            >>> sample = Sample("1", ("The capital of Peru is",), "Lima")
            >>> sorted(Record(sample, subjects=("Peru",)).keys())
            ['subject:peru', 'text:the capital of peru is']
        """
        texts = {
            "text:" + "\x1f".join(_normal(field) for field in sample.words)
            for sample in (self.sample, *self.rewordings)
        }
        return frozenset(texts | {f"subject:{_normal(subject)}" for subject in self.subjects})


def _normal(text: str) -> str:
    return " ".join("".join(c if c.isalnum() else " " for c in text.lower()).split())
