"""Where a model runs outside training: where lightning.Trainer will train."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from saledit import distributed
from saledit.errors import ConfigError
from saledit.models import TaskModel

_PLACES = ("accelerator", "devices")


def place(base: TaskModel, trainer: Mapping[str, Any]) -> None:
    """Move a model to where it is asked, cached and tested.

    Args:
        base: the task model; moved in place.
        trainer: arguments of lightning.Trainer.

    Raises:
        ConfigError: see ``device_of``.
    """
    base.weights.to(device_of(trainer))


def device_of(trainer: Mapping[str, Any]) -> torch.device:
    """The device that lightning.Trainer would train on, of several this process's or the first.

    Accelerators other than CUDA have no double precision, which whitening and metrics need: what
    is done outside training stays on the CPU there.

    Raises:
        ConfigError: there is no such accelerator here.
    """
    chosen = {name: trainer[name] for name in _PLACES if name in trainer}
    on_gpu = chosen.get("accelerator", "auto") in ("auto", "gpu", "cuda")
    if distributed.world_size() > 1 and on_gpu and torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())  # as the launch has set it
    if chosen.get("devices") == 1:
        del chosen["devices"]
    if chosen == {"accelerator": "cpu"}:
        return torch.device("cpu")
    if chosen in ({}, {"accelerator": "auto"}):
        return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    found = _chosen(chosen)
    return found if found.type == "cuda" else torch.device("cpu")


def accelerator_left(trainer: Mapping[str, Any], device: torch.device) -> str:
    """The accelerator that is asked for and left alone, see ``device_of``; "" where none is.

    Args:
        trainer: arguments of lightning.Trainer.
        device: what ``device_of`` makes of them.
    """
    is_asked = device.type == "cpu" and trainer.get("accelerator", "auto") != "cpu"
    if not is_asked or not torch.accelerator.is_available():
        return ""
    found = torch.accelerator.current_accelerator()
    return "" if found is None else found.type


def _chosen(chosen: dict[str, Any]) -> torch.device:
    import lightning as L  # slow, and a fix that runs where it is has no use for it
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    try:
        found: torch.device = L.Trainer(
            **chosen, logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False,
        ).strategy.root_device  # fmt: skip
    except (MisconfigurationException, ValueError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"trainer: expected an accelerator of this machine, got {chosen}: {reason}"
        ) from error
    return found
