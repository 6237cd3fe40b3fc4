"""Banks: what the frozen base decides about samples, computed once and kept on disk.

A bank holds, for a list of samples and one layer, the states that enter the suffix,
the base logits, the targets and (where asked for) the compressed gradient factors of
each sample's own loss. It is written in shards of safetensors, each whole or absent,
so that a killed build goes on where it stopped; the shards are memory-mapped, so only
what a batch touches is read. Second moments of the sites' inputs are one sum over all.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import astuple, replace
from pathlib import Path

from torch import Tensor

from saledit import distributed
from saledit.cache.bank import Bank, BankSpec
from saledit.cache.filling import build, entry_of
from saledit.cache.room import Room
from saledit.cache.shards import Shard, open_shard
from saledit.cache.sums import add, open_sums, sum_up, summed
from saledit.files import keep_tensors
from saledit.models import TaskModel
from saledit.models.heap import give_back
from saledit.records import TEXT, Sample
from saledit.tasks.base import Task, task_settings

_SCHEMA = 12
_SHARD = 1024  # samples a shard at most
_SMALLEST, _PARTS = 32, 8  # of few samples there are several, too, for several processes

Progress = Callable[[int, int], None]
#: Gives the bank of a task's samples; whoever made it has settled layer, folder and room.
Opener = Callable[[Task, Sequence[Sample]], Bank]


def bank_key(base: TaskModel, task: Task, samples: Sequence[Sample], spec: BankSpec) -> str:
    """Fingerprint of everything that a bank's numbers depend on."""
    return _key(base, task, _digest(samples), spec)


def _digest(samples: Sequence[Sample]) -> str:
    """Of what a model reads of samples."""
    digest = hashlib.blake2b(digest_size=16)
    for sample in samples:
        passage = sample.kind == TEXT  # is scored at all of its positions
        digest.update(json.dumps([*sample.inputs, sample.target, passage]).encode())
    return digest.hexdigest()


def _key(base: TaskModel, task: Task, asked: str, spec: BankSpec) -> str:
    head = {
        "samples": asked,
        "schema": _SCHEMA,
        "model": base.reading,
        "stack": base.blocks_path,
        "sites": [site.name for site in spec.layer.sites],
        # One model may be known by its family or by where its blocks are.
        "entry": [*astuple(entry_of(base, spec)), base.family.attention_adds_residual],
        "rank": spec.rank,
        "moments": spec.moments,
        "task": [task.name, task_settings(task)],
    }
    if spec.dtype is not None:
        head["dtype"] = str(spec.dtype)
    return hashlib.blake2b(json.dumps(head, sort_keys=True).encode(), digest_size=16).hexdigest()


def open_bank(
    base: TaskModel,
    task: Task,
    samples: Sequence[Sample],
    spec: BankSpec,
    folder: Path,
    progress: Progress | None = None,
    room: Room | None = None,
) -> Bank:
    """Open a bank, building what is not on disk yet or is damaged there; see ``open_several``."""
    return open_several(base, task, samples, [spec], folder, progress, room)[0]


