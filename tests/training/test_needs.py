"""What an editor needs of the data is looked for before a model is loaded."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny import build, samples, save
from whole_runs import rows, ui

from saledit import config as configuration
from saledit import run
from saledit.building import make_task
from saledit.config import RunConfig
from saledit.data.sources import load_records
from saledit.errors import DataError
from saledit.files import write_jsonl
from saledit.run.cells.cell import run_cell
from saledit.run.setup import reading
from saledit.run.setup.reading import (
    TEST,
    VALIDATION,
    check_data,
    check_subjects,
    read_records,
)

ROME = ("editor.name=locate", "editor.locate.solver=rome", "schedule.batch_size=1")
SWEEP = ("site.select=sweep", "site.layer=-1", "site.rung=1")
FINETUNED = ("model.finetune.enabled=true", "model.finetune.records=20")


class LoadedError(Exception):
    """Raised in the place of loading a model."""


def told(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same records, each with a word of its text for a subject."""
    return [row | {"subject": row["hypothesis"].split()[-1]} for row in found]


def named(letter: str, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same records under other ids."""
    return [row | {"id": f"{letter}{row['id']}"} for row in found]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model; records that name subjects, and some that do not; an editor that needs them."""
    folder = tmp_path_factory.mktemp("needs")
    base = build("bert")
    save(base, folder / "model")
    write_jsonl(folder / "data.jsonl", told(rows(base, samples(80))))
    write_jsonl(folder / "test.jsonl", told(named("t", rows(base, samples(30, seed=7)))))
    bare = named("b", rows(base, samples(60, seed=8)))
    write_jsonl(folder / "bare.jsonl", bare)
    write_jsonl(folder / "elsewhere.jsonl", [row | {"subject": "Peru"} for row in bare])
    config = make(folder, "fitted", *ROME)
    run.fit(config, False, ui())
    return folder


def make(home: Path, name: str, *overrides: str) -> RunConfig:
    return configuration.load(None, settings(home, name, *overrides))


def settings(home: Path, name: str, *overrides: str) -> list[str]:
    return [
        f"output={home}", f"name={name}", f"model.name={home / 'model'}",
        f"data.train={home / 'data.jsonl'}", f"data.test={home / 'test.jsonl'}",
        "data.adapt.rewrite=false", "site.select=fixed", "site.layer=1", "train.epochs=1",
        "train.validation_edits=2", "trainer.accelerator=cpu", *overrides,
    ]  # fmt: skip


@pytest.fixture
def unloaded(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, where no model can be loaded."""

    def load(*_args: object) -> None:
        raise LoadedError

    for name in ("setup.prepare.load_model", "setup.prepare.finetuned", "fixing.load_model"):
        monkeypatch.setattr(f"saledit.run.{name}", load)
    return home


def compared(config: RunConfig) -> None:
    """A comparison of two editors, of which one needs nothing; no cell may begin."""

    def runner(_path: Path) -> None:
        raise LoadedError

    path = config.folder.with_suffix(".yaml")
    path.write_text(configuration.to_yaml(config), encoding="utf-8")
    try:
        run.compare(str(path), ["step", "rome"], [0, 1], [], ui(), runner=runner)
    finally:
        assert not path.with_name(f"{config.name}-compare").exists()


def fitted(config: RunConfig) -> None:
    run.fit(config, False, ui())


def scored(config: RunConfig) -> None:
    run.saliency(config, ui())


def one_cell(config: RunConfig) -> None:
    run_cell(config, ui())


def measured(config: RunConfig) -> None:
    """The fitted editor is tested on the records of a configuration."""
    run.test(str(Path(config.output) / "fitted"), [f"data.test={config.data.train}"], ui())


BARE = "expected a subject in its text, got none in '.*'; name the field"
ELSEWHERE = "expected its subject 'Peru' in its text, got '.*'; correct the subject"


@pytest.mark.parametrize(
    ("verb", "own"),
    [
        (fitted, ()), (fitted, FINETUNED), (one_cell, ()), (scored, SWEEP), (measured, ()),
        (compared, ()),
    ],
    ids=["fit", "fit fine-tuned", "cell", "sweep", "test", "compare"],
)  # fmt: skip
@pytest.mark.parametrize(
    ("data", "line"),
    [
        ("bare.jsonl", rf"bare\.jsonl, br\d+: {BARE}"),
        ("elsewhere.jsonl", rf"elsewhere\.jsonl, br\d+: {ELSEWHERE}"),
    ],
)
def test_records_without_subjects(
    verb: Callable[[RunConfig], None], own: tuple[str, ...], data: str, line: str, unloaded: Path
) -> None:
    given = (f"data.train={unloaded / data}", "data.test=''", "model.finetune.records=5")
    config = make(unloaded, "without", *ROME, *own, *given)
    with pytest.raises(DataError, match=line):
        verb(config)


def test_all_records_without_a_place_are_told_at_once(unloaded: Path, tmp_path: Path) -> None:
    config, found = make(unloaded, "lost", *ROME), told(rows(build("bert"), samples(80)))
    path = tmp_path / "data.jsonl"
    for lost, rest in ((1, ""), (3, r" \(2 more like it: r\d+, r\d+\)")):
        write_jsonl(path, [r | {"subject": "Peru"} if i < lost else r for i, r in enumerate(found)])
        records = load_records(make_task(config.task), str(path))
        line = rf"data\.jsonl, r\d+: .*'Peru'.*editor\.locate\.at=last{rest}$"
        with pytest.raises(DataError, match=line):
            check_subjects(config.editor, (record.sample for record in records), str(path))


def test_a_field_that_is_not_there(unloaded: Path) -> None:
    config = make(unloaded, "misnamed", *ROME, "task.fields={subject: about}")
    with pytest.raises(DataError, match=BARE):
        run.fit(config, False, ui())


def test_a_failure_without_a_subject_is_not_begun_to_be_fixed(
    unloaded: Path, tmp_path: Path
) -> None:
    trained, failures = unloaded / "fitted", unloaded / "bare.jsonl"
    with pytest.raises(DataError, match=rf"bare\.jsonl, br0: {BARE}"):
        run.fix(str(trained), str(failures), str(tmp_path / "out"), None, ui())


@pytest.mark.parametrize(
    ("verb", "own"),
    [
        (fitted, ("editor.locate.at=last",)),
        (fitted, ("editor.name=step",)),
        (scored, ("site.select=gradient", "site.layer=-1")),
        (scored, ("site.select=causal-tracing", "site.layer=-1")),
        (scored, ()),
    ],
)
def test_who_needs_none_is_not_asked(
    verb: Callable[[RunConfig], None], own: tuple[str, ...], unloaded: Path
) -> None:
    config = make(unloaded, "free", *ROME, f"data.train={unloaded / 'bare.jsonl'}", *own)
    with pytest.raises(LoadedError):
        verb(config)


def test_records_that_are_never_edited_need_none(home: Path, tmp_path: Path) -> None:
    config = make(home, "sides", *ROME, *FINETUNED, "data.test=''")
    task, found = make_task(config.task), told(rows(build("bert"), samples(80)))

    def read(bare: set[str], *edited: str) -> reading.RunRecords:
        own = [row | {"subject": ""} if row["id"] in bare else row for row in found]
        path = tmp_path / "data.jsonl"
        write_jsonl(path, own)
        given = make(home, "sides", *ROME, *FINETUNED, "data.test=''", f"data.train={path}")
        return read_records(given, task, edited)

    sides = read(set(), VALIDATION, TEST)
    ids = {
        name: {record.sample.id for record in getattr(sides, name)}
        for name in ("learned", "train", VALIDATION, TEST)
    }
    assert all(ids.values())
    assert set.union(*ids.values()) == {row["id"] for row in found}
    read(ids["learned"] | ids["train"], VALIDATION, TEST)
    for side, other in ((VALIDATION, TEST), (TEST, VALIDATION)):
        one = min(ids[side])
        read({one}, other)
        with pytest.raises(DataError, match=rf"data\.jsonl, {one}: {BARE}"):
            read({one}, side)


def test_a_comparison_reads_the_same_records_once(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[tuple[int, str]] = []

    def noted(config: RunConfig, *_args: object) -> None:
        read.append((config.seed, config.data.train))

    monkeypatch.setattr(reading, "read_records", noted)
    alike = [make(home, f"cell{i}", *ROME, f"schedule.cumulative={i == 1}") for i in range(2)]
    other = make(home, "seed", *ROME, "seed=1")
    # Of who asks for nothing one seed is enough.
    plain = [make(home, f"plain{i}", "editor.name=step", f"seed={i}") for i in (0, 1)]
    check_data([*plain, *alike, other])
    assert [seed for seed, _ in read] == [0, 0, 1]


@pytest.mark.parametrize(
    ("verb", "own"),
    [(fitted, ()), (one_cell, ()), (scored, SWEEP), (compared, ())],
    ids=["fit", "cell", "sweep", "compare"],
)
@pytest.mark.parametrize(
    ("content", "line"),
    [
        (None, "corpus.jsonl: expected a data file, got no such file; check the path, .* no data"),
        ("", "corpus.jsonl: expected at least one record, got none"),
        ('{"words": "ba be"}', "corpus.jsonl:1: expected text in 'text', got nothing"),
        ("ba be", "corpus.jsonl:1: expected a JSON object, got broken JSON"),
    ],
)
def test_a_corpus_that_is_none(
    verb: Callable[[RunConfig], None], own: tuple[str, ...], content: str | None, line: str,
    unloaded: Path, tmp_path: Path,
) -> None:  # fmt: skip
    corpus = tmp_path / "corpus.jsonl"
    if content is not None:
        corpus.write_text(content, encoding="utf-8")
    config = make(unloaded, "text", *ROME, *own, f"editor.moments.corpus={corpus}")
    with pytest.raises(DataError, match=line):
        verb(config)


def test_a_corpus_is_not_asked_for_where_nothing_is_fitted(unloaded: Path, tmp_path: Path) -> None:
    lost = f"editor.moments.corpus={tmp_path / 'corpus.jsonl'}"
    config = make(unloaded, "scored", *ROME, lost, "site.select=gradient", "site.layer=-1")
    with pytest.raises(LoadedError):
        run.saliency(config, ui())
    moved = unloaded / "moved"
    shutil.copytree(unloaded / "fitted", moved)
    text = (moved / "config.yaml").read_text(encoding="utf-8")
    assert "corpus: ''" in text
    (moved / "config.yaml").write_text(text.replace("corpus: ''", f"corpus: {tmp_path}/c.jsonl"))
    with pytest.raises(LoadedError):
        run.test(str(moved), [], ui())


def test_a_test_asks_the_records_that_it_edits(unloaded: Path) -> None:
    with pytest.raises(LoadedError):
        run.test(str(unloaded / "fitted"), [f"data.train={unloaded / 'bare.jsonl'}"], ui())
