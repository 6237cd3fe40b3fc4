"""Edit batches: many edits at once, each with its own failures, rewordings and pass samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from saledit.editors.terms import Ranks, Terms
from saledit.forward.rows import Rows
from saledit.records import Sample


@dataclass(frozen=True, slots=True)
class Cut:
    """Some rows of each edit of a batch.

    Attributes:
        batch: the rows, with the gradients of the whole.
        edit: which failures and rewordings they are, of the K + K m.
        passing: which pass samples, of the n.
        share: of the mean over failures and rewordings. Means of parts by their shares add up to
            those of the whole.
        pass_share: of the mean over pass samples.
    """

    batch: EditBatch
    edit: Tensor
    passing: Tensor
    share: float
    pass_share: float


@dataclass(frozen=True, slots=True)
class EditBatch:
    """E edits. Rows of one edit lie side by side: K failures, K x m rewordings, n pass.

    Targets of a classifier are (...), those of text (..., A).

    Attributes:
        terms: of the failures' gradients, aggregated over K.
        rows: E x S rows for the suffix run.
        targets: right answers of failures and rewordings (E, K + K m).
        weights: 1 for a real row, 0 for a filler, (E, K + K m).
        n_fail: K.
        base_outputs: what the head of the base reads of the pass rows (E, n, A, D); logits
            (E, n, C) of a classifier.
        pass_targets: (E, n).
        members: positions in the banks of failures (E, K), rewordings (E, K m), pass (E, n).
        ranks: terms that were kept of the gradients.
        texts: the failures' conditions (E, K, T), see ``saledit.data.conditions``; None where no
            editor reads them.
        failures: for each edit its K failures.
        share: of the mean over all failures and rewordings that the batch is, times the processes
            that have a part of it; 1 where one has it all. The mean over processes of what each
            sums up by its share is that of the whole batch.
        pass_share: the same of the mean over pass rows.
    """

    terms: Terms
    rows: Rows
    targets: Tensor
    weights: Tensor
    n_fail: int
    base_outputs: Tensor
    pass_targets: Tensor
    members: tuple[Tensor, Tensor, Tensor]
    ranks: Ranks
    texts: Tensor | None = None
    failures: Sequence[Sequence[Sample]] = ()
    share: float = 1.0
    pass_share: float = 1.0

    def __len__(self) -> int:
        """Rows E x S."""
        return self.targets.shape[0] * (self.targets.shape[1] + self.pass_targets.shape[1])

    @property
    def n_scored(self) -> int:
        """Positions with logits, fillers among them."""
        return self.targets.numel() + self.pass_targets.numel()

    def own(self) -> tuple[Rows, Tensor]:
        """The failures alone: E x K rows, and their targets (E, K)."""
        n_edits, size = len(self.targets), self.targets.shape[1] + self.pass_targets.shape[1]
        first = torch.arange(n_edits)[:, None] * size
        index = (first + torch.arange(self.n_fail)).flatten().to(self.targets.device)
        return self.rows.pick(index), self.targets[:, : self.n_fail]

    def cuts(self, rows: int, positions: int) -> int:
        """How many parts keep to some rows and scored positions each.

        Args:
            rows: of all edits together, that a part may have.
            positions: that it may have logits of.

        Returns:
            The least number of parts; where not even one row of each edit is within the bounds,
            as many as an edit has rows.
        """
        n_edits = len(self.targets)
        fitting = min(rows, positions * len(self) // self.n_scored) // n_edits  # of each edit
        return -(-len(self) // (n_edits * max(1, fitting)))

    def parts(self, n: int) -> Iterator[Cut]:
        """Cut the rows of each edit into n batches of the same edits, or as many as there are rows.

        Rows are dealt like cards, so that parts differ by one row of each edit at most. Where
        there are more parts than pass rows (or failures and rewordings), some have none of them.

        Args:
            n: parts.
        """
        (n_edits, edit), passing = self.targets.shape[:2], self.pass_targets.shape[1]
        size, total = edit + passing, float(self.weights.sum())
        n = max(1, min(n, size))
        first = torch.arange(n_edits)[:, None] * size
        for i in range(n):
            own = torch.arange(i, size, n)
            some, others = own[own < edit], own[own >= edit] - edit
            part = replace(
                self,
                rows=self.rows.pick((first + own).flatten().to(self.targets.device)),
                targets=self.targets[:, some],
                weights=self.weights[:, some],
                base_outputs=self.base_outputs[:, others],
                pass_targets=self.pass_targets[:, others],
            )
            share = float(part.weights.sum()) / max(total, 1e-12)
            yield Cut(part, some, others, share, len(others) / max(1, passing))

    def to(self, device: torch.device | str, **_options: object) -> EditBatch:
        """The same batch on a device; Lightning calls it."""
        return EditBatch(
            self.terms.to(device),
            self.rows.to(device),
            self.targets.to(device),
            self.weights.to(device),
            self.n_fail,
            self.base_outputs.to(device),
            self.pass_targets.to(device),
            self.members,
            self.ranks,
            self.texts,
            self.failures,
            self.share,
            self.pass_share,
        )
