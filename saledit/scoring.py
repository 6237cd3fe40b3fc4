"""The whole model, with logits only where they are scored, and logits from what its head reads.

A vocabulary has 50,000 words and a sample three tokens that are scored: the positions are
gathered in front of the head, by a hook on the stack whose output the head reads. What the head
reads there (B, A, D) is all that has to be kept of the base to know its logits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import (
    BaseModelOutput,
    BaseModelOutputWithPastAndCrossAttentions,
)

from saledit.detour import forward_replaced
from saledit.models import CAUSAL, CLASSIFIER, SEQ2SEQ, TaskModel

_MASK = "attention_mask"


def forward(
    base: TaskModel,
    inputs: Mapping[str, Tensor],
    at: Tensor | None = None,
    seen: list[Tensor] | None = None,
    **extra: Any,
) -> Tensor:
    """Run a model and score given positions.

    Args:
        base: the task model; edits may be applied to it.
        inputs: ``input_ids`` (B, T) padded on the right, ``attention_mask`` (B, T), and for an
            encoder-decoder ``decoder_input_ids`` (B, A).
        at: positions (B, A) whose next token is scored; None for a classifier.
        seen: gets what the head reads at these positions, (B, A, D).
        extra: further arguments of the model's forward.

    Returns:
        Logits (B, C) of a classifier, else (B, A, C).
    """
    if base.kind == CLASSIFIER:
        logits: Tensor = base.model(**inputs, **extra).logits
        if seen is not None:
            seen.append(logits)
        return logits
    if base.kind == CAUSAL:
        # Padding lies on the right, where a causal model does not look.
        inputs = {name: tensor for name, tensor in inputs.items() if name != _MASK}
    assert at is not None
    places = at

    def gather(hidden: Tensor) -> Tensor:
        index = places[..., None].expand(-1, -1, hidden.shape[-1])
        picked = hidden.gather(1, index)
        if seen is not None:
            seen.append(picked)
        return picked

    with _head_reads(base, gather):
        scored: Tensor = base.model(**inputs, use_cache=False, **extra).logits
    return scored


def logits_of(base: TaskModel, outputs: Tensor) -> Tensor:
    """Logits from what the head reads.

    Args:
        base: the task model.
        outputs: (..., A, D) as ``forward`` saw them; logits (..., C) of a classifier.

    Returns:
        (..., A, C), or the classifier's logits as they are.
    """
    if base.kind == CLASSIFIER:
        return outputs
    flat = outputs.flatten(0, -3)  # (B, A, D)
    # The values are not read; the stack that would read them is short-circuited.
    ids = torch.zeros(flat.shape[:2], dtype=torch.long, device=flat.device)
    inputs: dict[str, Any] = {"input_ids": ids}
    if base.kind == SEQ2SEQ:
        encoded = BaseModelOutput(last_hidden_state=flat)
        inputs = {"decoder_input_ids": ids, "encoder_outputs": encoded}
    result = BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=flat)
    stack = base.model.get_submodule(base.head_path)
    with forward_replaced(stack, lambda *_args, **_kwargs: result):
        logits: Tensor = base.model(**inputs, use_cache=False).logits
    return logits.view(*outputs.shape[:-1], -1)


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
    """Logits of the unedited model, see ``forward``."""
    return forward(base, inputs, at)
