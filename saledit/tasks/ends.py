"""Where answers end: the model's own end tokens, and tokens that hold a stop character."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from saledit.models import TaskModel


def end_tokens(base: TaskModel) -> frozenset[int]:
    """The model's own end tokens."""
    given = getattr(base.model.generation_config, "eos_token_id", None)
    ids = given if isinstance(given, list) else [given]
    return frozenset(i for i in (*ids, base.tokenizer.eos_token_id) if i is not None)


def stop_tables(base: TaskModel, stop: str) -> tuple[Tensor, Tensor]:
    """Which tokens end an answer.

    Args:
        base: the task model.
        stop: stop characters.

    Returns:
        Two tables bool (C,): tokens at which an answer has ended just before, and tokens with an
        end anywhere inside, at which generation may halt. The model's end tokens are in both.
    """
    return _tables(base.tokenizer, base.vocabulary, stop, end_tokens(base))


@lru_cache(maxsize=16)  # a vocabulary of 50,000 takes a third of a second
def _tables(tokenizer: Any, size: int, stop: str, ends: frozenset[int]) -> tuple[Tensor, Tensor]:
    words = tokenizer.batch_decode([[i] for i in range(len(tokenizer))])
    at_once, inside = torch.zeros(2, size, dtype=torch.bool)
    for i, word in enumerate(words[:size]):
        at_once[i] = bool(word.strip(" ")) and word.lstrip(" ")[0] in stop
        inside[i] = any(c in stop for c in word)
    for i in ends:
        at_once[i] = inside[i] = True
    return at_once, inside
