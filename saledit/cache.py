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
from pathlib import Path

import torch
from torch import Tensor

from saledit import world
from saledit.bank import ANSWERS, TOKENS, Bank, BankSpec
from saledit.batching import batches_by_length
from saledit.delta import LowRank
from saledit.errors import ArtifactError
from saledit.files import keep_tensors, kept_tensors, one_at_a_time
from saledit.models import SEQ2SEQ, TaskModel
from saledit.records import Sample
from saledit.scoring import forward
from saledit.suffix import ENCODER, Entry, capture, entry_for
from saledit.tap import tap
from saledit.tasks.base import Task, task_settings
from saledit.tasks.prompts import TEXT

_SCHEMA = 8
_SHARD = 1024  # samples a shard
_WHAT = "a shard of cached states"

Progress = Callable[[int, int], None]


def bank_key(base: TaskModel, task: Task, samples: Sequence[Sample], spec: BankSpec) -> str:
    """Fingerprint of everything that a bank's numbers depend on."""
    digest = hashlib.blake2b(digest_size=16)
    head = {
        "schema": _SCHEMA,
        "model": base.reading,
        "stack": base.blocks_path,
        "sites": [site.name for site in spec.layer.sites],
        "rank": spec.rank,
        "moments": spec.moments,
        "task": [task.name, task_settings(task)],
    }
    digest.update(json.dumps(head, sort_keys=True).encode())
    for sample in samples:
        passage = sample.kind == TEXT  # is scored at all of its positions
        digest.update(json.dumps([*sample.inputs, sample.target, passage]).encode())
    return digest.hexdigest()


def open_bank(
    base: TaskModel,
    task: Task,
    samples: Sequence[Sample],
    spec: BankSpec,
    folder: Path,
    progress: Progress | None = None,
) -> Bank:
    """Open a bank, building what is not on disk yet or is damaged there; see ``open_several``."""
    return open_several(base, task, samples, [spec], folder, progress)[0]


def open_several(
    base: TaskModel,
    task: Task,
    samples: Sequence[Sample],
    specs: Sequence[BankSpec],
    folder: Path,
    progress: Progress | None = None,
) -> list[Bank]:
    """Open banks of the same samples; what is missing of them is built in one pass.

    Args:
        base: the task model.
        task: encodes and scores the samples.
        samples: at least one.
        specs: what to keep, a bank for each.
        folder: where banks live; each gets a sub-folder named by its key.
        progress: called with (samples done, samples in all) after each shard.

    Returns:
        The banks, memory-mapped.

    Raises:
        JobError: the disk is full.
    """
    assert samples, "a bank needs at least one sample"
    places = [folder / bank_key(base, task, samples, spec) for spec in specs]
    shards: list[list[dict[str, Tensor]]] = [[] for _ in specs]
    if world.size() > 1:
        _divide(base, task, samples, specs, places)
    for start in range(0, len(samples), _SHARD):
        paths = [place / f"shard-{start // _SHARD:05d}.safetensors" for place in places]
        found = [_read_shard(path) for path in paths]
        if any(shard is None for shard in found):
            part = samples[start : start + _SHARD]
            found = _make_shards(base, task, part, specs, paths)
        for shard, known in zip(shards, found, strict=True):
            assert known is not None
            shard.append(known)
        if progress is not None:
            progress(min(start + _SHARD, len(samples)), len(samples))
    return [
        Bank(parts, _entry(base, spec), spec.layer, base.device)
        for parts, spec in zip(shards, specs, strict=True)
    ]


def _divide(
    base: TaskModel, task: Task, samples: Sequence[Sample], specs: Sequence[BankSpec],
    places: Sequence[Path],
) -> None:  # fmt: skip
    """Build what is missing, every process of the run its own shards; wait for the others."""
    for i, start in enumerate(range(0, len(samples), _SHARD)):
        if i % world.size() == world.rank():
            paths = [place / f"shard-{i:05d}.safetensors" for place in places]
            if any(_read_shard(path) is None for path in paths):
                _make_shards(base, task, samples[start : start + _SHARD], specs, paths)
    world.meet()


def _make_shards(
    base: TaskModel, task: Task, part: Sequence[Sample], specs: Sequence[BankSpec],
    paths: Sequence[Path],
) -> list[dict[str, Tensor] | None]:  # fmt: skip
    """Build, in one pass, what is missing of some samples; runs beside this one wait for it."""
    with ExitStack() as locks:
        for path in sorted(set(paths)):  # in one order, so that no two wait for each other
            locks.enter_context(one_at_a_time(path))
        missing = [i for i, path in enumerate(paths) if _read_shard(path) is None]
        if missing:
            built = _build(base, task, part, [specs[i] for i in missing])
            for i, tensors in zip(missing, built, strict=True):
                keep_tensors(paths[i], tensors)
    return [kept_tensors(path, _WHAT)[0] for path in paths]


