"""What a model answers, in words: labels of a classifier, free generation of text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor

from saledit.delta import Edits
from saledit.forward.scoring import forward
from saledit.models import TaskModel
from saledit.overlay import applied
from saledit.records import Answer, Sample
from saledit.tasks.base import LabelTask, Task, in_labels, in_words
from saledit.tasks.batching import batches_by_length
from saledit.tasks.decoding import generate

_CHUNK = 256  # samples between two reports


@torch.no_grad()
def answers(
    base: TaskModel,
    task: Task,
    samples: Sequence[Sample],
    edits: Edits | None = None,
    progress: Callable[[int], object] = lambda _done: None,
) -> list[Answer]:
    """Ask a model.

    Args:
        base: the task model.
        task: says what a right answer is.
        samples: questions with their right answers.
        edits: one edit, applied in doing so.
        progress: called with the number of answers so far.

    Returns:
        An answer to each sample.
    """
    if in_labels(task):
        task.targets(base, samples)  # what it cannot be asked is told before it is
    out: list[Answer] = []
    for start in range(0, len(samples), _CHUNK):
        chunk = samples[start : start + _CHUNK]
        if in_words(task):
            out += generate(base, task, chunk, edits)
        elif in_labels(task):
            out += _labels(base, task, chunk, edits)
        progress(len(out))
    return out


def _labels(
    base: TaskModel, task: LabelTask, samples: Sequence[Sample], edits: Edits | None
) -> list[Answer]:
    found: dict[int, Answer] = {}
    with ExitStack() as stack:
        if edits is not None:
            stack.enter_context(applied(base.model, edits))
        for batch in batches_by_length(task, base, samples, base.pass_tokens):
            logits = forward(base, batch.encoded.inputs)
            own = labels(base, task, logits, batch.encoded.targets)
            found |= dict(zip(batch.index, own, strict=True))
    return [found[i] for i in range(len(samples))]


def labels(base: TaskModel, task: LabelTask, logits: Tensor, targets: Tensor) -> list[Answer]:
    """A classifier's answers of logits (B, C) to samples of right labels (B,)."""
    right = task.correct(logits, targets).tolist()
    words = task.label_names(base, logits.argmax(-1))
    return [Answer(word, ok, float(ok)) for word, ok in zip(words, right, strict=True)]
