"""Half precision where it pays: on an accelerator, or on a CPU with instructions for it.

A CPU without bfloat16 instructions multiplies matrices of it one number at a time: 1.2 GFLOP/s
where the same core does 60 in float32 (AMD EPYC, AVX2 alone). What was asked for to save time is
computed in float32 there.
"""

from __future__ import annotations

from typing import Any

import torch

_WANTED, _INSTEAD = "bf16-mixed", "32-true"
_SAME = (_WANTED, "bf16")  # Lightning's words for it
_HALF = ("16-mixed", "16", 16)  # which a CPU has not: Lightning takes bfloat16 there


def precision_here(wanted: Any, accelerator: str = "auto") -> Any:
    """The precision that a trainer of this machine computes in.

    Args:
        wanted: as ``lightning.Trainer`` takes it.
        accelerator: where it trains, in Lightning's words.

    Returns:
        ``wanted``; on a CPU bf16-mixed in the place of 16-mixed, and 32-true in the place of
        bf16-mixed where it has no bfloat16.
    """
    if accelerator != "cpu" and torch.accelerator.is_available():
        return wanted
    if wanted in _HALF:
        wanted = _WANTED
    return _INSTEAD if wanted in _SAME and not cpu_has_bfloat16() else wanted


def cpu_has_bfloat16() -> bool:
    """Whether the CPU's matrix products have a fast path for bfloat16 (oneDNN's own answer)."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
