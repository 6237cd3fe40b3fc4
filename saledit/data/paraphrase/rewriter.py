"""Rule-based rewordings with the same meaning and the same label.

An editor learns from a failure and from "adapt" samples: other wordings of the failed sample. Data
sets without paraphrases get theirs here. Every rule is a pattern with guards; none uses a model,
so the same sentence always gives the same rewordings. The rules live in ``words``
(synonyms), ``contractions``, ``captions``, ``claims``,
``identity`` and ``order``; whatever
they produce is dropped again when a negation, a number or a name was lost or added. A sentence
embedding may be used on top to drop rewordings that drifted, see ``EmbeddingSimilarity``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from saledit.data.paraphrase import (
    captions,
    claims,
    contractions,
    identity,
    order,
    words,
)
from saledit.data.paraphrase.facts import keeps_facts
from saledit.data.paraphrase.text import Sentence, parse

Similarity = Callable[[Sequence[str], Sequence[str]], Sequence[float]]
NewSample = tuple[tuple[str, ...], str]

# The threshold the shipped recipes use, for cosines of all-MiniLM-L6-v2 sentence embeddings.
DEFAULT_THRESHOLD: Final = 0.85

_RULES: Final[tuple[Callable[[Sentence], Iterator[tuple[str, str]]], ...]] = (
    claims.dates_and_places,
    claims.makers,
    identity.casts,
    identity.identities,
    identity.descriptions,
    captions.existentials,
    captions.clefts,
    captions.aspects,
    captions.voices,
    order.orders,
    order.connectors,
    words.synonyms,
    contractions.contractions,
    order.frames,
)
# In a premise only words are replaced: its sentences are long, and moving phrases there is risky.
_PREMISE_RULES: Final = (words.synonyms, contractions.contractions)
_MAX_PREMISE_WORDS: Final = 60
# How many rounds later a kind is drawn than its turn: a frame only copies the sentence.
_DELAY: Final = {"frame": 8, "expansion": 1, "contraction": 1, "relativizer": 1}
_PREMISE_DELAY: Final = 2


@dataclass(frozen=True, slots=True)
class Rewording:
    """One rewording of a sentence.

    Attributes:
        text: The reworded sentence.
        kind: Which rule made it, such as "synonym", "passive" or "frame".
    """

    text: str
    kind: str


def reword(sentence: str) -> tuple[Rewording, ...]:
    """Rewords one sentence by every rule that applies.

    Args:
        sentence: The sentence, with or without final punctuation.

    Returns:
        All rewordings in a fixed order, without duplicates and without the sentence itself.
    """
    return _collect(sentence, _RULES)


def _collect(
    text: str, rules: Sequence[Callable[[Sentence], Iterator[tuple[str, str]]]]
) -> tuple[Rewording, ...]:
    sentence = parse(text)
    seen = {" ".join(text.split()).replace("’", "'")}
    found: list[Rewording] = []
    for rule in rules:
        for candidate, kind in rule(sentence):
            new = " ".join(candidate.split())
            if new in seen:
                continue
            if kind != "nationality" and not keeps_facts(_comparable(text), _comparable(new)):
                continue
            seen.add(new)
            found.append(Rewording(new, kind))
    return tuple(found)


def _comparable(text: str) -> str:
    """Removes spelling variants of one name that a synonym may exchange."""
    text = re.sub(r"\bthe (?:USA|US|United States)\b", "the USA", text)
    return re.sub(r"\bTV(s?)\b", r"television\1", text)


def reword_inputs(
    inputs: tuple[str, ...],
    *,
    limit: int,
    seed: int,
    similarity: Similarity | None,
    threshold: float,
) -> tuple[NewSample, ...]:
    """Rewords one sample.

    Args:
        inputs: (premise, hypothesis) or (claim,). The last field is reworded; a premise is
            reworded too, by synonyms and contractions only, as kind "premise-...".
        limit: The most rewordings to return.
        seed: Chooses among the rewordings together with the text.
        similarity: Scores (originals, rewordings); None accepts every rewording.
        threshold: The least similarity a rewording must have.

    Returns:
        Up to ``limit`` pairs of new inputs and kind, different kinds first.
    """
    return reword_all([inputs], limit=limit, seed=seed, similarity=similarity, threshold=threshold)[
        0
    ]


def reword_all(
    samples: Sequence[tuple[str, ...]],
    *,
    limit: int,
    seed: int,
    similarity: Similarity | None,
    threshold: float,
) -> list[tuple[NewSample, ...]]:
    """Rewords many samples with one call to the similarity.

    Args:
        samples: The inputs of each sample, see ``reword_inputs``.
        limit: The most rewordings per sample.
        seed: Chooses among the rewordings together with the text.
        similarity: Scores (originals, rewordings); None accepts every rewording.
        threshold: The least similarity a rewording must have.

    Returns:
        For each sample up to ``limit`` pairs of new inputs and kind.
    """
    if limit <= 0:
        return [() for _ in samples]
    ranked = [_ranked(sample, seed) for sample in samples]
    if similarity is None:
        chosen = [candidates[:limit] for candidates in ranked]
    else:
        chosen = _first_similar(ranked, limit, similarity, threshold)
    return [tuple((c.inputs, c.kind) for c in candidates) for candidates in chosen]


def _first_similar(
    ranked: Sequence[Sequence[_Candidate]], limit: int, similarity: Similarity, threshold: float
) -> list[list[_Candidate]]:
    """The first ``limit`` candidates of each sample that are similar enough.

    Most are, so only as many are scored as are still wanted, round by round.
    """
    chosen: list[list[_Candidate]] = [[] for _ in ranked]
    waiting = [list(reversed(candidates)) for candidates in ranked]
    while True:
        asked = [
            (i, waiting[i].pop())
            for i, found in enumerate(chosen)
            for _ in range(min(limit - len(found), len(waiting[i])))
        ]
        if not asked:
            return chosen
        scores = similarity([c.old for _, c in asked], [c.new for _, c in asked])
        for (i, candidate), score in zip(asked, scores, strict=True):
            if score >= threshold:
                chosen[i].append(candidate)


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A reworded sample together with the field that changed."""

    inputs: tuple[str, ...]
    kind: str
    old: str
    new: str


