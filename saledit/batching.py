"""Batches of samples of similar length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from saledit.models import TaskModel
from saledit.records import Sample
from saledit.tasks.base import Encoded, Task


@dataclass(frozen=True, slots=True)
class TextBatch:
    """A batch of samples of similar length: their positions and their encoding, by the model."""

    index: list[int]
    encoded: Encoded


def batches_by_length(
    task: Task, base: TaskModel, samples: Sequence[Sample], batch_tokens: int
) -> list[TextBatch]:
    """Encode samples in batches of similar length, so that little is spent on padding.

    Args:
        task: encodes them.
        base: whose tokenizer to use.
        samples: the samples.
        batch_tokens: padded tokens a batch may hold.

    Returns:
        The batches; together their ``index`` covers every sample once.
    """
    return [
        TextBatch(index, task.encode(base, [samples[i] for i in index]).to(base.device))
        for index in by_length([size(sample) for sample in samples], batch_tokens)
    ]


def size(sample: Sample) -> int:
    """About how many tokens a sample has: characters over 3 bound those of most texts."""
    return sum(map(len, (*sample.inputs, sample.target))) // 3 + 8


def by_length(sizes: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Positions in batches of similar size; a rare overrun costs memory only."""
    order = sorted(range(len(sizes)), key=sizes.__getitem__)
    out, i = [], 0
    while i < len(order):
        n = 1
        while i + n < len(order) and (n + 1) * sizes[order[i + n]] <= batch_tokens:
            n += 1
        out.append(order[i : i + n])
        i += n
    return out
