"""Tables of benchmarks: what lies on disk is taken where it is of the same settings."""

from __future__ import annotations

import importlib
from argparse import Namespace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from whole_runs import ui

from saledit import config as configuration
from saledit.config import RunConfig
from saledit.files import write_json, write_text

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
METRICS = {"edit_accuracy": 0.5, "drawdown": 0.1}


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, which finds the modules beside it."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("table")


@pytest.fixture
def fitted(table: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[RunConfig]:
    """Configurations that are fitted, in order; a run is done where its configuration lies."""
    seen: list[RunConfig] = []

    def fit(config: RunConfig, *_args: object) -> None:
        seen.append(config)
        write_text(config.folder / "config.yaml", configuration.to_yaml(config))

    def test(folder: str, *_args: object) -> None:
        found = {"layer": 1, "metrics": METRICS, "timing": {"train_seconds": 1.0}}
        write_json(Path(folder) / "results.json", found)

    def facts_of(config: RunConfig) -> dict[str, Any] | None:
        path = config.folder / "config.yaml"
        is_done = path.exists() and path.read_text() == configuration.to_yaml(config)
        return {} if is_done else None

    monkeypatch.setattr(table, "fit", fit)
    monkeypatch.setattr(table, "test", test)
    monkeypatch.setattr(table, "facts_of", facts_of)
    return seen


def test_a_cell_of_other_settings_is_fitted_again(
    table: ModuleType, fitted: list[RunConfig], tmp_path: Path
) -> None:
    for settings, times in (([], 1), ([], 1), (["loss.edit=0.5"], 2)):
        args = Namespace(out=str(tmp_path), prefix="", data=None, group="nli", set=settings)
        assert table.cell("worldfacts", 0, 1, args, ui())["metrics"] == METRICS
        assert len(fitted) == times


def test_a_layer_of_other_settings_is_fitted_again(
    table: ModuleType, fitted: list[RunConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers, probed = importlib.import_module("layers"), []

    def steps_for(*_args: object) -> int:
        probed.append(len(probed))
        return 90 + len(probed)  # how long a step takes is not the same twice

    monkeypatch.setattr(layers, "steps_for", steps_for)
    monkeypatch.setattr(layers, "facts_of", table.facts_of)
    for seconds, steps in ((0.0, 100), (60.0, 31)):
        fitted.clear()
        args = Namespace(out=str(tmp_path), group="nli", set_name="worldfacts", seconds=seconds)
        for edit, times in (("0.1", 1), ("0.1", 1), ("0.5", 2)):
            own = [f"output={tmp_path}", f"loss.edit={edit}"]
            assert layers.train_at(2, args, own, ui())["edit_accuracy"] == 0.5
            assert len(fitted) == times
        assert fitted[0].train.steps_per_epoch == steps
    assert len(probed) == 2
