"""A folder of fixes: they add up, are taken back exactly, and survive what may happen to them."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from shelf import Shelf
from whole_runs import ui

from saledit.artifact import load_edits
from saledit.errors import ArtifactError, JobError, ModelError, UserError
from saledit.export import CHANGED, CUT_OFF, SETTLED, settle, state
from saledit.ledger import EditFolder
from saledit.run import log, undo

FORMS = ("delta", "merged", "lora")
WEIGHTS = {
    "delta": "edits.safetensors",
    "merged": "model.safetensors",
    "lora": "adapter_model.safetensors",
}


@pytest.fixture
def bert(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path, "bert")


def bits(folder: EditFolder) -> dict[str, torch.Tensor]:
    return load_file(folder.path / WEIGHTS[folder.head["format"]])


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


@pytest.mark.parametrize("form", FORMS)
def test_undo_gives_back_every_bit(form: str, bert: Shelf) -> None:
    one = bert.fixed(bert.begun(form), bert.edits())
    first = bits(one)
    two = bert.fixed(one, bert.edits(seed=1))
    assert not same(bits(two), first)
    assert undo(str(two.path), None, ui())["undone"] == 2
    assert same(bits(EditFolder.read(two.path)), first)
    assert undo(str(two.path), None, ui())["in_force"] == []
    none = EditFolder.read(two.path)
    assert not none.edits
    if form == "merged":
        assert same(bits(none), load_file(bert.home / "model" / "model.safetensors"))
    if form == "lora":
        assert all(not tensor.any() for name, tensor in bits(none).items())
    with pytest.raises(UserError, match="none in force"):
        undo(str(two.path), None, ui())


@pytest.mark.parametrize("form", FORMS)
def test_an_older_fix_is_taken_back_and_later_ones_stay(form: str, bert: Shelf) -> None:
    """To the bits of a folder that has never seen it."""
    folder = bert.begun(form)
    for seed in range(3):
        folder = bert.fixed(folder, bert.edits(seed=seed))
    assert undo(str(folder.path), 2, ui())["in_force"] == [1, 3]
    never = bert.fixed(bert.begun(form, "never"), bert.edits(seed=0))
    never = bert.fixed(never, bert.edits(seed=2))
    assert same(bits(EditFolder.read(folder.path)), bits(never))
    with pytest.raises(UserError, match=r"expected a fix in force \(1, 3\), got 2"):
        undo(str(folder.path), 2, ui())


def test_what_is_remembered_is_that_of_the_fixes_in_force(bert: Shelf) -> None:
    folder, metrics = bert.begun("delta"), {"n_failures": 1, "n_wrong_before": 1, "n_fixed": 1}

    def remembered(name: str = "locate") -> dict[str, list[float]]:
        found = EditFolder.read(folder.path).memory(name)
        return {key: rows[:, 0].tolist() for key, rows in found.items()}

    with EditFolder.opened(folder.path):
        for name, keys in (("locate", 1.0), ("mend", 0.0), ("locate", 10.0), ("locate", 0.0)):
            facts = {"editor": {"name": name}, "n_failures": 1, "metrics": metrics}
            memory = {"keys_0": torch.full((2, 3), keys)} if keys else {}
            told = {"editor": {"name": name}, "failures": [{"id": "a"}], "metrics": metrics}
            folder = folder.fixed(bert.edits(), memory, facts, told)
        settle(folder, bert.base, lambda _part: None)
    assert remembered() == {"keys_0": [1.0, 1.0, 10.0, 10.0]}
    assert not remembered("mend")
    undo(str(folder.path), 1, ui())
    assert remembered() == {"keys_0": [10.0, 10.0]}
    undo(str(folder.path), 3, ui())
    assert not remembered()


def test_the_log_says_what_happened(bert: Shelf) -> None:
    folder = bert.fixed(bert.begun("delta"), bert.edits())
    bert.fixed(folder, bert.edits(seed=1))
    undo(str(folder.path), 1, ui())
    found = log(str(folder.path), ui())
    rows = [
        (row["id"], row["action"], row["in_force"], row["undone_by"]) for row in found["entries"]
    ]
    assert rows == [(1, "fix", False, 3), (2, "fix", True, None), (3, "undo", False, None)]
    assert not found["changed"]
    with pytest.raises(UserError, match="expected a folder that saledit fix made"):
        log(str(bert.home / "model"), ui())


def test_changed_files_are_noticed(bert: Shelf) -> None:
    folder = bert.fixed(bert.begun("delta"), bert.edits())
    beside = folder.path / "edits.safetensors"
    whole = beside.read_bytes()
    beside.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert state(folder) == CHANGED
    assert log(str(folder.path), ui())["changed"]
    own = folder.path / "entries" / "1" / "edits.safetensors"
    own.write_bytes(own.read_bytes()[:-1] + b"\x00")
    with pytest.raises(ArtifactError, match=r"entry 1 of the ledger tells of, got another"):
        log(str(folder.path), ui())
    own.unlink()
    with pytest.raises(ArtifactError, match=r"entry 1 of the ledger tells of, got none"):
        log(str(folder.path), ui())


def test_a_ledger_that_lost_its_end_is_noticed(bert: Shelf) -> None:
    folder = bert.fixed(bert.begun("delta"), bert.edits())
    bert.fixed(folder, bert.edits(seed=1))
    ledger = folder.path / "ledger.jsonl"
    ledger.write_bytes(b"".join(ledger.read_bytes().splitlines(keepends=True)[:-1]))
    for verb in (lambda: log(str(folder.path), ui()), lambda: undo(str(folder.path), 1, ui())):
        with pytest.raises(ArtifactError, match="without its last entries"):
            verb()


def test_two_writers_do_not_meet(bert: Shelf) -> None:
    folder = bert.fixed(bert.begun("delta"), bert.edits())
    taken = pytest.raises(JobError, match="another saledit is writing")
    with EditFolder.opened(folder.path), taken:
        undo(str(folder.path), None, ui())
    assert undo(str(folder.path), None, ui())["in_force"] == []


def test_what_was_cut_off_is_finished(bert: Shelf) -> None:
    """The entry is in the ledger, the files beside it are of the one before."""
    folder = bert.fixed(bert.begun("merged"), bert.edits())
    new = folder.fixed(
        bert.edits(seed=1), {},
        {"editor": {"name": "mend"}, "metrics": {"n_fixed": 1, "n_wrong_before": 1}},
        {"editor": {"name": "mend"}, "failures": [], "metrics": {}},
    )  # fmt: skip
    new.commit()
    assert state(new) == CUT_OFF
    assert len(log(str(folder.path), ui())["entries"]) == 2
    again = EditFolder.read(folder.path)
    assert state(again) == SETTLED
    straight = bert.fixed(bert.fixed(bert.begun("merged", "b"), bert.edits()), bert.edits(seed=1))
    assert same(bits(again), bits(straight))


def _fix_until_killed(shelf: Shelf, seed: int, moment: int) -> None:
    """Die at the moment-th call to the operating system that changes something on disk."""
    path = shelf.home / "fixed"
    left = [moment]

    def counted(name: str) -> None:
        whole = getattr(os, name)

        def call(*args: object, **kwargs: object) -> object:
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return whole(*args, **kwargs)

        setattr(os, name, call)

    folder = EditFolder.read(path) if EditFolder.read(path).entries else shelf.begun("lora")
    for name in ("replace", "fsync", "mkdir", "unlink", "rename", "rmdir"):
        counted(name)
    shelf.fixed(folder, shelf.edits(seed=seed))


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.long
def test_a_writer_may_die_at_any_step(first: bool, bert: Shelf) -> None:
    """Before every change on disk once: the fix is there or it is not, and the next one works."""
    path = bert.home / "fixed"
    context, deaths, done = multiprocessing.get_context("fork"), 0, False
    while not done:
        folder = bert.begun("lora")
        if first:
            shutil.rmtree(path, ignore_errors=True)
        elif not EditFolder.read(path).entries:
            bert.fixed(folder, bert.edits())
        writer = context.Process(target=_fix_until_killed, args=(bert, 9 + deaths, deaths))
        writer.start()
        writer.join()
        assert writer.exitcode in (0, -signal.SIGKILL)
        done = writer.exitcode == 0
        found = EditFolder.read(path)
        before = len(found.in_force)
        if found.entries:
            log(str(path), ui())  # finishes what was cut off
            found = EditFolder.read(path)
            assert state(found) == SETTLED
            assert len(found.in_force) == before
            norm = float(load_edits(found.path, bert.base.model).norm())
            assert norm == pytest.approx(float(found.edits.norm()))
        else:
            assert found.is_new  # the next fix may have it
            again = bert.fixed(bert.begun("lora"), bert.edits())
            assert [entry.id for entry in again.in_force] == [1]
        deaths += not done
    assert deaths >= 5
    with EditFolder.opened(path):
        pass
    assert not [p for p in bert.home.iterdir() if p.name.endswith(".part")]


def test_an_interrupted_writer_keeps_what_is_in_the_ledger(
    bert: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C right after the line was written, and before it."""
    folder = bert.fixed(bert.begun("delta"), bert.edits())
    commit = EditFolder.commit

    def after(self: EditFolder) -> None:
        commit(self)
        raise KeyboardInterrupt

    def before(self: EditFolder) -> None:
        raise KeyboardInterrupt

    for number, (act, kept) in enumerate(((before, 1), (after, 2))):
        with monkeypatch.context() as patched:
            patched.setattr(EditFolder, "commit", act)
            with pytest.raises(KeyboardInterrupt):
                bert.fixed(folder, bert.edits(seed=number))
        log(str(folder.path), ui())
        assert len(EditFolder.read(folder.path).in_force) == kept
        assert len(list((folder.path / "entries").iterdir())) == kept


