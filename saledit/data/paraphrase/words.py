"""Rewordings that replace words by synonyms in place."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from saledit.data.paraphrase.facts import WORD
from saledit.data.paraphrase.lexicon import NOUN_PAIRS, PHRASES, VERB_PAIRS, VERB_RIGHT
from saledit.data.paraphrase.text import Sentence, assemble, capitalise, fix_articles
from saledit.data.paraphrase.wordclasses import (
    ADJECTIVES,
    BE_FORMS,
    DETERMINERS,
    HAVE_FORMS,
    MODALS,
    PERSON_NOUNS,
    PLURAL_PERSONS,
    PREPOSITIONS,
    SUBJECT_PRONOUNS,
    words,
)

_BASE, _THIRD, _PAST, _PARTICIPLE, _ING = range(5)
_INERT: Final = re.compile(r"\([^)]*\)|\"[^\"]*\"|“[^”]*”")
_FOLLOWS_NOUN: Final = re.compile(
    r"$|[^\w\s]|(?:and|or|that|who|which|is|are|was|were|has|have|had|will|would|can|could|should|"
    r"may|might|must|do|does|did|to|as|than|while|when|because|if|but|he|she|they|it|his|her|"
    r"their|together|outside|inside|outdoors|indoors|\w+ing|\w+ed|\w+ly|\w+n't|sits?|stands?|"
    r"walks?|runs?|plays?|rides?|holds?|looks?|jumps?|eats?|wears?|sleeps?|gets?|sat|ran|went|"
    r"called|born|made)$"
)


@dataclass(frozen=True, slots=True)
class _Swap:
    """One directed replacement with the classes its neighbours must belong to."""

    source: str
    target: str
    group: str
    form: int
    left: re.Pattern[str] | None
    right: re.Pattern[str] | None


def _directions(entry: str) -> Iterator[tuple[list[str], list[str]]]:
    """Yields the inflected forms of both sides for every direction an entry allows."""
    both = " <> " in entry
    left, right = (side.split("|") for side in entry.split(" <> " if both else " > "))
    yield left, right
    if both:
        yield right, left


def _whole(pattern: str) -> re.Pattern[str] | None:
    return re.compile(rf"(?:{pattern})\Z") if pattern else None


def _build() -> dict[str, list[_Swap]]:
    """Indexes all replacements by the first word of their source."""
    table: dict[str, list[_Swap]] = {}

    def add(swap: _Swap) -> None:
        table.setdefault(swap.source.split()[0], []).append(swap)

    for entry in NOUN_PAIRS:
        for old, new in _directions(entry):
            for form, (source, target) in enumerate(zip(old, new, strict=True)):
                add(_Swap(source, target, "noun", form, None, None))
    for entry in VERB_PAIRS:
        for old, new in _directions(entry):
            right = _whole(VERB_RIGHT.get(old[_BASE], ""))
            for form, (source, target) in enumerate(zip(old, new, strict=True)):
                add(_Swap(source, target, "verb", form, None, right))
    for source, target, left, right_text in PHRASES:
        add(_Swap(source, target, "phrase", 0, _whole(left), _whole(right_text)))
    return table


_SWAPS: Final = _build()
_CASUAL: Final = frozenset(("man", "men", "woman", "women", "guy", "guys", "lady", "ladies"))
_AMBIGUOUS_PLURALS: Final = words(
    "stores shops films aims planes photographs fathers mothers flats phones telephones trips "
    "errors mistakes cars babies TVs persons"
)


def _noun_fits(swap: _Swap, left: str, right: str) -> bool:
    """Checks that a noun is a whole noun phrase head, not part of a compound or a verb."""
    if not _FOLLOWS_NOUN.match(right) and right not in PREPOSITIONS:
        return False
    if right.endswith("ing") and swap.source not in PERSON_NOUNS:
        return False  # "film producing" is a compound, "man running" is not
    if left in ("of", "in") and right == "of":
        return False
    if swap.source in _CASUAL:
        # "man" and "woman" may stand for all men and women, a guy or a lady never does.
        exact = left in ("a", "an", "the", "two", "three", "four", "some", "several")
        usable = right[:1].isalpha() and right != "of" and left != "first"  # "the first lady"
        if not usable or not (exact or left in ADJECTIVES):
            return False
    if swap.form == 1 and swap.source not in _AMBIGUOUS_PLURALS:
        return not left.endswith("-")
    if left in ADJECTIVES:
        return True
    if swap.form == 1:
        return left in DETERMINERS or left in PREPOSITIONS
    if swap.source == "plane" or swap.source == "flat":
        return left in ("a", "the", "his", "her", "their", "my", "our")
    return left in DETERMINERS


def _verb_fits(swap: _Swap, forms_differ: bool, left: str, original_left: str) -> bool:
    """Checks that an inflected form is used as that form of a verb."""
    if swap.form == _BASE:
        return left in MODALS or left in PLURAL_PERSONS
    if swap.form == _THIRD:
        return (
            left in SUBJECT_PRONOUNS or left in PERSON_NOUNS or original_left[:1].isupper()
        ) and left not in DETERMINERS
    if swap.form == _ING:
        return left in BE_FORMS or left in PERSON_NOUNS or left in ("while", "and", "not", "by")
    if left in DETERMINERS or left in ADJECTIVES or left in PREPOSITIONS:
        return False
    # Past tense and participle look alike on the source side: the auxiliary decides.
    auxiliary = left in HAVE_FORMS or (left in ("not", "never", "also", "ever") and forms_differ)
    return not forms_differ or auxiliary == (swap.form == _PARTICIPLE)


def _sites(text: str) -> list[tuple[int, int, str]]:
    """Finds every (start, end, replacement) the tables allow in a text."""
    inert = [match.span() for match in _INERT.finditer(text)]
    tokens = [m for m in WORD.finditer(text)]
    found: list[tuple[int, int, str]] = []
    for index, token in enumerate(tokens):
        start = token.start()
        if any(low <= start < high for low, high in inert):
            continue
        word = token.group(0)
        opening = index == 0
        key = word if word in _SWAPS else word.lower() if opening else word
        original_left = tokens[index - 1].group(0) if index else ""
        between = text[tokens[index - 1].end() : start] if index else ""
        left = original_left.lower() if between.strip() == "" else ","
        for swap in _SWAPS.get(key, ()):
            stop = start + len(swap.source)
            span = text[start:stop]
            if (span[:1].lower() + span[1:] if opening and swap.source[0].islower() else span) != (
                swap.source
            ):
                continue
            if stop < len(text) and (text[stop].isalnum() or text[stop] in "'’-"):
                continue
            follower = WORD.search(text, stop)
            gap = text[stop : follower.start()].strip() if follower else text[stop:].strip()
            right = gap[:1] if gap else follower.group(0) if follower else ""
            if opening and (right[:1].isupper() or (swap.form == _BASE and swap.group != "phrase")):
                continue
            if original_left[:1].isupper() and index > 1 and swap.group == "noun":
                continue  # "the American Film Institute": part of a name
            if swap.left and not swap.left.match(left):
                continue
            if swap.right and not swap.right.match(right):
                continue
            if swap.group == "noun" and not _noun_fits(swap, left, right):
                continue
            if swap.group == "verb":
                past = _past_is_ambiguous(swap)
                if not _verb_fits(swap, past, left, original_left):
                    continue
            target = capitalise(swap.target) if opening and span[0].isupper() else swap.target
            found.append((start, stop, target))
    return found


def _past_is_ambiguous(swap: _Swap) -> bool:
    """Whether the form must be told past from participle by its auxiliary."""
    return swap.form in (_PAST, _PARTICIPLE) and any(
        other.source == swap.source and other.target != swap.target and other.group == "verb"
        for other in _SWAPS[swap.source.split()[0]]
    )


def _apply(text: str, sites: Sequence[tuple[int, int, str]]) -> str:
    """Carries out replacements from right to left and repairs the articles they touch."""
    for start, stop, target in sorted(sites, reverse=True):
        text = text[:start] + target + text[stop:]
        text = fix_articles(text, start, start + len(target))
    return text


def synonyms(sentence: Sentence) -> Iterator[tuple[str, str]]:
    """Replaces words by near-exact synonyms, one at a time and all together.

    Args:
        sentence: The parsed sentence.

    Yields:
        (rewording, kind) pairs.
    """
    sites = _sites(sentence.body)
    for site in sites:
        yield assemble(sentence, _apply(sentence.body, [site])), "synonym"
    together: list[tuple[int, int, str]] = []
    for site in sites:
        if not together or site[0] >= together[-1][1]:
            together.append(site)
    if len(together) > 1:
        yield assemble(sentence, _apply(sentence.body, together)), "synonym"
