"""Cells that differ in their schedule alone share one training."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from quick import quick
from tiny import samples
from whole_runs import FakeUi

from saledit.artifact import EDITOR_WEIGHTS, REVISION
from saledit.config import RunConfig
from saledit.errors import ArtifactError
from saledit.files import write_jsonl
from saledit.run import fit, resuming, testing, training
from saledit.run.cells import alike, done
from saledit.run.cells.cell import run_cell
from saledit.run.cells.done import facts_of

Make = Callable[..., RunConfig]


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the runs that are trained, in order."""
    seen: list[str] = []
    real = alike.train

    def noted(prepared: Any, resume: bool) -> dict[str, Any]:
        seen.append(prepared.config.name)
        return real(prepared, resume)

    monkeypatch.setattr(alike, "train", noted)
    return seen


def run(config: RunConfig) -> tuple[dict[str, Any], list[str]]:
    """What is known of a cell behind its run, and what was said."""
    shown = FakeUi()
    run_cell(config, shown)  # type: ignore[arg-type]
    found = facts_of(config)
    assert found is not None
    return found, shown.stages


def weights(config: RunConfig) -> bytes:
    return (config.folder / EDITOR_WEIGHTS).read_bytes()


@pytest.mark.long
def test_a_sequence_takes_the_editor_of_a_batch(
    make: Make, trained: list[str], tmp_path: Path
) -> None:
    batch = make("batch", "train.epochs=1")
    own = ["schedule.cumulative=true", "test.every=4", "test.passes_per_edit=9"]
    turns = make("turns", "train.epochs=1", *own)
    run(batch)
    found, said = run(turns)
    assert trained == [batch.name]
    assert weights(turns) == weights(batch)
    assert any(str(batch.folder) in line and "trained alike" in line for line in said)
    assert found["schedule"]["mode"] == "sequential-batched"
    assert found["timing"]["train_seconds"] > 0
    # The same as trained by itself.
    alone, _ = run(replace(turns, name="own", output=str(tmp_path)))
    assert trained == [batch.name, "own"]
    assert alone["metrics"] == pytest.approx(found["metrics"])
    assert alone["course"][-1] == pytest.approx(found["course"][-1])


@pytest.mark.parametrize(
    "other",
    quick(["data.max_passes=20"], ["schedule.batch_size=3", "data.max_passes=20"]),
)
def test_what_training_reads_makes_another_editor(
    other: str, make: Make, trained: list[str]
) -> None:
    name = other.replace("=", "-")
    first = make(f"{name}-one", "train.epochs=1")
    second = make(f"{name}-two", "train.epochs=1", other)
    run(first)
    run(second)
    # (The first one's editor another test may have trained.)
    assert trained[-1] == second.name
    assert weights(first) != weights(second)


@pytest.mark.parametrize("how", ["broken", "another"])
@pytest.mark.long
def test_an_editor_that_is_not_the_noted_one_is_not_taken(
    how: str, make: Make, trained: list[str]
) -> None:
    # Settings of its own: tests share the caches.
    own = ["train.epochs=1", "train.validation_passes=3", f"train.patience={10 + len(how)}"]
    first, second = make(f"{how}-one", *own), make(f"{how}-two", *own)
    run(first)
    kept = weights(first)
    path = first.folder / EDITOR_WEIGHTS
    if how == "broken":
        path.write_bytes(kept[:-9])
    else:
        seed = make(f"{how}-one", *own, "seed=3")
        run(seed)
        assert seed.folder == first.folder
        trained.pop()
    run(second)
    assert trained == [first.name, second.name]
    assert weights(second) == kept


def test_a_cell_that_was_cut_off_in_its_test_is_not_trained_again(
    make: Make, trained: list[str]
) -> None:
    config = make("cut-off", "train.epochs=1", "train.validation_passes=4")
    first, _ = run(config)
    (config.folder / "results.json").unlink()
    again, _ = run(config)
    assert trained == [config.name]
    assert again["metrics"] == pytest.approx(first["metrics"])


@pytest.mark.long
def test_a_cell_that_is_run_again_with_another_test(make: Make, trained: list[str]) -> None:
    plain, turns = (
        make("twice", "train.epochs=1", "train.validation_passes=5", *own)
        for own in ((), ("schedule.cumulative=true",))
    )
    first, _ = run(plain)
    second, _ = run(turns)
    assert trained == [plain.name], "only its test is another"
    assert (first["schedule"]["mode"], second["schedule"]["mode"]) == (
        "batch",
        "sequential-batched",
    )
    assert facts_of(plain) is None, "its results are gone"
    again, _ = run(plain)
    assert again["metrics"] == pytest.approx(first["metrics"])


