"""The configuration with its comments, for ``saledit config``."""

from __future__ import annotations

import ast
import functools
import inspect
import itertools
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from saledit.config.schema import RunConfig


def describe(config: RunConfig) -> Iterable[tuple[str, Any, str]]:
    """Every key of a configuration with its value and its comment.

    Yields:
        (dotted key, value, comment), in the order of declaration.
    """
    for kind, name, key, value in _walk(config, ""):
        comments: dict[str, str] = _comments(kind)  # type: ignore[arg-type]
        yield key, value, comments.get(name, "")


def flatten(config: RunConfig) -> Iterable[tuple[str, Any]]:
    """Every dotted key with its value."""
    for _, _, key, value in _walk(config, ""):
        yield key, value


def differing(one: RunConfig, other: RunConfig) -> Iterator[tuple[str, Any, Any]]:
    """Dotted keys in which two configurations differ, with the value of each."""
    for (key, value), (_, another) in zip(flatten(one), flatten(other), strict=True):
        if value != another:
            yield key, value, another


def _walk(node: Any, prefix: str) -> Iterable[tuple[type[Any], str, str, Any]]:
    """The class that has a key, its name there, the dotted key, and its value."""
    for f in fields(node):
        value = getattr(node, f.name)
        if is_dataclass(value):
            yield from _walk(value, f"{prefix}{f.name}.")
        else:
            yield type(node), f.name, f"{prefix}{f.name}", value


@functools.cache
def _comments(kind: type[Any]) -> dict[str, str]:
    """Attribute docstrings, which Python drops and the source keeps."""
    body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    assert isinstance(body, ast.ClassDef)
    out = {}
    for item, after in itertools.pairwise(body.body):
        if (
            isinstance(item, ast.AnnAssign)
            and isinstance(item.target, ast.Name)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
        ):
            out[item.target.id] = " ".join(str(after.value.value).split())  # on one line
    return out
