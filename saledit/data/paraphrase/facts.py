"""What a rewording must keep: negations, numbers and names."""

from __future__ import annotations

import re
from collections import Counter
from typing import Final

from saledit.data.paraphrase.wordclasses import OPENERS

WORD: Final = re.compile(r"[A-Za-z0-9$]+(?:['’.,:-][A-Za-z0-9]+)*(?:['’](?![A-Za-z]))?")
_NEGATION: Final = re.compile(
    r"(?<![\w'])(?:not|no|never|none|nobody|nothing|nowhere|neither|nor|without|cannot|hardly|"
    r"barely|scarcely|rarely|seldom|unable|incapable|fail(?:s|ed|ing)?|lack(?:s|ed|ing)?|"
    r"refuse[sd]?|den(?:y|ies|ied)|zero|no-one)(?![\w'])|n['’]t(?!\w)",
    re.IGNORECASE,
)


def negations(text: str) -> Counter[str]:
    """Counts the negation words of a text, contracted or not.

    Args:
        text: Any text.

    Returns:
        How often each negation occurs; "n't" and the "not" of "cannot" count as "not".
    """
    found = (match.group(0).lower().replace("’", "'") for match in _NEGATION.finditer(text))
    return Counter("not" if word in ("n't", "cannot") else word for word in found)


def numbers(text: str) -> Counter[str]:
    """Counts the digit strings of a text."""
    return Counter(re.findall(r"\d+(?:[.,:]\d+)*", text))


def names(text: str) -> Counter[str]:
    """Counts the capitalised words of a text other than sentence openers.

    Args:
        text: Any text.

    Returns:
        How often each capitalised word occurs, without a possessive ending. A capital that only
        marks the start of a sentence (a determiner, pronoun or common opener) is left out.
    """
    found: Counter[str] = Counter()
    for match in re.finditer(r"[^\W\d_][\w-]*", text):
        word = match.group(0)
        if word[0].isupper() and word.lower() not in OPENERS:
            found[word] += 1
    return found


def keeps_facts(old: str, new: str) -> bool:
    """Whether a rewording kept every negation, number and mid-sentence name.

    Args:
        old: The original sentence.
        new: Its rewording.

    Returns:
        False where a negation or number was added or lost, or a name was lost.
    """
    if negations(old) != negations(new) or numbers(old) != numbers(new):
        return False
    first = WORD.search(old.strip())
    inner = names(old.strip()[first.end() :] if first else old)
    return not inner - names(new)
