"""Sentences as the rewriting rules see them: words with neighbours, case, articles, negation."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from saledit.data.paraphrase.facts import negations
from saledit.data.paraphrase.wordclasses import DEMONYMS, OPENERS, PERSON_NOUNS, words

_TAIL: Final = re.compile(r"[.!?]+$")
_NOT_SIMPLE: Final = re.compile(r"[.!?;:]\s+\S|[\"“”()\[\]]|--| - ")
# Moving words around these shifts what they apply to.
_SCOPE: Final = re.compile(
    r"\b(?:only|just|even|merely|solely|exclusively|also|all|every|everyone|everybody|everything|"
    r"each|any|anyone|anybody|anything|most|few|fewer|less|more|many|both|either|always|"
    r"ever|yet|too|entirely|completely|mostly|except)\b",
    re.IGNORECASE,
)
_QUESTION_START: Final = re.compile(
    r"(?:do|does|did|is|are|was|were|can|could|will|would|should|has|have|had|who|whom|whose|"
    r"what|why|how|which|let's|let|please|say|tell|follow|take|go|come|get|give|put|make|look|stop|"
    r"keep|read|watch|try|send|visit|remember|be|turn|leave|wait|find|consider|imagine|donate|"
    r"enter|click|join|check|add|don't)\b",
    re.IGNORECASE,
)
_CONNECTORS: Final = words("of the and de von van in to for a on with at")
_FINITE: Final = words("is are was were has have had")
RELATIVE: Final = re.compile(
    r"\b(?:that|who|which|whose|where|when|while|because|after|before)\b", re.I
)
# After these the "the" is an ordinary article; otherwise it may be part of a title.
_INSTITUTION: Final = re.compile(
    r"The (?:[A-Z][\w.&-]* (?:of )?)*(?:[A-Z]{2,}|Center|University|War|Army|Guard|Empire|States|"
    r"Association|Museum|Academy|Republic|Kingdom|Islands?|Committee|Department|Institute|League|"
    r"Party|Church|Awards?|Court|Senate|Congress|Government|Bank|River|Revolution|Soviet|Union)\b"
)
_COMMON_ENDING: Final = re.compile(r"(?:s|ing|ly|[ts]ion|ity|ness|ment|ism|ture|[ae]nce)$")
_SILENT_H: Final = re.compile(r"(?:hour|honest|honou?r|heir)", re.IGNORECASE)
_CONSONANT_VOWEL: Final = re.compile(
    r"(?:uni(?!n|m)|u[rst][aeiu]|eu|one\b|once\b|ewe)", re.IGNORECASE
)
_LETTER_AN: Final = frozenset("AEFHILMNORSX")
_ARTICLE: Final = re.compile(r"\b(an?)(?= +([A-Za-z0-9]+))", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence with the facts the rules ask for.

    Attributes:
        raw: The text as given.
        body: The text without surrounding blanks and final punctuation.
        end: The final punctuation, possibly empty.
        negated: Whether a negation word occurs.
        question: Whether it is a question or a command rather than a statement.
        simple: Whether it is one clause chain without quotes, brackets or a second sentence.
        scoped: Whether a quantifier or focus word makes moving words unsafe.
    """

    raw: str
    body: str
    end: str
    negated: bool
    question: bool
    simple: bool
    scoped: bool

    @property
    def movable(self) -> bool:
        """Whether rules that move words may touch the sentence at all."""
        return self.simple and not (self.negated or self.question or self.scoped)


def parse(text: str) -> Sentence:
    """Splits off the final punctuation and computes the flags of a sentence.

    Args:
        text: The sentence.

    Returns:
        The parsed sentence.
    """
    stripped = text.strip()
    match = _TAIL.search(stripped)
    end = match.group(0) if match else ""
    body = stripped[: len(stripped) - len(end)].rstrip()
    return Sentence(
        raw=text,
        body=body,
        end=end,
        negated=bool(negations(body)),
        question="?" in end or bool(_QUESTION_START.match(body)),
        simple=not _NOT_SIMPLE.search(drop_title_brackets(body)),
        scoped=bool(_SCOPE.search(body)),
    )


def drop_title_brackets(text: str) -> str:
    """Removes "(film)"-like tags after a name; they belong to the name, not to the clause."""
    return re.sub(r"(?<=\w) \([\w ]+\)", "", text)


def capitalise(text: str) -> str:
    """Upper-cases the first letter."""
    return text[:1].upper() + text[1:]


