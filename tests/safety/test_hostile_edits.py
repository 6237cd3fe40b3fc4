"""Edits, editors and ledgers of strangers: what fits is used, all else is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
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
    one_line,
    refused,
    restructured,
    tensors_file,
    tolerated,
)
from hypothesis import strategies as st
from shelf import Shelf
from whole_runs import ui

from saledit import config as configuration
from saledit.artifact import (
    TrainedEditor,
    load_editor,
    load_edits,
    make_editor,
    save_editor,
    save_edits,
)
from saledit.config import RunConfig
from saledit.config.editors import EditorConfig, MendConfig
from saledit.delta import Edits
from saledit.errors import ArtifactError, SaleditError
from saledit.files import check_numbers, read_tensors, write_tensors, write_text
from saledit.ledger import EditFolder
from saledit.ledger.chain import Entry, append, follow
from saledit.registry import EDITORS
from saledit.routed import Mixture, Routed
from saledit.run import log, undo

WEIGHTS, FACTS = "edits.safetensors", "edits.json"


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    return Shelf(tmp_path_factory.mktemp("shelf"), "bert")


def routed(shelf: Shelf) -> Edits:
    draws, size = torch.Generator().manual_seed(0), shelf.base.embedding_size

    def of(d_in: int, d_out: int) -> Routed:
        gate, u, v = (torch.randn(n, m, generator=draws)
                      for n, m in ((3, d_in + size), (6, d_in), (6, d_out)))  # fmt: skip
        return Routed((Mixture(3, 2, 2),), gate, u, v)

    return Edits({site: of(site.d_in, site.d_out) for site in shelf.layer.sites})


@pytest.fixture(params=["low rank", "routed"])
def saved(request: pytest.FixtureRequest, shelf: Shelf, tmp_path: Path) -> Path:
    """A folder of edits."""
    edits = routed(shelf) if request.param == "routed" else shelf.edits()
    about = {"base_model": {"fingerprint": shelf.base.fingerprint}, "failures": []}
    save_edits(tmp_path / "edits", edits, about)
    return tmp_path / "edits"


def fits(shelf: Shelf, edits: Edits) -> None:
    """Such as were made for this model: at its sites, of their sizes, finite."""
    known = set(shelf.layer.sites)
    for site, delta in edits.items():
        assert site in known
        own = delta.tensors()
        assert own[-1].shape[-1] == site.d_out
        assert len({t.dtype for t in own}) == 1
        check_numbers({str(i): t for i, t in enumerate(own)}, "here", "edits")


@pytest.mark.parametrize("kind", BAD_TENSORS)
def test_broken_weights_of_edits(kind: str, shelf: Shelf, saved: Path) -> None:
    (saved / WEIGHTS).write_bytes(BAD_TENSORS[kind])
    refused(lambda: load_edits(saved, shelf.base.model), WEIGHTS)


@pytest.mark.parametrize("kind", BAD_JSON)
def test_broken_facts_of_edits(kind: str, shelf: Shelf, saved: Path) -> None:
    (saved / FACTS).write_bytes(BAD_JSON[kind])
    refused(lambda: load_edits(saved, shelf.base.model), FACTS)


def changed(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Change the tensors in a file."""
    tensors = {name: t.clone() for name, t in read_tensors(path, "it").items()}
    change(tensors)
    write_tensors(path, tensors)


def first(tensors: dict[str, torch.Tensor]) -> str:
    return min(name for name in tensors if name.endswith(".u"))