def _ranked(sample: tuple[str, ...], seed: int) -> list[_Candidate]:
    """Orders the candidates of a sample: one of each kind, then the second of each, and so on."""
    if not sample:
        return []
    last = sample[-1]
    candidates = [
        _Candidate((*sample[:-1], item.text), item.kind, last, item.text) for item in reword(last)
    ]
    if len(sample) > 1 and 0 < len(sample[0].split()) <= _MAX_PREMISE_WORDS:
        candidates += [
            _Candidate((item.text, *sample[1:]), f"premise-{item.kind}", sample[0], item.text)
            for item in _collect(sample[0], _PREMISE_RULES)
        ]
    draws = {candidate: _draw(seed, sample, candidate) for candidate in candidates}
    rounds: dict[str, int] = {}
    keyed: list[tuple[int, str, _Candidate]] = []
    for candidate in sorted(candidates, key=lambda item: draws[item]):
        kind = candidate.kind.removeprefix("premise-")
        turn = rounds.get(candidate.kind, 0)
        rounds[candidate.kind] = turn + 1
        turn += _DELAY.get(kind, 0) + (_PREMISE_DELAY if kind != candidate.kind else 0)
        keyed.append((turn, draws[candidate], candidate))
    return [candidate for _, _, candidate in sorted(keyed, key=lambda item: item[:2])]


def _draw(seed: int, sample: tuple[str, ...], candidate: _Candidate) -> str:
    """A random-looking sort key that is the same in every process."""
    parts = (str(seed), *sample, candidate.kind, candidate.new)
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()
