"""Batches of texts of similar length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from saledit.models import TaskModel
from saledit.tasks.base import Task


@dataclass(frozen=True, slots=True)
class TextBatch:
    """A batch of texts of similar length: their positions and their encoding."""

    index: list[int]
    inputs: dict[str, Tensor]


def batches_by_length(
    task: Task, base: TaskModel, inputs: Sequence[tuple[str, ...]], batch_tokens: int
) -> list[TextBatch]:
    """Encode texts in batches of similar length, so that little is spent on padding.

    Args:
        task: encodes them.
        base: whose tokenizer to use.
        inputs: the texts.
        batch_tokens: padded tokens a batch may hold.

    Returns:
        The batches; together their ``index`` covers every text once.
    """
    order = sorted(range(len(inputs)), key=lambda i: sum(map(len, inputs[i])))
    out, i = [], 0
    while i < len(order):
        # Characters over 3 bound the tokens of most texts; a rare overrun costs memory only.
        size = 1
        while i + size < len(order):
            longest = sum(map(len, inputs[order[i + size]])) // 3 + 8
            if (size + 1) * longest > batch_tokens:
                break
            size += 1
        index = order[i : i + size]
        out.append(TextBatch(index, task.encode(base, [inputs[j] for j in index])))
        i += size
    return out
