"""Facts as completions and questions: what a fact is, and how it is put into words."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from completions import COMPLETIONS
from facts import fold, rank
from questions import QUESTIONS

FORMS = {"completions": COMPLETIONS, "questions": QUESTIONS}
SHOWN_AS_IT_IS = {"internet_domain", "calling_code", "iso_code", "postal_code", "symbol"}
"""Relations whose answers are codes: "At" is not "at"."""


@dataclass(frozen=True)
class WordFact:
    """A fact and the words that answer it.

    Attributes:
        relation: The relation, a key of both wordings.
        subject: The entity that decides the split.
        holder: What is asked about, as it stands in the sentence.
        answers: All accepted answers, best first.
    """

    relation: str
    subject: str
    holder: str
    answers: tuple[str, ...]


def fill(template: str, holder: str) -> str:
    """Put a holder into a wording and start it with a capital letter.

    Args:
        template: A wording.
        holder: What is asked about.

    Returns:
        The text.
    """
    own = holder + ("'" if holder.endswith("s") else "'s")
    protons = f"{holder} proton" + ("" if holder == "1" else "s")
    text = template.format(a=holder, own=own, protons=protons)
    return text[:1].upper() + text[1:]


def _tells(text: str, answer: str, as_it_is: bool) -> bool:
    """Whether an answer stands in a text, as words of it."""
    if as_it_is:
        return bool(re.search(rf"(?<!\w){re.escape(answer)}(?!\w)", text))
    return f" {fold(answer)} " in f" {fold(text)} "


def untold(facts: Iterable[WordFact]) -> list[WordFact]:
    """Leave out the answers that one of the wordings gives away, and facts without any other."""
    kept: list[WordFact] = []
    for fact in facts:
        texts = [fill(t, fact.holder) for form in FORMS.values() for t in form[fact.relation]]
        exact = fact.relation in SHOWN_AS_IT_IS
        told = {a for a in fact.answers if any(_tells(t, a, exact) for t in texts)}
        if fact.answers[0] not in told:
            answers = tuple(a for a in fact.answers if a not in told)
            kept.append(WordFact(fact.relation, fact.subject, fact.holder, answers))
    return kept


def word_records(facts: Iterable[WordFact], form: str, part: str) -> list[dict[str, Any]]:
    """Put facts into words; each wording of a relation comes first equally often.

    Args:
        facts: The facts of one part.
        form: "completions" or "questions".
        part: "train" or "test", for the ids.

    Returns:
        The records, subject by subject, in a fixed mixed order; that of both forms is the same.
    """
    heaps: dict[str, list[WordFact]] = defaultdict(list)
    for fact in facts:
        heaps[fact.relation].append(fact)
    made: list[tuple[str, str, dict[str, Any]]] = []
    for relation, heap in heaps.items():
        wordings = FORMS[form][relation]
        heap.sort(key=lambda f: rank("words", form, f.relation, f.holder))
        for i, fact in enumerate(heap):
            seed = rank("rephrases", form, relation, fact.holder)
            order = sorted(range(len(wordings)), key=lambda k: rank(seed, k))
            order.sort(key=lambda k: k != i % len(wordings))
            texts = [fill(wordings[k], fact.holder) for k in order]
            row: dict[str, Any] = {"id": "", "question": texts[0], "answer": fact.answers[0]}
            if len(fact.answers) > 1:
                row["answers"] = list(fact.answers)
            row |= {"rephrases": texts[1:], "subject": fact.subject, "relation": relation}
            key = rank("order", relation, fact.holder)
            made.append((rank("order", fact.subject), key, row))
    made.sort(key=lambda m: m[:2])
    return [
        {**row, "id": f"worldfacts-{form}-{part}-{i:05d}"} for i, (_, _, row) in enumerate(made)
    ]
