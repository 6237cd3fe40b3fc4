"""Pass, fail and adapt: what the task model itself gets right and wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch

from saledit.batching import batches_by_length
from saledit.data.memo import Memo
from saledit.errors import DataError
from saledit.models import TaskModel
from saledit.records import Record, Sample
from saledit.tasks.base import Task, task_settings


class Rewriter(Protocol):
    """Makes rewordings.

    Attributes:
        name: says what it does and how, for cache keys.
    """

    name: str

    def __call__(
        self, samples: Sequence[Sample]
    ) -> Sequence[Sequence[tuple[tuple[str, ...], str]]]:
        """(inputs, kind) pairs for each sample."""
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes of a part.

    Attributes:
        key: the configuration key that the records came from, for messages.
        failures: failures at most.
        passes: pass samples at most.
        rewordings: rewordings of each failure at most.
        counterfactual: pass samples at most that counterfactual failures are made of.
    """

    key: str
    failures: int
    passes: int
    rewordings: int
    counterfactual: int = 0


@dataclass(frozen=True, slots=True)
class Part:
    """One side of a split.

    Attributes:
        fail: samples that the task model answers wrongly.
        adapt: for each of them its rewordings, possibly none.
        passing: samples that the task model answers rightly.
        made: counterfactual failures: pass samples with another answer for a target. There
            are far more of them than of real failures, so an editor in training meets
            texts that it has not learned by heart. Nothing is ever measured on them.
        made_adapt: for each of them its rewordings.
        made_from: for each of them the position of its pass sample.
    """

    fail: tuple[Sample, ...]
    adapt: tuple[tuple[Sample, ...], ...]
    passing: tuple[Sample, ...]
    made: tuple[Sample, ...] = ()
    made_adapt: tuple[tuple[Sample, ...], ...] = ()
    made_from: tuple[int, ...] = ()

    def counts(self) -> dict[str, object]:
        """Sizes, and the kinds of the rewordings."""
        kinds = Counter(sample.kind for group in self.adapt for sample in group)
        return {
            "fail": len(self.fail),
            "adapt": sum(kinds.values()),
            "adapt_kinds": dict(sorted(kinds.items())),
            "pass": len(self.passing),
            "counterfactual": len(self.made),
        }


@torch.no_grad()
def is_right(base: TaskModel, task: Task, samples: Sequence[Sample]) -> list[bool]:
    """Whether the task model answers each sample right."""
    right = [False] * len(samples)
    for batch in batches_by_length(task, base, [s.inputs for s in samples], 4096):
        targets = task.targets(base, [samples[i].target for i in batch.index])
        correct = task.correct(base.model(**batch.inputs).logits, targets)
        for i, ok in zip(batch.index, correct.tolist(), strict=True):
            right[i] = ok
    return right


def make_part(
    base: TaskModel,
    task: Task,
    records: Sequence[Record],
    limits: Limits,
    rewriter: Rewriter | None,
    folder: Path,
    learned: Sequence[Record] = (),
) -> Part:
    """Run the task model over records and sort them into pass, fail and adapt.

    What the model answers and how a text is reworded is remembered on disk, so a split
    with another seed or other limits is made of what is known.

    Args:
        base: the task model.
        task: the task.
        records: the records, none of them seen in fine-tuning.
        limits: sizes.
        rewriter: makes rewordings of failures that bring none; None for no rewordings.
        folder: where the memos are.
        learned: records of the fine-tuning, for training alone. The right answers among them
            fill up the pass samples where the records have too few: a KL term that sees
            every pass sample a hundred times is met by learning them by heart.

    Returns:
        The part.

    Raises:
        DataError: the model makes no mistake, or nothing but mistakes.
    """
    right = _rightness(base, task, [record.sample for record in records], folder)
    failing = [r for r, ok in zip(records, right, strict=True) if not ok][: limits.failures]
    passing = [r for r, ok in zip(records, right, strict=True) if ok][: limits.passes]
    if not failing:
        raise DataError(
            f"{limits.key}: expected samples that {base.name} answers wrongly, got none among "
            f"{len(records)}: the model makes no mistake here; give other data or another model"
        )
    if not passing:
        raise DataError(
            f"{limits.key}: expected samples that {base.name} answers rightly, got none among "
            f"{len(records)}; check that its labels mean what the data's do"
        )
    sources = passing[: limits.counterfactual]
    passing += _right_ones(base, task, learned, folder)[: limits.passes - len(passing)]
    groups = adapt_samples([*failing, *sources], limits.rewordings, rewriter, folder)
    made = [
        (i, answer)
        for i, record in enumerate(sources)
        for answer in task.other_answers(base, record.sample.target)
    ]
    return Part(
        tuple(record.sample for record in failing),
        groups[: len(failing)],
        tuple(record.sample for record in passing),
        tuple(_retarget(sources[i].sample, answer) for i, answer in made),
        tuple(tuple(_retarget(s, a) for s in groups[len(failing) + i]) for i, a in made),
        tuple(i for i, _ in made),
    )


def _right_ones(
    base: TaskModel, task: Task, records: Sequence[Record], folder: Path
) -> list[Record]:
    right = _rightness(base, task, [record.sample for record in records], folder)
    return [record for record, ok in zip(records, right, strict=True) if ok]


def _rightness(base: TaskModel, task: Task, samples: Sequence[Sample], folder: Path) -> list[bool]:
    # No weight holds the label names, yet they decide what is right.
    context = [base.fingerprint, base.labels, task.name, task_settings(task)]
    return Memo(folder, "right", context)(
        [[*sample.inputs, sample.target] for sample in samples],
        lambda missing: is_right(base, task, [samples[i] for i in missing]),
    )


def _retarget(sample: Sample, answer: str) -> Sample:
    return replace(sample, id=f"{sample.id}~{answer}", target=answer)


def adapt_samples(
    records: Sequence[Record], limit: int, rewriter: Rewriter | None, folder: Path
) -> tuple[tuple[Sample, ...], ...]:
    """Rewordings of records: the data's own where there are any, else the rewriter's.

    Args:
        records: failures, or pass samples that failures are made of.
        limit: rewordings kept of each.
        rewriter: makes them; None leaves records without their own bare.
        folder: where the rewriter's work is remembered.

    Returns:
        For each record up to ``limit`` samples.
    """
    bare = [record.sample for record in records if not record.rewordings]
    made: dict[str, tuple[Sample, ...]] = {}
    if rewriter is not None and bare and limit:
        texts = Memo(folder, "rewordings", rewriter.name)(
            [sample.inputs for sample in bare],
            lambda missing: rewriter([bare[i] for i in missing]),
        )
        for own, variants in zip(bare, texts, strict=True):
            made[own.id] = tuple(
                Sample(f"{own.id}#{n}", tuple(inputs), own.target, kind)
                for n, (inputs, kind) in enumerate(variants)
            )
    return tuple((r.rewordings or made.get(r.sample.id, ()))[:limit] for r in records)
