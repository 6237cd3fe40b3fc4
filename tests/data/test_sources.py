"""Every format gives the same rows."""

from __future__ import annotations

from pathlib import Path

import pytest
from sources import NAMES, ROWS, Claims, fault, json_lines, write

from saledit.data.sources import load_records, load_rows
from saledit.errors import DataError
from saledit.records import Record, Sample


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


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_csv_of_spreadsheets(mark: str, tmp_path: Path):
    path = tmp_path / "t.csv"
    lines = ["", "a{0}b", 'x{0}"1,5; 2\t3"', "y{0}z"]
    path.write_text("\ufeff" + "\r\n".join(lines).format(mark), encoding="utf-8")
    rows = [(f"{path}:3", {"a": "x", "b": "1,5; 2\t3"}), (f"{path}:4", {"a": "y", "b": "z"})]
    assert load_rows(str(path)) == rows
    path.write_text(f"a{mark}b\nx{mark}y{mark}z\n", encoding="utf-8")
    kind = {",": "a comma", ";": "a semicolon", "\t": "a tab"}[mark]
    with pytest.raises(DataError, match=f"2: expected 2 columns .a, b., got 3; .* holds {kind}"):
        load_rows(str(path))


def test_the_index_that_pandas_writes_is_no_field(tmp_path: Path):
    path = tmp_path / "t.csv"
    path.write_text(",a,b\n0,x,y\n1,z,\n", encoding="utf-8")
    assert load_rows(str(path)) == [
        (f"{path}:2", {"a": "x", "b": "y"}), (f"{path}:3", {"a": "z", "b": ""}),
    ]  # fmt: skip
    path.write_text("a,,b\nx,y,z\n", encoding="utf-8")
    assert "1: expected a header of different names, got a, , b" in fault(str(path))


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
