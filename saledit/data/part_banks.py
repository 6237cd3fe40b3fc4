"""The cached samples of one part of a split, and the batches of edits made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from saledit.cache.bank import Bank, BankSpec
from saledit.cache.filling import check_losses
from saledit.cache.opening import Progress, open_several
from saledit.cache.room import Room
from saledit.data.conditions import conditions
from saledit.data.episodes import EditBatch
from saledit.data.hashes import number
from saledit.data.splits import Part
from saledit.data.spool import samples_in
from saledit.data.views import Joined, Picked
from saledit.editors.terms import Ranks, aggregate
from saledit.forward.rows import join
from saledit.models import TaskModel
from saledit.records import Sample
from saledit.tasks.base import Task
from saledit.tasks.prompts import IGNORED


class PartBanks:
    """The cached samples of one part of a split.

    Args:
        fail: failures, with gradient factors if any are needed; made ones behind the real ones.
        adapt: all rewordings in one bank; None where there is none.
        adapt_index: (N_fail, m) positions in ``adapt``; fillers point at 0.
        adapt_weight: (N_fail, m) 1 for a rewording, 0 for a filler.
        passing: pass samples.
        apart: (N_fail,) the position in ``passing`` that never stands beside a failure: what a
            counterfactual one was made of, or the model's own answer to it; -1 for none.
        n_made: made failures (see ``Part``), the last ones in ``fail``.
        texts: conditions of the failures (N_fail, T), for editors that read them.
        samples: the failures themselves.
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
        samples: Sequence[Sample] = (),
    ) -> None:
        self.fail, self.adapt, self.passing = fail, adapt, passing
        self.adapt_index, self.adapt_weight = adapt_index, adapt_weight
        self._apart, self.n_made = apart, n_made
        self._texts, self._samples = texts, samples

    @property
    def n_real(self) -> int:
        """Failures of the model itself; those behind them in ``fail`` are made."""
        return len(self.fail) - self.n_made

    def draw_passes(self, fail: Tensor, count: int, draws: torch.Generator) -> Tensor:
        """Draw pass samples (E, n) for failures (E, K), none twice in an edit.

        A pass sample never stands beside a counterfactual failure made of it, nor the model's own
        answer beside the failure that it is: no edit could satisfy both. Where an edit is left with
        fewer than n others, all edits get as many as it; one that is left with none gets one of
        those that it should not have, as there is nothing else to hold it against.
        """
        chance = torch.rand(len(fail), len(self.passing), generator=draws)
        apart = self._apart[fail]
        if bool((apart >= 0).any()):
            never = torch.where(apart >= 0, -1.0, 2.0)
            chance.scatter_reduce_(1, apart.clamp_min(0), never, "amin")
            count = min(count, max(1, int((chance >= 0).sum(1).min())))
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
        factors = self.fail.factors(fail)
        return EditBatch(
            aggregate(factors, losses, rank),
            joined,
            torch.cat(targets, 1),
            torch.cat(weights, 1).to(losses.device),
            k,
            outputs,
            pass_targets,
            (fail, reworded, passing),
            Ranks(factors[0].rank, rank),
            None if self._texts is None else self._texts[fail],
            # Read by few editors: made when they are looked at.
            [Picked(self._samples, own) for own in fail.tolist()] if len(self._samples) else (),
        )

    def weight_of(self, fail: Tensor, column: Tensor | None) -> float:
        """How many failures (E, K) and rewordings, without fillers, a batch of them scores."""
        total = float(fail.numel())
        if self.adapt is not None:
            total += float(self.adapt_weight[fail, slice(None) if column is None else column].sum())
        return total

    def edits_at_once(self, wanted: int, k: int, passes: int, positions: int) -> int:
        """How many edits may be run side by side, so that their logits fit into memory.

        Args:
            wanted: how many are asked for.
            k: failures an edit.
            passes: pass samples an edit.
            positions: scored positions whose logits fit (``TaskModel.positions_at_once``).
        """
        banks = [b for b in (self.fail, self.adapt, self.passing) if b is not None]
        widths = [1 if b.answer_lengths is None else int(b.answer_lengths.max()) for b in banks]
        rows = k * (1 + self.adapt_index.shape[1]) + passes
        return max(1, min(wanted, positions // (rows * max(widths))))


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
    room: Room | None = None,
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
        room: see ``open_several``.
    """

    def opened(samples: Sequence[Sample], wanted: Sequence[BankSpec]) -> list[Bank]:
        return open_several(base, task, samples, wanted, folder, progress, room)

    rewordings, index, weight = _adapt_table(part, folder)
    own = part.own_from or (-1,) * len(part.fail)
    apart = torch.tensor([*own, *part.made_from], dtype=torch.long)
    bare = [replace(spec, rank=0, moments=False) for spec in specs]
    failures = Joined(part.fail, part.made)
    fail = opened(failures, [replace(spec, moments=False) for spec in specs])
    if not specs[0].rank:  # with gradients they were held against this when they were taken
        check_losses(base, fail[0].losses, failures)
    adapt = opened(rewordings, bare) if rewordings else [None] * len(specs)
    passing = opened(part.passing, [replace(spec, rank=0) for spec in specs])
    told = conditions(base, task, fail[0], failures) if texts else None
    return [
        PartBanks(*banks[:2], index, weight, banks[2], apart, len(part.made), told, failures)
        for banks in zip(fail, adapt, passing, strict=True)
    ]


def few(part: Part, n_fail: int, n_passing: int) -> Part:
    """Some of a part's failures, with their rewordings, and pass samples, from all over it."""
    own, others = (
        [i * len(every) // n for i in range(n)]
        for every, n in (
            (part.fail, min(n_fail, len(part.fail))),
            (part.passing, min(n_passing, len(part.passing))),
        )
    )
    return Part(
        [part.fail[i] for i in own],
        [part.adapt[i] for i in own],
        [part.passing[i] for i in others],
    )


def n_rewordings(part: Part) -> int:
    """How many rewordings a part has; made failures may share those of real ones."""
    if not len(part.made):
        return sum(map(len, part.adapt))
    groups = Joined(part.adapt, part.made_adapt)
    return len({_mark(sample) for group in groups for sample in group})


def _adapt_table(part: Part, folder: Path) -> tuple[Sequence[Sample], Tensor, Tensor]:
    """All rewordings, and for each failure their positions and weights, padded: (N_fail, m).

    Those of real failures stand first, one after another; made ones may share them.
    """
    rewordings = samples_in(folder)
    places: dict[int, int] = {}
    groups, n_real = Joined(part.adapt, part.made_adapt), len(part.adapt)
    width = max(map(len, groups), default=0)
    index = torch.zeros(len(groups), width, dtype=torch.long)
    weight = torch.zeros(len(groups), width)
    for i, group in enumerate(groups):
        own = []
        for sample in group:
            place = len(rewordings)
            if len(part.made):
                mark = _mark(sample)
                place = places.setdefault(mark, place) if i >= n_real else place
                places[mark] = place
            if place == len(rewordings):
                rewordings.append(sample)
            own.append(place)
        index[i, : len(own)] = torch.tensor(own, dtype=torch.long)
        weight[i, : len(own)] = 1
    return rewordings, index, weight


def _mark(sample: Sample) -> int:
    return number(repr(sample))
