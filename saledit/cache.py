"""Banks: what the frozen base decides about samples, computed once and kept on disk.

A bank holds, for a list of samples and one layer, the states that enter the suffix,
the base logits, the targets and (where asked for) the compressed gradient factors of
each sample's own loss and the second moments of the sites' inputs. It is written in
shards of safetensors, each whole or absent, so that a killed build goes on where it
stopped; the shards are memory-mapped, so only what a batch touches is read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from saledit.batching import batches_by_length
from saledit.delta import LowRank
from saledit.errors import ArtifactError
from saledit.files import read_tensors, write_tensors
from saledit.models import TaskModel
from saledit.records import Sample
from saledit.rows import Rows
from saledit.site import Layer
from saledit.suffix import Entry, capture, entry_for
from saledit.tap import tap
from saledit.tasks.base import Task, task_settings

_SCHEMA = 2
_SHARD = 1024  # samples a shard

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class BankSpec:
    """What a bank is of.

    Attributes:
        layer: the layer to edit.
        rank: terms to keep of each sample's gradient factors; 0 for none.
        moments: True to sum up the second moments of the sites' inputs.
        batch_tokens: padded tokens a batch of the building pass may hold.
    """

    layer: Layer
    rank: int = 0
    moments: bool = False
    batch_tokens: int = 4096


class Bank:
    """Cached samples of one layer.

    Args:
        shards: the tensors of each shard.
        entry: where suffix runs enter.
        layer: the edited layer.
    """

    def __init__(self, shards: Sequence[dict[str, Tensor]], entry: Entry, layer: Layer) -> None:
        self.entry, self.layer = entry, layer
        self._shards = shards
        self.logits = torch.cat([s["logits"] for s in shards])  # (n, C)
        self.targets = torch.cat([s["targets"] for s in shards])  # (n,)
        self.lengths = torch.cat([s["lengths"] for s in shards])  # (n,) tokens
        # Where each sample's tokens begin inside its shard.
        self._starts = torch.cat([s["lengths"].cumsum(0) - s["lengths"] for s in shards])
        self._states = sorted(k for k in shards[0] if k.startswith("states."))
        self._inputs = sorted(k for k in shards[0] if k.startswith("inputs."))

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.targets)

    def rows(self, index: Tensor) -> Rows:
        """Gather samples into padded rows.

        Args:
            index: (B,) positions in the bank; may repeat.

        Returns:
            The rows, in the order of ``index``.
        """
        lengths, starts = self.lengths[index], self._starts[index]
        width = int(lengths.max())
        span = torch.arange(width)
        # Beyond a row's end its last token is repeated; the attention mask hides it.
        inside = torch.minimum(span, lengths[:, None] - 1)  # (B, T)
        places = starts[:, None] + inside
        inputs = {
            name.removeprefix("inputs."): self._pick(name, index, places).long()
            for name in self._inputs
        }
        inputs["attention_mask"] = (span < lengths[:, None]).long()
        if self.entry.first_token_only:
            places = (index % _SHARD)[:, None]
        states = {
            name.removeprefix("states."): self._pick(name, index, places) for name in self._states
        }
        return Rows(inputs, states)

    def factors(self, index: Tensor) -> list[LowRank]:
        """Gradient factors of samples, a pair for each site of the layer.

        Args:
            index: any shape (...) of positions.

        Returns:
            For each site u (..., r, D_in), v (..., r, D_out).
        """
        flat = index.flatten()
        local = flat % _SHARD
        out = []
        for i in range(len(self.layer.sites)):
            u, v = (self._pick(f"{side}.{i}", flat, local) for side in "uv")
            out.append(
                LowRank(u.view(*index.shape, *u.shape[1:]), v.view(*index.shape, *v.shape[1:]))
            )
        return out

    def moments(self) -> list[Tensor]:
        """Mean of x x^T over the inputs x of each site, (D_in, D_in)."""
        count = torch.stack([s["moment.count"] for s in self._shards]).sum()
        return [
            torch.stack([s[f"moment.{i}"] for s in self._shards]).sum(0) / count
            for i in range(len(self.layer.sites))
        ]

    def _pick(self, name: str, index: Tensor, places: Tensor) -> Tensor:
        if len(self._shards) == 1:
            return self._shards[0][name][places]
        shard_of = index // _SHARD
        first = self._shards[0][name]
        out = first.new_empty((*places.shape, *first.shape[1:]))
        for shard in sorted(set(shard_of.tolist())):
            rows = shard_of == shard
            out[rows] = self._shards[shard][name][places[rows]]
        return out


def bank_key(base: TaskModel, task: Task, samples: Sequence[Sample], spec: BankSpec) -> str:
    """Fingerprint of everything that a bank's numbers depend on."""
    digest = hashlib.blake2b(digest_size=16)
    head = {
        "schema": _SCHEMA,
        "model": base.fingerprint,
        "sites": [site.name for site in spec.layer.sites],
        "rank": spec.rank,
        "moments": spec.moments,
        "task": [task.name, task_settings(task)],
        "labels": base.model.config.label2id,  # targets are numbers, and no weight holds these
    }
    digest.update(json.dumps(head, sort_keys=True).encode())
    for sample in samples:
        digest.update(json.dumps([*sample.inputs, sample.target]).encode())
    return digest.hexdigest()


