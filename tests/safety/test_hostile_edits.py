"""Edits and editors of strangers: what fits is used, all else is refused."""

from __future__ import annotations

import json
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
    refused,
    tensors_file,
    tolerated,
)
from hypothesis import strategies as st
from shelf import Shelf
from whole_runs import ui

from saledit import config as configuration
from saledit.artifact import TrainedEditor, load_editor, load_edits, save_editor, save_edits
from saledit.building import make_editor
from saledit.config import RunConfig
from saledit.config.editors import EditorConfig, MendConfig
from saledit.delta import Edits
from saledit.delta.routed import Mixture, Routed
from saledit.errors import ArtifactError
from saledit.files import check_numbers, read_tensors, write_tensors, write_text
from saledit.registry import EDITORS
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