CHANGES: dict[str, Callable[[dict[str, torch.Tensor]], object]] = {
    "NaN": lambda t: t[first(t)].view(-1)[:1].fill_(float("nan")),
    "infinity": lambda t: t[first(t)].view(-1)[:1].fill_(float("inf")),
    "whole numbers": lambda t: t.update({first(t): t[first(t)].int()}),
    "two types": lambda t: t.update({first(t): t[first(t)].double()}),
    "of another size": lambda t: t.update({first(t): torch.ones(2, 3)}),
    "three dimensions": lambda t: t.update({first(t): t[first(t)][None]}),
    "no terms": lambda t: t.update({n: t[n][:0] for n in t}),
    "half a pair": lambda t: t.pop(first(t)),
    "a third factor": lambda t: t.update({f"{first(t)[:-2]}.z": torch.ones(1)}),
    "another site": lambda t: t.update({"bert.pooler.dense.u": torch.ones(1, 16)}),
    "no site": lambda t: t.update({"x.u": torch.ones(1, 16), "x.v": torch.ones(1, 16)}),
    "no name": lambda t: t.update({".u": torch.ones(1, 16), ".v": torch.ones(1, 16)}),
    "nothing": lambda t: t.clear(),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_weights_that_fit_no_edit(kind: str, shelf: Shelf, saved: Path) -> None:
    changed(saved / WEIGHTS, CHANGES[kind])
    refused(lambda: load_edits(saved, shelf.base.model), "edits")


def test_huge_shapes_that_no_byte_stands_behind(shelf: Shelf, saved: Path) -> None:
    name = shelf.layer.sites[0].name
    whole = {f"{name}.u": floats([2**40, 0], 0, 0), f"{name}.v": floats([2**40, 0], 0, 0)}
    (saved / WEIGHTS).write_bytes(tensors_file(whole))
    refused(lambda: load_edits(saved, shelf.base.model), "edits")


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [WEIGHTS, FACTS])
def test_what_is_no_file_in_a_folder_of_edits(
    name: str, kind: str, shelf: Shelf, saved: Path
) -> None:
    blocked(saved / name, kind)
    refused(lambda: load_edits(saved, shelf.base.model), name)


@counts(120)
def test_fuzz_edits(examples: int, shelf: Shelf, saved: Path) -> None:
    files = {path.name: path.read_bytes() for path in saved.iterdir()}
    few = examples < 1000

    def example(change: tuple[str, Callable[[bytes], bytes]]) -> None:
        for name, data in files.items():
            (saved / name).write_bytes(change[1](data) if name == change[0] else data)
        tolerated(lambda: load_edits(saved, shelf.base.model), lambda e: fits(shelf, e))

    changes = st.tuples(st.just(WEIGHTS), byte_changes() | header_changes())
    changes |= st.tuples(st.just(FACTS), byte_changes() | json_changes())
    fuzz(examples, changes, example, few)


# ------------------------------------------------------------------------------------- editors


def run_of(shelf: Shelf, name: str, folder: Path) -> Path:
    """A run's folder with an editor that was never trained."""
    config = RunConfig(
        name=folder.name, output=str(folder.parent),
        editor=EditorConfig(name=name, mend=MendConfig(rank=4)),
        model=shelf.model, data=configuration.DataConfig(train="a.jsonl"),
    )  # fmt: skip
    editor = make_editor(config.editor, shelf.layer.sites, shelf.base.embedding_size)
    write_text(folder / "config.yaml", configuration.to_yaml(config))
    save_editor(folder, editor, config, shelf.base, shelf.layer)
    return folder


@pytest.fixture
def run(shelf: Shelf, tmp_path: Path) -> Path:
    return run_of(shelf, "mend", tmp_path / "run")


@pytest.mark.parametrize("name", sorted(EDITORS))
def test_every_editor_is_read_without_room_for_it_first(
    name: str, shelf: Shelf, tmp_path: Path
) -> None:
    folder = run_of(shelf, name, tmp_path / "run")
    trained = load_editor(folder)
    trained.check(shelf.base)
    for tensor, again in zip(
        trained.editor.state_dict().values(),
        read_tensors(folder / "editor.safetensors", "it").values(), strict=False,
    ):  # fmt: skip
        assert tensor.device.type == again.device.type == "cpu"
    facts = json.loads((folder / "editor.json").read_text())
    for site in facts["sites"]:
        site["d_in"] = site["d_out"] = 2**23  # petabytes, of most editors
    (folder / "editor.json").write_text(json.dumps(facts))
    tolerated(
        lambda: load_editor(folder),
        lambda found: refused(lambda: found.check(shelf.base), "editor.json"), str(folder),
    )  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"sites": []}, {"sites": "x"}, {"sites": [{}]}, {"sites": None}, {"layer": "1"},
        {"layer": 10**30}, {"layer": -1}, {"layer": True}, {"layer": 99}, {"base_model": []},
        {"base_model": {"name": 1, "fingerprint": "x"}}, {"editor": "malmen"}, {"editor": None},
        {"embedding_size": -1}, {"embedding_size": "x"}, {"embedding_size": 2**60},
        {"sites": [{"name": "x", "d_in": -1, "d_out": 2, "transposed": False}]},
        {"sites": [{"name": "x", "d_in": 2**62, "d_out": 2**62, "transposed": False}]},
        {"sites": [{"name": "x", "d_in": 16, "d_out": 24, "transposed": False}]},
        {"sites": [{"name": "x", "d_in": 16, "d_out": 24, "transposed": False, "y": 1}]},
    ],
    ids=lambda change: str(change)[:40],
)  # fmt: skip
def test_facts_that_fit_no_editor(change: dict[str, Any], shelf: Shelf, run: Path) -> None:
    facts = json.loads((run / "editor.json").read_text())
    (run / "editor.json").write_text(json.dumps(facts | change))
    refused(lambda: load_editor(run).check(shelf.base), str(run))


