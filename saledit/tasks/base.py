"""What a task has to say: encode texts, score logits, decide what is right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor

from saledit.models import TaskModel
from saledit.records import Record, Sample


class Task(Protocol):
    """The one definition of "right" for splits, training, tests and fixes.

    Attributes:
        name: as in the registry.
    """

    name: str

    def parse(self, row: Mapping[str, Any], where: str) -> Record:
        """Turn a row of a data file into a record.

        Args:
            row: the row's fields.
            where: ``file:line``, for messages.

        Raises:
            DataError: a field is missing or wrong.
        """
        ...

    def row(self, sample: Sample) -> dict[str, Any]:
        """The opposite of ``parse``: a sample as a row of a data file."""
        ...

    def encode(self, base: TaskModel, inputs: Sequence[tuple[str, ...]]) -> dict[str, Tensor]:
        """Tokenise texts into padded model inputs, (B, T) each."""
        ...

    def targets(self, base: TaskModel, answers: Sequence[str]) -> Tensor:
        """Right answers as numbers, (B,).

        Raises:
            DataError: the model has no such label.
        """
        ...

    def other_answers(self, base: TaskModel, answer: str) -> list[str]:
        """Answers that the model could give in this one's place."""
        ...

    def losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Negative log-likelihood (...) of the right answers, logits (..., C)."""
        ...

    def correct(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Whether each answer is right: bool (...)."""
        ...

    def answer(self, base: TaskModel, logits: Tensor) -> list[str]:
        """The model's answers in words, one a row of logits (B, C)."""
        ...


def task_settings(task: Task) -> dict[str, object]:
    """A task's settings, for cache keys."""
    return {k: v for k, v in sorted(vars(task).items()) if isinstance(v, str | int | tuple)}
