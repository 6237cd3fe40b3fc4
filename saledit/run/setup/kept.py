"""Pass samples that are kept beside an editor."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import torch

from saledit.artifact import HELD
from saledit.errors import ArtifactError
from saledit.files import write_jsonl
from saledit.records import Sample
from saledit.run.setup.prepare import Prepared

CHECK = "check.jsonl"
_CHECK_SAMPLES = 300


def write_kept(prepared: Prepared, folder: Path) -> None:
    """Keep some pass samples beside the editor.

    ``fix`` checks its edits on those of the validation part; an editor may look at those of the
    training part.
    """
    task = prepared.task
    checked = prepared.validation.passing[:_CHECK_SAMPLES]
    for name, samples in ((CHECK, checked), (HELD, held_samples(prepared))):
        write_jsonl(folder / name, [task.row(sample) for sample in _apart(samples)])


def kept_check(folder: Path) -> str:
    """Where a run keeps what ``fix`` checks its edits on.

    Raises:
        ArtifactError: the file is gone.
    """
    path = folder / CHECK
    if not path.exists():
        raise ArtifactError(
            f"{path}: expected the samples that fit kept to check fixes by, got no file; name a "
            "data file of records to keep right (--check)"
        )
    return str(path)


def _apart(samples: Iterable[Sample]) -> Iterator[Sample]:
    """Samples with ids of their own: those of two sources may be alike."""
    seen: set[str] = set()
    for sample in samples:
        name, n = sample.id, 1
        while name in seen:
            n += 1
            name = f"{sample.id}~{n}"
        seen.add(name)
        yield sample if n == 1 else replace(sample, id=name)


def held_samples(prepared: Prepared) -> list[Sample]:
    """Pass samples of the training part, drawn from all of it."""
    passing, config = prepared.train.passing, prepared.config
    draws = torch.Generator().manual_seed(config.seed)
    order = torch.randperm(len(passing), generator=draws)[: config.editor.held]
    return [passing[i] for i in order.tolist()]
