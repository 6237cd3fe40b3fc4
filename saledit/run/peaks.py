"""How much memory a process has taken, and what of it several runs share."""

from __future__ import annotations

import gc
import resource
import sys
from collections.abc import Mapping
from pathlib import Path

import torch

from saledit.models.heap import give_back

# Of Linux (Documentation/filesystems/proc.rst). What getrusage tells there is of the process that
# has started this one, too, and may be larger.
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_HIGHEST, _ANEW = "VmHWM:", "5"


class Peaks:
    """Peaks of this process in MB: of main memory, and of an accelerator's tensors.

    What is made once for several runs (a model that is fine-tuned, its answers, caches) is told
    apart, where the system lets a peak begin anew: it would be charged to the run that comes first.

    Args:
        device: where the model is.
    """

    def __init__(self, device: torch.device) -> None:
        self._device, self._is_apart = device, False
        self._setup: dict[str, float] = {}

    def begin(self) -> None:
        """Begin here: what was before is shared with other runs."""
        self._setup = highest(self._setup, self._so_far())
        self.forget()

    def forget(self) -> None:
        """Begin anew, behind what has its peaks in a record of its own."""
        gc.collect()
        give_back()  # a heap that was large stays so else
        try:
            _CLEAR.write_text(_ANEW, encoding="ascii")
        except OSError:
            self._is_apart = False
            return
        self._is_apart = True
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)

    def as_json(self) -> dict[str, float]:
        """Peaks since the beginning, and ``setup_…`` before it.

        Without the latter they are those of the whole process.
        """
        found, setup = self._so_far(), self._setup if self._is_apart else {}
        return {f"peak_{name}": value for name, value in found.items()} | {
            f"setup_{name}": value for name, value in setup.items()
        }

    def _so_far(self) -> dict[str, float]:
        found = {"rss_mb": _highest_rss()}
        if self._device.type == "cuda":
            found["device_mb"] = torch.cuda.max_memory_allocated(self._device) / 2**20
        return found


def _highest_rss() -> float:
    try:
        with _STATUS.open(encoding="ascii") as lines:
            return next(int(own.split()[1]) for own in lines if own.startswith(_HIGHEST)) / 2**10
    except (OSError, StopIteration, ValueError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (2**20 if sys.platform == "darwin" else 2**10)


def highest(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    """The higher peaks of two."""
    return {
        name: max(found[name] for found in (one, other) if name in found) for name in (*one, *other)
    }