def test_a_folder_of_other_things_is_not_new(bert: Shelf) -> None:
    for name in ("fixed/a.txt", "entries_of_others/entries/1/a.txt"):
        (bert.home / name).parent.mkdir(parents=True)
        (bert.home / name).touch()
    assert not EditFolder.read(bert.home / "fixed").is_new
    assert not EditFolder.read(bert.home / "entries_of_others").is_new
    assert EditFolder.read(bert.home / "none").is_new


def test_edits_json_tells_what_is_in_force(bert: Shelf) -> None:
    folder = bert.fixed(bert.begun("delta"), bert.edits())
    folder = bert.fixed(folder, bert.edits(seed=1))
    facts = json.loads((folder.path / "edits.json").read_text())
    assert facts["in_force"] == [1, 2]
    assert facts["failures"] == [{"id": "a"}, {"id": "a"}]
    assert facts["base_model"]["fingerprint"] == bert.base.fingerprint


def test_from_inside_the_folder(bert: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    one = bert.fixed(bert.begun("delta"), bert.edits())
    monkeypatch.chdir(one.path)
    assert undo(".", None, ui())["undone"] == 1
    assert not EditFolder.read(one.path).edits


def test_a_base_model_of_a_relative_path_is_found_from_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    shelf = Shelf(Path(), "bert")
    shelf.fixed(shelf.begun("merged"), shelf.edits())
    monkeypatch.chdir(tmp_path)  # and moved, with its model
    (tmp_path / "project").rename(tmp_path / "moved")
    assert undo("moved/fixed", None, ui())["undone"] == 1
    ledger = EditFolder.read(tmp_path / "moved" / "fixed")
    assert ledger.head["base_model"]["name"] == "model"
    assert ledger.head["base_model"]["beside"] == "../model"
    (tmp_path / "moved" / "model").rename(tmp_path / "gone")
    shelf.fixed(ledger, shelf.edits(1))
    with pytest.raises(ModelError, match="cannot load 'model'"):
        undo("moved/fixed", None, ui())
