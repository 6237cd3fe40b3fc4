"""Every format gives the same rows, and every fault is one line that names its place."""

from __future__ import annotations

import csv
import gzip
import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import saledit.bundled
from saledit.bundled import bundled
from saledit.data.sources import check_texts, load_records, load_rows
from saledit.errors import DataError, UserError
from saledit.records import Record, Sample

ROWS = [
    {"id": "a", "premise": "A man sleeps.", "hypothesis": "None", "label": "neutral"},
    {"id": "b", "premise": "Zwölf, “naïve” 猫", "hypothesis": "NA", "label": "entailment"},
    {"id": "c", "premise": 'He said "no",\nthen left.', "hypothesis": "2020-01-01", "label": "0"},
]


class Claims:
    """The least a task can be for this module: it only reads."""

    name = "claims"
    fields = ("premise", "hypothesis")

    def parse(self, row: Mapping[str, Any], where: str) -> Record:
        if not isinstance(row.get("label"), str):
            raise DataError(f"{where}: expected text in 'label'")
        sample = Sample(row["id"], (row["premise"], row["hypothesis"]), row["label"])
        others = row.get("paraphrases") or ()
        return Record(
            sample,
            tuple(Sample(f"{sample.id}#{i}", (o["premise"], ""), "") for i, o in enumerate(others)),
        )


