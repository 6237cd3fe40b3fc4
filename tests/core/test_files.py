"""Files: whole or not there, and nothing unsafe is read."""

from __future__ import annotations

import errno
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from torch import Tensor

from saledit import files
from saledit.errors import ArtifactError, JobError
from saledit.files import tensors as tensors_module

OLD = {"w": torch.arange(4.0)}
NEW = {"w": torch.ones(4), "n": torch.zeros(2, 3, dtype=torch.bfloat16)}
# kind -> (write the old content, write the new content, read)
KINDS: dict[str, tuple[Callable[[Path], None], Callable[[Path], None]]] = {
    "text": (lambda p: files.write_text(p, "old"), lambda p: files.write_text(p, "new")),
    "json": (lambda p: files.write_json(p, {"a": 1}), lambda p: files.write_json(p, {"a": 2})),
    "tensors": (lambda p: files.write_tensors(p, OLD), lambda p: files.write_tensors(p, NEW)),
}


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.name.endswith(".part")]


def full_disk(*_args: Any, **_kwargs: Any) -> NoReturn:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def test_a_write_replaces_and_makes_folders(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "deep" / "er" / "file"
    old, new = KINDS[kind]
    old(path)
    first = path.read_bytes()
    new(path)
    assert path.read_bytes() != first
    assert [p.name for p in path.parent.iterdir()] == ["file"]


def break_writes(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Make every writer fail after half of the work."""

    def half_text(self: Path, text: str, **_kwargs: Any) -> NoReturn:
        self.write_bytes(text.encode()[:1])
        raise error

    def half_tensors(_tensors: dict[str, Tensor], path: Path, *_args: Any) -> NoReturn:
        path.write_bytes(b"\x10")
        raise error

    monkeypatch.setattr(Path, "write_text", half_text)
    monkeypatch.setattr(tensors_module, "save_file", half_tensors)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("bug")], ids=repr)
def test_an_exception_while_writing_leaves_the_old_file(
    tmp_path: Path, kind: str, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    old, new = KINDS[kind]
    old(path)
    before = path.read_bytes()
    break_writes(monkeypatch, error)
    with pytest.raises(type(error)):
        new(path)
    assert path.read_bytes() == before
    assert not leftovers(tmp_path)


def test_a_full_disk_is_a_job_error(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    old, new = KINDS[kind]
    old(path)
    before = path.read_bytes()
    break_writes(monkeypatch, OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(JobError, match=r"file: cannot be written: No space left on device"):
        new(path)
    assert path.read_bytes() == before
    assert not leftovers(tmp_path)


def test_a_disk_that_is_full_late_is_a_job_error(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    old, new = KINDS[kind]
    old(path)
    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(JobError, match="No space left"):
        new(path)
    assert path.read_bytes() == before
    assert not leftovers(tmp_path)


def test_a_place_that_cannot_be_is_a_job_error(tmp_path: Path, kind: str) -> None:
    (tmp_path / "plain").write_bytes(b"x")
    with pytest.raises(JobError, match="cannot be written"):
        KINDS[kind][1](tmp_path / "plain" / "file")


def test_what_is_written_is_synced_before_it_is_renamed(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    seen = []
    sync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (seen.append(path.exists()), sync(fd)))
    KINDS[kind][1](path)
    assert seen[0] is False
    assert path.exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_nan_is_never_written(tmp_path: Path, value: float) -> None:
    path = tmp_path / "results.json"
    files.write_json(path, {"drawdown": 0.5})
    with pytest.raises(JobError, match=r"results\.json: a result is NaN or infinite"):
        files.write_json(path, {"metrics": [{"drawdown": value}]})
    assert files.read_json(path, "results") == {"drawdown": 0.5}
    assert not leftovers(tmp_path)


def test_json_round_trip_in_utf8(tmp_path: Path) -> None:
    value = {"name": "Zürich ∆", "list": [1, 2.5, None, True]}
    files.write_json(tmp_path / "a.json", value)
    assert files.read_json(tmp_path / "a.json", "it") == value
    assert "Zürich ∆" in (tmp_path / "a.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe"])
def test_broken_json_is_an_artifact_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"a\.json: expected a ledger, got a broken file"):
        files.read_json(path, "a ledger")


def test_tensors_round_trip_with_metadata(tmp_path: Path) -> None:
    tensors = {
        "view": torch.arange(12.0).view(3, 4).T,  # not contiguous
        "half": torch.randn(3, generator=torch.Generator().manual_seed(0)).half(),
        "scalar": torch.tensor(3, dtype=torch.int64),
        "learned": torch.ones(2, requires_grad=True),
    }
    path = tmp_path / "a.safetensors"
    files.write_tensors(path, tensors, {"kind": "delta"})
    back = files.read_tensors(path, "an edit")
    assert back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(back[name], tensor)
        assert back[name].dtype == tensor.dtype
    assert files.read_metadata(path, "an edit") == {"kind": "delta"}
    files.write_tensors(path, {})
    assert files.read_metadata(path, "an edit") == {}


READERS = {"tensors": files.read_tensors, "metadata": files.read_metadata}


@pytest.fixture(params=READERS)
def reader(request: pytest.FixtureRequest) -> Callable[[Path, str], object]:
    return READERS[request.param]


@pytest.mark.parametrize("how", ["torch.save", "old torch.save", "pickle"])
def test_a_pickle_is_refused(
    tmp_path: Path, how: str, reader: Callable[[Path, str], object]
) -> None:
    path = tmp_path / "editor.safetensors"
    if how == "pickle":
        path.write_bytes(pickle.dumps({"w": [1.0]}))
    else:
        torch.save(OLD, path, _use_new_zipfile_serialization=how == "torch.save")
    with pytest.raises(ArtifactError, match=r"expected an editor as safetensors, got a pickle"):
        reader(path, "an editor")


@pytest.mark.parametrize("keep", [0, 4, -1])
def test_a_truncated_file_is_refused(
    tmp_path: Path, keep: int, reader: Callable[[Path, str], object]
) -> None:
    path = tmp_path / "a.safetensors"
    files.write_tensors(path, OLD)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ArtifactError, match=r"a\.safetensors: expected an editor as safetensors"):
        reader(path, "an editor")


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    for read in (files.read_json, files.read_tensors, files.read_metadata):
        with pytest.raises(ArtifactError, match="expected a run, got no such file"):
            read(tmp_path / "none", "a run")


def test_a_folder_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    for read in (files.read_json, files.read_tensors, files.read_metadata):
        with pytest.raises(ArtifactError, match="expected a run"):
            read(tmp_path, "a run")


def test_a_folder_appears_whole_and_replaces_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "model"
    with files.new_folder(path) as part:
        (part / "a").write_text("1")
        assert not path.exists()
    with files.new_folder(path) as part:
        (part / "b").write_text("2")
        assert (path / "a").exists()
    assert [p.name for p in path.iterdir()] == ["b"]
    assert [p.name for p in path.parent.iterdir()] == ["model"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space")])
def test_a_folder_that_fails_leaves_the_old_one(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "model"
    with files.new_folder(path) as part:
        (part / "a").write_text("1")

    def fill_half() -> None:
        with files.new_folder(path) as part:
            (part / "b").write_text("2")
            raise error

    with pytest.raises(JobError if isinstance(error, OSError) else type(error)):
        fill_half()
    assert [p.name for p in path.iterdir()] == ["a"]
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_folder_that_cannot_be_renamed_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model"
    with files.new_folder(path) as part:
        (part / "a").write_text("1")
    replace = Path.replace

    def fails_for_the_new(self: Path, target: Path) -> Path:
        if self.name == "new":
            full_disk()
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fails_for_the_new)
    with pytest.raises(JobError, match="nothing was changed"), files.new_folder(path) as part:
        (part / "b").write_text("2")
    assert [p.name for p in path.iterdir()] == ["a"]
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_folder_never_replaces_a_file(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    path.write_text("mine")
    with pytest.raises(JobError, match="cannot be written"), files.new_folder(path):
        pass
    assert path.read_text() == "mine"


HOLDER = """
import sys, time
from pathlib import Path
from saledit import files
with files.one_at_a_time(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
    Path(sys.argv[1]).write_text("made")
"""


def holder(path: Path, seconds: float) -> subprocess.Popen[str]:
    """A process that has a file's lock, and makes the file after some seconds."""
    command = [sys.executable, "-c", HOLDER, str(path), str(seconds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_who_comes_second_waits_and_finds_it_made(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "thing"
    with holder(path, 0.5) as process:
        assert not path.exists()
        with files.one_at_a_time(path):
            assert path.read_text() == "made"
        assert process.wait() == 0


def test_a_killed_maker_leaves_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "thing"
    with holder(path, 600) as process:
        process.kill()
        process.wait()
    with files.one_at_a_time(path):
        assert not path.exists()


def test_a_lock_is_given_back_after_an_error(tmp_path: Path) -> None:
    path = tmp_path / "thing"
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), files.one_at_a_time(path):
            raise ZeroDivisionError


def test_a_place_that_cannot_be_locked_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(JobError, match="cannot be written"),
        files.one_at_a_time(tmp_path / "file" / "thing"),
    ):
        pass