def decapitalise(text: str) -> str | None:
    """Lower-cases the first letter where it is a capital only because it opens the sentence.

    Args:
        text: A phrase that stood at the start of a sentence.

    Returns:
        The phrase as it reads inside a sentence, or None when the first word may be a common word
        or a name and nothing tells which.
    """
    tokens = text.split()
    if not tokens or text[:1].islower() or text[:1].isdigit():
        return text
    first = tokens[0].strip(",")
    if first in ("I", "I'm", "I've", "I'd", "I'll"):
        return text
    lowered = text[:1].lower() + text[1:]
    if first.lower().split("'")[0] in OPENERS:
        # "The Office" may be a title, "The Indian actor" is not.
        if len(tokens) < 2 or not tokens[1][:1].isupper() or tokens[1] in (*DEMONYMS, "I"):
            return lowered
        plain = next((word for word in tokens[1:] if word[0].islower()), "")
        if first in ("A", "An") and plain not in _CONNECTORS | _FINITE and plain:
            return lowered  # "A Dallas Cowboy player", unlike "A View to a Kill"
        if first == "The" and _INSTITUTION.match(text):
            return lowered
        return text if first in ("The", "A", "An", "No", "One") else lowered
    if first.lower() in PERSON_NOUNS:
        return lowered
    return text if is_name(text) or _opens_with_name(tokens) else None


def _opens_with_name(tokens: list[str]) -> bool:
    """Whether a clause starts with a proper name."""
    run = 1
    while run < len(tokens) and tokens[run] in _CONNECTORS:
        run += 1
    if run < len(tokens) and tokens[run][0].isupper():
        return True
    follower = tokens[1] if len(tokens) > 1 else ""
    verb = follower in _FINITE or re.fullmatch(r"[a-z]+ed|sat|went|ran|won|made|took", follower)
    return bool(verb) and not _COMMON_ENDING.search(tokens[0])


def is_name(phrase: str, *, singular: bool = False) -> bool:
    """Whether a phrase looks like a proper name.

    Args:
        phrase: A noun phrase, in the case it has inside its sentence or at its start.
        singular: Whether a singular verb follows, or the phrase stands inside the sentence; then
            a final -s does not make a lone capitalised word a plural ("Paris is").

    Returns:
        True for two or more capitalised words (short connectors and a bracketed tag allowed), or
        one capitalised word that does not look like a plural or an -ing form.
    """
    tokens = drop_title_brackets(phrase).replace(",", " ").split()
    if not tokens or not (tokens[0][0].isupper() or tokens[0][0].isdigit()):
        return False
    if len(tokens) == 1:
        word = tokens[0]
        common = ("ing", "ly") if singular else ("s", "ing", "ly")
        return not word.lower().endswith(common) and word.lower() not in OPENERS
    capital = [word for word in tokens if word[0].isupper() or word[0].isdigit()]
    loose = [word for word in tokens if word not in capital]
    if tokens[0].lower() in OPENERS and len(capital) < 2:
        return False
    return (
        tokens[-1] in capital and len(capital) >= 2 and all(word in _CONNECTORS for word in loose)
    )


def article(word: str) -> str:
    """The indefinite article a word takes.

    Args:
        word: The word that follows the article.

    Returns:
        "a" or "an".
    """
    if len(word) > 1 and word.isupper() and not word.isdigit():
        return "an" if word[0] in _LETTER_AN else "a"
    if _SILENT_H.match(word) or re.match(r"(?:8|11(?!\d)|18(?!\d))", word):
        return "an"
    if _CONSONANT_VOWEL.match(word):
        return "a"
    return "an" if word[:1].lower() in "aeiou" else "a"


def fix_articles(text: str, start: int, stop: int) -> str:
    """Corrects "a"/"an" just before or inside one changed span.

    Args:
        text: The text after a substitution.
        start: Where the changed span starts.
        stop: Where it ends.

    Returns:
        The text with the article that precedes a word of the span agreeing with that word.
    """

    def repair(match: re.Match[str]) -> str:
        old, word = match.group(1), match.group(2)
        if not start <= match.end() + 1 <= stop:
            return old
        right = article(word)
        return capitalise(right) if old[0].isupper() else right

    return _ARTICLE.sub(repair, text)


def assemble(sentence: Sentence, body: str) -> str:
    """Puts the first capital and the final punctuation of the original on a new body.

    Args:
        sentence: The sentence the body was made from.
        body: The reworded body.

    Returns:
        The finished rewording.
    """
    if sentence.body[:1].isupper():
        body = capitalise(body)
    return body + sentence.end


def inner_phrase(text: str, *, singular: bool = False) -> str | None:
    """Makes a short phrase from the start of a sentence fit inside one.

    Args:
        text: The phrase.
        singular: Whether a singular verb follows it, see ``is_name``.

    Returns:
        The phrase, or None when its case is unclear, it holds a clause, or it is long.
    """
    inner = text if singular and is_name(text, singular=True) else decapitalise(text)
    comma = "," in text and not is_name(text)
    if inner is None or comma or RELATIVE.search(text) or len(text.split()) > 9:
        return None
    return inner
