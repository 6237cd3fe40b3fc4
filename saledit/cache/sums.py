"""Second moments of a bank's inputs: one sum over its shards, kept on disk beside them.

A matrix (D_in, D_in) in double precision may be gigabytes, so there is one a site and not one a
shard. The file tells which shards are in it and is replaced as a whole: each counts once, whenever
a process is killed and whoever else makes shards of the bank.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from saledit.cache.shards import Shard
from saledit.errors import ArtifactError
from saledit.files import keep_tensors, one_at_a_time

_NAME, _WHAT = "moments.safetensors", "second moments of a bank"


def open_sums(folder: Path, n: int) -> Shard:
    """Map the second moments of a bank, as ``RunningSums.tensors`` gives them.

    Args:
        folder: the bank's.
        n: its shards.

    Raises:
        ArtifactError: missing or damaged, or not of all shards.
    """
    sums = Shard(folder / _NAME, _WHAT)
    found = len(sums["shards"])
    if found < n:
        raise ArtifactError(
            f"{folder / _NAME}: expected {_WHAT} of {n} shards, got those of {found}; start again, "
            "and what is missing is made anew"
        )
    return sums


def summed(folder: Path) -> list[int]:
    """Numbers of the shards that are in a bank's sum; none where it is missing or damaged."""
    path = folder / _NAME
    sums = _read(path)
    if sums is None and path.exists():
        with one_at_a_time(path):  # another process may have replaced it just now
            sums = _read(path)
    return _shards_of(sums)


def sum_up(folder: Path, number: int, own: dict[str, Tensor]) -> None:
    """Add a shard to its bank's sum on disk; other processes wait meanwhile.

    Args:
        folder: the bank's.
        number: the shard's; nothing is done where it is in the sum.
        own: as ``RunningSums.tensors`` gives them; changed.

    Raises:
        JobError: the disk is full or the place cannot be written.
    """
    path = folder / _NAME
    with one_at_a_time(path):
        sums = _read(path)
        shards = _shards_of(sums)
        if number in shards:
            return
        if sums is not None and not torch.equal(sums["same_as"], own["same_as"]):
            sums, shards = None, []  # of another view of what is one input: all are added anew
        if sums is not None:
            add(own, sums)
        keep_tensors(path, own | {"shards": torch.tensor(sorted([*shards, number]))})


def add(own: dict[str, Tensor], more: Mapping[str, Tensor]) -> None:
    """Add the sums of a bank's part to those of another one, in place."""
    for name in own.keys() - {"same_as"}:
        own[name] += more[name]


def _read(path: Path) -> Shard | None:
    try:
        return Shard(path, _WHAT)
    except ArtifactError:
        return None


def _shards_of(sums: Shard | None) -> list[int]:
    return [] if sums is None else sums["shards"].tolist()
