"""Rewordings of claims that say what something is: identities, descriptions, casts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from saledit.data.paraphrase.text import (
    RELATIVE,
    Sentence,
    article,
    assemble,
    inner_phrase,
    is_name,
)
from saledit.data.paraphrase.wordclasses import DEMONYMS, PROFESSIONS, UNIQUE_RELATIONS, WORKS

Pairs = Iterator[tuple[str, str]]

_STARS: Final = re.compile(r"^(?P<x>.+?) (?P<v>stars|starred|features|featured) (?P<y>[A-Z].+)$")
_STARS_IN: Final = re.compile(r"^(?P<x>.+?) (?P<v>stars|starred) in (?P<y>[A-Z].+)$")
_RELATION: Final = "|".join(sorted(UNIQUE_RELATIONS))
_IS_OF: Final = re.compile(rf"^(?P<x>.+?) (?P<be>is|was) the (?P<r>{_RELATION}) of (?P<y>.+)$")
_POSSESSIVE: Final = re.compile(
    rf"^(?P<y>.+?)(?:'s|(?<=s)') (?P<r>{_RELATION}) (?P<be>is|was) (?P<x>.+)$"
)
_IS_POSSESSIVE: Final = re.compile(
    rf"^(?P<x>.+?) (?P<be>is|was) (?P<y>[A-Z].+?)(?:'s|(?<=s)') (?P<r>{_RELATION})$"
)
_NATIONAL: Final = re.compile(
    rf"^(?P<x>.+?) (?P<be>is|was) an? (?P<d>{'|'.join(DEMONYMS)}) "
    r"(?P<n>(?:[a-z-]+ ){0,2}(?P<h>[a-z]+))$"
)
_FROM: Final = re.compile(
    r"^(?P<x>.+?) (?P<be>is|was) an? (?P<n>(?:[a-z-]+ ){0,2}(?P<h>[a-z]+)) from (?P<c>.+)$"
)
_COUNTRY_TO_DEMONYM: Final = {country: word for word, country in DEMONYMS.items() if country} | {
    "America": "American",
    "the US": "American",
    "the USA": "American",
}
_TRADES: Final = "film|television|stage|horror|jazz|pop|rock|country|science|fashion|" + "|".join(
    DEMONYMS
)
_PROFESSION: Final = re.compile(
    rf"^(?P<x>.+?) (?P<be>is|was) (?P<n>an? (?:(?:{_TRADES}) )?"
    rf"(?:{'|'.join(sorted(PROFESSIONS))}))$"
)
_IS_ONE: Final = re.compile(
    r"^(?P<x>.+?) (?P<be>is|was) (?P<n>an? (?:[\w-]+ ){0,3}[a-z-]+"
    r"(?: (?:of|from|by|about) [\w .'-]+)?)$"
)
_IS_THE: Final = re.compile(r"^(?P<x>.+?) (?P<be>is|was) (?P<n>(?:the|one of the) .+)$")
_GENITIVE: Final = re.compile(
    r"^(?P<y>[A-Z].*?)(?:'s|(?<=s)') (?P<n>(?:(?:first|second|third|last|full|chief|real|birth|"
    r"date of|place of|debut|original) )?(?:[a-z]+(?<!ed)(?<!ing))) (?P<r>(?:is|was|were|are|"
    r"has|had|[a-z]+ed|took|began) .+)$"
)
_WHAT: Final = re.compile(
    r"^(?P<x>.+?) (?P<v>is based on|was based on|is about|is known for|was known for) (?P<y>.+)$"
)


def casts(sentence: Sentence) -> Pairs:
    """Swaps the two sides of "X stars Y" and "Y stars in X".

    Args:
        sentence: The parsed sentence.

    Yields:
        (rewording, kind) pairs.
    """
    if not sentence.movable:
        return
    if (match := _STARS.match(sentence.body)) and (
        film := inner_phrase(match["x"], singular=match["v"] == "stars")
    ):
        actor = match["y"]
        if is_name(actor) and len(actor.split()) <= 4 and match["v"].startswith("star"):
            number = "star" if " and " in actor and match["v"] == "stars" else match["v"]
            yield assemble(sentence, f"{actor} {number} in {film}"), "converse"
    if (match := _STARS_IN.match(sentence.body)) and is_name(match["x"]) and is_name(match["y"]):
        yield assemble(sentence, f"{match['y']} {match['v']} {match['x']}"), "converse"


def identities(sentence: Sentence) -> Pairs:
    """Turns identities around: "X is the capital of Y", "Y's capital is X", "X is Y's capital".

    Args:
        sentence: The parsed sentence.

    Yields:
        (rewording, kind) pairs.
    """
    if not sentence.movable:
        return
    body = sentence.body
    forms: list[str] = []
    if (
        (m := _IS_OF.match(body))
        and is_name(m["y"], singular=True)
        and (x := inner_phrase(m["x"], singular=True))
    ):
        forms = [f"{m['y']}'s {m['r']} {m['be']} {x}", f"{m['x']} {m['be']} {m['y']}'s {m['r']}"]
    elif (
        (m := _IS_POSSESSIVE.match(body))
        and is_name(m["y"], singular=True)
        and (x := inner_phrase(m["x"], singular=True))
    ):
        forms = [
            f"{m['x']} {m['be']} the {m['r']} of {m['y']}",
            f"{m['y']}'s {m['r']} {m['be']} {x}",
        ]
    elif (m := _POSSESSIVE.match(body)) and is_name(m["y"], singular=True):
        forms = [f"the {m['r']} of {m['y']} {m['be']} {m['x']}"]
        if is_name(m["x"], singular=True):
            forms.append(f"{m['x']} {m['be']} {m['y']}'s {m['r']}")
    elif (
        (m := _IS_THE.match(body))
        and is_name(m["x"], singular=True)
        and len(m["n"].split()) <= 12
        and not re.search(r"\b(?:who|which|since|same)\b", m["n"])
        and "," not in body
    ):
        forms = [f"{m['n']} {m['be']} {m['x']}"]
    for form in forms:
        yield assemble(sentence, form), "identity"
    if (m := _GENITIVE.match(body)) and is_name(m["y"], singular=True) and not forms:
        yield assemble(sentence, f"the {m['n']} of {m['y']} {m['r']}"), "genitive"
    if (
        (m := _WHAT.match(body))
        and (x := inner_phrase(m["x"], singular=True))
        and re.match(r"(?:an?|the|[A-Z])", m["y"])
    ):
        be = m["v"].split()[0]
        if len(m["y"].split()) <= 7 and not RELATIVE.search(m["y"]) and " and " not in m["y"]:
            yield assemble(sentence, f"{m['y']} {be} what {x} {m['v']}"), "pseudo-cleft"


def descriptions(sentence: Sentence) -> Pairs:
    """Rewords "X is a/an ..." without changing what X is said to be.

    Args:
        sentence: The parsed sentence.

    Yields:
        (rewording, kind) pairs.
    """
    if not sentence.simple or sentence.negated or sentence.question or sentence.scoped:
        return
    body = sentence.body
    if (m := _NATIONAL.match(body)) and m["h"] in PROFESSIONS | WORKS and DEMONYMS[m["d"]]:
        start = f"{m['x']} {m['be']} {article(m['n'].split()[0])} {m['n']}"
        yield assemble(sentence, f"{start} from {DEMONYMS[m['d']]}"), "nationality"
        relative = "who" if m["h"] in PROFESSIONS else "that"
        yield assemble(sentence, f"{start} {relative} {m['be']} {m['d']}"), "relative"
    elif (m := _FROM.match(body)) and m["h"] in PROFESSIONS | WORKS:
        demonym = _COUNTRY_TO_DEMONYM.get(m["c"])
        if demonym:
            text = f"{m['x']} {m['be']} {article(demonym)} {demonym} {m['n']}"
            yield assemble(sentence, text), "nationality"
    if (m := _PROFESSION.match(body)) and (
        is_name(m["x"], singular=True) or m["x"] in ("He", "She")
    ):
        verb = "works" if m["be"] == "is" else "worked"
        yield assemble(sentence, f"{m['x']} {verb} as {m['n']}"), "profession"
    m = _IS_ONE.match(body)
    if (
        m
        and is_name(m["x"], singular=True)
        and not RELATIVE.search(m["n"])
        and len(m["n"].split()) < 8
    ):
        yield assemble(sentence, f"{m['n']} is what {m['x']} {m['be']}"), "pseudo-cleft"
