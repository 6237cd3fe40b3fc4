"""The failures of edits, as the model stands under edits: their losses and their gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from saledit.cache.bank import IGNORED
from saledit.cache.factors import compressed, masks_of
from saledit.delta import Edits, LowRank
from saledit.editors.base import Ranks, aggregate
from saledit.forward.rows import Rows, run_edits
from saledit.forward.suffix import ENCODER, Entry, run
from saledit.models import SEQ2SEQ, TaskModel
from saledit.overlay import applied
from saledit.site import Site
from saledit.tap import tap
from saledit.tasks.base import Task

_ROWS = 2048  # whose graphs are in memory at a time


@dataclass(frozen=True, slots=True)
class Failures:
    """The failures of E edits, K each.

    Attributes:
        base: the task model.
        task: scores them.
        entry: where their states were captured.
        rows: E x K rows for suffix runs.
        targets: right answers (E, K), of text (E, K, A).
        ranks: terms kept of their gradients.
    """

    base: TaskModel
    task: Task
    entry: Entry
    rows: Rows
    targets: Tensor
    ranks: Ranks

    def losses(self, edits: Edits) -> Tensor:
        """Mean loss of each edit's failures (E,) under edits (E,), in nats an answer."""
        outputs = run_edits(self.base, self.entry, self.rows, edits)
        logits = self.task.logits(self.base, outputs, self.targets)
        return self.task.answer_losses(self.base, logits, self.targets).mean(1)

    def pick(self, index: Tensor) -> Failures:
        """Those of some edits (E',)."""
        return self._only(torch.arange(self.targets.shape[1]), index)

    def _only(self, columns: Tensor, index: Tensor | None = None) -> Failures:
        n, k = self.targets.shape[:2]
        index = torch.arange(n) if index is None else index.cpu()
        rows = (index[:, None] * k + columns).flatten().to(self.targets.device)
        width = int(self.rows.inputs["attention_mask"][rows].sum(1).max())
        targets = self.targets[index.to(self.targets.device)][:, columns]
        return replace(self, rows=self.rows.pick(rows, width), targets=targets)

    def gradients(self, sites: Sequence[Site], edits: Edits) -> list[LowRank]:
        """Aggregated gradients of the failures of the model under edits (E,), at each site.

        They are what a bank and ``aggregate`` give of a model that one of the edits is applied to,
        of all edits side by side: from the cached states, as an edit changes nothing below them.

        Args:
            sites: where; their inputs must lie behind the entry.
            edits: batch shape (E,); no gradient goes into them.

        Returns:
            For each site u (E, R, D_in), v (E, R, D_out); see ``aggregate``.
        """
        n, k = self.targets.shape[:2]
        wide = self.targets[0, 0].numel()  # scored positions of a row
        at_once = max(1, min(_ROWS, self.base.positions_at_once // wide) // n)
        columns = torch.split(torch.arange(k), at_once)
        parts = [self._only(own)._factors(sites, edits) for own in columns]
        factors = [
            LowRank(torch.cat([p.u for p in own], 1), torch.cat([p.v for p in own], 1))
            for own in zip(*(pairs for pairs, _ in parts), strict=True)
        ]
        losses = torch.cat([losses for _, losses in parts], 1)
        return aggregate(factors, losses, self.ranks.aggregated)

    def _factors(self, sites: Sequence[Site], edits: Edits) -> tuple[list[LowRank], Tensor]:
        """For each site u (E, K, r, D_in), v (E, K, r, D_out), and losses (E, K)."""
        base, rows, targets = self.base, self.rows, self.targets.flatten(0, 1)
        n = len(targets)
        edited = applied(base.model, edits.detach())
        with torch.enable_grad(), edited, tap(base.model, sites, n) as tape:
            outputs = run(base, self.entry, rows.states, rows.inputs, rows.at, every_token=True)
            losses = self.task.losses(base, self.task.logits(base, outputs, targets), targets)
            found = tape.factors(losses.sum())
        keep = slice(0, 1) if self.entry.first_token_only else slice(None)
        inputs = [tape.inputs[site][:, keep] for site in sites]
        slopes = [found[site].v[:, keep] for site in sites]
        tokens = rows.inputs["attention_mask"].bool()
        answers = base.kind == SEQ2SEQ and not base.in_encoder
        read = targets != IGNORED if answers else tokens
        masks = [m[:, keep] for m in masks_of(inputs, tokens, read, rows.states.get(ENCODER))]
        rank = 1 if self.entry.first_token_only else self.ranks.sample
        pairs = compressed(inputs, slopes, masks, rank)
        shape = self.targets.shape[:2]
        each = [pair.map(lambda factor: factor.view(*shape, *factor.shape[1:])) for pair in pairs]
        return each, losses.detach().view(shape)
