"""JSON, read strictly: one meaning for everybody who reads it, and the shape that was asked for."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from saledit.errors import ArtifactError
from saledit.files.reading import MOST, read_bytes, reason
from saledit.files.writing import write_json

_DEEPEST = 64  # lists and objects in each other
_DIGITS = 100  # of a whole number: any such fits into a float

#: What a value should be. A type (an ``int`` is no ``bool``, a ``float`` may be an ``int``, and
#: ``object`` is anything); None; a list of one shape, for a list of such; a dict from names to
#: shapes, for an object that has these (a name that ends in "?" may be missing) among others; a
#: dict {str: shape}, for an object of any names; a tuple of shapes, for either of them.
Shape = Any


def parse_json(data: bytes | str) -> Any:
    """Parse JSON that means the same to every reader.

    Args:
        data: the text, as bytes in UTF-8.

    Raises:
        ValueError: not UTF-8 or broken; NaN, an infinite number or one of hundreds of digits; a
            key that comes twice; half of a surrogate pair; too deep.
    """
    text = data.decode("utf-8") if isinstance(data, bytes) else data
    try:
        value = json.loads(
            text, object_pairs_hook=_once, parse_constant=_no_number, parse_float=_finite,
            parse_int=_whole,
        )  # fmt: skip
    except RecursionError:
        raise ValueError(f"more than {_DEEPEST} lists and objects in each other") from None
    if _is_deep(value):
        raise ValueError(f"more than {_DEEPEST} lists and objects in each other")
    if "\\u" in text:
        # Half of a surrogate pair is valid JSON but no text: it cannot be written down again.
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key '{twice:.40}' twice")
    return value


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text}, which is no JSON")


def _whole(text: str) -> int:
    if len(text) > _DIGITS:
        raise ValueError(f"the number {text:.20}, which is too large")
    return int(text)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text:.20}, which is too large")
    return number


def _is_deep(value: Any) -> bool:
    level: list[Any] = [value]
    for _ in range(_DEEPEST + 1):
        inside: Iterable[Any] = (
            item
            for outer in level
            if isinstance(outer, dict | list)
            for item in (outer.values() if isinstance(outer, dict) else outer)
        )
        level = [item for item in inside if isinstance(item, dict | list)]
        if not level:
            return False
    return True


def misfit(value: Any, shape: Shape, where: str = "") -> str:
    """Say where a value is not what it should be.

    Args:
        value: as JSON holds it.
        shape: see ``Shape``.
        where: the way to it, for the message.

    Returns:
        The first difference in words; "" where there is none.
    """
    if isinstance(shape, tuple):
        found = [misfit(value, one, where) for one in shape]
        return "" if "" in found else found[-1]
    if isinstance(shape, Mapping):
        return _misfit_object(value, shape, where)
    if isinstance(shape, list):
        if not isinstance(value, list):
            return _differs(value, "a list", where)
        faults = (misfit(item, shape[0], f"{where}[{i}]") for i, item in enumerate(value))
        return next(filter(None, faults), "")
    kinds: Any = {float: (int, float), None: type(None)}.get(shape, shape)
    if isinstance(value, kinds) and not (isinstance(value, bool) and shape in (int, float)):
        return ""
    return _differs(value, _called(shape), where)


def _misfit_object(value: Any, shape: Mapping[Any, Shape], where: str) -> str:
    if not isinstance(value, Mapping):
        return _differs(value, "an object", where)
    way = f"{where}." if where else ""
    if str in shape:
        faults = (misfit(item, shape[str], f"{way}{key:.40}") for key, item in value.items())
        return next(filter(None, faults), "")
    for name, inner in shape.items():
        key = name.removesuffix("?")
        if key in value and (fault := misfit(value[key], inner, f"{way}{key}")):
            return fault
        if key not in value and key == name:
            return f"nothing at '{way}{key}'"
    return ""


def _differs(value: Any, wanted: str, where: str) -> str:
    at = f" at '{where}'" if where else ""
    return f"{_called(type(value))}{at}, where {wanted} belongs"


def _called(kind: Any) -> str:
    names = {
        str: "text", bool: "true or false", int: "a whole number", float: "a number",
        list: "a list", dict: "an object", None: "nothing", type(None): "nothing",
    }  # fmt: skip
    return names.get(kind, "something else")


def read_json(path: Path, what: str, shape: Shape = object, most: int = MOST) -> Any:
    """Read JSON.

    Args:
        path: the file.
        what: what it should be, for messages.
        shape: what the value has to be.
        most: bytes at most.

    Raises:
        ArtifactError: missing, broken, or of another shape.
    """
    try:
        value = parse_json(read_bytes(path, most))
    except FileNotFoundError:
        raise ArtifactError(f"{path}: expected {what}, got no such file; check the path") from None
    except (ValueError, OSError) as error:
        raise ArtifactError(
            f"{path}: expected {what}, got a broken file: {reason(error)}; make it anew or take "
            "it from a backup"
        ) from error
    if fault := misfit(value, shape):
        raise ArtifactError(
            f"{path}: expected {what}, got {fault}; make it anew or take it from a backup"
        )
    return value


def keep_json(path: Path, value: Any) -> None:
    """Write a value that is to be read by ``kept_json``.

    Raises:
        JobError: the disk is full, or a number is NaN or infinite.
    """
    write_json(path, {"seal": seal_of(value), "value": value})


def kept_json(path: Path, what: str) -> Any:
    """Read a value back, if it is the one that was written.

    Raises:
        ArtifactError: missing, broken, or changed since.
    """
    found = read_json(path, what, {"seal": str, "value": object})
    if found["seal"] != seal_of(found["value"]):
        raise ArtifactError(f"{path}: expected {what} as it was written, got another; delete it")
    return found["value"]


def seal_of(value: Any) -> str:
    """Fingerprint of a value that JSON can hold."""
    text = json.dumps(value, ensure_ascii=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