def json_lines(rows: list[Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def csv_bytes(rows: list[dict[str, str]], folder: Path) -> bytes:
    with (folder / "made.txt").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return (folder / "made.txt").read_bytes()


def write(path: Path, rows: list[Any]) -> str:
    if path.name.endswith(".parquet"):
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        return str(path)
    content = csv_bytes(rows, path.parent) if ".csv" in path.name.lower() else json_lines(rows)
    path.write_bytes(gzip.compress(content) if path.suffix.lower() == ".gz" else content)
    return str(path)


def fault(source: str | Path, **options: Any) -> str:
    def read() -> None:
        load_rows(str(source), **options)  # what is wrong with the file, if anything
        load_records(Claims(), str(source), **options)

    with pytest.raises(DataError) as caught:
        read()
    message = str(caught.value)
    assert "\n" not in message
    assert "expected" in message
    assert "got" in message
    assert ";" in message
    return message


@pytest.fixture
def jsonl(tmp_path: Path) -> Callable[[bytes], Path]:
    def make(content: bytes) -> Path:
        path = tmp_path / "t.jsonl"
        path.write_bytes(content)
        return path

    return make


NAMES = ["t.jsonl", "t.jsonl.gz", "t.csv", "t.csv.gz", "t.parquet", "T.CSV.GZ"]


@pytest.mark.parametrize("name", NAMES)
def test_formats_agree(tmp_path: Path, name: str):
    source = write(tmp_path / name, ROWS)
    assert [row for _, row in load_rows(source)] == ROWS


@pytest.mark.parametrize("name", NAMES)
def test_limit(tmp_path: Path, name: str):
    source = write(tmp_path / name, ROWS)
    found = load_rows(source, limit=2)
    assert found == load_rows(source, limit=2)
    assert len(found) == 2
    assert [row for row in load_rows(source) if row in found] == found
    assert load_rows(source, limit=9) == load_rows(source, limit=3) == load_rows(source)


def test_a_limit_draws_from_the_whole_file(jsonl):
    """Files are often sorted by topic: the first records of one are no sample of it."""
    path = jsonl(json_lines([{"claim": f"c{i}", "label": "yes"} for i in range(2000)]))
    drawn = [int(where.rpartition(":")[2]) for where, _ in load_rows(str(path), limit=400)]
    assert drawn == sorted(set(drawn))
    tenths = [sum(200 * t < line <= 200 * (t + 1) for line in drawn) for t in range(10)]
    assert min(tenths) > 20, "of 40 expected in each tenth of the file"


@pytest.mark.parametrize(
    ("name", "lines"), [("t.jsonl", "123"), ("t.csv", "234"), ("t.parquet", "123")]
)
def test_places(tmp_path: Path, name: str, lines: str):
    source = write(tmp_path / name, ROWS)
    assert [where for where, _ in load_rows(source)] == [f"{source}:{n}" for n in lines]


def test_blank_lines_count(jsonl):
    first, second, third = json_lines(ROWS).splitlines()
    path = jsonl(b"\xef\xbb\xbf\n" + first + b"\r\n\r\n  \n" + second + b"\n\n\n" + third)
    assert [where for where, _ in load_rows(str(path))] == [f"{path}:{n}" for n in (2, 5, 8)]


def test_csv_rows_over_several_lines_count(tmp_path: Path):
    path = tmp_path / "t.csv"
    path.write_text('\na,b\n"x\n\ny",1\n \nz,2\n')
    rows = load_rows(str(path))
    assert rows == [(f"{path}:3", {"a": "x\n\ny", "b": "1"}), (f"{path}:7", {"a": "z", "b": "2"})]


def test_json_values_stay_as_they_are(jsonl):
    rows = [
        {"when": "2020-01-01", "n": 1},
        {"when": "2021-05-06T10:00:00", "n": 2.5, "late": [{"x": 1}, {"y": "u"}]},
        {"when": None, "z": {"k": []}},
    ]
    assert [row for _, row in load_rows(str(jsonl(json_lines(rows))))] == rows


def test_a_changed_file_is_read_again(jsonl):
    path = jsonl(json_lines(ROWS))
    assert len(load_rows(str(path))) == 3
    assert len(load_rows(str(jsonl(json_lines(ROWS[:1]))))) == 1


def test_names_with_pattern_characters(tmp_path: Path):
    folder = tmp_path / ".a [1]*" / "__b"
    folder.mkdir(parents=True)
    for name in ("t[1]?.parquet", "t[1]?.jsonl"):
        assert len(load_rows(write(folder / name, ROWS))) == 3


def test_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "in").mkdir()
    write(tmp_path / "in" / "t.jsonl", ROWS)
    assert load_rows("t.jsonl", root=tmp_path / "in")[0][0] == "t.jsonl:1"
    monkeypatch.chdir(tmp_path)
    assert load_rows("in/t.jsonl")[2][0] == "in/t.jsonl:3"


def test_class_numbers_become_names(tmp_path: Path):
    import datasets

    features = datasets.Features({"label": datasets.ClassLabel(names=["no", "yes"])})
    data = datasets.Dataset.from_dict({"label": [1, 0, -1, None]}, features=features)
    data.to_parquet(tmp_path / "t.parquet")
    rows = load_rows(str(tmp_path / "t.parquet"))
    assert [row["label"] for _, row in rows] == ["yes", "no", None, None]


@pytest.mark.parametrize("broken", [False, True])
def test_nothing_is_shown_and_settings_are_restored(tmp_path: Path, capfd, broken: bool):
    import datasets

    path = tmp_path / "t.parquet"
    write(path, ROWS)
    if broken:
        path.write_bytes(b"PAR1 is not all")
    datasets.enable_progress_bars()
    level = datasets.utils.logging.get_verbosity()
    if broken:
        fault(path)
    else:
        load_rows(str(path))
    assert capfd.readouterr() == ("", "")
    assert not datasets.are_progress_bars_disabled()
    assert datasets.utils.logging.get_verbosity() == level


# ------------------------------------------------------------------------------ records


@pytest.mark.parametrize("name", ["train.jsonl", "train.jsonl.gz", "train.csv"])
def test_records_without_an_id_are_named_by_their_line(tmp_path: Path, name: str):
    rows = [{k: v for k, v in row.items() if k != "id"} for row in ROWS]
    records = load_records(Claims(), write(tmp_path / name, rows))
    first = 2 if "csv" in name else 1
    assert [r.sample.id for r in records] == [f"train:{first + i}" for i in range(3)]


@pytest.mark.parametrize(
    ("given", "name"), [(0, "0"), (7, "7"), ("x", "x"), ("", "t:1"), (None, "t:1")]
)
def test_ids(jsonl, given: object, name: str):
    (record,) = load_records(Claims(), str(jsonl(json_lines([ROWS[0] | {"id": given}]))))
    assert record.sample.id == name


@pytest.mark.parametrize("given", [["x"], {"x": 1}, True])
def test_odd_id(jsonl, given: object):
    path = jsonl(json_lines([ROWS[0] | {"id": given}]))
    assert fault(path).startswith(f"{path}:1: expected text or a number in 'id'")


@pytest.mark.parametrize("name", ["t.jsonl", "t.csv", "t.parquet"])
def test_duplicate_id_names_both_lines(tmp_path: Path, name: str):
    path = tmp_path / name
    write(path, [*ROWS, ROWS[1] | {"premise": "other"}])
    first = 3 if name == "t.csv" else 2
    last = {"t.jsonl": 4, "t.csv": 6, "t.parquet": 4}[name]
    message = fault(path)
    assert message.startswith(f"{path}:{last}: ")
    assert f"got 'b' as on line {first};" in message


def test_duplicate_id_of_a_rewording(jsonl):
    reworded = ROWS[0] | {"paraphrases": [{"premise": "Someone is asleep."}]}
    path = jsonl(json_lines([reworded, ROWS[1] | {"id": "a#0"}]))
    assert "got 'a#0' as on line 1;" in fault(path)


def test_a_fault_of_the_task_has_its_place(jsonl):
    path = jsonl(b"\n" + json_lines([ROWS[0], {"premise": "p", "hypothesis": "h"}]))
    with pytest.raises(DataError, match=r"t\.jsonl:3: expected text in 'label'"):
        load_records(Claims(), str(path))


def test_nli_reads_parquet_with_filled_up_paraphrases(tmp_path: Path):
    from saledit.tasks.nli import Nli

    row = {k: v for k, v in ROWS[0].items() if k != "id"}
    paraphrases = [{"premise": "One sleeps.", "hypothesis": None}]
    source = write(tmp_path / "t.parquet", [row | {"paraphrases": paraphrases}, row | {"id": None}])
    first, second = load_records(Nli(), source)
    assert [s.inputs for s in first.rewordings] == [("One sleeps.", "None")]
    assert second == Record(Sample("t:2", ("A man sleeps.", "None"), "neutral"))


# ------------------------------------------------------------------------------ faults


def test_missing_file(tmp_path: Path):
    write(tmp_path / "train.jsonl", ROWS)
    write(tmp_path / "test.csv", ROWS)
    message = fault(tmp_path / "trian.jsonl")
    assert message.startswith(f"{tmp_path / 'trian.jsonl'}: ")
    assert message.endswith("did you mean 'train.jsonl'? (known: test.csv, train.jsonl)")


def test_missing_file_among_many(tmp_path: Path):
    for i in range(30):
        (tmp_path / f"part{i:02}.jsonl").touch()
    message = fault(tmp_path / "part7.jsonl")
    assert message.count("part") < 12


def test_missing_file_in_a_folder_without_any(tmp_path: Path):
    message = fault(tmp_path / "t.jsonl")
    assert message.endswith(f"no such file; check the path, '{tmp_path}' has no data files")


def test_missing_folder(tmp_path: Path):
    assert f"no such folder '{tmp_path / 'no'}'" in fault(tmp_path / "no" / "t.jsonl")


def test_folder(tmp_path: Path):
    write(tmp_path / "t.jsonl", ROWS)
    assert "got a folder; name a data file in it (t.jsonl)" in fault(tmp_path)


@pytest.mark.parametrize("name", ["t.json", "t.txt", "t.py", "t", "t.parquet.gz", "t.gz"])
def test_unknown_suffix(tmp_path: Path, name: str):
    (tmp_path / name).write_bytes(json_lines(ROWS))
    message = fault(tmp_path / name)
    assert f"got '{name}'" in message
    assert ".jsonl, .jsonl.gz, .csv, .csv.gz, .parquet" in message


def test_a_folder_named_like_a_hub_data_set_is_no_hub_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "org" / "name").mkdir(parents=True)
    (tmp_path / "org" / "name" / "name.py").write_text("raise SystemExit('it ran')")
    monkeypatch.chdir(tmp_path)
    assert "got a folder" in fault("org/name")
    assert "got 'name.py'" in fault("org/name/name.py")


