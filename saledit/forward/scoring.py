"""The whole model up to what its head reads, and logits only where they are scored.

A vocabulary has 50,000 words and a sample three tokens that are scored. So a run gives what the
head reads at the scored positions, its *outputs* (B, A, D); they are kept, put in order and
compared at that size, and the head makes logits (P, C) of the P positions that have a target. Of a
classifier the outputs are its logits (B, C).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import (
    BaseModelOutput,
    BaseModelOutputWithPastAndCrossAttentions,
)

from saledit.models import CAUSAL, CLASSIFIER, SEQ2SEQ, TaskModel
from saledit.models.detour import forward_replaced
from saledit.widths import wide, wide_type

_MASK = "attention_mask"
# Logits of what a head (the first argument) reads.
Project = Callable[[nn.Linear, Tensor], Tensor]


def forward(
    base: TaskModel, inputs: Mapping[str, Tensor], at: Tensor | None = None, **extra: Any
) -> Tensor:
    """Run a model up to its head.

    Args:
        base: the task model; edits may be applied to it.
        inputs: ``input_ids`` (B, T) padded on the right, ``attention_mask`` (B, T), and for an
            encoder-decoder ``decoder_input_ids`` (B, A).
        at: positions (B, A) whose next token is scored; None for a classifier.
        extra: further arguments of the model's forward.

    Returns:
        What the head reads at these positions (B, A, D); logits (B, C) of a classifier.
    """
    if base.kind == CLASSIFIER:
        with base.weights.graph():
            logits: Tensor = base.model(**inputs, **base.no_cache, **extra).logits
        return logits
    if base.kind == CAUSAL:
        # Padding lies on the right, where a causal model does not look.
        inputs = {name: tensor for name, tensor in inputs.items() if name != _MASK}
    assert at is not None
    places, seen = at, list[Tensor]()

    def gather(hidden: Tensor) -> Tensor:
        seen.append(hidden.gather(1, places[..., None].expand(-1, -1, hidden.shape[-1])))
        return hidden[:1, :1].detach()

    # The model's own forward ends behind its head, which is left out here.
    head: Any = base.model.get_output_embeddings()
    size = base.vocabulary
    with (
        _head_reads(base, gather),
        forward_replaced(head, lambda x: x.new_zeros(*x.shape[:-1], size)),
        base.weights.graph(),
    ):
        base.model(**inputs, use_cache=False, **extra)
    return seen[0]


def logits_beside(
    base: TaskModel, reference: Tensor, outputs: Tensor, scored: Tensor
) -> tuple[Tensor, Tensor]:
    """Logits of outputs and of a reference, true to the difference between them.

    Under autocast a logit of 20 comes in steps of an eighth of a nat, and a KL divergence of two
    such roundings is no smaller than that of a good edit. So the second logits are the first ones
    plus the head's product of the difference, which is rounded as finely as it is small.

    Args:
        base: the task model.
        reference: (..., A, D), without gradient.
        outputs: the same shape.
        scored: bool (..., A), positions that are wanted.

    Returns:
        Twice (P, C), of the wanted positions in order; at least in single precision.
    """
    read: list[tuple[Tensor, Tensor]] = []  # what the head itself reads of the reference, and gives

    def first(head: nn.Linear, x: Tensor) -> Tensor:
        logits = _project(base, head, x)
        read.append((x, wide(logits)))
        return read[0][1]

    def second(head: nn.Linear, x: Tensor) -> Tensor:
        inputs, logits = read[0]
        return logits + _project(base, head, x - inputs, biased=False)

    # In training the first logits weigh a divergence, which a rounding hardly changes. Where
    # nothing is trained they also say what is right, and near-ties must not be rounded to ties.
    kind = outputs.device.type
    cast = torch.is_grad_enabled() and torch.is_autocast_enabled(kind)
    with torch.no_grad(), torch.autocast(kind, enabled=cast):
        before = _headed(base, reference[scored], first)[0]
    return before, _headed(base, outputs[scored], second)[0]


def logits_of(base: TaskModel, outputs: Tensor, scored: Tensor | None = None) -> Tensor:
    """Logits from what the head reads.

    Args:
        base: the task model.
        outputs: (..., A, D); logits (..., C) of a classifier.
        scored: bool (..., A), positions that are wanted; None for all.

    Returns:
        (..., A, C), or (P, C) of the wanted positions in order; a classifier's logits as they are.
    """
    if base.kind == CLASSIFIER:
        return outputs
    flat = outputs.flatten(0, -2) if scored is None else outputs[scored]  # (P, D)
    logits = _headed(base, flat)
    return logits[0] if scored is not None else logits.view(*outputs.shape[:-1], -1)


class _Read(BaseModelOutputWithPastAndCrossAttentions):
    """What a head reads; of experts, whose routers a forward may ask for, there is nothing."""

    router_logits: tuple[Tensor, ...] | None = None
    encoder_router_logits: tuple[Tensor, ...] | None = None
    decoder_router_logits: tuple[Tensor, ...] | None = None


def _headed(base: TaskModel, flat: Tensor, project: Project | None = None) -> Tensor:
    """Logits (1, P, C) of outputs (P, D), with all that the model does before and after its head.

    Args:
        base: the task model.
        flat: what the head reads.
        project: what stands in for the head; None for its product.
    """
    if not len(flat):  # a part of a step may score nothing, and few forwards take no position
        kind = wide_type(flat.dtype)
        return flat.new_zeros((1, 0, base.vocabulary), dtype=kind)
    # The values are not read; the stack that would read them is short-circuited.
    ids = torch.zeros((1, len(flat)), dtype=torch.long, device=flat.device)
    inputs: dict[str, Any] = {"input_ids": ids}
    if base.kind == SEQ2SEQ:
        encoded = BaseModelOutput(last_hidden_state=flat[None])
        inputs = {"decoder_input_ids": ids, "encoder_outputs": encoded}
    result = _Read(last_hidden_state=flat[None])
    stack = base.model.get_submodule(base.head_path)
    head: Any = base.model.get_output_embeddings()
    product = project or partial(_project, base)
    with (
        forward_replaced(stack, lambda *_args, **_kwargs: result),
        forward_replaced(head, partial(product, head)),
        base.weights.graph(),
    ):
        logits: Tensor = base.model(**inputs, use_cache=False).logits
    return logits


def _project(base: TaskModel, head: nn.Linear, x: Tensor, biased: bool = True) -> Tensor:
    """The head's product (B, A, D) -> (B, A, C), as one matrix product.

    Under autocast every call would convert the frozen matrix, the largest of the model, again (a
    third of a training step's time for SmolLM2), and three dimensions would copy it once more.
    """
    kind = x.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
    return base.project(x.flatten(0, -2), dtype, biased).view(*x.shape[:-1], -1)


@contextmanager
def _head_reads(base: TaskModel, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Change what the head reads."""

    def hook(_module: nn.Module, _args: Any, output: Any) -> Any:
        output.last_hidden_state = change(output.last_hidden_state)
        return output

    handle = base.model.get_submodule(base.head_path).register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@torch.no_grad()
def base_logits(base: TaskModel, inputs: Mapping[str, Tensor], at: Tensor | None = None) -> Tensor:
    """Logits of the unedited model: (B, C), or (B, A, C) at positions."""
    return logits_of(base, forward(base, inputs, at))
