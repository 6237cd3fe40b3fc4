"""Rewordings of samples: the data's own, else a rewriter's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from saledit.data.memo import Memo
from saledit.data.spool import groups_in
from saledit.records import Record, Sample

_CHUNK = 4096  # records at a time


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
) -> Sequence[tuple[Sample, ...]]:
    """Rewordings of records: the data's own where there are any, else the rewriter's.

    Args:
        records: failures, or pass samples that failures are made of.
        limit: rewordings kept of each.
        rewriter: makes them; None leaves records without their own bare.
        folder: where the rewriter's work is remembered.

    Returns:
        For each record up to ``limit`` samples.
    """
    out = groups_in(folder)
    for start in range(0, len(records), _CHUNK):
        some = records[start : start + _CHUNK]
        bare = [record.sample for record in some if not record.rewordings]
        made = _made(bare, rewriter, folder) if rewriter is not None and bare and limit else {}
        out.extend((r.rewordings or made.get(r.sample.id, ()))[:limit] for r in some)
    return out


def _made(
    bare: Sequence[Sample], rewriter: Rewriter, folder: Path
) -> dict[str, tuple[Sample, ...]]:
    """Rewordings of samples that bring none, by id."""
    texts = Memo(folder, "rewordings", rewriter.name)(
        [sample.inputs for sample in bare],
        lambda missing: rewriter([bare[i] for i in missing]),
    )
    return {
        own.id: tuple(
            Sample(f"{own.id}#{n}", tuple(inputs), own.target, kind)
            for n, (inputs, kind) in enumerate(variants)
        )
        for own, variants in zip(bare, texts, strict=True)
    }