def open_several(
    base: TaskModel,
    task: Task,
    samples: Sequence[Sample],
    specs: Sequence[BankSpec],
    folder: Path,
    progress: Progress | None = None,
    room: Room | None = None,
) -> list[Bank]:
    """Open banks of the same samples; what is missing of them is built in one pass.

    Args:
        base: the task model.
        task: encodes and scores the samples.
        samples: at least one.
        specs: what to keep, a bank for each.
        folder: where banks live; each gets a sub-folder named by its key.
        progress: called with (samples done, samples in all) after each shard.
        room: what mapped shards may take, and a count of those found and made.

    Returns:
        The banks, memory-mapped.

    Raises:
        ArtifactError: something else damages what was just made.
        JobError: the disk is full.
    """
    assert samples, "a bank needs at least one sample"
    room = room or Room()
    room.begin()
    asked = _digest(samples)
    places = [folder / _key(base, task, asked, spec) for spec in specs]
    size = min(_SHARD, max(_SMALLEST, -(-len(samples) // _PARTS)))
    starts = range(0, len(samples), size)
    shards: list[list[Shard]] = [[] for _ in specs]

    def opened(i: int) -> tuple[list[Shard], bool]:
        own = slice(starts[i], starts[i] + size)
        found, is_new = _opened(base, task, lambda: samples[own], specs, places, i, room)
        for shard in found:
            room.hold(shard, shard.size)
        return found, is_new

    own: dict[int, tuple[list[Shard], bool]] = {}
    new: list[bool] = []
    if distributed.world_size() > 1 and not base.weights.is_divided:
        # Every process its own shards, before all map them all.
        own = {
            i: opened(i) for i in range(distributed.rank(), len(starts), distributed.world_size())
        }
        new = distributed.all_gather_shares([is_new for _, is_new in own.values()], len(starts))
    for i, start in enumerate(starts):
        found, is_new = own.get(i) or opened(i)
        room.count(is_new=new[i] if new else is_new)
        for known, shard in zip(shards, found, strict=True):
            known.append(shard)
        if progress is not None:
            progress(min(start + size, len(samples)), len(samples))
    banks = []
    for parts, place, spec in zip(shards, places, specs, strict=True):
        sums = open_sums(place, len(starts)) if spec.moments else None
        if sums is not None:
            room.hold(sums, sums.size)
        entry = entry_of(base, spec)
        banks.append(Bank(parts, entry, spec.layer, base.device, room, base.dtype, sums))
    return banks


def _opened(
    base: TaskModel, task: Task, part: Callable[[], Sequence[Sample]], specs: Sequence[BankSpec],
    places: Sequence[Path], number: int, room: Room,
) -> tuple[list[Shard], bool]:  # fmt: skip
    """Shards of some samples, and whether any was missing: these are built in one pass."""
    paths = [_path(place, number) for place in places]
    found = [_known(*at, number) for at in zip(places, specs, strict=True)]
    if base.weights.broadcast(None in found):
        with room.making():
            _make_shards(base, task, part, specs, places, number)
        return [Shard(path) for path in paths], True
    return [shard or Shard(path) for shard, path in zip(found, paths, strict=True)], False


def _make_shards(
    base: TaskModel, task: Task, part: Callable[[], Sequence[Sample]], specs: Sequence[BankSpec],
    places: Sequence[Path], number: int,
) -> None:  # fmt: skip
    """Build, in one pass, what is missing of some samples; runs beside this one wait for it."""
    weights = base.weights
    paths = [_path(place, number) for place in places]
    with distributed.one_run_at_a_time(*paths, in_step=weights.is_divided):
        missing = [
            # What is in the sum stays there, whatever has become of the shard.
            (i, spec.moments and number not in summed(place))
            for i, (place, spec) in enumerate(zip(places, specs, strict=True))
            if _known(place, spec, number) is None
        ]
        missing = weights.broadcast(missing)
        if missing:
            wanted = [replace(specs[i], moments=counts) for i, counts in missing]
            built = build(base, task, part(), wanted)
            for (i, _), (tensors, sums) in zip(missing, built, strict=True):
                if weights.writes:
                    if sums:
                        sum_up(places[i], number, sums)
                    keep_tensors(paths[i], tensors)
            del built
            give_back()


def _path(place: Path, number: int) -> Path:
    return place / f"shard-{number:05d}.safetensors"


def _known(place: Path, spec: BankSpec, number: int) -> Shard | None:
    """A shard, where it is there and so are its second moments, if they are asked for."""
    if spec.moments and number not in summed(place):
        return None
    return open_shard(_path(place, number))


def memory_bank(base: TaskModel, task: Task, samples: Sequence[Sample], spec: BankSpec) -> Bank:
    """Build a bank in memory, for a few samples or for a model under edits.

    Args:
        base: the task model, with whatever edits are applied to it.
        task: encodes and scores the samples.
        samples: at least one.
        spec: what to keep.
    """
    return memory_banks(base, task, samples, [spec])[0]


def memory_banks(
    base: TaskModel, task: Task, samples: Sequence[Sample], specs: Sequence[BankSpec]
) -> list[Bank]:
    """Build the banks of several layers in memory, in one forward (and backward) pass."""
    shards: list[list[dict[str, Tensor]]] = [[] for _ in specs]
    totals: list[dict[str, Tensor] | None] = [None] * len(specs)
    for start in range(0, len(samples), _SHARD):
        built = build(base, task, samples[start : start + _SHARD], specs)
        for i, (tensors, own) in enumerate(built):
            shards[i].append(tensors)
            if own:
                if (total := totals[i]) is not None:
                    add(own, total)
                totals[i] = own
    return [
        Bank(parts, entry_of(base, spec), spec.layer, base.device, None, base.dtype, total)
        for parts, spec, total in zip(shards, specs, totals, strict=True)
    ]
