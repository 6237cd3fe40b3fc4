"""The second moments of a block's inputs over running text, on their way and on disk."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from saledit.cache.running import RunningSums
from saledit.errors import ArtifactError
from saledit.files import keep_tensors, kept_tensors
from saledit.site import Site


@dataclass(frozen=True, slots=True)
class Place:
    """How far a pass over text has come.

    Attributes:
        tokens: that are in the sums.
        texts: that are, in whole groups (texts of a group are run by their length).
        batches: that are, of the group behind those.
        is_whole: there is nothing to be added.
    """

    tokens: int = 0
    texts: int = 0
    batches: int = 0
    is_whole: bool = False


class BlockSums:
    """Second moments of some sites of a block, which all layers that have the block share.

    Args:
        path: where they are kept; what is there is taken up.
        sites: the sites.
        first_only: only the first token of each text counts.

    Attributes:
        place: how far they have come.
        sums: as ``RunningSums.tensors`` gives them; as they lie on disk.
    """

    def __init__(self, path: Path, sites: Sequence[Site], first_only: bool) -> None:
        self.path, self.sites, self.first_only = path, tuple(sites), first_only
        self.place, self.sums = _read(path, len(self.sites))
        self._running = RunningSums()
        self._is_kept, self._is_torn = True, False

    def begin(self, device: torch.device | str) -> None:
        """Get ready to add to what is there, on a device."""
        if self.sums:
            self._running = RunningSums.of(self.sums, device)

    def counted(self, mask: Tensor, most: int) -> Tensor:
        """Which tokens of a batch, bool (B, T), are to be added, for so many in all."""
        if self.first_only:
            mask = mask & (torch.arange(mask.shape[1], device=mask.device) == 0)
        return mask & (mask.flatten().cumsum(0).view_as(mask) <= most - self.place.tokens)

    def add(self, inputs: Mapping[Site, Tensor], counted: Tensor) -> None:
        """Add a batch, of whose tokens some count, bool (B, T)."""
        own = [inputs[site] for site in self.sites]
        n, place = int(counted.sum()), self.place
        # An interruption may come in between: what it leaves is of no number of batches.
        self._is_torn = True
        self._running.add(own, [counted] * len(own))
        self.place = replace(place, tokens=place.tokens + n, batches=place.batches + 1)
        self._is_torn = self._is_kept = False

    def end_of_group(self, texts: int, is_last: bool) -> None:
        """Count a group of texts, up to a text, as read."""
        self.place = Place(self.place.tokens, texts, 0, is_last)
        self._is_kept = False

    def write(self) -> None:
        """Put the sums on disk, where they are new and sums of whole batches.

        Raises:
            JobError: the disk is full or the place cannot be written.
        """
        if self._is_kept or self._is_torn:
            return
        self.sums = self._running.tensors()
        keep_tensors(self.path, self.sums, {"progress": json.dumps(asdict(self.place))})
        self._is_kept = True


def _read(path: Path, n_sites: int) -> tuple[Place, Mapping[str, Tensor]]:
    """What is on disk, or a fresh start where there is nothing that can be used."""
    with suppress(ArtifactError, KeyError, ValueError, TypeError):
        found, told = kept_tensors(path, "second moments")
        place = Place(**json.loads(told["progress"]))
        usable = not found or len(found["same_as"]) == n_sites
        if usable and all(torch.isfinite(tensor).all() for tensor in found.values()):
            return place, found
    return Place(), {}
