"""Suffix runs: a model from one block upward, on hidden states computed before.

The base is frozen and an edit changes one layer, so nothing below that layer's MLP
ever changes: not the embeddings, not the blocks below, not the attention of the
block itself, and not the encoder where the decoder is edited. ``capture`` records once
what leaves that frozen part; ``run`` feeds it back and computes only what can differ.

No architecture is re-implemented here. The model's own forward runs, with the frozen
modules short-circuited for the length of a ``with`` block, so masks, positions and
heads are the model's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput

from saledit.delta.anchor import ONLY_AT
from saledit.forward.scoring import forward
from saledit.models import SEQ2SEQ, TaskModel
from saledit.models.detour import forward_replaced

#: What a suffix run starts from: name -> (B, T, D).
States = dict[str, Tensor]

HIDDEN = "hidden"
ATTENTION = "attention"
ENCODER = "encoder"  # what the encoder gave; where its decoder is edited


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a suffix run enters the model.

    Attributes:
        block: index of the block of the edited layer.
        after_attention: True to enter behind the block's attention (the edited sites
            are in the MLP); False to enter at the block itself.
        first_token_only: True where nothing but the first token is read above the
            entry, so that states hold one token a row.
    """

    block: int
    after_attention: bool
    first_token_only: bool


def entry_for(base: TaskModel, block: int, site_names: tuple[str, ...]) -> Entry:
    """Choose the highest entry below which the given sites change nothing.

    Args:
        base: the task model.
        block: index of the block that holds the sites.
        site_names: names of the edited sites.

    Returns:
        The entry.
    """
    inside = base.block_name(block)
    mixing = {f"{inside}.{name}" for name in base.family.attention_maps}
    # Of an architecture that is not in the table nothing is known but its blocks.
    in_mlp = bool(base.family.attention) and not any(name in mixing for name in site_names)
    last = block == base.n_blocks - 1
    return Entry(
        block=block,
        after_attention=in_mlp,
        first_token_only=last and in_mlp and base.pools_first_token,
    )


