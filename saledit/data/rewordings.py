"""Rewordings of samples: the data's own, else a rewriter's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from saledit.data.memo import Memo
from saledit.records import Record, Sample


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
