"""The facts that every artifact records."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Sequence
from typing import Any

import torch

import saledit
from saledit.site import Site

SCHEMA = 1
#: Of what trainings and tests compute: to be raised with whatever makes other numbers of the same
#: settings and samples. Nothing that is of another one is gone on with, or compared.
REVISION = 10


def versions() -> dict[str, str]:
    """Versions that a result depends on."""
    names = ("torch", "lightning", "transformers", "datasets", "safetensors")
    found = {name: importlib.metadata.version(name) for name in names}
    return {"saledit": saledit.__version__, "python": platform.python_version(), **found}


def environment(device: torch.device, command: str = "") -> dict[str, Any]:
    """Where a result was made, for a JSON file.

    Args:
        device: where the model was.
        command: what was typed; "" where nothing was.
    """
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {
        "command": command,
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": name,
    }


def sites_as_json(sites: Sequence[Site]) -> list[dict[str, Any]]:
    """Sites for a JSON file."""
    return [
        {"name": s.name, "d_in": s.d_in, "d_out": s.d_out, "transposed": s.transposed}
        for s in sites
    ]
