"""Cells that differ in their schedule alone share one training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from whole_runs import FakeUi

from saledit.artifact import EDITOR_WEIGHTS
from saledit.config import RunConfig
from saledit.run import alike
from saledit.run.cell import run_cell
from saledit.run.done import facts_of

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


@pytest.mark.parametrize("other", ["schedule.batch_size=3", "data.max_passes=20"])
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
