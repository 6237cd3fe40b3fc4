"""Pass, fail and adapt: what the task model itself gets right and wrong."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from saledit.batching import batches_by_length
from saledit.errors import DataError
from saledit.files import read_json, write_json
from saledit.models import TaskModel
from saledit.records import Record, Sample
from saledit.tasks.base import Task, task_settings

_SCHEMA = 1


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
    """

    key: str
    failures: int
    passes: int
    rewordings: int


@dataclass(frozen=True, slots=True)
class Part:
    """One side of a split.

    Attributes:
        fail: samples that the task model answers wrongly.
        adapt: for each of them its rewordings, possibly none.
        passing: samples that the task model answers rightly.
    """

    fail: tuple[Sample, ...]
    adapt: tuple[tuple[Sample, ...], ...]
    passing: tuple[Sample, ...]

    def counts(self) -> dict[str, object]:
        """Sizes, and the kinds of the rewordings."""
        kinds = Counter(sample.kind for group in self.adapt for sample in group)
        return {
            "fail": len(self.fail),
            "adapt": sum(kinds.values()),
            "adapt_kinds": dict(sorted(kinds.items())),
            "pass": len(self.passing),
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
) -> Part:
    """Run the task model over records and sort them into pass, fail and adapt.

    The result is cached by everything it depends on.

    Args:
        base: the task model.
        task: the task.
        records: the records, none of them seen in fine-tuning.
        limits: sizes.
        rewriter: makes rewordings of failures that bring none; None for no rewordings.
        folder: where parts are cached.

    Returns:
        The part.

    Raises:
        DataError: the model makes no mistake, or nothing but mistakes.
    """
    key = _key(base, task, records, limits, rewriter)
    path = folder / f"part-{key}.json"
    if path.exists():
        return _load(path)
    right = is_right(base, task, [record.sample for record in records])
    failing = [r for r, ok in zip(records, right, strict=True) if not ok][: limits.failures]
    passing = [r.sample for r, ok in zip(records, right, strict=True) if ok][: limits.passes]
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
    adapt = adapt_samples(failing, limits.rewordings, rewriter)
    part = Part(tuple(record.sample for record in failing), adapt, tuple(passing))
    write_json(path, {"schema": _SCHEMA, **asdict(part)})
    return part


def adapt_samples(
    records: Sequence[Record], limit: int, rewriter: Rewriter | None
) -> tuple[tuple[Sample, ...], ...]:
    """Rewordings of records: the data's own where there are any, else the rewriter's.

    Args:
        records: the failures.
        limit: rewordings kept of each.
        rewriter: makes them; None leaves records without their own bare.

    Returns:
        For each record up to ``limit`` samples.
    """
    bare = [i for i, record in enumerate(records) if not record.rewordings]
    made: dict[int, tuple[Sample, ...]] = {}
    if rewriter is not None and bare and limit:
        texts = rewriter([records[i].sample for i in bare])
        for i, variants in zip(bare, texts, strict=True):
            own = records[i].sample
            made[i] = tuple(
                Sample(f"{own.id}#{n}", inputs, own.target, kind)
                for n, (inputs, kind) in enumerate(variants)
            )
    return tuple((record.rewordings or made.get(i, ()))[:limit] for i, record in enumerate(records))


def _key(
    base: TaskModel,
    task: Task,
    records: Sequence[Record],
    limits: Limits,
    rewriter: Rewriter | None,
) -> str:
    digest = hashlib.blake2b(digest_size=16)
    name = None if rewriter is None else rewriter.name
    # No weight holds the label names, yet they decide what is right.
    model = [base.fingerprint, base.labels]
    head = [_SCHEMA, model, task.name, task_settings(task), asdict(limits), name]
    digest.update(json.dumps(head, sort_keys=True).encode())
    for record in records:
        digest.update(json.dumps(asdict(record)).encode())
    return digest.hexdigest()


def _load(path: Path) -> Part:
    value = read_json(path, "a cached split; remove the file to make it anew")

    def sample(v: dict[str, Any]) -> Sample:
        return Sample(v["id"], tuple(v["inputs"]), v["target"], v["kind"])

    return Part(
        tuple(map(sample, value["fail"])),
        tuple(tuple(map(sample, group)) for group in value["adapt"]),
        tuple(map(sample, value["passing"])),
    )
