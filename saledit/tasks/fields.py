"""Reading the fields of a row, and a task's part of the configuration."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from saledit.config import TaskConfig
from saledit.errors import ConfigError, DataError, did_you_mean

_OF_ALL = ("name", "fields", "subjects", "max_length")  # settings of every task


def named_fields(given: Mapping[str, str], known: Sequence[str]) -> dict[str, str]:
    """A data file's name for each field of a task.

    Args:
        given: names that differ, by the task's own names.
        known: the task's own names.

    Raises:
        ConfigError: the task has no such field.
    """
    for name in given:
        if name not in known:
            raise ConfigError(f"task.fields.{name}: unknown field; {did_you_mean(name, known)}")
    return {name: given.get(name, name) for name in known}


def refuse_settings(config: TaskConfig, own: Sequence[str]) -> None:
    """Refuse settings that a task does not have, where they are not at their default.

    Args:
        config: the task.
        own: settings that it has beside those of all tasks.

    Raises:
        ConfigError: another one is set.
    """
    default = TaskConfig()
    for name in (field.name for field in dataclasses.fields(config)):
        known = name in _OF_ALL or name in own
        if not known and getattr(config, name) != getattr(default, name):
            raise ConfigError(
                f"task.{name}: task '{config.name}' has no such setting, got "
                f"{getattr(config, name)!r}; leave it out"
            )


def text_of(row: Mapping[str, Any], field: str, where: str, key: str = "") -> str:
    """The text in a field.

    Args:
        row: a record.
        field: its field.
        where: the record's place.
        key: the setting that names fields, where one does.

    Raises:
        DataError: there is none.
    """
    value = row.get(field)
    if not isinstance(value, str):
        # A typo in the field's name is the usual cause.
        other = f"name the field in {key}; " * bool(key) + did_you_mean(field, row)
        remedy = other if field not in row else "give it as a string"
        got = "nothing" if value is None else type(value).__name__
        raise DataError(f"{where}: expected text in '{field}', got {got}; {remedy}")
    return value


def texts_of(row: Mapping[str, Any], field: str, where: str) -> list[str]:
    """The texts in an optional field: one text or a list of them.

    Raises:
        DataError: something else is in it.
    """
    value = row.get(field)
    if value is None:
        return []
    values = value if isinstance(value, list) else [value]
    for item in values:
        if not isinstance(item, str):
            raise DataError(
                f"{where}: expected text or a list of texts in '{field}', got "
                f"{type(item).__name__}; give it as strings"
            )
    return values


def filled(row: Mapping[str, Any], field: str, where: str) -> list[str]:
    """The texts in an optional field that say something; a table has its blank cells.

    Raises:
        DataError: as ``texts_of``.
    """
    return [text for text in texts_of(row, field, where) if text.strip()]


def values_of(row: Mapping[str, Any], field: str, where: str) -> list[str]:
    """The values in a field that names subjects; none where it is null.

    Raises:
        DataError: there is no such field.
    """
    value = row.get(field)
    if value is None:
        if field not in row:
            raise DataError(
                f"{where}: expected a field '{field}' (task.subjects), got none; name one that all "
                f"records have, or none (task.subjects=[]); {did_you_mean(field, row)}"
            )
        return []
    return [str(v) for v in value] if isinstance(value, list) else [str(value)]
