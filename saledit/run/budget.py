"""How long a training lasts, and what every editor of a comparison may spend on it."""

from __future__ import annotations

import math
from dataclasses import replace

from saledit.config import RunConfig
from saledit.errors import ConfigError

_MOST_SECONDS = 1e9  # thirty years
_FOREVER = 1_000_000  # epochs: the clock ends them


def check_budget(edits: int, seconds: float) -> None:
    """Refuse what is no budget.

    Raises:
        ConfigError: both are given, or one is no such number.
    """
    if edits < 0:
        raise ConfigError(
            f"--edits: expected a whole number above 0, got {edits}; leave it out for as many as "
            "configured"
        )
    if not 0 <= seconds <= _MOST_SECONDS:  # not NaN either
        raise ConfigError(
            f"--seconds: expected a number above 0, at most {_MOST_SECONDS:.0e}, got {seconds}; "
            "leave it out for no limit"
        )
    if edits and seconds:
        raise ConfigError("compare: expected one budget, got --edits and --seconds; leave one out")


def budgeted(config: RunConfig, edits: int, seconds: float) -> RunConfig:
    """A run that trains on so many edits, or for so long.

    Of edits it takes the fewest optimizer steps that have as many, and up to the configured number
    of epochs, all of as many steps but the last one. (Where a step takes several batches, they end
    with an epoch.)

    Args:
        config: the run.
        edits: 0 for as many as configured.
        seconds: 0 for no limit.
    """
    if not (edits or seconds):
        return config
    train = config.train
    trainer = {name: value for name, value in config.trainer.items() if name != "max_steps"}
    if seconds:
        train = replace(train, seconds=seconds, epochs=_FOREVER, patience=_FOREVER)
    else:
        steps = math.ceil(edits / train.edits(config.schedule.batch_size))
        each = math.ceil(steps / min(train.epochs, steps))
        epochs = math.ceil(steps / each)
        train = replace(train, epochs=epochs, steps_per_epoch=each, patience=epochs)
        if epochs * each > steps and trainer.get("accumulate_grad_batches", 1) == 1:
            trainer |= {"max_steps": steps}
    return replace(config, train=train, trainer=trainer)


def length(config: RunConfig) -> tuple[int, int | None]:
    """Epochs of a training, and how many batches it has where its last epoch is cut short.

    ``trainer.max_steps`` is counted here: Lightning would end without a validation, and could not
    go on with what it ended in.
    """
    train, most = config.train, int(config.trainer.get("max_steps", -1))
    if most < 0:
        return train.epochs, None
    batches = most * int(config.trainer.get("accumulate_grad_batches", 1))
    return min(train.epochs, math.ceil(batches / train.steps_per_epoch)), batches
