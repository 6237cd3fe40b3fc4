"""Rewordings of encyclopedic claims: people, films, places, dates and who made what."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from saledit.data.paraphrase.text import (
    RELATIVE,
    Sentence,
    assemble,
    decapitalise,
    inner_phrase,
    is_name,
)
from saledit.data.paraphrase.wordclasses import CLAIM_VERBS

Pairs = Iterator[tuple[str, str]]

_MONTH: Final = (
    r"(?:January|February|March|April|May|June|July|August|September|October|November|December)"
)
_DAY: Final = r"\d{1,2}(?:st|nd|rd|th)?"
_YEAR: Final = r"(?:1[0-9]|20)\d\d"
_DATE: Final = rf"(?:{_MONTH} {_DAY}(?:,? {_YEAR})?|{_DAY} {_MONTH}(?:,? {_YEAR})?)"
_TIME: Final = rf"(?:in (?:{_MONTH} (?:of )?)?{_YEAR}|in {_MONTH}|on {_DATE}|in the {_YEAR}s)"
_LIFE: Final = re.compile(
    rf"^(?P<x>.+?) (?P<be>was|were) born (?P<when>(?:in|on) (?P<w>(?:{_MONTH} )?{_YEAR}|{_DATE}))$"
)
_BIRTHPLACE: Final = re.compile(
    r"^(?P<x>.+?) was born (?P<r>and raised )?in "
    r"(?P<y>(?:the )?[A-Z][\w'.-]*(?:,? (?:[A-Z][\w'.-]*|of))*)$"
)
_DEATH: Final = re.compile(r"^(?P<x>.+?) died (?P<p>in|on) (?P<w>.+)$")
_EVENT: Final = re.compile(
    rf"^(?P<c>(?P<x>.+?) (?:was|were|died|began|ended|started|opened|won|premiered|aired|debuted|"
    rf"moved|played|joined|became|married|divorced|retired|entered|[a-z-]+ed)\b.*?) (?P<t>{_TIME})$"
)
_PARTICIPLES: Final = {participle: past for past, participle in CLAIM_VERBS.items()}
_PASSIVE: Final = re.compile(
    rf"^(?P<x>.+?) (?:was|were) (?P<v>{'|'.join(map(re.escape, _PARTICIPLES))}|[a-z]+ed) "
    rf"by (?P<y>.+?)"
    rf"(?P<t> {_TIME})?$"
)
_ACTIVE: Final = re.compile(
    rf"^(?P<x>.+?) (?P<v>{'|'.join(map(re.escape, CLAIM_VERBS))}) (?P<y>.+?)(?P<t> {_TIME})?$"
)
_ROLE: Final = re.compile(
    r"^(?P<x>.+?) (?P<v>played|portrayed|voiced) (?P<y>(?:[A-Z][\w'.-]* ?)+) in (?P<z>.+)$"
)
_FINAL_PLACE: Final = re.compile(
    r"^(?P<c>.+? (?:was [a-z]+ed|worked|lived|moved|debuted|performed|starred|appeared|acted|"
    r"played|grew up|studied|married|filmed|premiered|published|produced|released)(?: [^,]+)?) in "
    r"(?P<y>(?:the )?[A-Z][\w' .-]+)$"
)
_DID: Final = re.compile(
    r"^(?P<x>[A-Z].*?) (?P<r>(?:worked|appeared|starred|played|received|turned|founded|formed|"
    r"acted|performed|joined|left|wrote|directed|produced|created|released|published|developed|"
    r"launched|hosted|won|lost|married|attended|studied|began|started|discovered|committed|"
    r"influenced|inspired|served|voiced|sang|recorded|became|made|covered|dated) .+)$"
)
_WHERE: Final = re.compile(
    r"^(?P<x>.+?) (?P<v>is located|was filmed|is set|took place) in (?P<y>.+)$"
)
_NOMINAL: Final = {"directed": "director", "founded": "founder", "composed": "composer"}
_AGENT: Final = re.compile(r"(?:(?:an?|the) [\w -]+|[A-Z].*)\Z")
_OBJECT_PRONOUNS: Final = {"he": "him", "she": "her", "they": "them", "it": "it"}
_SINGULAR: Final = re.compile(r"(?:an?|the|his|her|this|one)\b", re.IGNORECASE)
_NUMERAL: Final = r"(?:two|three|four|five|six|seven|eight|nine|ten|several|multiple|\d+)"


def _was(phrase: str) -> str:
    """The past "be" that agrees with a noun phrase."""
    head = re.split(r" (?:of|in|for|by|with|from|at|on) ", phrase)[0].split()[-1]
    numeral = re.match(_NUMERAL + r"\b", phrase, re.IGNORECASE)
    plural = head[:1].islower() and head.endswith("s") and not head.endswith(("ss", "us", "series"))
    joined = " and " in phrase and not is_name(phrase)
    return "were" if numeral or plural or joined else "was"


def dates_and_places(sentence: Sentence) -> Pairs:
    """Rewords births, deaths and dated events.

    Args:
        sentence: The parsed sentence.

    Yields:
        (rewording, kind) pairs.
    """
    if not sentence.movable:
        return
    body = sentence.body
    if (match := _LIFE.match(body)) and match["be"] == "was" and is_name(match["x"]):
        noun = "date of birth" if match["when"].startswith("on") else "year of birth"
        if noun == "date of birth" or re.fullmatch(_YEAR, match["w"]):
            yield assemble(sentence, f"{match['x']}'s {noun} is {match['w']}"), "nominal"
    match = _BIRTHPLACE.match(body)
    if match and (x := inner_phrase(match["x"])) and not re.match(_MONTH + r"\b", match["y"]):
        raised = (match["r"] or "").strip()
        yield assemble(sentence, f"{match['y']} is where {x} was born {raised}".strip()), "where"
        if is_name(match["x"]) and not raised:
            yield assemble(sentence, f"the birthplace of {x} is {match['y']}"), "nominal"
    if (match := _DEATH.match(body)) and is_name(match["x"]) and re.fullmatch(_YEAR, match["w"]):
        yield assemble(sentence, f"{match['x']}'s year of death is {match['w']}"), "nominal"
    match = _EVENT.match(body)
    if match and "," not in match["c"] and not RELATIVE.search(body):
        clause = decapitalise(match["c"])
        attached = re.search(r"\b(?:film|movie|book|song|album)$| (?:for|is|are) ", match["c"])
        if clause and not attached:
            time = match["t"]
            yield assemble(sentence, f"{time}, {clause}"), "fronting"
            yield assemble(sentence, f"it was {time} that {clause}"), "cleft"
    match = _FINAL_PLACE.match(body)
    if match and is_name(match["y"]) and not RELATIVE.search(body) and "," not in match["c"]:
        clause = decapitalise(match["c"])
        if clause and not re.search(r"\b(?:is|are|has|have|who|its|his|her)\b", match["c"]):
            yield assemble(sentence, f"it was in {match['y']} that {clause}"), "cleft"
    match = _DID.match(body)
    if match and is_name(match["x"]) and not RELATIVE.search(body) and ", " not in match["r"]:
        yield assemble(sentence, f"it was {match['x']} that {match['r']}"), "cleft"
    if (match := _WHERE.match(body)) and (x := inner_phrase(match["x"])) and _place(match["y"]):
        yield assemble(sentence, f"{match['y']} is where {x} {match['v']}"), "where"


def _place(text: str) -> bool:
    return is_name(text.removeprefix("the ")) and not RELATIVE.search(text)


def makers(sentence: Sentence) -> Pairs:
    """Changes the voice of claims about who made, won or played something.

    Args:
        sentence: The parsed sentence.

    Yields:
        (rewording, kind) pairs.
    """
    if not sentence.movable:
        return
    body = sentence.body
    if (match := _PASSIVE.match(body)) and _agent_ok(match["y"]):
        thing = inner_phrase(match["x"], singular=" was " in body)
        if thing:
            thing = _OBJECT_PRONOUNS.get(thing, thing)
            past = _PARTICIPLES.get(match["v"], match["v"])
            tail = match["t"] or ""
            yield assemble(sentence, f"{match['y']} {past} {thing}{tail}"), "active"
            if past in _NOMINAL and not tail and " and " not in match["y"] and match["y"][0] != "a":
                noun = _NOMINAL[past]
                yield assemble(sentence, f"{match['y']} was the {noun} of {thing}"), "nominal"
        return
    if match := _ROLE.match(body):
        agent = inner_phrase(match["x"])
        if agent and len(match["y"].split()) < 5 and agent.lower() not in _OBJECT_PRONOUNS:
            text = f"{match['y'].strip()} was {match['v']} by {agent} in {match['z']}"
            yield assemble(sentence, text), "passive"
            yield (
                assemble(sentence, f"in {match['z']}, {agent} {match['v']} {match['y']}".strip()),
                ("fronting"),
            )
        return
    match = _ACTIVE.match(body)
    if match and (agent := inner_phrase(match["x"])) and _thing_ok(match["y"], match["v"]):
        busy = re.search(r"\b(?:is|are|was|were|has|have|had|and)\b", agent)
        if not busy or (is_name(agent) and not re.search(r"\b(?:is|was|has|had)\b", agent)):
            agent = _OBJECT_PRONOUNS.get(agent.lower(), agent)
            tail = match["t"] or ""
            text = f"{match['y']} {_was(match['y'])} {CLAIM_VERBS[match['v']]} by {agent}{tail}"
            yield assemble(sentence, text), "passive"
            if match["v"] in _NOMINAL and is_name(agent) and not tail and " and " not in agent:
                text = f"{match['x']} was the {_NOMINAL[match['v']]} of {match['y']}"
                yield assemble(sentence, text), "nominal"


def _agent_ok(text: str) -> bool:
    """Whether what follows "by" is the maker and nothing else."""
    head = text.split()[0]
    return (
        bool(_AGENT.match(text))
        and len(text.split()) <= 7
        and not RELATIVE.search(text)
        and not re.search(r"\b(?:in|for|with|on|to|at|as|from|is|was)\b", text)
        and head not in ("accident", "then")
    )


def _thing_ok(text: str, verb: str) -> bool:
    """Whether what follows the verb is one plain object."""
    words = text.split()
    if (
        len(words) > 7
        or (", " in text and not is_name(text))
        or RELATIVE.search(text)
        or re.search(r"\w+ly\b|\b(?:as|to|up|out)\b", text)
    ):
        return False
    if words[0].lower() in ("his", "her", "their", "its", "it", "him", "them", "himself", "by"):
        return False
    inner_prepositions = re.search(r"\b(?:in|on|at|with|from|during|for|by|against)\b", text)
    if inner_prepositions and not (is_name(text) and words[0] != words[0].lower()):
        return verb == "won" and bool(re.search(r"\bfor\b", text)) and " in " not in text
    opener = re.match(rf"(?:an?|the|{_NUMERAL})\b", text, re.IGNORECASE)
    return bool(opener) or is_name(text)
