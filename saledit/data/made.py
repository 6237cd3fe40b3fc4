"""Failures made for training, beside the model's own.

A model's own failures are few, and an editor that meets each a dozen times learns them by heart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from saledit.models import TaskModel
from saledit.records import Sample
from saledit.tasks.base import Task


@dataclass(frozen=True, slots=True)
class Made:
    """A made failure.

    Attributes:
        sample: with the answer that it is to have.
        rewordings: of it.
        apart: position of the pass sample that never stands beside it; -1 for none.
    """

    sample: Sample
    rewordings: tuple[Sample, ...]
    apart: int


def counterfactual(
    base: TaskModel, task: Task, passing: Sequence[Sample], groups: Sequence[tuple[Sample, ...]]
) -> Iterator[Made]:
    """Pass samples with every other answer of a classifier for a target.

    Args:
        base: the task model.
        task: knows the other answers.
        passing: the first pass samples.
        groups: rewordings of each.
    """
    return (
        Made(_retarget(sample, answer), tuple(_retarget(s, answer) for s in group), i)
        for i, (sample, group) in enumerate(zip(passing, groups, strict=True))
        for answer in task.other_answers(base, sample.target)
    )


def _retarget(sample: Sample, answer: str) -> Sample:
    return replace(sample, id=f"{sample.id}~{answer}", target=answer)


def reworded(
    fail: Sequence[Sample], groups: Sequence[tuple[Sample, ...]], own: Sequence[int]
) -> Iterator[Made]:
    """Rewordings as failures: what they reword, and its other rewordings, then reword them.

    Args:
        fail: failures.
        groups: rewordings of each.
        own: for each failure the pass sample that never stands beside it, see ``Made``; () for
            none at all.

    Returns:
        First one rewording of every failure, then a second one, and so on.
    """
    return (
        Made(group[j], (sample, *group[:j], *group[j + 1 :]), own[i] if own else -1)
        for j in range(max(map(len, groups), default=0))
        for i, (sample, group) in enumerate(zip(fail, groups, strict=True))
        if j < len(group)
    )
