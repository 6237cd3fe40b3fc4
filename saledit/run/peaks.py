"""How much memory a process has taken."""

from __future__ import annotations

import resource
import sys
from collections.abc import Mapping

import torch


def peaks(device: torch.device) -> dict[str, float]:
    """Peaks of this process, in MB: of main memory, and of an accelerator's tensors."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = {"peak_rss_mb": peak / (2**20 if sys.platform == "darwin" else 2**10)}
    if device.type == "cuda":
        found["peak_device_mb"] = torch.cuda.max_memory_allocated(device) / 2**20
    return found


def highest(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    """The higher peaks of two processes."""
    return {
        name: max(found[name] for found in (one, other) if name in found) for name in (*one, *other)
    }
