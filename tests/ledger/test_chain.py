"""The chain of entries: what is written is read, and nothing else is."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saledit.errors import ArtifactError, JobError
from saledit.ledger import BEGIN, FIX, UNDO, Entry
from saledit.ledger.chain import append, follow, read


def chain(n: int) -> list[Entry]:
    entries: list[Entry] = []
    for i in range(n):
        facts = {"of": i - 1} if i % 3 == 2 else {"text": f"né {i}\n\u2028", "x": i / 3}
        entries.append(follow(entries, (FIX, FIX, UNDO)[i % 3] if i else BEGIN, facts))
    return entries


def written(folder: Path, n: int = 5) -> tuple[Path, list[Entry]]:
    path, entries = folder / "ledger.jsonl", chain(n)
    append(path, entries)
    return path, entries


def test_entries_come_back_and_more_can_follow(tmp_path: Path) -> None:
    path, entries = written(tmp_path, 3)
    assert read(path) == entries
    more = follow(entries, FIX, {"n": 1})
    append(path, [more])
    assert read(path) == [*entries, more]
    assert more.previous == entries[-1].hash
    assert read(tmp_path / "none.jsonl") == []


def test_people_can_read_it(tmp_path: Path) -> None:
    path, entries = written(tmp_path)
    lines = path.read_text("utf-8").split("\n")
    assert len(lines) == len(entries) + 1
    assert "né 1" in lines[1]
    assert list(json.loads(lines[0]))[:3] == ["id", "action", "time"]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_changed_byte_is_noticed(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path, entries = written(tmp_path_factory.mktemp("chain"))
    whole = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] = data.draw(st.integers(0, 255).filter(lambda byte: byte != whole[at]))
    path.write_bytes(whole)
    with suppress(ArtifactError):
        # Space between words of JSON says nothing; a last line without its newline does not count.
        assert read(path) in (entries, entries[:-1])


@pytest.mark.parametrize("lost", [0, 1, 3])
def test_a_missing_entry_is_noticed(tmp_path: Path, lost: int) -> None:
    path, _ = written(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:lost] + lines[lost + 1 :]))
    with pytest.raises(ArtifactError, match=f":{lost + 1}: .*missing or was moved"):
        read(path)


def test_moved_entries_are_noticed(tmp_path: Path) -> None:
    path, _ = written(tmp_path)
    one, two, *others = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join((two, one, *others)))
    with pytest.raises(ArtifactError, match="missing or was moved"):
        read(path)


@pytest.mark.parametrize(
    "line",
    [b"", b"{}", b"[1]", b"null", b"\xff\xfe", b'{"id": 5}', b"[" * 100_000, b'{"id": NaN}'],
)
def test_a_broken_line_is_said(tmp_path: Path, line: bytes) -> None:
    path, _ = written(tmp_path)
    with path.open("ab") as stream:
        stream.write(line + b"\n")
    with pytest.raises(ArtifactError, match=r"ledger\.jsonl:6: expected an entry"):
        read(path)


def test_what_an_interrupted_writer_left_is_no_entry(tmp_path: Path) -> None:
    path, entries = written(tmp_path)
    more = follow(entries, FIX, {"n": 1})
    for cut in (1, len(more.line()) // 2, len(more.line())):
        append(path, [])
        with path.open("ab") as stream:
            stream.write(more.line().encode()[:cut])
        assert read(path) == entries
    append(path, [more])
    assert read(path) == [*entries, more]


def test_a_number_that_json_has_not_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="NaN or infinite"):
        follow(chain(2), FIX, {"x": float("nan")})


def test_a_full_disk_leaves_the_chain_as_it_was(tmp_path: Path) -> None:
    path, entries = written(tmp_path)
    before = path.read_bytes()
    path.with_name("folder").mkdir()
    with pytest.raises(JobError, match="cannot be written"):
        append(path.with_name("folder"), [follow(entries, FIX, {})])
    assert path.read_bytes() == before
