"""Rewordings that move or join phrases: fronting, clause order, connectors, frames."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from saledit.data.paraphrase.text import Sentence, assemble, capitalise, decapitalise, is_name
from saledit.data.paraphrase.wordclasses import ACTIVITY_VERBS, CLOTHES, PERSON_NOUNS, PLACES

Pairs = Iterator[tuple[str, str]]

_INDEFINITE: Final = r"(?:a|an|one|two|three|four|five|six|some|several|a couple of|a group of)"
_PLACE_PREP: Final = (
    r"(?:in|on|at|near|under|behind|beside|next to|in front of|on top of|outside|inside)"
)
_FINAL_PLACE: Final = re.compile(
    rf"^(?P<c>.+?) "
    rf"(?P<pp>{_PLACE_PREP} (?:a|an|the|his|her|their) (?:[\w-]+ ){{0,2}}?(?P<n>[\w-]+))$"
)
_ATTIRE: Final = re.compile(
    r"\b(?P<n>\w+) (?P<how>in|wearing) (?:an?|the|his|her) (?:[\w-]+ ){0,2}"
    rf"(?:{'|'.join(sorted(CLOTHES))})\b(?! \w*(?:ball|store|shop)\b)"
)
_SWAP: Final = re.compile(
    rf"^(?P<a>(?:{_INDEFINITE}|the) (?:[\w-]+ ){{0,2}}?[\w-]+) and "
    rf"(?P<b>(?:{_INDEFINITE}|the) (?:[\w-]+ ){{0,2}}?[\w-]+) (?P<r>(?:are|were) .+)$",
    re.IGNORECASE,
)
_CLAUSE_END: Final = re.compile(
    r"^(?P<m>[^,]{5,}?),? (?P<sub>(?:because|although|even though|if|after|before|when|while|once|"
    r"unless) (?:the|a|an|he|she|it|they|we|you|I|his|her|their|there|this|people) [^,]+)$"
)
_CLAUSE_START: Final = re.compile(
    r"^(?P<sub>(?:Because|Although|Even though|If|After|Before|When|Once) [^,]+), "
    r"(?P<m>(?:the|a|an|he|she|it|they|we|you|I|his|her|their|there|this|people) [^,]+)$"
)
_ADVERBIAL_START: Final = re.compile(
    r"^(?P<pp>(?:In|On|At|During|For|Since|After|Before|By) (?:[\w$'-]+ ){0,5}[\w$'-]+), "
    r"(?P<m>[^,]+)$"
)
_THAT: Final = re.compile(
    r"\b(?P<v>(?:[Tt]hink|believe|know|knew|thought|believed|said|says|say|feel|felt|hope|claim|"
    r"claimed|claims|thinks|believes|knows)) (?P<t>that )?"
    r"(?=(?:he|she|it|they|we|you|I|there) (?!and|or)[a-z]+)"
)
_WHO: Final = re.compile(
    r"\b(?P<n>man|woman|men|women|people|person|boy|girl|children|kids|actor|actress|singer|"
    r"someone|writer|artist) (?P<r>who|that) (?=(?:is|are|was|were|has|have|had)\b)"
)
_DO_QUESTION: Final = re.compile(
    r"^(?:Do (?P<s>you|we|they|I)) (?!not|ever|any)(?P<r>[a-z]+ [^,?]+)$"
)
_FRAMES: Final = ("It is true that {}", "It is the case that {}", "In fact, {}", "Indeed, {}")


def orders(sentence: Sentence) -> Pairs:
    """Moves a phrase or a clause to the other end, or swaps two joined subjects.

    Args:
        sentence: The parsed sentence.

    Yields:
        (rewording, kind) pairs.
    """
    body = sentence.body
    if not sentence.movable:
        return
    match = _FINAL_PLACE.match(body)
    if match and match["n"] in PLACES and "," not in body:
        clause = decapitalise(match["c"])
        verb = match["c"].split()[-1]
        direct = verb in ACTIVITY_VERBS and re.search(r"\b(?:is|are|was|were) \w+ing$", match["c"])
        with_object = re.search(
            r"\b(?:is|are) (?!looking|putting|going|wearing)(?:eating|playing|reading|cooking|"
            r"selling|watching|drinking|holding|taking|having) (?:an? |the |some )?\w+$",
            match["c"],
        )
        own = re.search(r"\b(?:his|her|their)\b", match["pp"])
        if clause and (direct or with_object) and not own:
            yield assemble(sentence, f"{match['pp']}, {clause}"), "fronting"
    if (match := _CLAUSE_END.match(body)) and " that " not in match["m"]:
        main = decapitalise(match["m"])
        finite = re.search(r"\b(?:is|are|was|were|\w+ed|will|can|\w+s)\b", match["sub"])
        if main and finite and not re.search(r"\b(?:to|and|or|but|what|than)$", match["m"]):
            yield assemble(sentence, f"{match['sub']}, {main}"), "clause-order"
    for pattern in (_CLAUSE_START, _ADVERBIAL_START):
        match = pattern.match(body)
        if match:
            first = match["pp" if pattern is _ADVERBIAL_START else "sub"]
            first = first[0].lower() + first[1:]
            if re.search(r"\b(?:addition|fact|short|example|general|once|first|said)\b", first):
                break
            yield assemble(sentence, f"{capitalise(match['m'])} {first}"), "clause-order"
            break
    if (match := _SWAP.match(body)) and not (match["a"] + match["b"]).count(" of "):
        first = decapitalise(match["a"])
        if first:
            yield assemble(sentence, f"{match['b']} and {first} {match['r']}"), "conjunct-swap"


def connectors(sentence: Sentence) -> Pairs:
    """Adds or drops "that", swaps "who"/"that" and "in"/"wearing" before clothes.

    Args:
        sentence: The parsed sentence.

    Yields:
        (rewording, kind) pairs.
    """
    body = sentence.body
    for match in _THAT.finditer(body):
        new = body[: match.start()] + match["v"] + (" " if match["t"] else " that ")
        yield assemble(sentence, new + body[match.end() :]), "complementizer"
    for match in _WHO.finditer(body):
        other = "that" if match["r"] == "who" else "who"
        new = body[: match.start("r")] + other + body[match.end("r") :]
        if not body.lower().startswith("it "):
            yield assemble(sentence, new), "relativizer"
    for match in _ATTIRE.finditer(body):
        if match["n"] not in PERSON_NOUNS:
            continue
        how = "wearing" if match["how"] == "in" else "in"
        yield (
            assemble(sentence, body[: match.start("how")] + how + body[match.end("how") :]),
            "attire",
        )


def frames(sentence: Sentence) -> Pairs:
    """Asserts the whole sentence, or the existence of what a bare noun phrase names.

    Args:
        sentence: The parsed sentence.

    Yields:
        (rewording, kind) pairs, all of kind "frame".
    """
    if (match := _DO_QUESTION.match(sentence.body)) and sentence.end == "?":
        yield f"Is it true that {match['s']} {match['r']}?", "frame"
    if sentence.end == "?" and sentence.body:
        yield f"My question is this: {sentence.body}?", "frame"
    if not sentence.body or sentence.question:
        return
    inner = decapitalise(sentence.body)
    finite = re.search(
        r"\b(?:is|are|was|were|has|have|had|do|does|did|will|would|can|could|should|may|might|must|"
        r"\w+n't|\w{2,}ed|\w{2,}s|ran|won|wrote|made|began|went|took|gave|got|"
        r"sat|came|held|knew|said|told|saw|left|found|heard|thought|kept|put|became|brought|met|"
        r"lost|felt|spoke|stood|sent|paid|led|built|grew|fell|drove|bought|ate|meant|know|think|"
        r"want|like|love|need|live|work|believe|have|use|go|get|make|take|say|may)\b|'[a-z]",
        " ".join(sentence.body.split()[1:]),
    )
    if inner and finite and sentence.simple:
        for frame in _FRAMES:
            if "," in frame and re.match(r"[^,]{0,25},", inner):
                continue  # two openers with commas read badly
            yield frame.format(inner) + (sentence.end or "."), "frame"
    elif finite and not is_name(sentence.body):
        yield f"The following is true: {sentence.body}{sentence.end}", "frame"
