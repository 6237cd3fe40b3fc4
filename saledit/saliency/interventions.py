"""Interventions in a run: what causal tracing leaves out, adds noise to, or puts back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn

from saledit.errors import DataError
from saledit.models import CAUSAL, SEQ2SEQ, TaskModel
from saledit.records import Sample
from saledit.tasks.base import Encoded, Task
from saledit.tasks.batching import batches_by_length
from saledit.tasks.subjects import stands_in


def content(base: TaskModel, seen: Encoded) -> Tensor:
    """What a text says: bool (B, T), its tokens but the special ones; of a causal model the prompt.

    A row of special tokens alone is taken as it is.
    """
    ids, real = seen.inputs["input_ids"], seen.inputs["attention_mask"].bool()
    if base.kind == CAUSAL:
        assert seen.at is not None
        real = real & (torch.arange(ids.shape[1], device=ids.device) <= seen.at[:, :1])
    tokenizer = base.tokenizer
    special = {i for i in tokenizer.all_special_ids if i != tokenizer.unk_token_id}
    own = real & ~torch.isin(ids, torch.tensor(sorted(special), device=ids.device))
    return torch.where(own.any(1, keepdim=True), own, real)


def about(
    base: TaskModel, task: Task, samples: Sequence[Sample], seen: Encoded
) -> tuple[Tensor, int]:
    """What texts are about: bool (B, T), their subjects, of others all that they say.

    Returns:
        The mask, and how many of them have a subject in what the model reads: a long text may
        have been cut off before it.
    """
    own, named = content(base, seen), 0
    for i, sample in enumerate(samples):
        if not stands_in(sample.subject, sample.inputs):
            continue
        with suppress(DataError):
            ((first, last),) = task.subject_spans(base, [sample])
            own[i] = False
            own[i, first : last + 1] = True
            named += 1
    return own, named


def beginning(base: TaskModel, seen: Encoded, own: Tensor, length: Tensor) -> Encoded:
    """The same rows with only so many tokens of what they say; special tokens and answers stay.

    Args:
        base: whose padding to use.
        seen: R rows.
        own: ``content`` of the rows, bool (R, T).
        length: tokens (R,) that are read, at least 1.
    """
    kept = ~(own & (own.cumsum(1) > length[:, None]))
    order = kept.int().argsort(dim=1, descending=True, stable=True)  # (R, T)
    short = seen.inputs["input_ids"].shape
    inputs = {
        name: value.gather(1, order) if value.shape == short and "decoder" not in name else value
        for name, value in seen.inputs.items()
    }
    left = kept.gather(1, order)
    inputs["attention_mask"] = inputs["attention_mask"] * left
    padding = base.model.config.pad_token_id
    if padding is not None:
        inputs["input_ids"] = inputs["input_ids"].masked_fill(~left, padding)
    at = seen.at
    if at is not None and base.kind == CAUSAL:
        at = at - (~kept).sum(1, keepdim=True)
    return Encoded(inputs, seen.targets, at, seen.scored)


def rows_of(seen: Encoded, index: Tensor) -> Encoded:
    """Some rows (R,) of an encoding, in this order."""
    return Encoded(
        {name: value[index] for name, value in seen.inputs.items()},
        seen.targets[index],
        None if seen.at is None else seen.at[index],
        None if seen.scored is None else seen.scored[index],
    )


def embedding_spread(
    base: TaskModel, task: Task, samples: Sequence[Sample], batch_tokens: int
) -> float:
    """Standard deviation of the embeddings of what samples are about, over tokens and sizes."""
    table = text_table(base)
    found = []
    for batch in batches_by_length(task, base, samples, batch_tokens):
        own, _ = about(base, task, [samples[i] for i in batch.index], batch.encoded)
        found.append(table(batch.encoded.inputs["input_ids"][own]).float().cpu().flatten())
    return float(torch.cat(found).std())


def text_table(base: TaskModel) -> nn.Module:
    """What embeds the text."""
    reader: Any = base.model.get_encoder() if base.kind == SEQ2SEQ else base.model
    table: nn.Module = reader.get_input_embeddings()
    return table


@contextmanager
def noised(base: TaskModel, noise: Tensor) -> Iterator[None]:
    """Add noise (R, T, D) to the embeddings of the text."""
    seen = 0

    def hook(_module: nn.Module, _args: Any, output: Tensor) -> Tensor:
        nonlocal seen
        seen += 1  # a decoder that shares the table reads behind the encoder
        return output + noise.to(output) if seen == 1 else output

    handle = text_table(base).register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
