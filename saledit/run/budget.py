"""How long a training lasts, and what every editor of a comparison may spend on it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

from saledit.building import is_trained
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
    of epochs, all of as many batches but the last one.

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
        batches = math.ceil(edits / train.edits(config.schedule.batch_size))
        each = math.ceil(batches / min(train.epochs, batches))
        whole, rest = divmod(batches, each)
        train = replace(train, epochs=whole + (rest > 0), steps_per_epoch=each)
        train = replace(train, patience=train.epochs)
        if rest:
            together = _together(config)
            trainer |= {
                "max_steps": whole * math.ceil(each / together) + math.ceil(rest / together)
            }
    return replace(config, train=train, trainer=trainer)


def is_timed(config: RunConfig) -> bool:
    """Whether the clock says how much a run is trained: with other threads it is another editor."""
    return config.train.seconds > 0 and is_trained(config.editor)


class Length(NamedTuple):
    """How long a training is, if neither patience nor the clock ends it.

    Attributes:
        epochs: the last one may be shorter.
        batches: of all epochs.
        steps: of the optimizer.
    """

    epochs: int
    batches: int
    steps: int


def length(config: RunConfig) -> Length:
    """How long a run trains.

    A step takes ``trainer.accumulate_grad_batches`` batches, and the last one of an epoch what is
    left of it. ``trainer.max_steps`` is counted here: Lightning would end without a validation, and
    could not go on with what it ended in.
    """
    train, together = config.train, _together(config)
    each = math.ceil(train.steps_per_epoch / together)
    most = int(config.trainer.get("max_steps", -1))
    if most < 0 or most >= train.epochs * each:
        return Length(train.epochs, train.epochs * train.steps_per_epoch, train.epochs * each)
    whole, rest = divmod(most, each)
    return Length(whole + (rest > 0), whole * train.steps_per_epoch + rest * together, most)


def _together(config: RunConfig) -> int:
    """Batches that a step of the optimizer takes."""
    return int(config.trainer.get("accumulate_grad_batches", 1))
