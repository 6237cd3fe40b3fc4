"""What others may put in the place of a file: made on purpose, and at random.

Whatever it is, a reader may do two things: raise a ``SaleditError`` of one line, or give what is as
good as what was written. ``refused`` holds it to the first, ``tolerated`` to either.
"""

from __future__ import annotations

import json
import os
import random
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from saledit.errors import SaleditError

T = TypeVar("T")
MANY = int(os.environ.get("SALEDIT_FUZZ", "2000"))


def one_line(error: SaleditError, names: str | None = None) -> str:
    """The message of an error, which has to be one short line that names the file."""
    text = str(error)
    assert text.strip()
    assert text.isprintable()
    assert len(text) < 4200
    if names is not None:
        assert names in text, text
    return text


def refused(call: Callable[[], object], names: str | None = None) -> str:
    """Call a reader that has to refuse; its message."""
    with pytest.raises(SaleditError) as caught:
        call()
    return one_line(caught.value, names)


def tolerated(
    call: Callable[[], T], check: Callable[[T], object], names: str | None = None
) -> None:
    """Call a reader that may refuse, or give something that passes a check."""
    try:
        found = call()
    except SaleditError as error:
        one_line(error, names)
        return
    assert check(found) is not False


# ------------------------------------------------------------------------------ made at random

_WORDS = (
    *(b"\x00", b"\xff", b"\xef\xbb\xbf", b"\r\n", b"\n", b'"', b"'", b"{", b"}", b"[", b"]", b","),
    *(b":", b"NaN", b"-Infinity", b"1e999", b"-1", b"9" * 40, b"null", b"true", b"\\ud800"),
    *(
        b"../",
        b"/etc/passwd",
        b"${oc.env:HOME}",
        b"&a",
        b"*a",
        b"!!python/name:os.system ",
        b"<<: ",
    ),
)
_KINDS = ("flip", "set", "insert", "word", "delete", "cut", "double", "splice", "zero")


def _changed(data: bytes, kind: str, draw: random.Random) -> bytes:
    n = len(data)
    at, other = draw.randrange(n + 1), draw.randrange(n + 1)
    size = draw.choice((1, 1, 2, 4, 8, 64))
    whole = bytearray(data)
    if kind in ("flip", "set") and at < n:
        whole[at] = whole[at] ^ (1 << draw.randrange(8)) if kind == "flip" else draw.randrange(256)
    elif kind == "insert":
        whole[at:at] = draw.randbytes(size)
    elif kind == "word":
        whole[at : at + draw.choice((0, size))] = draw.choice(_WORDS)
    elif kind == "delete":
        del whole[at : at + size]
    elif kind == "cut":
        del whole[at:]
    elif kind == "double":
        whole[at:at] = whole[at : at + size]
    elif kind == "splice":
        whole[at : at + size] = whole[other : other + size]
    elif kind == "zero":
        whole[at : at + size] = bytes(len(whole[at : at + size]))
    return bytes(whole)


Change = Callable[[bytes], bytes]
_SEEDS = st.integers(0, 2**63)
_STEPS = st.lists(st.tuples(st.sampled_from(_KINDS), _SEEDS), min_size=1, max_size=4)


def _bytewise(steps: Sequence[tuple[str, int]]) -> Change:
    def change(data: bytes) -> bytes:
        for kind, seed in steps:
            data = _changed(data, kind, random.Random(seed))
        return data

    return change


def byte_changes() -> st.SearchStrategy[Change]:
    """One to four changes of bytes."""
    return _STEPS.map(_bytewise)


_ODD: tuple[Any, ...] = (
    *(None, True, 0, 1, -1, 2**31, 2**63, -(2**63), 10**40, 1.5, -0.0, 1e308),
    *("", "x", "x" * 5000, "../../x", "/etc/passwd", "\x00", "a\nb", "\U0001f600", "1", "nan"),
    *([], {}, [[]], [None], {"a": 1}, [1, "x"]),
)