def test_too_long_a_name():
    assert "File name too long" in fault("x" * 5000)


@pytest.mark.parametrize(
    ("line", "got"),
    [
        (b'{"a": 1', "broken JSON (Expecting ',' delimiter, column 8)"),
        (b"{'a': 1}", "broken JSON"),
        (b'{"a": 1} {"a": 2}', "broken JSON (Extra data, column 10)"),
        (b"[1, 2]", "got a list"),
        (b'"text"', "got text"),
        (b"null", "got nothing"),
        (b"[" * 100_000, "cannot be used"),
        (b'{"a": "\\ud800"}', "surrogates not allowed"),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_broken_json_line(tmp_path: Path, line: bytes, got: str, zipped: bool):
    path = tmp_path / ("t.jsonl.gz" if zipped else "t.jsonl")
    content = json_lines(ROWS) + b"\n\n" + line + b"\n" + json_lines(ROWS)
    path.write_bytes(gzip.compress(content) if zipped else content)
    message = fault(path)
    assert message.startswith(f"{path}:6: expected a JSON object, got ")
    assert got in message


def test_last_line_cut_off(jsonl):
    path = jsonl(json_lines(ROWS)[:-20])
    assert fault(path).startswith(f"{path}:3: ")


def test_json_over_several_lines(jsonl):
    path = jsonl(json.dumps(ROWS[0], indent=1).encode())
    assert fault(path).startswith(f"{path}:1: ")
    assert fault(path).endswith("write one whole object a line")


@pytest.mark.parametrize(
    ("value", "kind"), [(3, "a number"), (True, "true or false"), (["x"], "a list"), ({}, "an obj")]
)
def test_field_that_changes_its_type(jsonl, value: object, kind: str):
    rows = [ROWS[0] | {"more": None}, ROWS[1] | {"more": "x"}, ROWS[2] | {"more": value}]
    path = jsonl(json_lines(rows))
    message = fault(path)
    assert message.startswith(f"{path}:3: expected text in 'more' as on line 2, got {kind}")


@pytest.mark.parametrize("name", ["t.jsonl", "t.jsonl.gz", "t.csv"])
def test_not_utf8(tmp_path: Path, name: str):
    path = tmp_path / name
    text = '{"a": "na\xefve"}' if "json" in name else "na\xefve"
    first = b'{"a": "x"}\n' if "json" in name else b"a\n"
    content = first * 2 + text.encode("latin-1")
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    assert fault(path).startswith(f"{path}:3: expected UTF-8 text, got byte 0xef;")


def test_utf16(jsonl):
    path = jsonl(json_lines(ROWS).decode().encode("utf-16"))
    assert fault(path).startswith(f"{path}:1: expected UTF-8 text, got byte 0xff;")


def test_gzip_without_its_suffix(jsonl):
    assert "got a gzip file; name it .gz" in fault(jsonl(gzip.compress(json_lines(ROWS))))


def noisy_gzip() -> bytes:
    text = random.Random(0)
    rows = [ROWS[0] | {"id": i, "premise": str(text.random())} for i in range(5000)]
    return gzip.compress(json_lines(rows))


@pytest.mark.parametrize("name", ["t.jsonl.gz", "t.csv.gz"])
def test_broken_gzip(tmp_path: Path, name: str):
    path = tmp_path / name
    path.write_bytes(b"plain text\n")
    assert "expected a whole gzip file, got a broken one (Not a gzipped file" in fault(path)


@pytest.mark.parametrize("cut", [-1, -1000, -40_000])
def test_truncated_gzip(tmp_path: Path, cut: int):
    path = tmp_path / "t.jsonl.gz"
    path.write_bytes(noisy_gzip()[:cut])
    assert fault(path).startswith(
        f"{path}: expected a whole gzip file, got one that ends too early"
    )


@pytest.mark.parametrize("at", [20, -6])
def test_corrupt_gzip(tmp_path: Path, at: int):
    content = bytearray(noisy_gzip())
    content[at] ^= 0xFF
    path = tmp_path / "t.jsonl.gz"
    path.write_bytes(content)
    assert "got a broken one" in fault(path)


@pytest.mark.parametrize(
    ("text", "line", "got"),
    [
        ("a,b\n1,2\n\n1,2,3\n", 4, "expected 2 columns (a, b), got 3"),
        ("a,b,c\n1,2,3\n1,2\n", 3, "expected 3 columns (a, b, c), got 2"),
        ('a,b\n1,2\n1,"x\n1,2\n', 3, "broken one (unexpected end of data)"),
        ('a,b\n1,"x"y\n', 2, "got a broken one"),
        ("a,a\n1,2\n", 1, "different names, got a, a"),
        ("a,\n1,2\n", 1, "different names"),
    ],
)
def test_broken_csv(tmp_path: Path, text: str, line: int, got: str):
    path = tmp_path / "t.csv"
    path.write_text(text)
    message = fault(path)
    assert message.startswith(f"{path}:{line}: ")
    assert got in message


@pytest.mark.parametrize("content", [b"", b"PAR1", b"no parquet at all" * 9])
def test_broken_parquet(tmp_path: Path, content: bytes):
    path = tmp_path / "t.parquet"
    path.write_bytes(content)
    assert fault(path).startswith(f"{path}: expected a Parquet file, got one that cannot be read")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.jsonl", b""),
        ("t.jsonl", b"\n \n\n"),
        ("t.jsonl.gz", b""),
        ("t.jsonl.gz", gzip.compress(b"", mtime=0)),
        ("t.csv", b""),
        ("t.csv", b"a,b\n"),
    ],
)
def test_empty_file(tmp_path: Path, name: str, content: bytes):
    (tmp_path / name).write_bytes(content)
    assert "expected at least one record, got none" in fault(tmp_path / name)


def test_parquet_without_rows(tmp_path: Path):
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table({"a": pyarrow.array([], pyarrow.string())})
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    assert "expected at least one record, got none" in fault(tmp_path / "t.parquet")


def test_a_cache_that_cannot_be_written(jsonl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import datasets

    (tmp_path / "taken").touch()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "taken" / "x")
    message = fault(jsonl(json_lines(ROWS)))
    assert "expected a cache folder that can be written" in message
    assert "HF_DATASETS_CACHE" in message


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
