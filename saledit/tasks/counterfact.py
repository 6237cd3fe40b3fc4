"""CounterFact's own records, with everything that belongs to an edit in one, as flat rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from saledit.errors import DataError
from saledit.tasks.fields import text_of, texts_of

REWRITE = "requested_rewrite"


def flattened(row: Mapping[str, Any], names: Mapping[str, str], where: str) -> Mapping[str, Any]:
    """A record as it comes from CounterFact (``requested_rewrite``), in a task's own fields.

    Args:
        row: any row; one without ``requested_rewrite`` is given back.
        names: the data's name of each field of the task.
        where: ``file:line``, for messages.

    Raises:
        DataError: a part of it is missing or of another kind.
    """
    if REWRITE not in row:
        return row
    wanted = row[REWRITE]
    if not isinstance(wanted, Mapping):
        raise DataError(f"{where}: expected an object in '{REWRITE}', got {type(wanted).__name__}")
    prompt, subject = text_of(wanted, "prompt", where), text_of(wanted, "subject", where)
    if prompt.count("{}") != 1:
        raise DataError(f"{where}: expected one '{{}}' in the prompt, got '{prompt}'")
    new, true = (_name(wanted, field, where) for field in ("target_new", "target_true"))
    near = texts_of(row, "neighborhood_prompts", where)
    number = row.get("id", row.get("case_id"))
    asked, answer = list(names)[:2]
    flat = {
        asked: prompt.replace("{}", subject),
        answer: new,
        "rival": true,
        "subject": subject,
        "rephrases": texts_of(row, "paraphrase_prompts", where),
        "locality": near,
        "locality_answer": [true] * len(near),
        "generation": texts_of(row, "generation_prompts", where),
        # Of other files there (attribute_snippets); records that bring them do so by our name.
        "references": texts_of(row, names["references"], where),
    }
    return {"id": None if number is None else str(number), **{names[k]: v for k, v in flat.items()}}


def _name(wanted: Mapping[str, Any], field: str, where: str) -> str:
    value = wanted.get(field)
    if not isinstance(value, Mapping):
        raise DataError(
            f"{where}: expected an object with 'str' in '{field}', got {type(value).__name__}"
        )
    return text_of(value, "str", where)
