"""Data sets of the hub, and files that come with saledit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sources import ROWS, Claims, fault, write

import saledit.bundled
from saledit.bundled import bundled
from saledit.data.sources import check_texts, load_records, load_rows
from saledit.errors import DataError, UserError

# ------------------------------------------------------------------------------ hub


@pytest.mark.parametrize("source", ["squad", "org/name", "org/name.v1@some:test", "a:train[:9]"])
def test_hub_data_set_while_offline(source: str):
    message = fault(source)
    assert message.startswith(f"{source}: ")
    assert "got no local file of that name, and the hub could not be reached" in message


def test_a_file_without_its_suffix_is_suggested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path / "train.jsonl", ROWS)
    monkeypatch.chdir(tmp_path)
    assert fault("train").endswith("did you mean the file 'train.jsonl'?")


def test_a_format_is_no_hub_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path / "t.csv", ROWS)
    monkeypatch.chdir(tmp_path)
    assert "'csv' is a file format" in fault("csv")


@pytest.mark.parametrize("source", ["https://host/t.jsonl", "hf://datasets/a/b/t.parquet", "a/b/c"])
def test_addresses_are_not_followed(source: str):
    assert "got no such folder" in fault(source)


@pytest.mark.parametrize(
    ("source", "asked", "ids"),
    [
        ("glue", ("glue", None, "train"), "glue"),
        ("org/glue", ("org/glue", None, "train"), "glue"),
        ("org/glue@mnli:test", ("org/glue", "mnli", "test"), "glue-mnli-test"),
        ("glue:test@mnli", ("glue", "mnli", "test"), "glue-test-mnli"),
        ("glue:test[:5]", ("glue", None, "test[:5]"), "glue-test[-5]"),
    ],
)
def test_hub_data_set(monkeypatch: pytest.MonkeyPatch, source: str, asked: tuple, ids: str):
    import datasets

    rows = [{"premise": "p", "hypothesis": "h", "label": 1}] * 4
    data = datasets.Dataset.from_list(rows)
    data = data.cast_column("label", datasets.ClassLabel(names=["no", "yes"]))
    calls = []

    def load_dataset(name: str, config: str | None, *, split: str) -> datasets.Dataset:
        calls.append((name, config, split))
        return data

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert load_rows(source)[3] == (f"{source}:4", rows[0] | {"label": "yes"})
    assert calls == [asked]
    records = load_records(Claims(), source)
    assert [record.sample.id for record in records][:2] == [f"{ids}:1", f"{ids}:2"]
    drawn = load_records(Claims(), source, limit=2)
    assert len(drawn) == 2
    assert set(drawn) < set(records)


def test_hub_refuses(monkeypatch: pytest.MonkeyPatch):
    import datasets

    def load_dataset(*_args: Any, **_options: Any) -> None:
        raise ValueError("Unknown split 'x'.\nMore lines.")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    message = fault("org/some-hub-name:x")
    assert "the hub did not give it (Unknown split 'x'.); check the name" in message


def test_a_corpus_is_known_by_its_first_text(jsonl, monkeypatch: pytest.MonkeyPatch):
    check_texts(str(jsonl(b'{"text": "a"}\n{"words": "b"}\n')))
    for content, line in (
        (b'{"words": "a"}\n{"text": "b"}\n', r"t.jsonl:1: expected text in 'text', got nothing"),
        (b"{}\n", "got nothing; check the name, there is nothing else"),
        (b"\n", "t.jsonl: expected at least one record, got none"),
    ):
        with pytest.raises(DataError, match=line):
            check_texts(str(jsonl(content)))
    # What was summed up over a hub data set is kept: it need not be here any more.
    monkeypatch.setattr("saledit.data.sources.hub_rows", lambda *_given: pytest.fail("it was"))
    check_texts("org/some-hub-name:x")


# ------------------------------------------------------------------------------ bundled files


@pytest.fixture(params=["wheel", "checkout"])
def package(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Where bundled files lie in a made-up installation."""
    module = tmp_path / "site" / "saledit" / "bundled.py"
    root = module.parent / "_bundled" if request.param == "wheel" else module.parents[1]
    (root / "data").mkdir(parents=True)
    module.parent.mkdir(exist_ok=True)
    monkeypatch.setattr(saledit.bundled, "__file__", str(module))
    return root


def test_bundled_file(package: Path):
    write(package / "data" / "t.jsonl", ROWS)
    assert bundled("bundled:data/t.jsonl") == bundled("data/t.jsonl") == package / "data/t.jsonl"
    records = load_records(Claims(), "bundled:data/t.jsonl")
    assert records[0].sample.id == "a"
    assert load_rows("bundled:data/t.jsonl")[1][0] == "bundled:data/t.jsonl:2"


def test_missing_bundled_file(package: Path):
    write(package / "data" / "train.jsonl", ROWS)
    assert "did you mean 'train.jsonl'?" in fault("bundled:data/trian.jsonl")


@pytest.mark.parametrize("path", ["../../x.jsonl", "data/../../x.jsonl", "/x.jsonl", "link.jsonl"])
def test_paths_out_of_the_bundled_files(package: Path, path: str):
    for name in (package.parent / "x.jsonl", package.parent.parent / "x.jsonl"):
        write(name, ROWS)
    (package / "link.jsonl").symlink_to(package.parent / "x.jsonl")
    assert "got a path that leads elsewhere" in fault(f"bundled:{path}")
    with pytest.raises(UserError, match="leads elsewhere"):
        bundled(path)


def test_circle_of_links_among_the_bundled_files(package: Path):
    (package / "t.jsonl").symlink_to(package / "t.jsonl")
    assert "got" in fault("bundled:t.jsonl")


def test_a_link_is_read_by_its_own_name(tmp_path: Path):
    """The hub's cache names its files by their hashes."""
    (tmp_path / "blob").write_text("premise,hypothesis,label\na,b,c\n")
    (tmp_path / "x.csv").symlink_to(tmp_path / "blob")
    from saledit.tasks.nli import Nli

    (record,) = load_records(Nli(), str(tmp_path / "x.csv"))
    assert record.sample.inputs == ("a", "b")
