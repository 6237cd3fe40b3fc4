"""Where in a text its subject is, as tokens."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from transformers import BatchEncoding

from saledit.errors import DataError
from saledit.records import Sample

#: Letters of scripts that put no space between words, or none before what is joined to a noun: Thai
#: to Burmese and Khmer, kana, Han and Hangul.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
    "\uf900-\ufaff\U00020000-\U000323af]"
)


def subject_of(row: Mapping[str, Any], field: str, texts: Sequence[str]) -> str:
    """A record's subject: the value of its field, of several the first that stands in its texts.

    A field of that name that holds no text says something else; then there is none.
    """
    value = row.get(field)
    values = value if isinstance(value, list) else [value]
    names = [name for name in values if isinstance(name, str) and name.strip()]
    return next((name for name in names if stands_in(name, texts)), next(iter(names), ""))


def stands_in(subject: str, texts: Sequence[str]) -> bool:
    """Whether a subject stands in one of these texts."""
    return any(find(text, subject) >= 0 for text in texts)


def find(text: str, subject: str) -> int:
    """Where a subject ends in a text, the position of its last character; -1 where it is not there.

    Where it stands several times it is the last one, which has read the most. Capitals count where
    it is found with them. A subject inside another word ("Mali" in "Somalia") is not meant, but in
    scripts where words are not set apart by spaces.
    """
    name = subject.strip()
    if not name:
        return -1
    for haystack, needle in ((text, name), (text.casefold(), name.casefold())):
        if len(haystack) != len(text):
            continue  # some letters fold into two
        at = haystack.rfind(needle)
        while at >= 0:
            end = at + len(needle)
            if not _goes_on(text, at - 1, at) and not _goes_on(text, end, end - 1):
                return end - 1
            at = haystack.rfind(needle, 0, end - 1)
    return -1


def _goes_on(text: str, outside: int, inside: int) -> bool:
    """Whether a word that ends inside goes on outside."""
    if not 0 <= outside < len(text):
        return False
    both = text[outside], text[inside]
    return all(map(str.isalnum, both)) and not any(map(_UNSPACED.match, both))


def check_subject(sample: Sample, texts: Sequence[str], where: str) -> None:
    """Refuse a sample that does not say what it is about.

    Args:
        sample: whose subject.
        texts: what it is looked for in.
        where: how messages call the sample.

    Raises:
        DataError: it has no subject, or none of the texts holds it.
    """
    if not sample.subject:
        raise DataError(
            f"{where}: expected a subject in its text, got none in '{' / '.join(texts)}'; name "
            "the field that holds it in task.fields.subject, or set editor.locate.at=last"
        )
    if not stands_in(sample.subject, texts):
        raise DataError(
            f"{where}: expected its subject '{sample.subject}' in its text, got "
            f"'{' / '.join(texts)}'; correct the subject, or set editor.locate.at=last"
        )


#: The first and the last token of something.
Span = tuple[int, int]


def span(encoded: BatchEncoding, row: int, texts: Sequence[str], sample: Sample) -> Span:
    """The tokens that hold the first and the last character of a sample's subject.

    Args:
        encoded: what the tokenizer made of the texts.
        row: which row of it.
        texts: the texts of that row, one or two.
        sample: whose subject.

    Raises:
        DataError: it has no subject, or the text does not hold it (it may have been cut off).
    """
    check_subject(sample, texts, sample.id)
    for sequence, text in reversed([*enumerate(texts)]):
        at = find(text, sample.subject)
        if at < 0:
            continue
        begin = at - len(sample.subject.strip()) + 1
        # The library's type says that there always is one; where a text was cut off there is none.
        ends: list[int | None] = [encoded.char_to_token(row, i, sequence) for i in (begin, at)]
        first, last = ends
        if first is not None and last is not None:
            return first, _last_of(encoded, row, last, at, sequence)
    raise DataError(
        f"{sample.id}: expected its subject '{sample.subject}' in what the model reads, got it "
        f"cut off: '{' / '.join(texts)}'; raise task.max_length, or set editor.locate.at=last"
    )


def _last_of(encoded: BatchEncoding, row: int, token: int, at: int, sequence: int) -> int:
    """The last of the tokens that hold a character, given the first.

    Tokens of bytes hold a part of it each ("ź" is two of them, a character of Han three).
    """
    sequences, spans = encoded.sequence_ids(row), encoded[row].offsets
    while token + 1 < len(spans):
        begin, end = spans[token + 1]
        if sequences[token + 1] != sequence or not begin <= at < end:
            break
        token += 1
    return token
