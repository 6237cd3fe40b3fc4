"""Work of a benchmark in a process of its own, and what the kernel says of its memory."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from saledit.report import quiet_libraries, use_threads

#: What the verbs import when they are called: it is no part of what they take.
IMPORTED = (
    "accelerate", "datasets.packaged_modules", "lightning", "matplotlib.backends.backend_agg",
    "pandas", "saledit.run.fitting", "saledit.run.fixing",
    "saledit.run.picking", "saledit.run.testing", "scipy.io", "torch.utils.tensorboard",
    "transformers.generation", "transformers.models.auto.modeling_auto",
)  # fmt: skip
_STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # what is written to clear_refs (Linux, Documentation/filesystems/proc.rst)


def status() -> dict[str, float]:
    """The kernel's counts of this process's memory, in MB."""
    lines = (line.split() for line in _STATUS.read_text(encoding="ascii").splitlines())
    return {words[0].rstrip(":"): int(words[1]) / 1024 for words in lines if words[-1] == "kB"}


def forget_peak() -> None:
    """Begin the largest resident size anew."""
    CLEAR.write_text(_RESET_PEAK, encoding="ascii")


def import_everything(threads: int) -> None:
    """Use so many threads, be quiet, and import what the verbs would import in their time."""
    use_threads(threads)
    quiet_libraries()
    for name in IMPORTED:
        importlib.import_module(name)


def in_a_child(script: str, flag: str, job: dict[str, Any], what: str) -> dict[str, Any]:
    """Hand a job to a process of its own.

    Args:
        script: what it runs.
        flag: the argument behind which it is told the job's file.
        job: ``result``, the file that it writes; ``threads``; and whatever else it reads.
        what: the job in words, for messages.

    Returns:
        What it took (``taken``) and what was found (``found``).
    """
    own = Path(job["result"]).with_suffix(".job.json")
    own.write_text(json.dumps(job), encoding="utf-8")
    environment = {**os.environ, "OMP_NUM_THREADS": str(job["threads"])}
    command = [sys.executable, str(Path(script).resolve()), flag, str(own)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{what} failed:\n{done.stderr.strip()[-3000:]}")
    found: dict[str, Any] = json.loads(Path(job["result"]).read_text(encoding="utf-8"))
    return found
