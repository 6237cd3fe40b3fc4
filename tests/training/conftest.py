"""Runs on a tiny classifier, for all tests of training; text and sweeps have their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from tiny import build, samples, save
from whole_runs import EPOCHS, STEPS, rows, ui

from saledit import config as configuration
from saledit.config import RunConfig
from saledit.files import write_jsonl
from saledit.run import fit


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, data, and the caches that all runs share."""
    folder = tmp_path_factory.mktemp("trajectory")
    base = build("bert")
    save(base, folder / "model")
    write_jsonl(folder / "data.jsonl", rows(base, samples(150)))
    return folder


def small(home: Path, name: str, *overrides: str, presets: Sequence[str] = ()) -> RunConfig:
    """The configuration of a small run in ``home``."""
    return configuration.load(
        None,
        [
            f"output={home}",
            f"name={name}",
            f"model.name={home / 'model'}",
            f"data.train={home / 'data.jsonl'}",
            "data.adapt.rewrite=false",
            "data.adapt.similarity_model=''",
            "site.select=fixed",
            "site.layer=1",
            "editor.mend.rank=6",
            "editor.sample_rank=4",
            "editor.gradient_rank=6",
            "schedule.batch_size=2",
            f"train.epochs={EPOCHS}",
            f"train.steps_per_epoch={STEPS}",
            "train.edits_per_step=4",
            "train.passes_per_edit=3",
            "train.validation_edits=4",
            "train.validation_passes=8",
            "train.learning_rate=0.003",
            "data.max_test_failures=16",
            "trainer.accelerator=cpu",
            "trainer.log_every_n_steps=1",
            *overrides,
        ],
        presets,
    )


@pytest.fixture
def make(home: Path, tmp_path: Path) -> Callable[..., RunConfig]:
    """Configurations of small runs, each test with runs of its own."""

    def make(name: str, *overrides: str, presets: Sequence[str] = ()) -> RunConfig:
        return small(home, f"{tmp_path.name}-{name}", *overrides, presets=presets)

    return make


@pytest.fixture(scope="module")
def whole(home: Path) -> tuple[RunConfig, dict[str, Any]]:
    """A small run that nothing cut off, and what its training found; to be read, not changed."""
    config = small(home, "whole")
    return config, fit(config, False, ui())


@pytest.fixture(scope="module")
def fitted(home: Path) -> RunConfig:
    """One trained editor for the tests that only read it."""
    overrides = [
        f"output={home}", "name=fitted", f"model.name={home / 'model'}",
        f"data.train={home / 'data.jsonl'}", "data.adapt.rewrite=false", "site.select=gradient",
        "site.samples=8", "editor.mend.rank=6", "schedule.batch_size=3", "train.epochs=2",
        "train.steps_per_epoch=5", "train.edits_per_step=4", "train.passes_per_edit=3",
        "train.validation_edits=8", "train.validation_passes=16", "trainer.accelerator=cpu",
    ]  # fmt: skip
    config = configuration.load(None, overrides)
    fit(config, False, ui())
    return config
