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


def tight_groups(sizes: Sequence[int], a_run: int) -> list[list[int]]:
    """Positions in groups of similar size that are run one after another, as cheaply as can be.

    A run costs ``a_run``, and each of its rows as much as its largest: of few rows, or of rows that
    are alike, there is one group.

    Args:
        sizes: tokens of each row; at least one row.
        a_run: what a further run costs, in tokens.

    Example:
        >>> tight_groups([3, 9, 3, 8, 3], 4)
        [[0, 2, 4], [1, 3]]
        >>> tight_groups([3, 9, 3, 8, 3], 40)
        [[0, 1, 2, 3, 4]]
    """
    levels = sorted(set(sizes))
    counts = [sizes.count(level) for level in levels]
    # The least that the rows of the first i levels cost, and where their last group begins.
    best: list[tuple[float, int]] = [(0.0, 0)]
    for end in range(1, len(levels) + 1):
        best.append(
            min((best[i][0] + a_run + levels[end - 1] * sum(counts[i:end]), i) for i in range(end))
        )
    out: list[list[int]] = []
    end = len(levels)
    while end:
        first = best[end][1]
        own = {*levels[first:end]}
        out.append([i for i, size in enumerate(sizes) if size in own])
        end = first
    return out[::-1]
