"""A memo on disk: answers to questions that are asked again and again, in other orders.

Splits change with the seed and with the limits; whether the model answers a text right
and how a text is reworded do not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from saledit import distributed
from saledit.files import Store


class Memo:
    """Values that JSON can hold, by a hash of their question.

    Args:
        folder: where the memo's file is.
        topic: begins the file's name.
        context: everything besides the question that an answer depends on.
        in_step: answers come from a model that is divided between the processes of the run.
    """

    def __init__(self, folder: Path, topic: str, context: object, in_step: bool = False) -> None:
        self._in_step = in_step
        self._path = folder / f"{topic}-{_hash(context)}.sqlite"
        self._store = Store(self._path)

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
            ArtifactError: a folder has the name of the memo's file.
            JobError: the disk is full.
        """
        keys = [_hash(question) for question in questions]
        # What is known is up to the first of the processes; each answers its share of the rest.
        known = self._known(keys)
        if all(key in known for key in keys):
            return [known[key] for key in keys]
        with distributed.one_run_at_a_time(self._path, in_step=True):
            # What another run has learned since.
            known |= self._known(keys)
            new = [i for i, key in enumerate(keys) if key not in known]
            answers = distributed.map_shares(new, compute, self._in_step)
            answers = distributed.broadcast(answers) if self._in_step else answers
            found = dict(zip((keys[i] for i in new), answers, strict=True))
            if distributed.is_main() and found:
                self._store.keep(found)
        known |= found
        return [known[key] for key in keys]

    def _known(self, keys: Sequence[str]) -> dict[str, Any]:
        return distributed.broadcast(self._store.find(keys) if distributed.is_main() else {})


def _hash(value: object) -> str:
    text = json.dumps(value, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
