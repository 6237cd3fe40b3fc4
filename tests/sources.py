"""Files of a few records in every format, and what reading a broken one says."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from saledit.data.sources import load_records, load_rows
from saledit.errors import DataError
from saledit.records import Record, Sample

ROWS = [
    {"id": "a", "premise": "A man sleeps.", "hypothesis": "None", "label": "neutral"},
    {"id": "b", "premise": "Zwölf, “naïve” 猫", "hypothesis": "NA", "label": "entailment"},
    {"id": "c", "premise": 'He said "no",\nthen left.', "hypothesis": "2020-01-01", "label": "0"},
]
NAMES = ["t.jsonl", "t.jsonl.gz", "t.csv", "t.csv.gz", "t.parquet", "T.CSV.GZ"]


class Claims:
    """The least a task can be here: it only reads."""

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
