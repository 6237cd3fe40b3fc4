"""Rewordings that contract auxiliaries and "not" or write them out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from saledit.data.paraphrase.text import Sentence, assemble, capitalise
from saledit.data.paraphrase.wordclasses import words

_NOT_VERBS: Final = words("is are was were has have had do does did could would should must need")
_CONTRACTED: Final = {f"{verb} not": f"{verb}n't" for verb in _NOT_VERBS} | {
    "cannot": "can't",
    "can not": "can't",
    "will not": "won't",
}
_EXPANDED: Final = {f"{verb}n't": f"{verb} not" for verb in _NOT_VERBS} | {
    "can't": "cannot",
    "won't": "will not",
}
_PRONOUN: Final = {
    f"{pronoun} {verb}": f"{pronoun}'{short}"
    for pronouns, verb, short in (
        ("I", "am", "m"),
        ("you we they", "are", "re"),
        ("he she it there that", "is", "s"),
        ("I you he she we they it", "will", "ll"),
        ("I you he she we they", "would", "d"),
    )
    for pronoun in pronouns.split()
}
# Only an auxiliary "have" contracts: the next word has to be a participle.
_HAVE: Final = re.compile(
    r"\b(I|you|we|they) have(?= (?:\w+ed|been|had|done|seen|made|gone|got|gotten|never|always|"
    r"already|not|found|heard|taken|come|become|lost|won)\b)",
    re.IGNORECASE,
)


def _table_regex(keys: Sequence[str]) -> re.Pattern[str]:
    body = "|".join(re.escape(key) for key in sorted(keys, key=len, reverse=True))
    return re.compile(rf"(?<![\w'’-])(?:{body})(?![\w'’-])", re.IGNORECASE)


_EXPAND_PRONOUN: Final = (
    {short: full for full, short in _PRONOUN.items() if not short.endswith(("'s", "'d"))}
    | {"let's": "let us"}
    | {f"{who}'ve": f"{who} have" for who in ("I", "you", "we", "they")}
)
# Whether "it's" is "it is" or "it has" shows only in what follows.
_EXPAND_IS: Final = re.compile(
    r"\b(he|she|it|there|that|what|where|who)['’]s(?= (?:a|an|the|not|very|so|too|in|on|at|really|"
    r"why|what|how|no|always|"
    r"\w+(?<!e)ing|important|good|hard|easy|true)\b)",
    re.IGNORECASE,
)
_CONTRACT_NOT: Final = _table_regex(list(_CONTRACTED))
_EXPAND_NOT: Final = _table_regex(list(_EXPANDED))
# A pronoun at the end of a phrase cannot carry a contraction ("that is", "as good as it is").
_CONTRACT_PRONOUN: Final = re.compile(
    _table_regex(list(_PRONOUN)).pattern + r"(?= [a-z])(?! (?:now|too|also|soon)\b)(?<! that is)",
    re.IGNORECASE,
)
_RELATIVE_THAT: Final = re.compile(r"(?<=\w) that is\b")


# Question tags do not expand, and a contraction before a capital belongs to a title.
_FIXED: Final = re.compile(
    r"n't (?:you|he|she|it|they|we|I|there)\b|(?<!^)\b(?:It|I|That|He|She|We|You|Don)'\w+ [A-Z]|"
    r"^It's [A-Z]"
)


def _cased(old: str, new: str) -> str:
    return capitalise(new) if old[:1].isupper() else new


def contractions(sentence: Sentence) -> Iterator[tuple[str, str]]:
    """Contracts or expands auxiliaries and "not".

    Args:
        sentence: The parsed sentence.

    Yields:
        (rewording, kind) pairs; the kind is "contraction" or "expansion".
    """
    body = sentence.body.replace("’", "'")
    if _FIXED.search(body):
        return
    if not sentence.question or not re.match(r"\w+n't\b", body):
        expanded = _EXPAND_NOT.sub(lambda m: _cased(m[0], _EXPANDED[m[0].lower()]), body)
        yield assemble(sentence, expanded), "expansion"
    full = _EXPAND_IS.sub(r"\1 is", body)
    for short, long in _EXPAND_PRONOUN.items():
        full = re.sub(rf"(?<!\w){short}(?!\w)", long, full)
        full = re.sub(rf"(?<!\w){capitalise(short)}(?!\w)", capitalise(long), full)
    yield assemble(sentence, full), "expansion"
    contracted = _CONTRACT_NOT.sub(lambda m: _cased(m[0], _CONTRACTED[m[0].lower()]), body)
    yield assemble(sentence, contracted), "contraction"
    yield assemble(sentence, _HAVE.sub(r"\1've", body)), "contraction"
    lowered = {key.lower(): value for key, value in _PRONOUN.items()}
    if not _RELATIVE_THAT.search(body):
        short_form = _CONTRACT_PRONOUN.sub(lambda m: _cased(m[0], lowered[m[0].lower()]), body)
        yield assemble(sentence, short_form), "contraction"