def _places(value: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    pairs: Sequence[tuple[Any, Any]] = ()
    if isinstance(value, dict):
        pairs = [*value.items()]
    elif isinstance(value, list):
        pairs = [*enumerate(value)]
    return [way, *(place for key, inner in pairs for place in _places(inner, (*way, key)))]


def restructured(value: Any, seed: int) -> Any:
    """A JSON value with one to three things in it replaced, left out, renamed, doubled or moved."""
    draw = random.Random(seed)
    value = json.loads(json.dumps(value))
    for _ in range(draw.randint(1, 3)):
        places = _places(value)
        *way, key = draw.choice(places) or (None,)
        odd = json.loads(json.dumps(draw.choice(_ODD)))
        if key is None:
            if draw.random() < 0.2:
                return odd
            continue
        outer = value
        for step in way:
            outer = outer[step]
        kind = draw.choice(("odd", "odd", "odd", "out", "rename", "double", "moved"))
        if kind == "out":
            del outer[key]
        elif kind == "rename" and isinstance(outer, dict):
            outer[draw.choice(("x", "", f"{key}\n", f"../{key}"))] = outer.pop(key)
        elif kind == "double" and isinstance(outer, list):
            outer.append(outer[key])
        elif kind == "moved":
            other = draw.choice(places)
            found = value
            for step in other:
                found = found[step] if _has(found, step) else None
            outer[key] = json.loads(json.dumps(found))
        else:
            outer[key] = odd
    return value


def _has(value: Any, step: Any) -> bool:
    if isinstance(value, dict):
        return step in value
    return isinstance(value, list) and isinstance(step, int) and step < len(value)


def json_changes() -> st.SearchStrategy[Change]:
    """Changes of what a JSON file says."""

    def of(seed: int) -> Change:
        return lambda data: json.dumps(restructured(json.loads(data), seed)).encode()

    return _SEEDS.map(of)


def header_changes() -> st.SearchStrategy[Change]:
    """Changes of what the header of a safetensors file says; its length is right."""

    def of(seed: int) -> Change:
        def change(data: bytes) -> bytes:
            n = int.from_bytes(data[:8], "little")
            return tensors_file(restructured(json.loads(data[8 : 8 + n]), seed), data[8 + n :])

        return change

    return _SEEDS.map(of)


def fuzz(
    examples: int,
    changes: st.SearchStrategy[Any],
    check: Callable[..., object],
    stable: bool = True,
) -> None:
    """Check a fixed number of examples."""
    run = settings(
        max_examples=examples, deadline=None, derandomize=stable, database=None,
        suppress_health_check=list(HealthCheck), phases=[Phase.generate, Phase.shrink],
    )(given(changes)(check))  # fmt: skip
    run()


def counts(few: int) -> pytest.MarkDecorator:
    """Some examples, the same each time; with ``-m slow`` SALEDIT_FUZZ many, other ones."""
    many = pytest.param(MANY, id="many", marks=[pytest.mark.slow, pytest.mark.timeout(7200)])
    return pytest.mark.parametrize("examples", [pytest.param(few, id="few"), many])


# ------------------------------------------------------------------------------- made on purpose


def tensors_file(header: Any, data: bytes = b"", told: int | None = None) -> bytes:
    """A safetensors file of any header."""
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(head) if told is None else told) + head + data


def floats(
    shape: Sequence[Any], begin: int = 0, end: int = 16, dtype: str = "F32"
) -> dict[str, Any]:
    """What a header says of a tensor."""
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


