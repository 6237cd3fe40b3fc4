"""Data files: one line of text for every fault, and never more memory than the file is worth."""

from __future__ import annotations

import csv
import gzip
import io
import json
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hostile import KINDS, blocked, byte_changes, counts, fuzz, json_changes, refused, tolerated
from hypothesis import strategies as st

from saledit.config import TaskConfig
from saledit.data import readers
from saledit.data.choices import Choice, load_choices
from saledit.data.sources import load_records, source_digest, stream_texts
from saledit.records import Record
from saledit.tasks.nli import Nli
from saledit.tasks.qa import Qa

ROWS = [
    {"id": "a", "premise": "A man sleeps.", "hypothesis": "None", "label": "neutral"},
    {"id": "b", "premise": "Zwölf, “naïve” 猫", "hypothesis": "NA", "label": "entailment"},
    {"id": "c", "premise": 'He said "no",\nthen left.', "hypothesis": "x", "label": "neutral"},
]
TASK = Nli.of(TaskConfig())


def as_lines(rows: list[dict]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def as_csv(rows: list[dict]) -> bytes:
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def as_parquet(rows: list[dict]) -> bytes:
    out = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), out)
    return out.getvalue()


MADE: dict[str, Callable[[list[dict]], bytes]] = {
    "t.jsonl": as_lines,
    "t.csv": as_csv,
    "t.jsonl.gz": lambda rows: gzip.compress(as_lines(rows)),
    "t.csv.gz": lambda rows: gzip.compress(as_csv(rows)),
    "t.parquet": as_parquet,
}


def load(path: Path) -> tuple[Record, ...]:
    return load_records(TASK, str(path))


def good(records: tuple[Record, ...]) -> None:
    assert records
    ids = [sample.id for r in records for sample in (r.sample, *r.rewordings)]
    assert len(set(ids)) == len(ids)
    for record in records:
        assert all(isinstance(text, str) for text in (*record.sample.inputs, record.sample.target))
        " ".join((record.sample.id, *record.sample.inputs, record.sample.target)).encode()


LINES: dict[str, bytes] = {
    "empty": b"",
    "blank": b"\n \n",
    "not UTF-8": b'{"premise": "\xff"}\n',
    "UTF-16": as_lines(ROWS).decode().encode("utf-16"),
    "a null byte": b'{"premise": "a\x00b"}\n',
    "half": as_lines(ROWS)[:-9],
    "two on a line": b"{} {}\n",
    "a list": b"[1]\n",
    "a number": b"1\n",
    "NaN": b'{"id": NaN}\n',
    "infinity": b'{"id": 1e999}\n',
    "a long number": b'{"id": ' + b"9" * 5000 + b"}\n",
    "deep": b"[" * 100_000 + b"\n",
    "deep fields": b'{"a": ' + b"[" * 200 + b"]" * 200 + b"}\n",
    "a field twice": b'{"premise": "a", "premise": "b", "hypothesis": "c", "label": "d"}\n',
    "half of a pair": b'{"premise": "\\udc00", "hypothesis": "c", "label": "d"}\n',
    "an id twice": as_lines([ROWS[0], ROWS[0]]),
    "an id that is a list": as_lines([{**ROWS[0], "id": []}]),
    "a wrong type": as_lines([{**ROWS[0], "premise": 5}]),
    "a missing field": as_lines([{"premise": "a"}]),
    "a type that changes": as_lines([ROWS[0], {**ROWS[1], "label": 5}]),
}
TABLES: dict[str, bytes] = {
    "empty": b"",
    "an open quote": b'id,premise,hypothesis,label\na,"b,c,d\n',
    "a quote in the middle": b'id,premise,hypothesis,label\na,"b"c,d,e\n',
    "a wide row": b"id,premise,hypothesis,label\na,b,c,d,e\n",
    "a short row": b"id,premise,hypothesis,label\na,b\n",
    "a column twice": b"id,id,premise,label\na,b,c,d\n",
    "a column without a name": b"id,,premise,label\na,b,c,d\n",
    "a long field": b"id,premise,hypothesis,label\na," + b"x" * 200_000 + b",c,d\n",
    "not UTF-8": b"id,premise,hypothesis,label\na,\xff,c,d\n",
    "an id twice": as_csv([ROWS[0], ROWS[0]]),
    "no end of the quote": b'id,premise,hypothesis,label\na,"' + b"x\n" * 500_000,
}


@pytest.mark.timeout(30)
@pytest.mark.parametrize("kind", LINES)
def test_broken_lines_are_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(LINES[kind])
    refused(lambda: load(path), "t.jsonl")


@pytest.mark.timeout(30)
@pytest.mark.parametrize("kind", TABLES)
def test_broken_tables_are_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(TABLES[kind])
    refused(lambda: load(path), "t.csv")


