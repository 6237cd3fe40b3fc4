"""A memo on disk: answers to questions that are asked again and again, in other orders.

Splits change with the seed and with the limits; whether the model answers a text right
and how a text is reworded do not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from saledit import world
from saledit.errors import ArtifactError
from saledit.files import keep_json, kept_json, one_at_a_time


class Memo:
    """Values that JSON can hold, by a hash of their question.

    Args:
        folder: where the memo's file is.
        topic: begins the file's name.
        context: everything besides the question that an answer depends on.
    """

    def __init__(self, folder: Path, topic: str, context: object) -> None:
        self._path = folder / f"{topic}-{_hash(context)}.json"
        self._known: dict[str, Any] | None = None

    def __call__(
        self, questions: Sequence[object], compute: Callable[[list[int]], Sequence[Any]]
    ) -> list[Any]:
        """Answer questions, computing only those that were never asked.

        Args:
            questions: each one a value that JSON can hold.
            compute: answers those at the given positions, all in one call.

        Returns:
            The answers, in order.

        Raises:
            JobError: the disk is full.
        """
        known = self._read() if self._known is None else self._known
        keys = [_hash(question) for question in questions]
        # Processes of one run answer their share each; what is known is up to the first.
        if world.told(any(key not in known for key in keys)):
            with one_at_a_time(self._path) if world.is_main() else nullcontext():
                known |= self._read()  # what another run has learned since
                known |= world.told({key: known[key] for key in keys if key in known})
                new = world.told([i for i, key in enumerate(keys) if key not in known])
                if new:
                    found = world.spread(new, compute)
                    known |= zip((keys[i] for i in new), found, strict=True)
                    if world.is_main():
                        keep_json(self._path, known)
        elif any(key not in known for key in keys):  # the first process read later than this one
            known |= self._read()
        self._known = known
        return [known[key] for key in keys]

    def _read(self) -> dict[str, Any]:
        if not self._path.exists():
            return {}
        try:
            found = kept_json(self._path, "a memo of the split")
        except ArtifactError:  # it is a cache: what is damaged is made again
            return {}
        return found if isinstance(found, dict) else {}


def _hash(value: object) -> str:
    text = json.dumps(value, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
