"""Rows that facts are read from: their variants, their places, and what a map has there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from operator import itemgetter

import torch
from torch import Tensor, nn

from saledit.cache.bank import Bank
from saledit.delta import Edits
from saledit.facts.wanted import Prompts
from saledit.forward.places import Reached, touched
from saledit.forward.suffix import run
from saledit.models import CAUSAL, CLASSIFIER, SEQ2SEQ, TaskModel
from saledit.records import Sample
from saledit.widths import wide_type

_ROWS = 512  # rows a run


def parts(order: Tensor, edits: Edits) -> Iterator[tuple[Tensor, Edits]]:
    """Rows that are run at once, those of an edit side by side, and what they are under."""
    n_edits = edits.batch_shape.numel() if len(edits) else 1
    if n_edits == 1:
        yield from ((rows, edits) for rows in torch.split(order, _ROWS))
        return
    each = len(order) // n_edits
    n = max(1, _ROWS // each)
    for i in range(0, n_edits, n):
        yield order[i * each : (i + n) * each], edits.map(itemgetter(slice(i, i + n)))


def variants(samples: Sequence[Sample], contexts: Sequence[str]) -> tuple[list[Sample], Tensor]:
    """The bare samples, then each behind each context; and which sample each is of."""
    out = list(samples)
    for i, context in enumerate(contexts):
        for sample in samples:
            first = f"{context} {sample.inputs[0]}"
            out.append(replace(sample, id=f"{sample.id}<{i}", inputs=(first, *sample.inputs[1:])))
    return out, torch.arange(len(samples)).repeat(1 + len(contexts))


def last_places(base: TaskModel, bank: Bank) -> Tensor:
    """The last token of each prompt, of a classifier the one that its head reads."""
    if base.kind == CAUSAL or (base.kind == SEQ2SEQ and not base.in_encoder):
        return bank.first_scored
    if base.kind == CLASSIFIER and not base.family.generates:
        return torch.zeros(len(bank), dtype=torch.long)
    return bank.lengths - 1


@torch.no_grad()
def states(base: TaskModel, read: Prompts, module: nn.Module) -> tuple[Tensor, Tensor]:
    """What a map is given (R, D_in) and gives (R, D_out) at the positions."""
    keys: list[Tensor] = []
    outputs: list[Tensor] = []

    def keep(x: Tensor, y: Tensor) -> None:
        keys.append(x)
        outputs.append(y)
        raise Reached

    for rows in torch.split(torch.arange(len(read.places)), _ROWS):
        part = read.bank.rows(rows)
        with suppress(Reached), touched(module, read.places[rows], keep, part):
            run(base, read.bank.entry, part.states, part.inputs, part.at)
    # Of a model in half precision, too, facts are found in single precision.
    wide = wide_type(keys[0].dtype)
    return torch.cat(keys).to(wide), torch.cat(outputs).to(wide)
