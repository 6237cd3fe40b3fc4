"""The edits of a fix, group by group, and what the editor is to remember of those that are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from saledit.delta import Edits
from saledit.export import FORMATS
from saledit.ledger import EditFolder
from saledit.records import Sample
from saledit.report import Ui
from saledit.session import EditSession


def steps_in_force(folder: EditFolder) -> Edits:
    """The steps of the fixes in force as they are exported: an adapter's rank may be cut."""
    rank = int(folder.head.get("rank", 0)) if folder.steps else 0
    if not rank:
        return folder.steps
    edits, _ = FORMATS[folder.head["format"]].shape(folder.ground + folder.steps, rank)
    return edits + folder.ground * -1.0


@dataclass(frozen=True, slots=True)
class Making:
    """How a fix is made.

    Attributes:
        session: goes on from what is in force.
        failures: what the model answers wrongly.
        size: failures an edit.
        rank: terms an edit is kept in, at most.
    """

    session: EditSession
    failures: Sequence[Sample]
    size: int
    rank: int

    @property
    def _groups(self) -> list[Sequence[Sample]]:
        starts = range(0, len(self.failures), self.size)
        return [self.failures[start : start + self.size] for start in starts]

    def steps(self, ui: Ui) -> list[Edits]:
        """The edits of each group of failures, in main memory; the session holds them all."""
        out, n = [], 0
        with ui.progress(f"editing {len(self.failures)} failures", len(self.failures)) as bar:
            for group in self._groups:
                out.append(self.session.step(group).compress(self.rank).map(torch.Tensor.cpu))
                n += len(group)
                bar.update(n)
        return out

    def memory(
        self, begun: tuple[Edits, Mapping[str, Tensor]], kept: Sequence[int]
    ) -> Mapping[str, Tensor]:
        """What the editor remembers of this fix alone, where only some of its edits are kept.

        Edits that were left out are not there, and what is remembered of them would hold the model
        to its mistakes. So an editor that remembers makes those that are kept once more, alone.

        Args:
            begun: the session's state before the fix.
            kept: which groups' edits are kept, in order.
        """
        groups, (_, memory) = self._groups, self.session.state
        if memory and len(kept) < len(groups):
            self.session.go_on(*begun)
            for i in kept:
                self.session.step(groups[i])
            memory = self.session.state[1]
        before = begun[1]
        own = {name: rows[len(before.get(name, ())) :] for name, rows in memory.items()}
        return {name: rows for name, rows in own.items() if len(rows)}
