"""What the task model answers to the records of a split, remembered on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from saledit.data.memo import Memo
from saledit.models import TaskModel
from saledit.records import TEXT, Answer, Sample
from saledit.tasks.answering import answers
from saledit.tasks.base import Task, task_settings

_SCHEMA = 4  # of remembered answers


class Asked:
    """Asks the model what it was not asked before.

    Args:
        base: the task model.
        task: says what a right answer is.
        folder: where the memo is.
        progress: called with the number of samples asked so far.
    """

    def __init__(
        self, base: TaskModel, task: Task, folder: Path, progress: Callable[[int], object]
    ) -> None:
        self._base, self._task, self._progress = base, task, progress
        context = [_SCHEMA, base.reading, task.name, task_settings(task)]
        self._memo = Memo(folder, "answers", context, base.weights.is_divided)
        self._done = 0

    def __call__(self, samples: Sequence[Sample]) -> list[Answer]:
        """An answer to each sample; of a passage nothing is asked."""
        asked = [i for i, sample in enumerate(samples) if sample.kind != TEXT]

        def compute(missing: list[int]) -> list[tuple[str, bool, float, bool]]:
            new = [samples[asked[i]] for i in missing]
            found = answers(
                self._base, self._task, new,
                progress=lambda done: self._progress(self._done + done),
            )  # fmt: skip
            return [(a.text, a.right, a.f1, a.ended) for a in found]

        questions = [[*samples[i].inputs, samples[i].target, *samples[i].accepted] for i in asked]
        out = [Answer(sample.target, True, 1.0) for sample in samples]
        for i, said in zip(asked, self._memo(questions, compute), strict=True):
            out[i] = Answer(*said)
        self._done += len(samples)
        self._progress(self._done)
        return out
