"""Rewordings of caption-like sentences: existentials, clefts, voice."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from saledit.data.paraphrase.text import Sentence, assemble, decapitalise
from saledit.data.paraphrase.wordclasses import (
    ADJECTIVES,
    CAPTION_VERBS,
    CLOTHES,
    FINITE_VERBS,
    PERSON_NOUNS,
    PLURAL_PERSONS,
    STATIVES,
)
from saledit.data.paraphrase.wordclasses import words as words_of

Pairs = Iterator[tuple[str, str]]

_FOCUS: Final = r"(?:a|an|the|this|that|his|her|their|one|two|three|four|five)"
_INDEFINITE: Final = r"(?:a|an|one|two|three|four|five|six|some|several|a couple of|a group of)"
_PLACE_PREP: Final = (
    r"(?:in|on|at|near|under|behind|beside|next to|in front of|on top of|outside|inside)"
)
_NP: Final = r"(?:a|an|the|some|two|three|his|her|their) (?:[\w-]+ ){0,3}[\w-]+"
# Plurals of people that stand without a determiner in captions.
_BARE_PLURAL: Final = (
    r"(?i:people|men|women|boys|girls|children|kids|dogs|ladies|guys|friends|workers|[a-z]{2,}ers)"
)
# A subject: determiner, up to four words, optionally one short "in a red shirt" phrase.
_SUBJECT: Final = r"(?:[\w'-]+ ){1,4}?[\w'-]+(?: (?:in|with|of|on) (?:[\w-]+ ){0,3}?[\w-]+)?"
_BE_CLAUSE: Final = re.compile(
    rf"^(?P<s>{_BARE_PLURAL}|{_SUBJECT}) (?P<be>is|are|was|were) (?P<p>.+)$"
)
_EXISTS: Final = re.compile(
    rf"^(?:there (?P<be>is|are|was|were)|there's) (?P<s>{_INDEFINITE} (?:[\w'-]+ ){{0,4}}?[\w'-]+) "
    rf"(?P<p>(?:{_PLACE_PREP} (?:a|an|the|his|her|their) |\w{{2,}}ing\b).*)$",
    re.IGNORECASE,
)
_INDEFINITE_START: Final = re.compile(rf"^(?:{_INDEFINITE} |{_BARE_PLURAL} )", re.IGNORECASE)
_BARE_EXISTS: Final = re.compile(
    r"^there are (?P<s>(?:people|men|women|children|\w+s)) (?P<p>\w{2,}ing\b.*)$", re.IGNORECASE
)
# Captions drop the first article: "Man in red jacket is opening the door".
_BARE_NOUN: Final = re.compile(
    r"^(?P<n>man|woman|boy|girl|dog|child|kid|lady|guy|baby|person|couple|clown) "
    r"(?=(?:in|on|with|at|is|\w+ing|\w{2,}s)\b)",
    re.IGNORECASE,
)
_VERBLESS: Final = re.compile(
    rf"^(?:{_INDEFINITE} (?:[\w-]+ ){{0,3}}?)?(?P<n>[\w-]+) (?P<pp>(?:in|on|at|near|with|by) .+)$",
    re.IGNORECASE,
)
_INVERTIBLE: Final = re.compile(
    rf"^(?P<s>{_SUBJECT}) (?P<be>is|are|was|were) "
    r"(?P<pp>(?:in|on|at|near|under|behind|beside|inside|outside) "
    r"(?:a|an|the) (?:[\w-]+ ){0,2}[\w-]+)$"
)
_PREDICATE: Final = re.compile(
    rf"^(?:{_PLACE_PREP} (?:a|an|the|his|her|their) .+|(?!going to|interesting|boring|having to)"
    r"[a-z]{2,}ing\b.*|(?:asleep|seated|dressed)\b.*)$"
)
_VERBISH: Final = words_of(
    "is are was were be been has have had do does did will can could would should who that "
    "which where when while as because if and or but to than like says said thinks there"
)
_THIRD_TO_ING: Final = {third: ing for third, ing, _ in CAPTION_VERBS}
_PARTICIPLES: Final = {ing: participle for _, ing, participle in CAPTION_VERBS}
_PARTICIPLE_TO_ING: Final = {part: ing for _, ing, part in CAPTION_VERBS if part != "-"}
_OBJECT: Final = r"(?:a|an|some|two|three|the) (?:[\w-]+ ){0,2}[\w-]+"
_ACTIVE: Final = re.compile(
    rf"^(?P<s>{_SUBJECT}) (?P<be>is|are) (?P<v>\w+ing) (?P<o>{_OBJECT}?)"
    r"(?P<t> (?:in|on|at|outside|near|by|inside|outdoors|while|for|with|down|together)\b.*)?$"
)
_PASSIVE: Final = re.compile(
    rf"^(?P<o>{_SUBJECT}) (?:is|are) being (?P<v>\w+) by (?P<s>{_NP}?)"
    r"(?P<t> (?:in|on|at|outside|near|inside)\b.*)?$"
)


def _subject_ok(subject: str) -> bool:
    """Whether a matched subject is one noun phrase without a verb in it."""
    words = subject.lower().split()
    return not _VERBISH & set(words) and not any(
        word.endswith("ing") and index > 1 for index, word in enumerate(words)
    )


def _plural(phrase: str) -> bool:
    """Whether an indefinite noun phrase takes a plural verb."""
    words = phrase.lower().split()
    if " ".join(words[:3]) in ("a lot of", "a number of", "a couple of", "a bunch of"):
        return True
    head = re.split(r" (?:in|with|on|at|near|of) ", phrase.lower())[0].split()[-1]
    if words[0] in ("a", "an", "one", "the"):
        return head in PLURAL_PERSONS or (
            words[0] == "the" and head.endswith("s") and not head.endswith(("ss", "us"))
        )
    return head in PLURAL_PERSONS or head.endswith("s")


def _progressive(word: str, *, plural: bool) -> str | None:
    """The -ing form of a present-tense caption verb, or None where it cannot be told."""
    if plural:
        return next((ing for third, ing, _ in CAPTION_VERBS if word in _bases(third)), None)
    if word in STATIVES or not re.fullmatch(r"[a-z]{3,}[^s\W]s", word):
        return None
    if word in _THIRD_TO_ING:
        return _THIRD_TO_ING[word]
    base = _bases(word)[-1]
    if re.fullmatch(r"[^aeiou]*[aeiou][^aeiouwxy]", base):
        return f"{base}{base[-1]}ing"
    return (base[:-1] if re.search(r"[^eoy]e$", base) else base) + "ing"


def _bases(third: str) -> tuple[str, ...]:
    """The base form a third person singular belongs to, the likeliest last."""
    if third.endswith("ies"):
        return (third[:-3] + "y",)
    if third.endswith(("sses", "ches", "shes", "xes")):
        return (third[:-2],)
    return (third[:-1],)


def existentials(sentence: Sentence) -> Pairs:
    """Adds, removes or relativises "there is": "There is a man (who is) sleeping on a bench".

    Args:
        sentence: The parsed sentence.

    Yields:
        (rewording, kind) pairs.
    """
    if not sentence.movable:
        return
    body = sentence.body
    if match := _BARE_EXISTS.match(body):
        yield assemble(sentence, f"{match['s']} are {match['p']}"), "there-removal"
        return
    if match := _EXISTS.match(body):
        be = match["be"] or "is"
        loose = re.search(r" (?:of|in|on|for|to) ", match["s"].removeprefix("a group of "))
        if _subject_ok(match["s"]) and not loose and not match["p"].startswith("depending"):
            yield assemble(sentence, f"{match['s']} {be} {match['p']}"), "there-removal"
        return
    match = _BE_CLAUSE.match(body)
    if match is None or not _subject_ok(match["s"]) or not _INDEFINITE_START.match(body):
        return
    subject, be, predicate = match["s"], match["be"], match["p"]
    subject = decapitalise(subject) or subject
    # "A woman's job is sewing" names an activity, it does not describe one going on.
    if _PREDICATE.match(predicate) and " and " not in subject and "'s " not in subject:
        # "A group of people are ..." takes "there is" all the same.
        exists = {"are": "is", "were": "was"}.get(be, be) if not _plural(subject) else be
        yield assemble(sentence, f"there {exists} {subject} {predicate}"), "there-insertion"
        head = re.split(r" (?:in|with|on|of) ", subject)[-1].split()[-1]
        if head in PERSON_NOUNS and be in ("is", "are"):
            yield assemble(sentence, f"there {exists} {subject} who {be} {predicate}"), "relative"


def clefts(sentence: Sentence) -> Pairs:
    """Puts a noun subject in focus or at the end: "It is a man that is sleeping".

    Args:
        sentence: The parsed sentence.

    Yields:
        (rewording, kind) pairs.
    """
    if not sentence.movable:
        return
    if match := _INVERTIBLE.match(sentence.body):
        subject = decapitalise(match["s"])
        plain = " of " in match["s"] or not re.search(r" (?:in|with|on) ", match["s"])
        if subject and plain and _subject_ok(match["s"]) and " " in subject:
            yield assemble(sentence, f"{match['pp']} {match['be']} {subject}"), "inversion"
    match = _BE_CLAUSE.match(sentence.body)
    if match is None or not _subject_ok(match["s"]):
        return
    words = match["s"].lower().split()
    if not re.match(_FOCUS + r"\Z", words[0]) or words[-1] not in PERSON_NOUNS:
        return
    if re.match(r"(?!going|being)[a-z]+ing\b", match["p"]):
        subject = decapitalise(match["s"]) or match["s"]
        it_be = "was" if match["be"] in ("was", "were") else "is"
        body = f"it {it_be} {subject} that {match['be']} {match['p']}"
        yield assemble(sentence, body), "cleft"


def aspects(sentence: Sentence) -> Pairs:
    """Turns caption presents into progressives and completes captions without an auxiliary.

    Args:
        sentence: The parsed sentence.

    Yields:
        (rewording, kind) pairs.
    """
    body = sentence.body
    if not sentence.movable:
        return
    if match := _BARE_NOUN.match(body):
        yield assemble(sentence, f"a {body[0].lower()}{body[1:]}"), "article"
        return
    if not _INDEFINITE_START.match(body):
        return
    words = body.split()
    for index, word in enumerate(words[1:9], start=1):
        subject = " ".join(words[:index])
        before = words[index - 1].lower()
        rest = " ".join(words[index + 1 :])
        if word in _VERBISH:
            return
        bare = index == 1 and bool(re.fullmatch(_BARE_PLURAL, before))
        anchored = before in PERSON_NOUNS or (before in CLOTHES and index > 3) or bare
        plural = bare or _plural(subject)
        ing = _progressive(word, plural=plural)
        if ing and anchored:
            yield (
                assemble(sentence, f"{subject} {'are' if plural else 'is'} {ing} {rest}".strip()),
                ("aspect"),
            )
            return
        if word.endswith("ing") and anchored:
            finite = (_VERBISH - {"and", "to", "like", "as", "while"}) | FINITE_VERBS
            if not finite & set(words):
                be = "are" if plural else "is"
                yield assemble(sentence, f"{subject} {be} {' '.join(words[index:])}"), "copula"
                yield from _there(sentence, be)
            return
    match = _VERBLESS.match(body)
    if match is None or not _is_person(match["n"]) or _VERBISH & set(words) or len(words) > 8:
        return
    if re.search(r"\b\w+(?:ed|ing)\b", body) or re.search(r"\w{3,}s\b", match["pp"]):
        return  # may be a verb
    bare = body.lower().startswith(match["n"].lower())
    yield from _there(sentence, "are" if bare or _plural(body) else "is")


def _is_person(noun: str) -> bool:
    return noun in PERSON_NOUNS or bool(re.fullmatch(_BARE_PLURAL, noun))


def _there(sentence: Sentence, be: str) -> Pairs:
    """Completes a caption without a verb by "there is"."""
    inner = sentence.body[:1].lower() + sentence.body[1:]
    be = "is" if re.match(r"an? (?!lot of|number of|couple of|bunch of)", inner) else be
    yield assemble(sentence, f"there {be} {inner}"), "there-insertion"


def voices(sentence: Sentence) -> Pairs:
    """Changes the voice of a progressive: "A guitar is being played by a man".

    Args:
        sentence: The parsed sentence.

    Yields:
        (rewording, kind) pairs.
    """
    if not sentence.movable:
        return
    if (match := _ACTIVE.match(sentence.body)) and _subject_ok(match["s"]):
        participle = _PARTICIPLES.get(match["v"], "-")
        subject = decapitalise(match["s"])
        head = match["o"].split()[-1]
        bad = (
            head.endswith("ing") or head in ADJECTIVES or re.search(r"\b(?:to|of|up)\b", match["o"])
        )
        if participle != "-" and subject and not bad and " and " not in match["s"]:
            be = "are" if _plural(match["o"]) else "is"
            tail = match["t"] or ""
            if not re.search(r"\b(?:his|her|their|while|with)\b", tail):
                body = f"{match['o']} {be} being {participle} by {subject}{tail}"
                yield assemble(sentence, body), "passive"
    if (match := _PASSIVE.match(sentence.body)) and match["v"] in _PARTICIPLE_TO_ING:
        thing = decapitalise(match["o"])
        if thing and _subject_ok(match["o"]):
            be = "are" if _plural(match["s"]) else "is"
            body = f"{match['s']} {be} {_PARTICIPLE_TO_ING[match['v']]} {thing}{match['t'] or ''}"
            yield assemble(sentence, body), "active"