def open_bank(
    base: TaskModel,
    task: Task,
    samples: Sequence[Sample],
    spec: BankSpec,
    folder: Path,
    progress: Progress | None = None,
) -> Bank:
    """Open a bank, building what is not on disk yet or is damaged there.

    Args:
        base: the task model.
        task: encodes and scores the samples.
        samples: at least one.
        spec: what to keep.
        folder: where banks live; each gets a sub-folder named by its key.
        progress: called with (samples done, samples in all) after each shard.

    Returns:
        The bank, memory-mapped.

    Raises:
        JobError: the disk is full.
    """
    assert samples, "a bank needs at least one sample"
    place = folder / bank_key(base, task, samples, spec)
    shards = []
    for start in range(0, len(samples), _SHARD):
        path = place / f"shard-{start // _SHARD:05d}.safetensors"
        try:
            shard = read_tensors(path, "a shard of cached states")
        except ArtifactError:  # not there yet, or damaged: it is a cache, so it is built again
            part = samples[start : start + _SHARD]
            write_tensors(path, _build(base, task, part, [spec])[0])
            shard = read_tensors(path, "a shard of cached states")
        shards.append(shard)
        if progress is not None:
            progress(min(start + _SHARD, len(samples)), len(samples))
    return Bank(shards, _entry(base, spec), spec.layer)


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
    built = [
        _build(base, task, samples[start : start + _SHARD], specs)
        for start in range(0, len(samples), _SHARD)
    ]
    return [
        Bank([shard[i] for shard in built], _entry(base, spec), spec.layer)
        for i, spec in enumerate(specs)
    ]


def _entry(base: TaskModel, spec: BankSpec) -> Entry:
    return entry_for(base, spec.layer.index, tuple(site.name for site in spec.layer.sites))


def _build(
    base: TaskModel, task: Task, samples: Sequence[Sample], specs: Sequence[BankSpec]
) -> list[dict[str, Tensor]]:
    """The tensors of one shard, for each spec."""
    rows: list[list[dict[str, Tensor]]] = [[{} for _ in samples] for _ in specs]
    totals: list[dict[str, Tensor]] = [{} for _ in specs]
    entries = [_entry(base, spec) for spec in specs]
    sites = [site for spec in specs for site in spec.layer.sites]
    wants_gradients = any(spec.rank for spec in specs)
    for batch in batches_by_length(task, base, [s.inputs for s in samples], specs[0].batch_tokens):
        targets = task.targets(base, [samples[i].target for i in batch.index])
        with ExitStack() as stack:
            stack.enter_context(torch.set_grad_enabled(wants_gradients))
            states = [stack.enter_context(capture(base, entry)) for entry in entries]
            tape = stack.enter_context(tap(base.model, sites))
            logits = base.model(**batch.inputs).logits
            loss = task.losses(logits, targets).sum()
            grads = tape.factors(loss) if wants_gradients else {}
        mask = batch.inputs["attention_mask"].bool()
        shared = {"logits": logits.detach(), "targets": targets, "lengths": mask.sum(1)}
        for spec, entry, seen, total, kept in zip(
            specs, entries, states, totals, rows, strict=True
        ):
            keep = slice(0, 1) if entry.first_token_only else slice(None)
            inputs = [tape.inputs[site][:, keep] for site in spec.layer.sites]
            if spec.moments:
                _add_moments(total, inputs, mask[:, keep])
            whole = dict(shared)
            if spec.rank:
                for j, (site, u) in enumerate(zip(spec.layer.sites, inputs, strict=True)):
                    # Padding has no gradient, but its u would have a say in the terms' signs.
                    u = u * mask[:, keep, None]
                    # A gradient of one token has rank one, whatever rank was asked for.
                    rank = 1 if entry.first_token_only else spec.rank
                    pair = LowRank(u, grads[site].v[:, keep]).compress(rank)
                    whole[f"u.{j}"] = _padded(pair.u, rank)
                    whole[f"v.{j}"] = _padded(pair.v, rank)
            ragged = {f"states.{name}": tensor for name, tensor in seen.items()}
            ragged |= {
                f"inputs.{name}": tensor.int()
                for name, tensor in batch.inputs.items()
                if name != "attention_mask"
            }
            for b, i in enumerate(batch.index):
                length = int(shared["lengths"][b])
                kept[i] = {name: tensor[b] for name, tensor in whole.items()}
                kept[i] |= {name: tensor[b, :length] for name, tensor in ragged.items()}
    return [_pack(kept) | total for kept, total in zip(rows, totals, strict=True)]


def _pack(rows: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Put rows together: token by token where they differ in length, else stacked."""
    ragged = ("inputs.", "states.")
    return {
        name: (torch.cat if name.startswith(ragged) else torch.stack)([row[name] for row in rows])
        for name in rows[0]
    }


def _padded(factor: Tensor, rank: int) -> Tensor:
    """A short text has fewer tokens than the rank: zero terms fill up."""
    return torch.nn.functional.pad(factor, (0, 0, 0, rank - factor.shape[-2]))


def _add_moments(totals: dict[str, Tensor], inputs: Sequence[Tensor], mask: Tensor) -> None:
    for i, x in enumerate(inputs):
        z = x[mask]  # (tokens, D_in)
        totals[f"moment.{i}"] = totals.get(f"moment.{i}", 0) + z.mT @ z
    totals["moment.count"] = totals.get("moment.count", 0) + mask.sum().float()
