"""YAML that can only be settings: no tags, aliases, interpolations or merges, and bounded.

A few lines of aliases or interpolations expand without bound, an interpolation reads the
environment, and a tag asks for an object. None of them has a use in a configuration.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from saledit.errors import ConfigError
from saledit.files.reading import read_text, reason

_MOST, _DEEPEST = 100_000, 20  # bytes of a file; lists and maps in each other
# What the parts of a YAML reader raise: dates and numbers that are none, keys that are lists.
BROKEN = (
    *(yaml.YAMLError, OmegaConfBaseException, ValueError, TypeError, LookupError),
    *(AttributeError, RecursionError, ArithmeticError),
)
_SIGNS = (
    ("${", "an interpolation (${...})"),
    ("???", "a missing value (???)"),
    ("<<", "a merge (<<)"),
)


def read_layer(path: Path) -> DictConfig:
    """The settings in a file.

    Raises:
        ConfigError: it cannot be read, is broken, or holds more than settings.
    """
    try:
        text = read_text(path, _MOST)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path}: expected a configuration in UTF-8, got a file that {_fault(error)}; "
            "check the path"
        ) from error
    return parsed(text.removeprefix("\ufeff"), str(path), OmegaConf.create, whole=True)


def parsed(text: str, where: str, read: Callable[[str], Any], *, whole: bool = False) -> DictConfig:
    """Read settings from a text that was looked through first.

    Args:
        text: YAML.
        where: what messages begin with.
        read: turns the text into settings.
        whole: whether it is a whole file, ``key: value`` lines.

    Raises:
        ConfigError: it is broken, or holds more than settings.
    """
    try:
        _look_through(text, where, whole)
        found = read(text)
    except BROKEN as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark is not None and whole else ""
        raise ConfigError(
            f"{where}{line}: expected YAML, got {reason(error)}; see: saledit config"
        ) from error
    if not isinstance(found, DictConfig):
        raise ConfigError(f"{where}: expected 'key: value' lines, got {type(found).__name__}")
    return found


def _look_through(text: str, where: str, whole: bool) -> None:
    depth, first = 0, whole
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        at = f"{where}:{event.start_mark.line + 1}" if whole else where

        def refuse(what: str, at: str = at) -> None:
            raise ConfigError(f"{at}: expected plain YAML, got {what}; write it out")

        if isinstance(event, yaml.AliasEvent):
            refuse("an alias (*name)")
        if not isinstance(event, yaml.NodeEvent):
            depth -= isinstance(event, yaml.CollectionEndEvent)
            continue
        # An empty file is a scalar without a value.
        if (
            first
            and not isinstance(event, yaml.MappingStartEvent)
            and getattr(event, "value", True)
        ):
            got = "text" if isinstance(event, yaml.ScalarEvent) else "a list"
            raise ConfigError(f"{where}: expected 'key: value' lines, got {got}; check the path")
        first = False
        if getattr(event, "tag", None) not in (None, "!"):
            refuse(f"a tag ({event.tag:.60})")
        depth += isinstance(event, yaml.CollectionStartEvent)
        if depth > _DEEPEST:
            refuse(f"more than {_DEEPEST} lists and maps in each other")
        if isinstance(event, yaml.ScalarEvent):
            for sign, what in _SIGNS:
                if event.value == sign or (sign == "${" and sign in event.value):
                    refuse(what)


def _fault(error: OSError | UnicodeDecodeError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"holds byte 0x{error.object[error.start]:02x}"
    return reason(error) if isinstance(error.strerror, str) else "cannot be read"
