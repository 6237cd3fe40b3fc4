"""Every fault of a file is one line that names its place."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import pytest
from sources import ROWS, fault, json_lines, write


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