_FOUR = bytes(16)
#: Files that are no safetensors, or are such as nobody writes.
BAD_TENSORS: Mapping[str, bytes] = {
    "empty": b"",
    "seven bytes": bytes(7),
    "length beyond the end": tensors_file({}, told=1000),
    "length 2^63": tensors_file({}, told=2**63),
    "length 2^64-1": tensors_file({}, told=2**64 - 1),
    "length of 2^40": tensors_file({}, told=2**40),
    "negative size": tensors_file({"a": floats([-4])}, _FOUR),
    "overflowing sizes": tensors_file({"a": floats([2**32, 2**32])}, _FOUR),
    "size 2^64": tensors_file({"a": floats([2**64])}, _FOUR),
    "empty and huge": tensors_file({"a": floats([2**63 - 1, 0], 0, 0)}),
    "empty and huger": tensors_file({"a": floats([0, 2**64 - 1], 0, 0)}),
    "fractional size": tensors_file({"a": floats([4.0])}, _FOUR),
    "size of text": tensors_file({"a": floats(["4"])}, _FOUR),
    "too many sizes": tensors_file({"a": floats([1] * 1000 + [4])}, _FOUR),
    "sizes that do not fit": tensors_file({"a": floats([5])}, _FOUR),
    "backwards": tensors_file({"a": floats([4], 16, 0)}, _FOUR),
    "overlapping": tensors_file({"a": floats([2], 0, 8), "b": floats([3], 4, 16)}, _FOUR),
    "a hole": tensors_file({"a": floats([1], 0, 4), "b": floats([1], 12, 16)}, _FOUR),
    "data beyond the end": tensors_file({"a": floats([8], 0, 32)}, _FOUR),
    "data left over": tensors_file({"a": floats([2], 0, 8)}, _FOUR),
    "negative offset": tensors_file({"a": floats([4], -16, 0)}, _FOUR),
    "one offset": tensors_file({"a": {**floats([4]), "data_offsets": [16]}}, _FOUR),
    "unknown type": tensors_file({"a": floats([4], dtype="F31")}, _FOUR),
    "type of another size": tensors_file({"a": floats([4], dtype="F64")}, _FOUR),
    "no type": tensors_file({"a": {"shape": [4], "data_offsets": [0, 16]}}, _FOUR),
    "a name twice": tensors_file(
        b'{"a":%b,"a":%b}' % ((json.dumps(floats([4])).encode(),) * 2), _FOUR
    ),
    "not UTF-8": tensors_file(b'{"\xff":1}'),
    "no JSON": tensors_file(b"hello"),
    "a list": tensors_file([]),
    "metadata of numbers": tensors_file({"__metadata__": {"a": 1}, "a": floats([4])}, _FOUR),
    "metadata twice": tensors_file(b'{"__metadata__":{"a":"1","a":"2"}}'),
    "deep": tensors_file(b"[" * 100_000 + b"]" * 100_000),
    "deeper": tensors_file(b'{"a":' * 100_000),
    "NaN": tensors_file(b'{"a":NaN}'),
    "a name that leads out": tensors_file({"../../a": floats([4])}, _FOUR),
    "an absolute name": tensors_file({"/etc/a": floats([4])}, _FOUR),
    "a name with a null byte": tensors_file({"a\0b": floats([4])}, _FOUR),
    "a name with a newline": tensors_file({"a\nb": floats([4])}, _FOUR),
}
BAD_JSON: Mapping[str, bytes] = {
    "empty": b"",
    "half": b'{"a": 1',
    "two values": b"{} {}",
    "NaN": b'{"a": NaN}',
    "infinity": b'{"a": -Infinity}',
    "overflow": b'{"a": 1e999}',
    "a huge integer": b'{"a": ' + b"9" * 5000 + b"}",
    "a key twice": b'{"a": 1, "a": 2}',
    "deep lists": b"[" * 100_000 + b"]" * 100_000,
    "rather deep": b"[" * 100 + b"]" * 100,
    "deep objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "half of a pair": b'{"a": "\\ud800"}',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "Latin-1": b'{"a": "\xe9"}',
    "BOM": b'\xef\xbb\xbf{"a": 1}',
    "null byte": b'{"a": "\x00"}',
    "a pickle": b"\x80\x04}.",
}


def blocked(path: Path, kind: str) -> None:
    """Put something that is no file in a file's place."""
    if path.exists() or path.is_symlink():
        path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "circle":
        path.symlink_to(path.name)
    else:
        path.symlink_to("nowhere")


KINDS = ("folder", "pipe", "device", "circle", "dangling")
