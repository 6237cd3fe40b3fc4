"""Schedules by name."""

from __future__ import annotations

import pytest

from saledit.config import ScheduleConfig
from saledit.config.schedules import mode_of, name_of, schedules
from saledit.errors import ConfigError


def test_schedules_are_read_and_named() -> None:
    found = schedules(["batch:1,16", "64", "sequential", "sequential-batched:16", "8"])
    assert found == [
        ScheduleConfig(1, False), ScheduleConfig(16, False), ScheduleConfig(64, False),
        ScheduleConfig(1, True), ScheduleConfig(16, True), ScheduleConfig(8, True),
    ]  # fmt: skip
    assert schedules([name_of(s) for s in found]) == found
    assert [mode_of(s) for s in found[2:5]] == ["batch", "sequential", "sequential-batched"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["bach:4"], "unknown name 'bach'; did you mean 'batch'"),
        (["16"], "unknown name ''"),
        (["batch"], "expected failures an edit of 'batch', at least 1, got ''; e.g. batch:16"),
        (["batch:0"], "at least 1, got '0'"),
        (["batch:x"], "at least 1, got 'x'"),
        (["batch:²"], "at least 1, got '²'"),
        (["sequential:4"], "expected failures an edit of 'sequential', 1, got '4'"),
        (["sequential-batched:1"], "at least 2, got '1'"),
        (["batch:4,4"], "expected each schedule once, got batch:4 twice"),
    ],
)
def test_what_is_no_schedule_is_said(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        schedules(words)
