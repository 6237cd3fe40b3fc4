"""Schedules by name: ``batch:64``, ``sequential``, ``sequential-batched:16``."""

from __future__ import annotations

from collections.abc import Sequence

from saledit.config.schema import ScheduleConfig
from saledit.errors import ConfigError, did_you_mean

BATCH, SEQUENTIAL, BATCHED = "batch", "sequential", "sequential-batched"
_MODES = (BATCH, SEQUENTIAL, BATCHED)


def mode_of(schedule: ScheduleConfig) -> str:
    """The field's name of a schedule: batch, sequential, or sequential-batched."""
    if not schedule.cumulative:
        return BATCH
    return SEQUENTIAL if schedule.batch_size == 1 else BATCHED


def name_of(schedule: ScheduleConfig) -> str:
    """A schedule as ``schedules`` reads it.

    Example:
        >>> [name_of(s) for s in schedules(["batch:1,16", "sequential", "sequential-batched:16"])]
        ['batch:1', 'batch:16', 'sequential', 'sequential-batched:16']
    """
    mode = mode_of(schedule)
    return mode if mode == SEQUENTIAL else f"{mode}:{schedule.batch_size}"


def schedules(words: Sequence[str]) -> list[ScheduleConfig]:
    """Schedules by name, each with failures an edit behind a colon.

    Args:
        words: ``MODE:K``, or several K at once (``batch:1,16,64``); a K that stands alone is of the
            mode before it. ``sequential`` takes one failure at a time and needs none.

    Raises:
        ConfigError: an unknown mode, no number where one is needed, one below 1, or a schedule
            twice.
    """
    found: list[ScheduleConfig] = []
    mode = ""
    for word in words:
        name, colon, numbers = word.rpartition(":")
        if not colon and not _is_number(word.replace(",", "")):
            name, numbers = word, ""
        mode = name or mode
        if mode not in _MODES:
            raise ConfigError(f"--schedules: unknown name '{mode}'; {did_you_mean(mode, _MODES)}")
        if mode == SEQUENTIAL and not numbers:
            numbers = "1"
        found.extend(_schedule(mode, number) for number in numbers.split(","))
    twice = [name_of(s) for i, s in enumerate(found) if s in found[:i]]
    if twice:
        raise ConfigError(f"--schedules: expected each schedule once, got {twice[0]} twice")
    return found


def _schedule(mode: str, number: str) -> ScheduleConfig:
    least = 2 if mode == BATCHED else 1
    if not _is_number(number) or int(number) < least or (mode == SEQUENTIAL and int(number) > 1):
        wanted = "1" if mode == SEQUENTIAL else f"at least {least}"
        raise ConfigError(
            f"--schedules: expected failures an edit of '{mode}', {wanted}, got '{number}'; "
            f"e.g. {mode}:{1 if mode == SEQUENTIAL else 16}"
        )
    return ScheduleConfig(int(number), mode != BATCH)


def _is_number(word: str) -> bool:
    return word.isascii() and word.isdigit()