def _read_shard(path: Path) -> dict[str, Tensor] | None:
    try:
        return kept_tensors(path, _WHAT)[0]
    except ArtifactError:  # not there yet, or damaged: it is a cache, so it is built again
        return None


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
        Bank([shard[i] for shard in built], _entry(base, spec), spec.layer, base.device)
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
    for batch in batches_by_length(task, base, samples, specs[0].batch_tokens or base.pass_tokens):
        encoded = batch.encoded
        with ExitStack() as stack:
            stack.enter_context(torch.set_grad_enabled(wants_gradients))
            if wants_gradients:
                stack.enter_context(base.thrifty())
            states = [stack.enter_context(capture(base, entry)) for entry in entries]
            tape = stack.enter_context(tap(base.model, sites, len(batch.index)))
            outputs = forward(base, encoded.inputs, encoded.at)
            losses = task.losses(base, task.logits(base, outputs, encoded.targets), encoded.targets)
            grads = tape.factors(losses.sum()) if wants_gradients else {}
        mask = tokens = encoded.inputs["attention_mask"].bool()
        whole = {"losses": losses.detach(), "lengths": mask.sum(1)}
        along = TOKENS  # the tokens that the edited stack reads
        # name -> (B, T, ...), cut to each sample's own length
        ragged = {
            f"{ANSWERS if name.startswith('decoder') else TOKENS}inputs.{name}": tensor.int()
            for name, tensor in encoded.inputs.items()
            if name != "attention_mask"
        }
        if encoded.at is None:
            whole |= {"outputs": outputs.detach(), "targets": encoded.targets}
            answered = mask
        else:
            assert encoded.scored is not None
            answered = encoded.scored
            whole["answer_lengths"] = answered.sum(1)
            ragged["answers.outputs"] = outputs.detach()
            ragged["answers.targets"] = encoded.targets.int()
            ragged["answers.at"] = encoded.at.int()
            if base.kind == SEQ2SEQ and not base.in_encoder:
                along, mask = ANSWERS, answered
        sizes = [
            {TOKENS: read, ANSWERS: scored}
            for read, scored in zip(
                whole["lengths"].tolist(), answered.sum(1).tolist(), strict=True
            )
        ]
        for spec, entry, seen, total, kept in zip(
            specs, entries, states, totals, rows, strict=True
        ):
            keep = slice(0, 1) if entry.first_token_only else slice(None)
            inputs = [tape.inputs[site][:, keep] for site in spec.layer.sites]
            # Cross attention reads what the encoder gave: the tokens of the prompt.
            across = seen[ENCODER].data_ptr() if ENCODER in seen else None
            masks = [(tokens if x.data_ptr() == across else mask)[:, keep] for x in inputs]
            if spec.moments:
                _add_moments(total, inputs, masks)
            own = dict(whole)
            if spec.rank:
                read = zip(spec.layer.sites, inputs, masks, strict=True)
                for j, (site, u, real) in enumerate(read):
                    # Padding has no gradient, but its u would have a say in the terms' signs.
                    u = u * real[..., None]
                    # A gradient of one token has rank one, whatever rank was asked for.
                    rank = 1 if entry.first_token_only else spec.rank
                    # Neither an SVD nor an editor works in half precision.
                    pair = LowRank(_full(u), _full(grads[site].v[:, keep])).compress(rank)
                    own[f"u.{j}"] = _padded(pair.u, rank)
                    own[f"v.{j}"] = _padded(pair.v, rank)
            long = ragged | {
                f"{TOKENS if name == ENCODER else along}states.{name}": tensor
                for name, tensor in seen.items()
            }
            own, long = _in_main_memory(own), _in_main_memory(long)
            for b, (i, lengths) in enumerate(zip(batch.index, sizes, strict=True)):
                kept[i] = {name: tensor[b] for name, tensor in own.items()}
                kept[i] |= {
                    name: tensor[b, : lengths[name[: name.index(".") + 1]]]
                    for name, tensor in long.items()
                }
    return [_pack(kept) | _in_main_memory(total) for kept, total in zip(rows, totals, strict=True)]


def _in_main_memory(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.cpu() for name, tensor in tensors.items()}


def _pack(rows: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Put rows together: token by token where they differ in length, else stacked."""
    return {
        name: (torch.cat if name.startswith((TOKENS, ANSWERS)) else torch.stack)(
            [row[name] for row in rows]
        )
        for name in rows[0]
    }


def _full(x: Tensor) -> Tensor:
    """At least in single precision."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _padded(factor: Tensor, rank: int) -> Tensor:
    """A short text has fewer tokens than the rank: zero terms fill up."""
    return torch.nn.functional.pad(factor, (0, 0, 0, rank - factor.shape[-2]))


def _add_moments(
    totals: dict[str, Tensor], inputs: Sequence[Tensor], masks: Sequence[Tensor]
) -> None:
    for i, (x, mask) in enumerate(zip(inputs, masks, strict=True)):
        # Inputs of one token can be a thousand times as large as all others' (an attention sink).
        # In single precision the squares of those would drown what the others leave.
        z = x[mask].double()  # (tokens, D_in)
        totals[f"moment.{i}"] = totals.get(f"moment.{i}", 0) + z.mT @ z
        totals[f"count.{i}"] = totals.get(f"count.{i}", 0) + mask.sum()
