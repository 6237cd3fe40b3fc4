"""Edit batches: many edits at once, each with its own failures, rewordings and pass samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from saledit.bank import IGNORED, Bank, BankSpec
from saledit.cache import Progress, open_several
from saledit.conditions import conditions
from saledit.data.splits import Part
from saledit.delta import LowRank
from saledit.editors.base import aggregate
from saledit.models import TaskModel
from saledit.records import Sample
from saledit.rows import Rows, join
from saledit.tasks.base import Task

LOGITS = 100_000_000  # numbers that a batch of edits may give


@dataclass(frozen=True, slots=True)
class EditBatch:
    """E edits. Rows of one edit lie side by side: K failures, K x m rewordings, n pass.

    Targets of a classifier are (...), those of text (..., A).

    Attributes:
        gradients: for each site u (E, R, D_in), v (E, R, D_out), aggregated over K.
        rows: E x S rows for the suffix run.
        targets: right answers of failures and rewordings (E, K + K m).
        weights: 1 for a real row, 0 for a filler, (E, K + K m).
        n_fail: K.
        base_outputs: what the head of the base reads of the pass rows (E, n, A, D); logits
            (E, n, C) of a classifier.
        pass_targets: (E, n).
        members: positions in the banks of failures (E, K), rewordings (E, K m), pass (E, n).
        texts: the failures' conditions (E, K, T), see ``saledit.conditions``; None where no
            editor reads them.
    """

    gradients: list[LowRank]
    rows: Rows
    targets: Tensor
    weights: Tensor
    n_fail: int
    base_outputs: Tensor
    pass_targets: Tensor
    members: tuple[Tensor, Tensor, Tensor]
    texts: Tensor | None = None

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

    def parts(self, n: int) -> Iterator[tuple[EditBatch, float, float]]:
        """Cut the rows of each edit into n batches of the same edits, or as many as there are rows.

        Args:
            n: parts.

        Yields:
            A part (with the gradients of the whole), its share of the mean over failures and
            rewordings, and of the mean over pass rows. Means of parts by their shares add up to
            those of the whole.
        """
        (n_edits, edit), passing = self.targets.shape[:2], self.pass_targets.shape[1]
        n, size = max(1, min(n, edit, passing)), edit + passing
        first = torch.arange(n_edits)[:, None] * size
        for i in range(n):
            some, others = torch.arange(i, edit, n), torch.arange(i, passing, n)
            index = (first + torch.cat([some, edit + others])).flatten()
            part = replace(
                self,
                rows=self.rows.pick(index.to(self.targets.device)),
                targets=self.targets[:, some],
                weights=self.weights[:, some],
                base_outputs=self.base_outputs[:, others],
                pass_targets=self.pass_targets[:, others],
            )
            share = part.weights.sum() / self.weights.sum().clamp_min(1e-12)
            yield part, float(share), len(others) / passing

    def to(self, device: torch.device | str, **_options: object) -> EditBatch:
        """The same batch on a device; Lightning calls it."""
        return EditBatch(
            [pair.to(device) for pair in self.gradients],
            self.rows.to(device),
            self.targets.to(device),
            self.weights.to(device),
            self.n_fail,
            self.base_outputs.to(device),
            self.pass_targets.to(device),
            self.members,
            self.texts,
        )


class PartBanks:
    """The cached samples of one part of a split.

    Args:
        fail: failures, with gradient factors; made ones behind the real ones.
        adapt: all rewordings in one bank; None where there is none.
        adapt_index: (N_fail, m) positions in ``adapt``; fillers point at 0.
        adapt_weight: (N_fail, m) 1 for a rewording, 0 for a filler.
        passing: pass samples.
        apart: (N_fail,) the position in ``passing`` that never stands beside a failure: what a
            counterfactual one was made of, or the model's own answer to it; -1 for none.
        n_made: made failures (see ``Part``), the last ones in ``fail``.
        texts: conditions of the failures (N_fail, T), for editors that read them.
    """

    def __init__(
        self,
        fail: Bank,
        adapt: Bank | None,
        adapt_index: Tensor,
        adapt_weight: Tensor,
        passing: Bank,
        apart: Tensor,
        n_made: int = 0,
        texts: Tensor | None = None,
    ) -> None:
        self.fail, self.adapt, self.passing = fail, adapt, passing
        self.adapt_index, self.adapt_weight = adapt_index, adapt_weight
        self._apart, self.n_made, self._texts = apart, n_made, texts

    @property
    def n_real(self) -> int:
        """Failures of the model itself; those behind them in ``fail`` are made."""
        return len(self.fail) - self.n_made

    def draw_passes(self, fail: Tensor, count: int, draws: torch.Generator) -> Tensor:
        """Draw pass samples (E, n) for failures (E, K), none twice in an edit.

        A pass sample never stands beside a counterfactual failure made of it, nor the model's own
        answer beside the failure that it is: no edit could satisfy both.
        """
        chance = torch.rand(len(fail), len(self.passing), generator=draws)
        apart = self._apart[fail]
        if bool((apart >= 0).any()):
            never = torch.where(apart >= 0, -1.0, 2.0)
            chance.scatter_reduce_(1, apart.clamp_min(0), never, "amin")
        return chance.topk(min(count, len(self.passing)), dim=1).indices

    def draw_rewordings(self, fail: Tensor, draws: torch.Generator) -> Tensor | None:
        """For each failure (E, K) the column of one of its rewordings; None without any."""
        if self.adapt is None:
            return None
        count = self.adapt_weight.sum(1)[fail]  # (E, K)
        return (torch.rand(fail.shape, generator=draws) * count).long()

    def batch(
        self, fail: Tensor, passing: Tensor, rank: int, column: Tensor | None = None
    ) -> EditBatch:
        """Gather edits.

        Args:
            fail: (E, K) positions of failures.
            passing: (E, n) positions of pass samples.
            rank: terms kept of an aggregated gradient.
            column: (E, K) which rewording of each failure to take; None for all m.
        """
        n_edits, k = fail.shape
        parts = [self.fail.rows(fail.flatten())]
        sizes = [k]
        targets = [self.fail.targets_of(fail)]
        weights = [torch.ones(n_edits, k)]
        losses = self.fail.losses_of(fail)
        reworded = torch.zeros(n_edits, 0, dtype=torch.long)
        if self.adapt is not None:
            rows = slice(None) if column is None else column
            reworded = self.adapt_index[fail, rows].flatten(1)  # (E, K m) or (E, K)
            parts.append(self.adapt.rows(reworded.flatten()))
            sizes.append(reworded.shape[1])
            targets.append(self.adapt.targets_of(reworded))
            weights.append(self.adapt_weight[fail, rows].flatten(1))
        parts.append(self.passing.rows(passing.flatten()))
        sizes.append(passing.shape[1])
        joined = join(parts, n_edits, sizes)
        outputs, pass_targets = self.passing.outputs(passing), self.passing.targets_of(passing)
        if joined.at is not None:  # as many scored positions in all rows
            width = joined.at.shape[1]
            targets = [_wide(t, width) for t in targets]
            pass_targets = _wide(pass_targets, width)
            gap = width - outputs.shape[-2]
            outputs = torch.nn.functional.pad(outputs, (0, 0, 0, gap))
        return EditBatch(
            aggregate(self.fail.factors(fail), losses, rank),
            joined,
            torch.cat(targets, 1),
            torch.cat(weights, 1).to(losses.device),
            k,
            outputs,
            pass_targets,
            (fail, reworded, passing),
            None if self._texts is None else self._texts[fail],
        )

    def edits_at_once(self, wanted: int, k: int, passes: int, vocabulary: int) -> int:
        """How many edits may be run side by side, so that their logits fit into memory.

        Args:
            wanted: how many are asked for.
            k: failures an edit.
            passes: pass samples an edit.
            vocabulary: logits a scored position.
        """
        banks = [b for b in (self.fail, self.adapt, self.passing) if b is not None]
        widths = [1 if b.answer_lengths is None else int(b.answer_lengths.max()) for b in banks]
        rows = k * (1 + self.adapt_index.shape[1]) + passes
        return max(1, min(wanted, LOGITS // (rows * max(widths) * vocabulary)))


def _wide(targets: Tensor, width: int) -> Tensor:
    return torch.nn.functional.pad(targets, (0, width - targets.shape[-1]), value=IGNORED)


def open_banks(
    base: TaskModel,
    task: Task,
    part: Part,
    specs: Sequence[BankSpec],
    folder: Path,
    progress: Progress | None = None,
    texts: bool = False,
) -> list[PartBanks]:
    """Open the banks of one part at one layer or several, building what is missing.

    Args:
        base: the task model.
        task: the task.
        part: the samples.
        specs: for each layer what the bank of the failures keeps; rewordings and pass samples keep
            no factors, and moments are taken over the pass samples.
        folder: where banks live.
        progress: see ``open_several``.
        texts: whether to tell what the failures are, too.
    """

    def opened(samples: Sequence[Sample], wanted: Sequence[BankSpec]) -> list[Bank]:
        return open_several(base, task, samples, wanted, folder, progress)

    rewordings, index, weight = _adapt_table(part.adapt, part.made_adapt)
    own = part.own_from or (-1,) * len(part.fail)
    apart = torch.tensor([*own, *part.made_from], dtype=torch.long)
    bare = [replace(spec, rank=0, moments=False) for spec in specs]
    failures = [*part.fail, *part.made]
    fail = opened(failures, [replace(spec, moments=False) for spec in specs])
    adapt = opened(rewordings, bare) if rewordings else [None] * len(specs)
    passing = opened(part.passing, [replace(spec, rank=0) for spec in specs])
    told = conditions(base, task, fail[0], failures) if texts else None
    return [
        PartBanks(*banks[:2], index, weight, banks[2], apart, len(part.made), told)
        for banks in zip(fail, adapt, passing, strict=True)
    ]


def _adapt_table(
    real: Sequence[Sequence[Sample]], made: Sequence[Sequence[Sample]]
) -> tuple[list[Sample], Tensor, Tensor]:
    """All rewordings, and for each failure their positions and weights, padded: (N_fail, m).

    Those of real failures stand first, one after another; made ones may share them.
    """
    rewordings = [sample for group in real for sample in group]
    places = {sample: i for i, sample in enumerate(rewordings)}
    for sample in (sample for group in made for sample in group):
        if places.setdefault(sample, len(rewordings)) == len(rewordings):
            rewordings.append(sample)
    groups = (*real, *made)
    width = max(map(len, groups), default=0)
    index = torch.zeros(len(groups), width, dtype=torch.long)
    weight = torch.zeros(len(groups), width)
    for i, group in enumerate(groups):
        index[i, : len(group)] = torch.tensor([places[sample] for sample in group]).long()
        weight[i, : len(group)] = 1
    return rewordings, index, weight
