"""Shards: the files of a bank, mapped when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from torch import Tensor

from saledit.errors import ArtifactError
from saledit.files import kept_tensors, read_tensors

WHAT = "a shard of cached states"


class Shard(Mapping[str, Tensor]):
    """The tensors of one file. They were held against their seal; later they are only mapped.

    Args:
        path: the file.
        what: what it should be, for messages.

    Raises:
        ArtifactError: missing, broken, or changed since it was written.
    """

    def __init__(self, path: Path, what: str = WHAT) -> None:
        self._path, self._what = path, what
        self._tensors: dict[str, Tensor] | None = kept_tensors(path, what)[0]

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return self._path.stat().st_size

    def drop(self) -> None:
        """Give the mapped pages back."""
        self._tensors = None

    def _here(self) -> dict[str, Tensor]:
        if self._tensors is None:
            self._tensors = read_tensors(self._path, self._what)
        return self._tensors

    def __getitem__(self, name: str) -> Tensor:
        return self._here()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._here())

    def __len__(self) -> int:
        return len(self._here())


def open_shard(path: Path) -> Shard | None:
    """A shard; None where it is not there, or damaged: it is a cache, so it is built again."""
    try:
        return Shard(path)
    except ArtifactError:
        return None
