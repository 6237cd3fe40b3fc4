"""Sequences that are not in main memory behave as the tuples that they stand for."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from saledit.data import spool
from saledit.data.hashes import Known, number
from saledit.data.spool import groups_in, records_in, samples_in
from saledit.data.views import Flat, Joined, Mapped, Picked
from saledit.errors import JobError
from saledit.records import Record, Sample, Writing

SAME_FOLDER = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
texts = st.text(st.characters(), max_size=12)  # lone surrogates and null bytes among them
words = st.lists(texts, max_size=3).map(tuple)
samples = st.builds(Sample, texts, words, texts, texts, words, texts, texts)
groups = st.lists(samples, max_size=3).map(tuple)
records = st.builds(Record, samples, groups, words, groups, st.builds(Writing, words, words))


@pytest.fixture(autouse=True)
def short_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "_BLOCK", 200)


@given(st.lists(samples, max_size=12), st.lists(records, max_size=6))
@SAME_FOLDER
def test_what_is_appended_comes_back(
    tmp_path: Path, some: list[Sample], others: list[Record]
) -> None:
    for kept, values in ((samples_in(tmp_path), some), (records_in(tmp_path), others)):
        for i, value in enumerate(values):
            kept.append(value)
            assert kept[i] == kept[-1] == value  # read while it grows
        assert kept == values
        assert tuple(values) == kept
        assert list(reversed(kept)) == values[::-1]
        assert kept[1:-1:2] == values[1:-1:2]
        assert kept != [*values, some]
    assert list(tmp_path.iterdir()) == [], "the file has no name"


@given(st.lists(groups, max_size=8), st.data())
@SAME_FOLDER
def test_views_are_what_they_say(
    tmp_path: Path, values: list[tuple[Sample, ...]], data: st.DataObject
) -> None:
    kept = groups_in(tmp_path)
    kept.extend(values)
    places = st.lists(st.integers(0, len(values) - 1)) if values else st.just([])
    index = data.draw(places)
    picked = Picked(kept, index)
    again = Picked(picked, range(len(index) - 1, -1, -1))
    assert list(picked) == [values[i] for i in index]
    assert list(again) == [values[i] for i in index[::-1]]
    joined = Joined(kept, (), picked)
    assert list(joined) == [joined[i] for i in range(len(joined))] == [*values, *picked]
    assert Mapped(len, joined) == [len(group) for group in joined]
    flat = Flat(joined)
    assert list(flat) == [sample for group in joined for sample in group]
    assert [flat[i] for i in range(len(flat))] == list(flat)


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    kept = samples_in(tmp_path)
    for i in (0, -1, 5):
        with pytest.raises(IndexError):
            kept[i]
    assert not Joined()
    assert kept == ()
    assert kept != "no sequence of samples"
    assert kept != 3


def test_values_take_no_memory(tmp_path: Path) -> None:
    kept = records_in(tmp_path)
    kept.extend(Record(Sample(str(i), (f"text {i}",), "a")) for i in range(2000))
    gc.collect()
    alive = sum(type(one) in (Record, Sample) for one in gc.get_objects())
    assert len(kept) == 2000
    assert alive < 100


class Broken:
    """A file that can be found, and no more."""

    def seek(self, _place: int) -> int:
        return 0

    def read(self, _size: int) -> bytes:
        return b""

    def write(self, _data: memoryview) -> int:
        raise OSError(28, "No space left on device")


def test_a_full_or_broken_disk_is_said(tmp_path: Path) -> None:
    kept = samples_in(tmp_path)
    kept.append(Sample("0", ("text",), "a"))
    kept[0]
    kept._file = Broken()
    with pytest.raises(JobError, match=r"cannot be read \(it has ended after 0 bytes\); make room"):
        kept[0]
    with pytest.raises(JobError, match=r"cannot be written \(No space left on device\); make room"):
        kept.extend(Sample(str(i), ("text " * 20,), "a") for i in range(20))


def test_a_cache_that_may_only_be_read_is_no_hindrance(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    kept = samples_in(tmp_path / "file")
    kept.append(Sample("0", ("text",), "a"))
    assert kept[0].inputs == ("text",)


@given(st.lists(words, max_size=20), st.lists(words, max_size=5))
@settings(max_examples=60, deadline=None)
def test_known_words_have_their_last_place(
    some: list[tuple[str, ...]], others: list[tuple[str, ...]]
) -> None:
    known, last = Known(number(*one) for one in some), {}
    marks = ["\x1f".join(one) for one in some]
    for i, mark in enumerate(marks):
        last[mark] = i
    for one in (*some, *others):
        assert known.place(*one) == last.get("\x1f".join(one), -1)
        assert (one in known) == ("\x1f".join(one) in last)
    twice = [(i, marks.index(mark)) for i, mark in enumerate(marks) if marks.index(mark) < i]
    found = known.twice()
    assert (found is None) == (not twice)
    if found is not None:
        assert found[0] == twice[0][0]
        assert marks[found[0]] == marks[found[1]]