@pytest.mark.long
def test_results_of_other_settings_are_none_of_a_copied_editor(
    make: Make, trained: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = ["train.epochs=1", "train.validation_passes=6"]
    source, other, turns = (
        make("first", *own), make("place", *own, "seed=5"),
        make("place", *own, "schedule.cumulative=true"),
    )  # fmt: skip
    run(source)
    run(other)
    assert other.folder == turns.folder

    def cut_off(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("saledit.run.cells.cell.measure", cut_off)
    with pytest.raises(KeyboardInterrupt):
        run_cell(turns, FakeUi())  # type: ignore[arg-type]
    assert trained == [source.name, other.name]
    assert weights(turns) == weights(source)
    assert facts_of(turns) is None
    assert facts_of(other) is None


@pytest.mark.long
def test_an_editor_without_weights_of_its_own_is_told_by_its_layer(
    make: Make, trained: list[str]
) -> None:
    own = ["editor.name=memoe", "editor.memoe.steps=2", "editor.memoe.experts=2"]
    own += ["data.max_test_failures=4", "train.validation_edits=1"]
    first, moved, second = (
        make("bare", *own), make("bare", *own, "site.layer=0"), make("bare-two", *own),
    )  # fmt: skip
    for config in (first, moved, second):
        run(config)
    assert trained == [first.name, moved.name, second.name]
    assert facts_of(second)["layer"] == 1  # type: ignore[index]


@pytest.mark.parametrize("broken", ["held.jsonl", "fit.json"])
@pytest.mark.long
def test_what_stands_beside_an_editor_has_to_be_whole(
    broken: str, make: Make, trained: list[str]
) -> None:
    own = ["train.epochs=1", f"train.patience={30 + len(broken)}"]
    first, second = make(f"{broken}-one", *own), make(f"{broken}-two", *own)
    found, _ = run(first)
    (first.folder / broken).write_text("{", encoding="utf-8")
    (first.folder / "config.yaml").unlink()
    other, _ = run(second)
    assert trained == [first.name, second.name]
    assert other["metrics"] == pytest.approx(found["metrics"])
    # Now the second one is whole, and the first one takes it.
    again, said = run(first)
    assert trained == [first.name, second.name]
    assert any("trained alike" in line for line in said)
    assert again["metrics"] == pytest.approx(found["metrics"])


@pytest.mark.long
def test_another_corpus_makes_another_editor(
    make: Make, trained: list[str], tmp_path: Path
) -> None:
    corpus = tmp_path / "corpus.jsonl"
    own = ["train.epochs=1", f"editor.moments.corpus={corpus}"]
    first, second = make("corpus-one", *own), make("corpus-two", *own)
    for seed, config in ((1, first), (2, second)):
        write_jsonl(corpus, [{"text": " ".join(s.inputs)} for s in samples(40, seed=seed)])
        run(config)
    assert trained == [first.name, second.name]
    assert weights(first) != weights(second)


def test_another_corpus_trains_the_same_cell_anew(make: Make, tmp_path: Path) -> None:
    """Its name in the configuration is the same, and a whole training lies in the folder."""
    corpus = tmp_path / "corpus.jsonl"
    own = ["train.epochs=1", f"editor.moments.corpus={corpus}"]
    one, other = make("corpus", *own), make("corpus-alone", *own)
    texts = [[{"text": " ".join(s.inputs)} for s in samples(40, seed=seed)] for seed in (1, 2)]
    write_jsonl(corpus, texts[0])
    run(one)
    before = weights(one)
    write_jsonl(corpus, texts[1])
    with pytest.raises(ArtifactError, match="on others, which have changed since"):
        fit(one, True, FakeUi())  # type: ignore[arg-type]
    assert weights(one) == before
    assert facts_of(one) is None
    _, said = run(one)
    assert any("begun anew" in line for line in said)
    fit(other, False, FakeUi())  # type: ignore[arg-type]
    assert weights(one) == weights(other) != before


def test_what_other_code_has_trained_is_trained_again(
    make: Make, trained: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make("code", "train.epochs=1", "train.validation_passes=7")
    run(config)
    for module in (alike, done, resuming, testing, training):
        monkeypatch.setattr(module, "REVISION", REVISION + 1)
    assert facts_of(config) is None
    with pytest.raises(ArtifactError, match=f"expected a training by this code .*{REVISION}"):
        fit(config, True, FakeUi())  # type: ignore[arg-type]
    _, said = run(config)
    # First on what lies there, which is not taken.
    assert trained == [config.name] * 3
    assert any("begun anew" in line for line in said)
    assert json.loads((config.folder / "fit.json").read_text())["revision"] == REVISION + 1


def test_what_the_clock_ends_is_alike_with_as_many_threads(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def key(config: RunConfig, threads: int) -> str:
        monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
        prepared: Any = SimpleNamespace(
            config=config, train=None, validation=None, fingerprint=lambda *_: "alike"
        )
        return alike._key(prepared)

    plain, timed = make("plain"), make("timed", "train.seconds=5")
    assert key(plain, 1) == key(plain, 2)
    assert key(timed, 1) != key(timed, 2)
