"""Samples of a bank under one edit, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from saledit.cache.bank import Bank
from saledit.delta import Edits
from saledit.forward.suffix import run
from saledit.judging.judged import Heard, together
from saledit.models import TaskModel
from saledit.overlay import applied
from saledit.tasks.base import Task


@torch.no_grad()
def bank_batches(
    base: TaskModel, task: Task, bank: Bank, edits: Edits | None = None, batch_rows: int = 256,
    index: Tensor | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:  # fmt: skip
    """Logits of samples of a bank, with or without one edit.

    Args:
        base: the task model.
        task: says where something is scored.
        bank: cached samples.
        edits: unbatched edits of the bank's layer; None for the base, which costs next to nothing.
        batch_rows: rows a suffix run of a classifier; text takes fewer.
        index: positions (n,) of the samples; None for all.

    Yields:
        (positions (B,), logits as ``task.logits`` gives them), by length: the same batches
        whatever the edits.
    """
    rows_at_once = batch_rows if bank.answer_lengths is None else max(1, batch_rows // 8)
    every = torch.arange(len(bank)) if index is None else index
    # By length, so that little is spent on padding.
    for chunk in torch.split(every[bank.lengths[every].argsort(stable=True)], rows_at_once):
        if edits is None:
            outputs = bank.outputs(chunk)
        else:
            rows = bank.rows(chunk)
            with applied(base.model, edits):
                outputs = run(base, bank.entry, rows.states, rows.inputs, rows.at)
        yield chunk, task.logits(base, outputs, bank.targets_of(chunk))


@torch.no_grad()
def bank_heard(
    base: TaskModel, task: Task, bank: Bank, edits: Edits | None = None,
    index: Tensor | None = None,
) -> Heard:  # fmt: skip
    """What samples of a bank are answered, with or without an edit: (1, n), on the CPU.

    Args:
        base: the task model.
        task: says what is right.
        bank: cached samples.
        edits: unbatched, as of ``bank_batches``.
        index: positions (n,) of the samples, in ascending order; None for all.
    """
    places, parts = [], []
    for rows, logits in bank_batches(base, task, bank, edits, index=index):
        places.append(rows.cpu())
        parts.append(Heard.of(base, task, logits, bank.targets_of(rows)).row())
    return together(parts, places).cpu()