@pytest.mark.parametrize("kind", ["NaN", "whole numbers", "of another size", "half a pair"])
def test_weights_that_fit_no_editor(kind: str, run: Path) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        name = max(tensors, key=lambda key: tensors[key].numel())
        tensors["block.u"] = tensors.pop(name)
        CHANGES[kind](tensors)
        if "block.u" in tensors:
            tensors[name] = tensors.pop("block.u")

    changed(run / "editor.safetensors", change)
    refused(lambda: load_editor(run), str(run))


def test_sizes_of_a_configuration_take_no_memory(run: Path) -> None:
    text = (run / "config.yaml").read_text()
    assert "rank: 4" in text
    (run / "config.yaml").write_text(text.replace("rank: 4", "rank: 4000000000"))
    refused(lambda: load_editor(run), str(run))


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["editor.json", "editor.safetensors", "config.yaml"])
def test_what_is_no_file_in_a_run(name: str, kind: str, run: Path) -> None:
    blocked(run / name, kind)
    refused(lambda: load_editor(run), name)


@counts(50)
def test_fuzz_editors(examples: int, shelf: Shelf, run: Path) -> None:
    files = {path.name: path.read_bytes() for path in run.iterdir()}
    shapes = {name: t.shape for name, t in load_editor(run).editor.state_dict().items()}
    few = examples < 1000

    def check(found: TrainedEditor) -> None:
        state = found.editor.state_dict()
        if found.config.editor == load_config.editor:
            assert {name: t.shape for name, t in state.items()} == shapes
        assert all(torch.isfinite(t).all() for t in state.values() if t.is_floating_point())
        try:
            found.check(shelf.base)
        except ArtifactError:
            return
        assert found.layer == shelf.layer or found.layer.sites == shelf.layer.sites
        assert len(found.session(shelf.base).edits) == len(found.editor.resident)

    load_config = load_editor(run).config

    def example(change: tuple[str, Callable[[bytes], bytes]]) -> None:
        for name, data in files.items():
            (run / name).write_bytes(change[1](data) if name == change[0] else data)
        tolerated(lambda: load_editor(run), check)

    changes = st.tuples(st.just("editor.safetensors"), byte_changes() | header_changes())
    changes |= st.tuples(st.just("editor.json"), byte_changes() | json_changes())
    changes |= st.tuples(st.just("config.yaml"), byte_changes())
    fuzz(examples, changes, example, few)


# ------------------------------------------------------------------------------------- ledgers


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
    metrics = {"n_failures": 1, "n_wrong_before": 1, "n_fixed": 1}
    about = {"editor": {"name": "locate"}, "failures": [], "metrics": metrics}
    with EditFolder.opened(folder.path):
        new = folder.fixed(shelf.edits(), {"past_0": torch.eye(3)}, about, about)
        new.commit()
    found = EditFolder.read(folder.path)
    assert found.memory("locate").keys() == {"past_0"}
    path = folder.path / "entries" / "1" / "memory.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"\x01")
    refused(lambda: found.memory("locate"), "memory.safetensors")
    path.unlink()
    refused(lambda: found.memory("locate"), "memory.safetensors")


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


def test_a_layer_that_is_another_is_noticed(shelf: Shelf, run: Path) -> None:
    trained = load_editor(run)
    other = shelf.base.layer(0)
    refused(lambda: replace(trained, layer=replace(other, index=77)).check(shelf.base), "editor")


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000, "nowhere"])
def test_names_that_no_folder_has(name: str, shelf: Shelf, tmp_path: Path) -> None:
    place = tmp_path / name
    refused(lambda: load_editor(place))
    refused(lambda: load_edits(place, shelf.base.model))
    refused(lambda: log(str(place), ui()))
    refused(lambda: undo(str(place), None, ui()))