@contextmanager
def capture(base: TaskModel, entry: Entry) -> Iterator[States]:
    """Record, in one forward pass of the base, the states that a suffix run needs.

    Args:
        base: the task model.
        entry: where suffix runs will enter.

    Yields:
        A dictionary that the forward pass fills: ``hidden`` and/or ``attention``,
        each (B, T, D), or (B, 1, D) where only the first token is read; and ``encoder``
        (B, T_source, D) where the decoder of an encoder-decoder is edited.
    """
    states: States = {}
    block = base.block(entry.block)
    keep = slice(0, 1) if entry.first_token_only else slice(None)

    def before_block(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hidden = args[0] if args else kwargs["hidden_states"]
        states[HIDDEN] = hidden[:, keep].detach()

    def after_attention(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        mixed = output[0] if isinstance(output, tuple) else output
        states[ATTENTION] = mixed[:, keep].detach()

    def after_encoder(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        states[ENCODER] = output[0].detach()

    with ExitStack() as hooks:
        if not (entry.after_attention and base.family.attention_adds_residual):
            handle = block.register_forward_pre_hook(before_block, with_kwargs=True)
            hooks.callback(handle.remove)
        if entry.after_attention:
            attention = block.get_submodule(base.family.attention)
            hooks.callback(attention.register_forward_hook(after_attention).remove)
        if base.kind == SEQ2SEQ and not base.in_encoder:
            encoder = base.model.get_encoder()
            hooks.callback(encoder.register_forward_hook(after_encoder).remove)
        yield states


def run(
    base: TaskModel,
    entry: Entry,
    states: Mapping[str, Tensor],
    inputs: Mapping[str, Tensor],
    at: Tensor | None = None,
    *,
    every_token: bool = False,
    **further: Any,
) -> Tensor:
    """Compute outputs, what the head reads, from cached states.

    Args:
        base: the task model; edits may be applied to it.
        entry: where the states were captured.
        states: what ``capture`` recorded for these rows.
        inputs: the tokenised rows (``input_ids`` (B, T), ``attention_mask`` (B, T)),
            for masks and positions.
        at: positions (B, A) whose next token is scored; None for a classifier.
        every_token: run each map at all tokens, for what looks at its inputs, also where the head
            reads but a few.
        further: arguments of the model's forward (``saledit.forward.tails``).

    Returns:
        As ``scoring.forward``: (B, A, D) at positions, logits (B, C) of a classifier; equal to
        the whole model's up to rounding.
    """
    start = states[HIDDEN] if HIDDEN in states else states[ATTENTION]
    padding = base.model.config.pad_token_id
    if "attention_mask" in inputs and padding is not None and not entry.first_token_only:
        # Gathered rows hold anything beyond their end. A decoder's classifier finds the last
        # token by the padding token, so there has to be one.
        beyond = inputs["attention_mask"] == 0
        ids = inputs["input_ids"].masked_fill(beyond, padding)
        inputs = {**inputs, "input_ids": ids}

    def begin(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            return (start, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": start}

    extra: dict[str, Any] = dict(further)
    if ENCODER in states:
        extra["encoder_outputs"] = BaseModelOutput(last_hidden_state=states[ENCODER])
    with ExitStack() as stack:
        for index in range(entry.block if base.skips_blocks else 0):
            stack.enter_context(base.passing_by(index, _skipped(base, index)))
        block = base.block(entry.block)
        stack.callback(block.register_forward_pre_hook(begin, with_kwargs=True).remove)
        if entry.after_attention:
            _enter_behind_attention(stack, base, entry.block, states[ATTENTION])
        if not every_token:
            if not entry.first_token_only and _last_reads_first_token(base):
                last = base.block(base.n_blocks - 1).get_submodule(base.family.attention)
                stack.callback(last.register_forward_hook(_first_token).remove)
            if at is not None and _leave_out_what_is_not_scored(stack, base, at, start.shape[1]):
                extra[ONLY_AT] = at
        if torch.is_grad_enabled():
            # Decided here, where the hooks of edits can be seen.
            stack.enter_context(base.thrifty_suffix(entry.block))
        # Behind the hooks of the edits that are applied, which may ask what the whole row is.
        hook = partial(_cut, entry.first_token_only)
        stack.callback(base.model.register_forward_pre_hook(hook, with_kwargs=True).remove)
        return forward(base, inputs, at, **extra)


def _cut(
    first_token_only: bool, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Leave the model what it needs of what it is given."""
    if first_token_only:
        return args, {"input_ids": kwargs["input_ids"][:, :1]}
    return args, {name: value for name, value in kwargs.items() if name != ONLY_AT}


def _skipped(base: TaskModel, index: int) -> Callable[..., Any]:
    """The forward of a block that does nothing but hand on what later blocks need."""
    bias = _position_bias(base, index)

    def pass_through(
        hidden_states: Tensor, _mask: Tensor | None = None, position_bias: Tensor | None = None,
        *_args: Any, **_kwargs: Any,
    ) -> Any:  # fmt: skip
        return _returned(base.family.block_returns, hidden_states, bias, position_bias)

    return pass_through


def _enter_behind_attention(stack: ExitStack, base: TaskModel, index: int, mixed: Tensor) -> None:
    block, family = base.block(index), base.family
    bias = _position_bias(base, index)

    def skipped(*args: Any, **kwargs: Any) -> Any:
        hidden = args[0] if args else kwargs["hidden_states"]
        return _returned(family.before_returns, hidden, bias, kwargs.get("position_bias"))

    def cached(*_args: Any, **kwargs: Any) -> Any:
        # A decoder's cross attention has no bias of its own.
        own = None if family.before else bias
        return _returned(family.returns, mixed, own, kwargs.get("position_bias"))

    for name in family.before:
        stack.enter_context(forward_replaced(block.get_submodule(name), skipped))
    attention = block.get_submodule(family.attention)
    stack.enter_context(forward_replaced(attention, cached))


def _position_bias(base: TaskModel, index: int) -> Callable[[int], Tensor] | None:
    """How the first block makes the position bias that all others are handed; None for others."""
    if index or not base.family.position_bias:
        return None
    attention: Any = base.block(0).get_submodule(base.family.position_bias)
    return lambda length: attention.compute_bias(length, length, device=base.device)


def _returned(
    form: str, states: Tensor, make_bias: Callable[[int], Tensor] | None, bias: Tensor | None
) -> Any:
    if form == "states":
        return states
    if form == "pair":
        return states, None
    return states, bias if make_bias is None else make_bias(states.shape[1]), None


def _leave_out_what_is_not_scored(
    stack: ExitStack, base: TaskModel, at: Tensor, length: int
) -> bool:
    """Behind the last attention the head reads scored positions alone: the MLP needs no others.

    Returns:
        Whether the last MLP now is run at these alone.
    """
    name = base.family.mlp_module
    if not name or base.in_encoder or 2 * at.shape[1] > length:
        return False
    mlp = base.block(base.n_blocks - 1).get_submodule(name)
    whole = mlp.forward
    # Fillers repeat a position; what one position is answerable for must not count twice.
    real = ~(at[:, :, None] == at[:, None, :]).tril(-1).any(-1)

    def where_scored(hidden: Tensor) -> Tensor:
        index = at[..., None].expand(-1, -1, hidden.shape[-1])
        found = whole(hidden.gather(1, index))
        found = torch.where(real[..., None], found, found.detach())
        return found.new_zeros(hidden.shape).scatter(1, index, found)

    stack.enter_context(forward_replaced(mlp, where_scored))
    return True


def _last_reads_first_token(base: TaskModel) -> bool:
    # Where the residual joins behind the attention module, it would still hold all tokens.
    return base.pools_first_token and base.family.attention_adds_residual


def _first_token(_module: nn.Module, _args: Any, output: Any) -> Any:
    """Behind the last attention tokens mix no more: the MLP needs only the one that is read."""
    if isinstance(output, tuple):
        return (output[0][:, :1], *output[1:])
    return output[:, :1]
