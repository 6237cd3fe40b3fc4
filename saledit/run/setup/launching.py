"""The processes of a distributed run: started before anything is asked or cached."""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Mapping
from datetime import timedelta
from threading import Thread
from typing import Any

import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.strategies.ddp import DDPStrategy
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import strategies

from saledit import distributed
from saledit.errors import ConfigError
from saledit.report import Ui

_LOOK = 2.0  # seconds between two looks
#: One process may work for hours on what the others wait for.
_PATIENCE = timedelta(days=7)
_PLACES = ("accelerator", "devices", "num_nodes")
#: Strategies of Lightning that copy the model to every process; "auto" is one of them or none.
_COPIES = ("auto", "ddp", "ddp_find_unused_parameters_false")
DIVIDES = "fsdp"  # between them


def check_strategy(trainer: Mapping[str, Any]) -> None:
    """Refuse what divides the work in other ways, or starts processes in another way.

    Raises:
        ConfigError: such a strategy.
    """
    strategy = trainer.get("strategy", "auto")
    if strategy not in (*_COPIES, DIVIDES):
        raise ConfigError(
            f"trainer.strategy: expected auto, ddp or fsdp, got {strategy!r}; for a model that "
            "does not fit take fsdp, or leave it on disk: model.stream=true"
        )


def launch(trainer: Mapping[str, Any], ui: Ui) -> None:
    """Start the other processes that the trainer's settings ask for, and meet them.

    Under torchrun or SLURM they are there already. All run the same command; those beside the
    first say nothing.

    Args:
        trainer: arguments of lightning.Trainer.
        ui: falls silent in all processes but the first.

    Raises:
        ConfigError: there are no such devices here, or as many processes as told.
    """
    places = {name: trainer[name] for name in _PLACES if name in trainer}
    try:
        fabric = Fabric(**places, strategy="auto")
        started = _started()
        if fabric.world_size == 1 < started:
            raise ConfigError(
                f"trainer.devices: expected {started} processes in all, as torchrun or srun has "
                f"started, got 1; set trainer.devices (and num_nodes), or start one"
            )
        if fabric.world_size > 1:
            # Metrics and words are told to each other in main memory, whatever trains.
            backend = "cpu:gloo,cuda:nccl" if fabric.device.type == "cuda" else None
            strategy = DDPStrategy(process_group_backend=backend, timeout=_PATIENCE)
            Fabric(**places, strategy=strategy).launch()
            atexit.register(_part)
            if not distributed.is_main():
                Thread(target=_leave_with, args=(os.getppid(),), daemon=True).start()
    except (MisconfigurationException, ValueError, TypeError, RuntimeError) as error:
        if isinstance(error, ConfigError):
            raise
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ConfigError(f"trainer: cannot run on {places}: {reason}") from error
    if not distributed.is_main():
        ui.hush()


def _started() -> int:
    """Processes that torchrun or srun has started, this one among them."""
    if torch.distributed.is_torchelastic_launched():
        return int(os.environ.get("WORLD_SIZE", "1"))
    if SLURMEnvironment.detect():
        # A batch script without srun is one process, however many tasks are allotted.
        is_one_of_them = int(os.environ.get("SLURM_PROCID", "0")) > 0
        tasks = os.environ["SLURM_NTASKS"] if is_one_of_them else "1"
        return int(os.environ.get("SLURM_STEP_NUM_TASKS", tasks))
    return 1


def _part() -> None:
    """Leave the other processes."""
    group: Any = torch.distributed
    if group.is_initialized():
        group.destroy_process_group()


def _leave_with(parent: int) -> None:
    """End this process when the one that started it has ended: nobody else would tell it."""
    while os.getppid() == parent:
        time.sleep(_LOOK)
    os._exit(1)


def divides(trainer: Mapping[str, Any]) -> bool:
    """Whether the processes that were launched divide the model between them."""
    return trainer.get("strategy") == DIVIDES and distributed.world_size() > 1


def strategy_of(trainer: Mapping[str, Any]) -> str | strategies.Strategy:
    """What lightning.Trainer gets for its strategy."""
    if distributed.world_size() == 1:
        strategy = str(trainer.get("strategy", "auto"))
        return "auto" if strategy == DIVIDES else strategy
    # Of a divided model, too: what is trained is the editor, and the model is no part of it.
    # Statistics of an editor are taken before training, by every process of the same samples;
    # to exchange them before each batch would also make processes wait that have no batch left.
    return strategies.DDPStrategy(broadcast_buffers=False)


def alone(trainer: Mapping[str, Any]) -> dict[str, Any]:
    """Settings for one process, on the first of the devices; the same where it is one already."""
    devices = trainer.get("devices", "auto")
    if devices == 1 or ("devices" not in trainer and torch.accelerator.device_count() < 2):
        return dict(trainer)
    if isinstance(devices, str) and "," in devices:  # Lightning's other way to write a list
        devices = [int(number) for number in devices.split(",") if number.strip()]
    first: Any = list(devices[:1]) if isinstance(devices, list | tuple) else 1
    kept = {name: value for name, value in trainer.items() if name not in ("strategy", "num_nodes")}
    return {**kept, "devices": first}
