"""Ledgers of strangers, and what stands beside them: nothing in them is believed unchecked."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hostile import (
    KINDS,
    blocked,
    byte_changes,
    counts,
    fuzz,
    one_line,
    refused,
    restructured,
    tolerated,
)
from hypothesis import strategies as st
from shelf import Shelf
from torch import Tensor
from whole_runs import ui

from saledit.errors import SaleditError
from saledit.ledger import EditFolder
from saledit.ledger.chain import Entry, append, follow
from saledit.run import log, undo

WEIGHTS, FACTS = "edits.safetensors", "edits.json"


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    return Shelf(tmp_path_factory.mktemp("shelf"), "bert")


@pytest.fixture(scope="module")
def whole(shelf: Shelf) -> EditFolder:
    """Two fixes, of which one was taken back, and a third."""
    folder = shelf.begun("delta", "whole")
    for seed in range(3):
        folder = shelf.fixed(folder, shelf.edits(seed=seed))
    undo(str(folder.path), 2, ui())
    return EditFolder.read(folder.path)


@pytest.fixture
def fixed(whole: EditFolder, tmp_path: Path) -> Path:
    shutil.copytree(whole.path, tmp_path / "fixed")
    return tmp_path / "fixed"


def forged(path: Path, change: Callable[[int, dict[str, Any]], object]) -> None:
    """Rewrite a ledger with other facts and hashes that fit: the chain holds."""
    entries: list[Entry] = []
    for row in map(json.loads, path.read_text().splitlines()):
        facts = {k: v for k, v in row.items() if k not in ("id", "action", "time", "previous",
                                                           "hash")}  # fmt: skip
        action = row["action"]
        found = change(row["id"], facts)
        if isinstance(found, str):
            action = found
        entries.append(follow(entries, action, facts))
    path.unlink()
    append(path, entries)


OUT = "../../../../../../etc/passwd"
FORGERIES: dict[str, Callable[[int, dict[str, Any]], object]] = {
    "a file elsewhere": lambda i, f: i == 1 and f["files"].update({OUT: "0"}),
    "an absolute file": lambda i, f: i == 1 and f["files"].update({"/etc/passwd": "0"}),
    "a file above": lambda i, f: i == 1 and f["files"].update({"..": "0"}),
    "a null byte": lambda i, f: i == 1 and f["files"].update({"a\0": "0"}),
    "hashes of no kind": lambda i, f: i == 1 and f["files"].update({WEIGHTS: 5}),
    "no hashes": lambda i, f: i == 1 and f.update(files={}),
    "a list of files": lambda i, f: i == 1 and f.update(files=[WEIGHTS]),
    "no editor": lambda i, f: i == 1 and f.pop("editor"),
    "an editor of no kind": lambda i, f: i == 1 and f.update(editor=5),
    "no metrics": lambda i, f: i == 1 and f.pop("metrics"),
    "no format": lambda i, f: i == 0 and f.pop("format"),
    "an unknown format": lambda i, f: i == 0 and f.update(format="../x"),
    "no sites": lambda i, f: i == 0 and f.update(sites=[]),
    "sites of no size": lambda i, f: i == 0 and f["sites"][0].update(d_in=0),
    "sites of petabytes": lambda i, f: i == 0 and f["sites"][0].update(d_in=2**50),
    "sites of no kind": lambda i, f: i == 0 and f.update(sites=[1]),
    "a site twice": lambda i, f: i == 0 and f["sites"].append(f["sites"][0]),
    "another site": lambda i, f: i == 0 and f["sites"][0].update(name="x"),
    "a task of no kind": lambda i, f: i == 0 and f.update(task=[]),
    "a task of another kind": lambda i, f: i == 0 and f["task"].update(max_length="x"),
    "a model of no kind": lambda i, f: i == 0 and f.update(model={"kind": 5}),
    "no base": lambda i, f: i == 0 and f.update(base_model="x"),
    "a rank below 0": lambda i, f: i == 0 and f.update(rank=-1),
    "a huge rank": lambda i, f: i == 0 and f.update(rank=10**30),
    "an undo of nothing": lambda i, f: i == 4 and f.update(of=9),
    "an undo of the beginning": lambda i, f: i == 4 and f.update(of=0),
    "an undo of itself": lambda i, f: i == 4 and f.update(of=4),
    "an undo of no kind": lambda i, f: i == 4 and f.update(of="2"),
    "two beginnings": lambda i, _f: "begin" if i == 1 else None,
    "no beginning": lambda i, _f: "fix" if i == 0 else None,
}


METRICS = {"n_failures": 1, "n_wrong_before": 1, "n_fixed": 1}


@pytest.mark.parametrize("kind", FORGERIES)
def test_forged_ledgers_are_refused(kind: str, fixed: Path) -> None:
    forged(fixed / "ledger.jsonl", FORGERIES[kind])
    before = snapshot(fixed)
    refused(lambda: log(str(fixed), ui()), str(fixed))
    refused(lambda: undo(str(fixed), 1, ui()), str(fixed))
    assert snapshot(fixed) == before


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_key_twice_in_a_ledger_is_refused(fixed: Path) -> None:
    """The last one counts here and the first one for others: the hash would hold."""
    path = fixed / "ledger.jsonl"
    path.write_text(path.read_text().replace('{"id": 0,', '{"id": 7, "id": 0,', 1))
    assert "twice" in refused(lambda: log(str(fixed), ui()), "ledger.jsonl:1")


def test_what_an_editor_remembers_is_held_against_the_ledger(shelf: Shelf, tmp_path: Path) -> None:
    folder = shelf.begun("delta", "remembers")
    about = {"editor": {"name": "locate"}, "failures": [], "metrics": METRICS}
    with EditFolder.opened(folder.path):
        new = folder.fixed(shelf.edits(), {"keys_0": torch.eye(3)}, about, about)
        new.commit()
    found = EditFolder.read(folder.path)
    assert found.memory("locate").keys() == {"keys_0"}
    path = folder.path / "entries" / "1" / "memory.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"\x01")
    refused(lambda: found.memory("locate"), "memory.safetensors")
    path.unlink()
    refused(lambda: found.memory("locate"), "memory.safetensors")


@pytest.mark.parametrize("second", [torch.eye(4), torch.ones(3, 3, 1), torch.tensor(1.0)])
def test_what_editors_remember_of_fixes_has_to_fit_together(shelf: Shelf, second: Tensor) -> None:
    folder = shelf.begun("delta", f"together-{second.dim()}")
    about = {"editor": {"name": "locate"}, "failures": [], "metrics": METRICS}
    with EditFolder.opened(folder.path):
        for rows in (torch.eye(3), second):
            folder = folder.fixed(shelf.edits(), {"keys_0": rows}, about, about)
        folder.commit()
    refused(lambda: EditFolder.read(folder.path).memory("locate"), "memory.safetensors")


@pytest.mark.parametrize("name", ["ledger.jsonl", "entries", "entries/1"])
def test_links_in_a_ledger_are_not_written_through(name: str, fixed: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (fixed / name).rename(outside)
    (fixed / name).symlink_to(outside)
    before = snapshot(tmp_path)
    for verb in (lambda: log(str(fixed), ui()), lambda: undo(str(fixed), None, ui())):
        assert "got a link" in refused(verb, name)
    assert snapshot(tmp_path) == before


def test_a_link_beside_a_ledger_gives_way_to_a_file(fixed: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    for name in (WEIGHTS, FACTS):
        (fixed / name).rename(outside)
        (fixed / name).symlink_to(outside)
        before = outside.read_bytes()
        undo(str(fixed), None, ui())
        assert not (fixed / name).is_symlink()
        assert outside.read_bytes() == before
        outside.unlink()


def test_a_folder_with_a_pattern_for_a_name_sweeps_its_own(shelf: Shelf) -> None:
    other = shelf.home / ".other.1-2.part"
    other.mkdir()
    folder = EditFolder.read(shelf.home / "*")
    with EditFolder.opened(folder.path):
        pass
    assert other.is_dir()
    other.rmdir()


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["ledger.jsonl", f"entries/1/{WEIGHTS}", f"entries/1/{FACTS}"])
def test_what_is_no_file_in_a_ledger(name: str, kind: str, fixed: Path) -> None:
    blocked(fixed / name, kind)
    refused(lambda: log(str(fixed), ui()), str(fixed))


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["pipe", "device", "dangling"])
@pytest.mark.parametrize("name", [WEIGHTS, FACTS])
def test_what_is_no_file_beside_a_ledger_is_replaced(name: str, kind: str, fixed: Path) -> None:
    blocked(fixed / name, kind)
    found = log(str(fixed), ui())
    assert found["changed"] or (fixed / name).is_file()
    undo(str(fixed), None, ui())
    assert (fixed / name).is_file()
    assert not (fixed / name).is_symlink()


@pytest.mark.parametrize(
    "change",
    [{"files": {}}, {"files": {OUT: ""}}, {"ledger": 5}, {"in_force": [9]}, {"base_model": {}}],
    ids=str,
)
def test_facts_beside_a_ledger_that_were_changed(change: dict[str, Any], fixed: Path) -> None:
    facts = json.loads((fixed / FACTS).read_text())
    (fixed / FACTS).write_text(json.dumps(facts | change))
    found = log(str(fixed), ui())
    assert found["changed"] or json.loads((fixed / FACTS).read_text()) == facts


def beside(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in (WEIGHTS, FACTS)}


@counts(60)
def test_fuzz_ledgers(examples: int, whole: EditFolder, tmp_path: Path) -> None:
    """What was changed is refused, or told, or made good again: it is never taken for the fix."""
    path, few = tmp_path / "fixed", examples < 1000
    files = snapshot(whole.path)
    names = sorted(name for name in files if "lock" not in name)
    norms = {n: float(EditFolder(whole.path, whole.entries[:n], n).edits.norm())
             if EditFolder(whole.path, whole.entries[:n], n).in_force else None
             for n in range(1, len(whole.entries) + 1)}  # fmt: skip

    def example(change: tuple[str, Callable[[bytes], bytes]]) -> None:
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(whole.path, path)
        (path / change[0]).write_bytes(change[1](files[change[0]]))
        try:
            found = log(str(path), ui())
        except SaleditError as error:
            one_line(error)
            return
        # Space at its end or a lost last line: as many entries as the chain proves, unchanged.
        now = EditFolder.read(path)
        assert now.entries == whole.entries[: len(now.entries)]
        assert found["norm"] == norms[len(now.entries)]
        if not found["changed"]:
            assert (path / WEIGHTS).read_bytes() == files[WEIGHTS]

    changes = st.tuples(st.sampled_from(names), byte_changes())
    fuzz(examples, changes, example, few)


@counts(60)
def test_fuzz_forged_ledgers(examples: int, whole: EditFolder, tmp_path: Path) -> None:
    """Whatever its entries say, with hashes that fit."""
    path, few = tmp_path / "fixed", examples < 1000
    files = snapshot(whole.path)

    def example(seed: int) -> None:
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(whole.path, path)
        which = seed % len(whole.entries)

        def change(i: int, facts: dict[str, Any]) -> None:
            if i == which:
                new = restructured(facts, seed)
                facts.clear()
                facts.update(new if isinstance(new, dict) else {})

        forged(path / "ledger.jsonl", change)
        (path / FACTS).unlink()  # it names the hash of the true ledger
        for verb in (log, lambda out, shown: undo(out, None, shown)):
            tolerated(lambda verb=verb: verb(str(path), ui()), lambda found: json.dumps(found))
        assert {p.name for p in tmp_path.iterdir()} <= {"fixed", ".fixed.lock"}
        kept = {name: data for name, data in snapshot(path).items() if name.startswith("entries")}
        assert kept == {name: data for name, data in files.items() if name.startswith("entries")}

    fuzz(examples, st.integers(0, 2**63), example, few)
