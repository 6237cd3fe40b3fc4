"""Prompts with several answers of which one is right: what a model can do beside what is edited."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from saledit.data.sources import load_rows
from saledit.errors import DataError
from saledit.tasks.fields import text_of, texts_of


@dataclass(frozen=True, slots=True)
class Choice:
    """A prompt and the answers that stand against each other.

    Attributes:
        id: where it stands.
        kind: what is asked for, e.g. "sentiment".
        prompt: the whole text that the model is given.
        answers: each as it goes on behind the prompt; the first one is right.
    """

    id: str
    kind: str
    prompt: str
    answers: tuple[str, ...]


def load_choices(source: str, limit: int = 0) -> list[Choice]:
    """Read a data file whose records have ``prompt``, ``choices``, ``answer`` and ``kind``.

    Args:
        source: as in ``load_rows``.
        limit: records at most, drawn from all; 0 for all.

    Raises:
        DataError: a record that is no choice.
    """
    return [_choice(row, where) for where, row in load_rows(source, limit=limit)]


def _choice(row: Mapping[str, Any], where: str) -> Choice:
    prompt, answer = text_of(row, "prompt", where), text_of(row, "answer", where)
    choices = texts_of(row, "choices", where)
    if len(set(choices)) < 2 or answer not in choices:
        raise DataError(
            f"{where}: expected at least two 'choices' with the 'answer' among them, got "
            f"'{answer}' and {len(set(choices))}; give all that may be answered"
        )
    others = [choice for choice in dict.fromkeys(choices) if choice != answer]
    return Choice(where, text_of(row, "kind", where), prompt, (answer, *others))