@pytest.mark.parametrize("name", MADE)
def test_windows_and_marks_are_read(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(MADE[name](ROWS))
    good(load(path))
    if name == "t.jsonl":
        path.write_bytes(b"\xef\xbb\xbf" + as_lines(ROWS).replace(b"\n", b"\r\n"))
        assert [r.sample.id for r in load(path)] == ["a", "b", "c"]


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("kept", [0, 1, 10, 0.5, -1])
def test_files_that_were_cut_off_are_refused(name: str, kept: float, tmp_path: Path) -> None:
    path, whole = tmp_path / name, MADE[name](ROWS)
    path.write_bytes(whole[: int(kept * len(whole)) if isinstance(kept, float) else kept])
    tolerated(lambda: load(path), lambda found: good(found) or len(found) < 3 or kept == -1, name)


@contextmanager
def little_memory(megabytes: int) -> Iterator[None]:
    """Check that the process's peak does not grow by more."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < megabytes, f"{grown:.0f} MB"


@pytest.mark.timeout(120)
@pytest.mark.parametrize("piece", [b"x", b"\n", b"{}\n"], ids=["one line", "no text", "records"])
def test_a_gzip_bomb_is_refused_early(
    piece: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "_UNPACKED", 1 << 20)
    load(write(tmp_path / "warm.jsonl.gz", gzip.compress(as_lines(ROWS))))
    path, block = tmp_path / "t.jsonl.gz", piece * (2**20 // len(piece))
    with gzip.open(path, "wb", compresslevel=9) as stream:
        for _ in range(10 if piece == b"\n" else 100):
            stream.write(block)
    assert path.stat().st_size < 2**20
    with little_memory(150):
        refused(lambda: load(path), "t.jsonl.gz")


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["t.jsonl", "t.csv"])
def test_a_line_of_a_hundred_megabytes_is_not_read(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    with path.open("wb") as stream:
        stream.write(b'{"premise": "' if name == "t.jsonl" else b"premise,")
        stream.truncate(100 << 20)
    load(write(tmp_path / "warm.jsonl", as_lines(ROWS)))
    with little_memory(150):
        assert "at most 16 MiB" in refused(lambda: load(path), name)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_is_refused_at_once(kind: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    blocked(path, kind)
    refused(lambda: load(path), name)
    refused(lambda: source_digest(str(path)), name)
    refused(lambda: list(stream_texts(str(path))), name)


@pytest.mark.parametrize("name", ["a\0b.jsonl", "a" * 5000 + ".jsonl", "\ud800.jsonl"])
def test_names_that_no_file_has(name: str, tmp_path: Path) -> None:
    refused(lambda: load(tmp_path / name))


def test_a_table_that_asks_for_pictures_opens_none(tmp_path: Path) -> None:
    """The features that Parquet carries may name files and addresses to be decoded."""
    told = {"info": {"features": {
        "premise": {"_type": "Image"}, "hypothesis": {"dtype": "string", "_type": "Value"},
        "label": {"dtype": "string", "_type": "Value"},
    }}}  # fmt: skip
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    pictures = pyarrow.array([{"bytes": None, "path": "/etc/passwd"}], kind)
    table = pyarrow.table({"premise": pictures, "hypothesis": ["a"], "label": ["neutral"]})
    table = table.replace_schema_metadata({"huggingface": json.dumps(told)})
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    message = refused(lambda: load(tmp_path / "t.parquet"), "t.parquet")
    assert "expected text in 'premise', got dict" in message


@pytest.mark.parametrize("name", MADE)
@counts(60)
def test_fuzz_records(name: str, examples: int, tmp_path: Path) -> None:
    path, whole, few = tmp_path / name, MADE[name](ROWS), examples < 1000

    def example(change: tuple[bool, Callable[[bytes], bytes]]) -> None:
        inside, turn = change
        if inside and name.endswith(".gz"):
            path.write_bytes(gzip.compress(turn(gzip.decompress(whole)), 1))
        else:
            path.write_bytes(turn(whole))
        tolerated(lambda: load(path), good, name)

    fuzz(examples, st.tuples(st.booleans(), byte_changes()), example, few)


@counts(60)
def test_fuzz_what_records_say(examples: int, tmp_path: Path) -> None:
    path, few = tmp_path / "t.jsonl", examples < 1000
    task = Qa.of(TaskConfig(name="qa"))
    row = {
        "id": "a", "question": "Who?", "answer": "He", "answers": ["He", "Him"],
        "rephrases": ["Who is it?"], "subject": "He",
        "locality": [{"question": "When?", "answer": "Then"}],
    }  # fmt: skip

    def example(change: Callable[[bytes], bytes]) -> None:
        lines = [change(json.dumps(row).encode()), json.dumps({**row, "id": "b"}).encode()]
        path.write_bytes(b"\n".join(lines) + b"\n")
        tolerated(lambda: load_records(task, str(path)), good, "t.jsonl")

    fuzz(examples, json_changes() | byte_changes(), example, few)


@counts(40)
def test_fuzz_choices(examples: int, tmp_path: Path) -> None:
    path, few = tmp_path / "t.jsonl", examples < 1000
    row = {"prompt": "The sky is", "choices": [" blue", " red"], "answer": " blue", "kind": "look"}

    def check(found: list[Choice]) -> None:
        assert all(len(set(one.answers)) >= 2 and isinstance(one.prompt, str) for one in found)

    def example(change: Callable[[bytes], bytes]) -> None:
        path.write_bytes(change(json.dumps(row).encode()) + b"\n")
        tolerated(lambda: load_choices(str(path)), check, "t.jsonl")

    fuzz(examples, json_changes() | byte_changes(), example, few)
