"""Training and validation batches for a plain ``lightning.Trainer``."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from saledit.config import ScheduleConfig, TrainConfig
from saledit.data.episodes import EditBatch
from saledit.data.part_banks import PartBanks
from saledit.errors import ConfigError


class Episodes(Dataset[EditBatch]):
    """Batches of edits; batch i of an epoch depends on (seed, epoch, i) alone.

    So a resumed run sees the batches that an uninterrupted one would have seen.

    Args:
        banks: the samples.
        k: failures an edit.
        edits: edits a batch.
        passes: pass samples an edit.
        rank: terms kept of an aggregated gradient.
        length: batches an epoch.
        seed: of the draws.
        epoch: the epoch.
        made: share of the failures that are made ones.
        part: (i, n) for the i-th of n processes that share each batch; a batch is as many edits
            of it as come to one, and all draws are those of the whole batch.
    """

    def __init__(
        self, banks: PartBanks, k: int, edits: int, passes: int, rank: int, length: int,
        seed: int, epoch: int, made: float = 0.0, part: tuple[int, int] = (0, 1),
    ) -> None:  # fmt: skip
        self._part = part
        self._banks, self._k, self._edits, self._passes = banks, k, edits, passes
        self._rank, self._length, self._seed, self._epoch = rank, length, seed, epoch
        draws, size = _generator(seed, epoch, -1), length * edits * k
        self._deck = _deck(banks.n_real, size, k, draws)
        if banks.n_made and made:
            own = min(k, banks.n_made)  # of an edit
            others = banks.n_real + _deck(banks.n_made, length * edits * own, own, draws)
            chance = torch.rand(len(others), generator=draws).view(-1, own)
            first = self._deck.view(-1, k)[:, :own]
            first.copy_(torch.where(chance < made, others.view(-1, own), first))

    def __len__(self) -> int:
        """Batches an epoch."""
        return self._length

    def __getitem__(self, i: int) -> EditBatch:
        """Batch i."""
        size = self._edits * self._k
        fail = self._deck[i * size : (i + 1) * size].view(self._edits, self._k)
        draws = _generator(self._seed, self._epoch, i)
        passing = self._banks.draw_passes(fail, self._passes, draws)
        # One rewording of each failure: the other ones have their turn in other draws.
        column = self._banks.draw_rewordings(fail, draws)
        first, n = self._part
        own = slice(first, None, n)
        batch = self._banks.batch(
            fail[own], passing[own], self._rank, None if column is None else column[own]
        )
        if n == 1:
            return batch
        return replace(
            batch,
            share=n * float(batch.weights.sum()) / self._banks.weight_of(fail, column),
            pass_share=n * len(batch.targets) / len(fail),
        )


def _deck(n: int, length: int, k: int, generator: torch.Generator) -> Tensor:
    """Positions 0..n-1, each about equally often: whole shuffles one after another.

    They are dealt into edits of k. Of at least k cards no edit holds one twice: where an edit ends
    in another shuffle than it began in, what it holds already changes places with a later card.
    """
    shuffles: list[Tensor] = []
    for i in range(-(-length // n)):
        cards = torch.randperm(n, generator=generator)
        begun = i * n % k  # cards of the last shuffle in an edit that is not full
        if begun and k <= n:
            is_held = torch.isin(cards, shuffles[-1][-begun:])
            left = k - begun
            twice = is_held[:left].nonzero().flatten()
            later = left + (~is_held[left:]).nonzero().flatten()[: len(twice)]
            cards[twice], cards[later] = cards[later], cards[twice]
        shuffles.append(cards)
    return torch.cat(shuffles)[:length]


def _generator(seed: int, epoch: int, i: int) -> torch.Generator:
    # i = -1 is the epoch's own shuffle. The generator reads the low 32 bits of a seed alone.
    digest = hashlib.blake2b(f"{seed} {epoch} {i}".encode(), digest_size=4).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big"))


class TestEpisodes(Dataset[EditBatch]):
    """Every real failure once, k to an edit, several edits side by side.

    The last edit may hold fewer failures; it then forms a batch of its own. With ``dealt``
    the number of edits is given instead, and failures are dealt into them from as many
    shuffles as it takes: validation of few failures in large edits would be all noise.

    Args:
        banks: the samples.
        k: failures an edit.
        edits: edits a batch.
        passes: pass samples drawn for each edit; 0 for all.
        rank: terms kept of an aggregated gradient.
        seed: of the draws.
        dealt: edits to deal; 0 for every failure once, in order.

    Attributes:
        groups: for each batch the positions of its failures (E, K).
    """

    __test__ = False  # not a test case, whatever its name says

    def __init__(
        self, banks: PartBanks, k: int, edits: int, passes: int, rank: int, seed: int,
        dealt: int = 0,
    ) -> None:  # fmt: skip
        self._banks, self._rank = banks, rank
        draws, n = _generator(seed, 0, -1), banks.n_real
        order = _deck(n, dealt * k, k, draws) if dealt else torch.arange(n)
        rest = len(order) % k
        whole = order[: len(order) - rest].view(-1, k)
        self.groups = list(torch.split(whole, edits)) if len(whole) else []
        if rest:
            self.groups.append(order[-rest:][None])
        total = len(banks.passing)
        count = min(passes or total, total)
        self._passing = [
            torch.stack([torch.randperm(total, generator=draws)[:count] for _ in group])
            for group in self.groups
        ]

    def __len__(self) -> int:
        """Number of batches."""
        return len(self.groups)

    def __getitem__(self, i: int) -> EditBatch:
        """Batch i."""
        return self._banks.batch(self.groups[i], self._passing[i], self._rank)


def dealt_failures(n: int, k: int, edits: int, seed: int) -> list[int]:
    """Positions of the failures among n that so many edits of k are dealt in validation."""
    k = min(k, n)
    dealt: list[int] = _deck(n, edits * k, k, _generator(seed, 0, -1)).tolist()
    return dealt


class EditDataModule(L.LightningDataModule):
    """Batches for ``Trainer.fit`` and ``Trainer.validate``.

    Use it with ``reload_dataloaders_every_n_epochs=1`` (``run.fit`` does), so that each
    epoch deals its own cards.

    Args:
        train: cached samples to train on.
        validation: cached samples to validate on.
        schedule: failures an edit.
        config: batch sizes.
        rank: terms kept of an aggregated gradient.
        seed: of all draws.
        positions: scored positions whose logits fit (``TaskModel.positions_at_once``).
        in_step: processes go through a divided model together, so each validates on everything;
            sums over processes are multiples then, and shares the same.
        batches: training batches at most, over all epochs: the last epoch is cut short. A trainer
            that stops within an epoch would end without its validation.
    """

    def __init__(
        self, train: PartBanks, validation: PartBanks, schedule: ScheduleConfig,
        config: TrainConfig, rank: int, seed: int, positions: int = 100_000_000,
        in_step: bool = False, batches: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self._positions, self._in_step, self._batches = positions, in_step, batches
        self._train, self._validation = train, validation
        self._k, self._config, self._rank, self._seed = schedule.batch_size, config, rank, seed

    def train_dataloader(self) -> DataLoader[EditBatch]:
        """Batches of the trainer's current epoch; of several processes each has its edits."""
        epoch = self.trainer.current_epoch if self.trainer is not None else 0
        return _loader(self.episodes(epoch, self._part()))

    def _part(self) -> tuple[int, int]:
        trainer = self.trainer
        return (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)

    def episodes(self, epoch: int, part: tuple[int, int] = (0, 1)) -> Episodes:
        """The training batches of one epoch; see ``Episodes`` for the part.

        Raises:
            ConfigError: more processes than edits a step.
        """
        c = self._config
        k = min(self._k, self._train.n_real)
        if c.edits(k) < part[1]:
            raise ConfigError(
                f"train.edits_per_step: expected at least {part[1]}, an edit for each process, got "
                f"{c.edits(k)}; raise it, or lower trainer.devices"
            )
        length = c.steps_per_epoch
        if self._batches is not None:
            length = max(1, min(length, self._batches - epoch * length))
        return Episodes(
            self._train, k, c.edits(k), c.passes_per_edit, self._rank,
            length, self._seed, epoch, c.made, part,
        )  # fmt: skip

    def val_dataloader(self) -> DataLoader[EditBatch]:
        """The same batches after every epoch."""
        c = self._config
        k, total = min(self._k, self._validation.n_real), len(self._validation.passing)
        passes = min(c.validation_passes or total, total)
        edits = self._validation.edits_at_once(c.edits(k), k, passes, self._positions)
        first, n = self._part()
        whole = TestEpisodes(
            self._validation, k, edits, passes, self._rank, self._seed, c.validation_edits
        )
        # Where there are more processes than batches, each takes all of them, too.
        if n == 1 or self._in_step or len(whole) < n:
            return _loader(whole)
        return _loader(Subset(whole, range(first, len(whole), n)))


def _loader(dataset: Dataset[EditBatch]) -> DataLoader[EditBatch]:
    # The dataset gathers whole batches out of mapped memory: nothing is left for workers.
    return DataLoader(dataset, batch_size=None, shuffle=False, num_workers=0)
