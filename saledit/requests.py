"""Requests: what editors may look at, made of cached samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from saledit.cache.bank import BankSpec
from saledit.cache.opening import memory_bank
from saledit.data.conditions import embedded
from saledit.data.episodes import EditBatch
from saledit.delta import Edits
from saledit.editors.locating import FactSource, FactSpec
from saledit.editors.request import Request
from saledit.editors.stepping import PerEdit
from saledit.editors.terms import Terms
from saledit.facts.contexts import sampled
from saledit.facts.found import FactsFound
from saledit.failures import Failures, parts_of
from saledit.forward.rows import Rows, run_edits
from saledit.forward.suffix import Entry
from saledit.models import TaskModel
from saledit.records import Sample
from saledit.site import Layer, Site
from saledit.tasks.base import Task


@dataclass(frozen=True, slots=True)
class Held:
    """Pass samples that lie beside an editor, H rows.

    Attributes:
        rows: for suffix runs.
        outputs: what the head of the model reads before the edit, (H, A, D); logits (H, C) of a
            classifier.
        targets: (H,) or (H, A).
    """

    rows: Rows
    outputs: Tensor
    targets: Tensor


def hold(base: TaskModel, task: Task, samples: Sequence[Sample], layer: Layer) -> Held | None:
    """Pass samples as they are now: under the edits that are applied to the model, if any.

    Args:
        base: the task model.
        task: encodes them.
        samples: pass samples; none gives None.
        layer: the layer to be edited.
    """
    if not samples:
        return None
    with torch.no_grad():
        bank = memory_bank(base, task, samples, BankSpec(layer))
        index = torch.arange(len(bank))
        return Held(bank.rows(index), bank.outputs(index), bank.targets_of(index))


def request_for(
    base: TaskModel, task: Task, entry: Entry, batch: EditBatch, held: Held | None = None,
    folder: Path | None = None,
) -> Request:  # fmt: skip
    """The request that a batch of edits makes: its failures, not what it is judged by.

    Args:
        base: the task model.
        task: scores the failures.
        entry: where the batch's states were captured.
        batch: E edits.
        held: pass samples that the editor may look at, where it needs them.
        folder: where what an editor finds out about a failure is kept; None to keep nothing.
    """

    @cache
    def own() -> Failures:  # rows that few editors ask for, but some many times
        return Failures(base, task, entry, *batch.own(), batch.ranks)

    request = request_of(base, batch.terms, own, damage(base, task, entry, held), batch.texts)
    return replace(request, facts=facts_of(base, task, entry, batch.failures, folder=folder))


def request_of(
    base: TaskModel, terms: Terms, own: Callable[[], Failures], harm: PerEdit,
    texts: Tensor | None = None,
) -> Request:  # fmt: skip
    """The request of E edits, which can be looked at again.

    Args:
        base: the task model.
        terms: of their gradients.
        own: their failures.
        harm: what edits do to held pass samples, see ``damage``.
        texts: the failures' conditions (E, K, T), where the editor reads them.
    """

    def again(sites: tuple[Site, ...], edits: Edits, index: Tensor) -> Request:
        some = own().pick(index)
        said = None if texts is None else texts[index.to(texts.device)]
        return request_of(base, some.gradients(sites, edits), lambda: some, harm, said)

    request = Request(
        terms.pairs,
        lambda edits: own().losses(edits),
        harm,
        again=again,
        broadcast=base.weights.broadcast,
        owners=terms.owners,
    )
    if texts is None:
        return request
    return replace(request, condition=lambda: embedded(base, texts))


def facts_of(
    base: TaskModel, task: Task, entry: Entry, samples: Sequence[Sequence[Sample]],
    steps: Edits | None = None, folder: Path | None = None,
) -> Callable[[tuple[Site, ...], FactSpec], FactSource]:  # fmt: skip
    """Failures as facts, found when they are asked for.

    Args:
        base: the task model.
        task: encodes and scores.
        entry: where suffix runs of the layer enter.
        samples: for each of E edits its K failures.
        steps: edits to be applied meanwhile.
        folder: see ``FactsFound``.
    """

    @cache
    def found(sites: tuple[Site, ...], spec: FactSpec) -> FactSource:
        contexts = sampled(base, spec.contexts)  # of the model as it was before any edit
        return FactsFound(base, task, entry.block, sites, samples, spec, contexts, steps, folder)

    return found


def damage(base: TaskModel, task: Task, entry: Entry, held: Held | None) -> PerEdit:
    """What edits (E,) do to held pass samples: mean KL in nats."""

    def divergence(edits: Edits) -> Tensor:
        assert held is not None, "an editor with needs_held is given held samples"
        n, size = edits.batch_shape.numel(), len(held.targets)
        every = torch.arange(size, device=held.targets.device)
        parts = every.tensor_split(parts_of(base, n, size, held.targets[0].numel()))
        return torch.cat([of(held, own, edits) for own in parts], 1).mean(1)

    def of(held: Held, own: Tensor, edits: Edits) -> Tensor:
        n = edits.batch_shape.numel()
        outputs = run_edits(base, entry, held.rows.pick(own.repeat(n)), edits)
        targets = held.targets[own].expand(n, -1, *held.targets.shape[1:])
        before = held.outputs[own].expand(n, -1, *held.outputs.shape[1:])
        old, new = task.logits_beside(base, before, outputs, targets)
        return task.divergence(old, new.to(old.dtype), targets)

    return divergence
