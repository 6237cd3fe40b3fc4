"""Contexts: beginnings that a model itself comes up with, to be put before prompts.

Source: ROME's and MEMIT's code, which sample them once a model (Meng et al., 2022, section 3.1).
They are as in ROME's: from the token that texts begin with, half of five and half of ten tokens.
MEMIT's go on from "The", "Therefore", "Because", "I" and "You", one each, to ten tokens in all.
"""

from __future__ import annotations

from typing import Any

import torch

from saledit.models import CLASSIFIER, TaskModel

_LENGTHS = (5, 10)  # tokens, in turn
_SEED = 0


@torch.no_grad()
def sampled(base: TaskModel, count: int) -> tuple[str, ...]:
    """Some beginnings, each closed by a full stop; none of a model that does not write.

    They are drawn from the model alone, always the same ones. To be called before edits are
    applied.

    Args:
        base: the task model.
        count: how many; those in which the model says nothing are left out.
    """
    if count == 0 or base.kind == CLASSIFIER:
        return ()
    if count not in base.beginnings:
        base.beginnings[count] = base.weights.broadcast(_drawn(base, count))
    return base.beginnings[count]


def _drawn(base: TaskModel, count: int) -> tuple[str, ...]:
    config: Any = base.model.config
    names = ("bos_token_id", "eos_token_id", "decoder_start_token_id")
    known = [getattr(config, name, None) for name in names]
    start = next((i for i in known if i is not None), 0)
    start = start[0] if isinstance(start, list) else start
    ids = torch.full((count, 1), int(start), device=base.device)
    devices = [base.device] if base.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(_SEED)
        model: Any = base.model
        found = model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=True, top_k=5,
            max_new_tokens=max(_LENGTHS), pad_token_id=config.pad_token_id,
        )  # fmt: skip
    out = []
    for i, row in enumerate(found[:, 1:]):
        text = base.tokenizer.decode(row[: _LENGTHS[i % len(_LENGTHS)]], skip_special_tokens=True)
        words = " ".join(str(text).split())
        if words:
            out.append(f"{words}.")
    return tuple(out)
