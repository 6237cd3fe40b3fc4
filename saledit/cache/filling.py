"""Filling a bank: what the frozen base decides about samples, computed in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import torch
from torch import Tensor

from saledit.cache.bank import ANSWERS, TOKENS, BankSpec
from saledit.cache.factors import compressed, masks_of
from saledit.cache.running import RunningSums
from saledit.delta import LowRank
from saledit.errors import JobError, NoNumbersError
from saledit.forward.scoring import forward
from saledit.forward.suffix import ENCODER, Entry, capture, entry_for
from saledit.models import SEQ2SEQ, TaskModel
from saledit.records import Sample
from saledit.site import Site
from saledit.tap import tap
from saledit.tasks.base import Task
from saledit.tasks.batching import batches_by_length


def entry_of(base: TaskModel, spec: BankSpec) -> Entry:
    """Where suffix runs of a bank's layer enter the model."""
    return entry_for(base, spec.layer.index, tuple(site.name for site in spec.layer.sites))


def build(
    base: TaskModel, task: Task, samples: Sequence[Sample], specs: Sequence[BankSpec]
) -> list[tuple[dict[str, Tensor], dict[str, Tensor]]]:
    """The tensors of one shard, for each spec, in one pass over its samples.

    Args:
        base: the task model, with whatever edits are applied to it.
        task: encodes and scores the samples.
        samples: at least one.
        specs: what to keep.

    Returns:
        For each spec the shard, and the second moments that it asks for, as
        ``RunningSums.tensors`` gives them; nothing where it asks for none.
    """
    rows: list[list[dict[str, Tensor]]] = [[{} for _ in samples] for _ in specs]
    totals = [RunningSums() for _ in specs]
    entries = [entry_of(base, spec) for spec in specs]
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
            grads: dict[Site, LowRank] = {}
            if wants_gradients:
                check_losses(base, losses, [samples[i] for i in batch.index])
                grads = tape.factors(losses.sum())
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
            masks = [m[:, keep] for m in masks_of(inputs, tokens, mask, seen.get(ENCODER))]
            if spec.moments:
                total.add(inputs, masks)
            own = dict(whole)
            if spec.rank:
                slopes = [grads[site].v[:, keep] for site in spec.layer.sites]
                # A gradient of one token has rank one, whatever rank was asked for.
                rank = 1 if entry.first_token_only else spec.rank
                for j, pair in enumerate(compressed(inputs, slopes, masks, rank)):
                    own[f"u.{j}"], own[f"v.{j}"] = pair.u, pair.v
            long = ragged | {
                f"{TOKENS if name == ENCODER else along}states.{name}": tensor
                for name, tensor in seen.items()
            }
            own, long = (_kept(tensors, spec.dtype) for tensors in (own, long))
            for b, (i, lengths) in enumerate(zip(batch.index, sizes, strict=True)):
                kept[i] = {name: tensor[b] for name, tensor in own.items()}
                kept[i] |= {
                    name: tensor[b, : lengths[name[: name.index(".") + 1]]]
                    for name, tensor in long.items()
                }
    return [(_pack(kept), total.tensors()) for kept, total in zip(rows, totals, strict=True)]


def check_losses(base: TaskModel, losses: Tensor, samples: Sequence[Sample]) -> None:
    """Refuse failures of whose losses one is no number.

    Raises:
        NoNumbersError: the loss of a sample is NaN or infinite.
    """
    if not bool(losses.isfinite().all()):
        i = int(losses.isfinite().logical_not().nonzero()[0])
        raise NoNumbersError(
            f"{base.name}: expected a loss of {samples[i].id} that is a number, got "
            f"{float(losses[i].detach())}; load the model in single precision (model.dtype), or "
            "take back the edits that broke it"
        )


def _kept(tensors: dict[str, Tensor], dtype: torch.dtype | None) -> dict[str, Tensor]:
    """In main memory; states and factors in a type of their own, if there is one."""
    shorter = {
        name: _shortened(tensor, dtype) if dtype is not None and _is_shortened(name) else tensor
        for name, tensor in tensors.items()
    }
    return _in_main_memory(shorter)


def _shortened(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    largest = torch.finfo(dtype).max
    if dtype == torch.float16 and tensor.numel() and tensor.abs().max() > largest:
        raise JobError(
            f"caches.dtype: expected states and factors up to {largest:.0f}, which float16 can "
            f"hold, got {float(tensor.abs().max()):.3g}; set caches.dtype=bfloat16"
        )
    return tensor.to(dtype)


def _is_shortened(name: str) -> bool:
    # What the head reads of the base may not: the KL of no edit has to be none.
    return name.removeprefix(TOKENS).removeprefix(ANSWERS).startswith(("u.", "v.", "states."))


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
