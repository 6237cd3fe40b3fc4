"""The readers that all others are made of: safetensors, JSON, and what is no file at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hostile import (
    BAD_JSON,
    BAD_TENSORS,
    KINDS,
    blocked,
    byte_changes,
    counts,
    floats,
    fuzz,
    header_changes,
    json_changes,
    refused,
    tensors_file,
    tolerated,
)

from saledit import files
from saledit.errors import ArtifactError, JobError, SaleditError
from saledit.files.values import misfit

READERS: dict[str, Callable[[Path], object]] = {
    "tensors": lambda p: files.read_tensors(p, "an editor"),
    "metadata": lambda p: files.read_metadata(p, "an editor"),
    "kept tensors": lambda p: files.kept_tensors(p, "a shard"),
    "json": lambda p: files.read_json(p, "results"),
    "kept json": lambda p: files.kept_json(p, "a memo"),
}


@pytest.mark.parametrize("kind", BAD_TENSORS)
def test_broken_tensors_are_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(BAD_TENSORS[kind])
    message = refused(lambda: files.read_tensors(path, "an editor"), str(path))
    assert "expected an editor as safetensors, got" in message


def test_a_header_of_many_megabytes_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with path.open("wb") as stream:
        stream.write((1 << 30).to_bytes(8, "little"))
        stream.truncate(3 << 30)  # holds nothing, takes no room
    refused(lambda: files.read_tensors(path, "an editor"), "a.safetensors")


@pytest.mark.parametrize("kind", BAD_JSON)
def test_broken_json_is_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(BAD_JSON[kind])
    assert "got a broken file" in refused(lambda: files.read_json(path, "results"), str(path))


def test_a_file_larger_than_may_be_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with path.open("wb") as stream:
        stream.truncate(1 << 40)
    assert "larger than" in refused(lambda: files.read_json(path, "results"), "a.json")
    path.write_bytes(b"[1, 2, 3]")
    assert "larger than 5 bytes" in refused(lambda: files.read_json(path, "it", most=5), "a.json")


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_file_is_refused_at_once(reader: str, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    blocked(path, kind)
    refused(lambda: READERS[reader](path), str(path))
    assert files.file_hash(path) == ""
    assert not files.is_file(path) or kind == "none"


@pytest.mark.parametrize("name", ["a\0b", "a" * 5000, "\ud800"])
def test_names_that_no_file_has(name: str, tmp_path: Path) -> None:
    for reader in READERS.values():
        refused(lambda reader=reader: reader(tmp_path / name))
    assert not files.is_file(tmp_path / name)
    assert files.file_hash(tmp_path / name) == ""


def test_a_link_is_replaced_and_not_written_through(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("mine")
    home = tmp_path / "home"
    home.mkdir()
    for name, write in (
        ("text", lambda p: files.write_text(p, "new")),
        ("json", lambda p: files.write_json(p, {})),
        ("tensors", lambda p: files.write_tensors(p, {"a": torch.zeros(2)})),
        ("kept", lambda p: files.keep_json(p, 1)),
    ):
        (home / name).symlink_to(outside)
        write(home / name)
        assert not (home / name).is_symlink()
    assert outside.read_text() == "mine"
    (home / "folder").symlink_to(tmp_path, target_is_directory=True)
    with files.new_folder(home / "folder") as part:
        (part / "a").write_text("1")
    assert not (home / "folder").is_symlink()
    assert outside.read_text() == "mine"


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("mine")
    (tmp_path / ".thing.lock").symlink_to(outside)
    for lock in (files.alone, files.one_at_a_time):
        with pytest.raises(JobError, match="cannot be written"), lock(tmp_path / "thing"):
            pass
    assert outside.read_text() == "mine"


def test_messages_are_one_short_line() -> None:
    assert str(SaleditError("a\nb\x1b[31m\ud800c")) == "a b [31m c"
    assert len(str(SaleditError("x" * 10**6))) < 4200


@pytest.mark.parametrize(
    ("value", "shape", "fault"),
    [
        ({"a": 1}, {"a": int}, ""),
        ({"a": True}, {"a": int}, "true or false at 'a', where a whole number belongs"),
        ({"a": 1}, {"a": float, "b?": str}, ""),
        ({"a": {"b": [1, "x"]}}, {"a": {"b": [int]}}, "text at 'a.b[1]', where a whole number"),
        ({}, {"a": object}, "nothing at 'a'"),
        ([], {"a": object}, "a list, where an object belongs"),
        ({"a": None}, {str: (float, None)}, ""),
        ({"a": "x"}, {str: (float, None)}, "text at 'a', where nothing belongs"),
        (None, object, ""),
    ],
)
def test_shapes(value: Any, shape: Any, fault: str) -> None:
    assert misfit(value, shape).startswith(fault)
    assert bool(misfit(value, shape)) == bool(fault)


TENSORS = {
    "block.1.u": torch.randn(2, 3, generator=torch.Generator().manual_seed(0)),
    "block.1.n": torch.arange(4),
    "half": torch.ones(2, 2, dtype=torch.bfloat16),
}


@counts(250)
def test_fuzz_tensors(examples: int, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    files.write_tensors(path, TENSORS, {"kind": "edit"})
    whole, few = path.read_bytes(), examples < 1000

    def check(found: dict[str, torch.Tensor]) -> None:
        # As many bytes as the file holds, whatever they are called now.
        size = sum(tensor.numel() * tensor.element_size() for tensor in found.values())
        assert size <= path.stat().st_size
        assert all(name.isprintable() and "/" not in name for name in found)

    def example(change: Callable[[bytes], bytes]) -> None:
        path.write_bytes(change(whole))
        tolerated(lambda: files.read_tensors(path, "an edit"), check, str(path))
        tolerated(lambda: files.read_metadata(path, "an edit"), lambda m: dict(m), str(path))

    fuzz(examples, byte_changes() | header_changes(), example, few)


@counts(200)
def test_fuzz_kept_tensors(examples: int, tmp_path: Path) -> None:
    """What is sealed comes back to the bit, or not at all."""
    path = tmp_path / "a.safetensors"
    files.keep_tensors(path, TENSORS, {"progress": "7"})
    whole, few = path.read_bytes(), examples < 1000

    def check(found: tuple[dict[str, torch.Tensor], dict[str, str]]) -> None:
        tensors, told = found
        assert told == {"progress": "7"}
        assert tensors.keys() == TENSORS.keys()
        # (A zero has two signs, and torch.equal takes them for one: compare bytes.)
        for name, tensor in TENSORS.items():
            assert tensors[name].dtype == tensor.dtype
            assert torch.equal(tensors[name].view(torch.uint8), tensor.view(torch.uint8))

    def example(change: Callable[[bytes], bytes]) -> None:
        path.write_bytes(change(whole))
        tolerated(lambda: files.kept_tensors(path, "a shard"), check, str(path))

    fuzz(examples, byte_changes() | header_changes(), example, few)


VALUE = {"pick": 3, "layers": [{"layer": 0, "score": 0.25}, {"layer": 1, "score": -1e-9}], "né": ""}


@counts(200)
def test_fuzz_json(examples: int, tmp_path: Path) -> None:
    path, kept = tmp_path / "a.json", tmp_path / "kept.json"
    files.write_json(path, VALUE)
    files.keep_json(kept, VALUE)
    whole, sealed, few = path.read_bytes(), kept.read_bytes(), examples < 1000
    shape = {"pick": int, "layers": [{"layer": int, "score": float}]}

    def same(found: Any) -> None:
        assert json.dumps(found) == json.dumps(VALUE)

    def shaped(found: Any) -> None:
        assert not misfit(found, shape)
        json.dumps(found, allow_nan=False).encode()

    def example(change: Callable[[bytes], bytes]) -> None:
        path.write_bytes(change(whole))
        kept.write_bytes(change(sealed))
        tolerated(lambda: files.read_json(path, "scores", shape), shaped, str(path))
        tolerated(lambda: files.kept_json(kept, "scores"), same, str(kept))

    fuzz(examples, byte_changes() | json_changes(), example, few)


def test_a_type_that_no_edit_is_made_of_is_refused(tmp_path: Path) -> None:
    for dtype, size in (("I32", 4), ("BOOL", 16), ("F8_E4M3", 16), ("C64", 2), ("U16", 8)):
        path = tmp_path / "a.safetensors"
        path.write_bytes(tensors_file({"a": floats([size], dtype=dtype)}, bytes(16)))
        found = files.read_tensors(path, "an edit")
        with pytest.raises(ArtifactError, match="floating-point"):
            files.check_numbers(found, path, "an edit")


def test_a_pipe_is_not_opened_for_writing(tmp_path: Path) -> None:
    pipe = tmp_path / "ledger.jsonl"
    os.mkfifo(pipe)
    from saledit.files.writing import open_to_append

    with pytest.raises(OSError, match=r"pipe|No such device"):
        open_to_append(pipe)
