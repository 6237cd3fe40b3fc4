"""The failures of edits, as the model stands under edits: their losses and their gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from saledit import distributed
from saledit.cache.factors import compressed, masks_of
from saledit.delta import Edits, LowRank
from saledit.editors.terms import Ranks, Terms, aggregate
from saledit.forward.rows import Rows, run_edits
from saledit.forward.suffix import ENCODER, Entry, run
from saledit.models import SEQ2SEQ, TaskModel
from saledit.overlay import applied
from saledit.site import Site
from saledit.tap import tap
from saledit.tasks.base import Task
from saledit.tasks.prompts import IGNORED


def parts_of(base: TaskModel, n_edits: int, rows: int, scored: int, tokens: int = 0) -> int:
    """In how many parts rows of each edit are run, so that their logits and tokens fit.

    Args:
        base: the task model.
        n_edits: E, that are run side by side.
        rows: of each edit.
        scored: positions of each row.
        tokens: of each row, where all of them matter: a gradient goes back through them.
    """
    fitting = base.positions_at_once // scored
    if tokens:
        fitting = min(fitting, base.pass_tokens // tokens)
    parts = -(-rows // max(1, fitting // n_edits))
    # Of processes in step each has as many.
    return min(rows, distributed.all_max(parts)) if base.weights.is_divided else parts


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
        """Mean loss of each edit's failures (E,) under edits (E,), in nats an answer.

        Logits of as many failures as fit are there at a time; in the graph, where there is one, of
        all.
        """
        return torch.cat([own._losses(edits) for own in self._parts()], 1).mean(1)

    def _losses(self, edits: Edits) -> Tensor:
        """Loss of each failure (E, K)."""
        outputs = run_edits(self.base, self.entry, self.rows, edits)
        logits = self.task.logits(self.base, outputs, self.targets)
        return self.task.answer_losses(self.base, logits, self.targets)

    def pick(self, index: Tensor) -> Failures:
        """Those of some edits (E',)."""
        return self._only(torch.arange(self.targets.shape[1]), index)

    def _only(self, columns: Tensor, index: Tensor) -> Failures:
        (n, k), device = self.targets.shape[:2], self.targets.device
        if len(columns) == k and index.tolist() == list(range(n)):
            return self
        rows = (index.cpu()[:, None] * k + columns).flatten().to(device)
        width = int(self.rows.inputs["attention_mask"][rows].sum(1).max())
        targets = self.targets[index.to(device)][:, columns.to(device)]
        return replace(self, rows=self.rows.pick(rows, width), targets=targets)

    def gradients(self, sites: Sequence[Site], edits: Edits) -> Terms:
        """Aggregated gradients of the failures of the model under edits (E,), at each site.

        They are what a bank and ``aggregate`` give of a model that one of the edits is applied to,
        of all edits side by side: from the cached states, as an edit changes nothing below them.
        Of a failure that has no gradient in numbers it is zero.

        Args:
            sites: where; their inputs must lie behind the entry.
            edits: batch shape (E,); no gradient goes into them.
        """
        assert self.ranks.sample, "an editor that looks again needs gradients"
        # Banks are made without autocast, which a trainer may have set: neither slopes nor an SVD
        # are to be of half precision.
        with torch.autocast(self.base.device.type, enabled=False):
            tokens = self.rows.inputs["attention_mask"].shape[1]
            parts = [own._factors(sites, edits) for own in self._parts(tokens)]
            factors = [
                LowRank(torch.cat([p.u for p in own], 1), torch.cat([p.v for p in own], 1))
                for own in zip(*(pairs for pairs, _ in parts), strict=True)
            ]
            losses = torch.cat([losses for _, losses in parts], 1)
            return aggregate(factors, losses, self.ranks.aggregated)

    def _parts(self, tokens: int = 0) -> list[Failures]:
        """Some of the failures of every edit each, as many as fit; see ``parts_of``."""
        n, k = self.targets.shape[:2]
        parts = parts_of(self.base, n, k, self.targets[0, 0].numel(), tokens)
        columns = torch.arange(k).tensor_split(parts)
        return [self._only(own, torch.arange(n)) for own in columns]

    def _factors(self, sites: Sequence[Site], edits: Edits) -> tuple[list[LowRank], Tensor]:
        """For each site u (E, K, r, D_in), v (E, K, r, D_out), and losses (E, K)."""
        base, rows, targets = self.base, self.rows, self.targets.flatten(0, 1)
        last = f"{base.block_name(base.n_blocks - 1)}."
        every_token = any(site.name.startswith(last) for site in sites)
        edited = applied(base.model, edits.detach())
        once = base.weights.once_more()
        with torch.enable_grad(), once, edited, tap(base.model, sites, len(targets)) as tape:
            outputs = run(
                base, self.entry, rows.states, rows.inputs, rows.at, every_token=every_token
            )
            losses = self.task.losses(base, self.task.logits(base, outputs, targets), targets)
            found = tape.factors(losses.sum())
        first = self.entry.first_token_only
        keep = slice(0, 1) if first else slice(None)
        inputs = [tape.inputs[site][:, keep] for site in sites]
        slopes = [found[site].v[:, keep] for site in sites]
        losses = losses.detach()
        real = losses.isfinite()
        for part in (*inputs, *slopes):
            real = real & part.isfinite().flatten(1).all(1)
        masks = [mask[:, keep] for mask in self._masks(inputs)]
        slopes = [slope.masked_fill(~real[:, None, None], 0) for slope in slopes]
        inputs = [x.masked_fill(~real[:, None, None], 0) for x in inputs]
        pairs = compressed(inputs, slopes, masks, 1 if first else self.ranks.sample)
        shape = self.targets.shape[:2]
        each = [pair.map(lambda factor: factor.view(*shape, *factor.shape[1:])) for pair in pairs]
        return each, losses.masked_fill(~real, 0).view(shape)

    def _masks(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Which tokens of each site's input are real, bool (E K, T)."""
        tokens = self.rows.inputs["attention_mask"].bool()
        read = tokens
        if self.base.kind == SEQ2SEQ and not self.base.in_encoder:
            # A decoder reads what stands before its last target, also where that is forced on it.
            scored = (self.targets.flatten(0, 1) != IGNORED).int()
            read = scored.flip(-1).cumsum(-1).flip(-1) > 0
        return masks_of(inputs, tokens, read, self.rows.states.get(ENCODER))
