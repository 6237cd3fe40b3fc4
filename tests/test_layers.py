"""The layer sweep's table: what pickers cost, and what a choice without any costs."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

ROWS = {
    0: {"layer": 0, "score": 0.5, "edit_accuracy": 0.6, "drawdown": 0.025, "seconds": 60.0},
    5: {"layer": 5, "score": 0.7, "edit_accuracy": 0.75, "drawdown": 0.0125, "seconds": 40.0},
}


@pytest.fixture
def layers(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, which finds the modules beside it."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    return importlib.import_module("layers")


def test_both_passes_of_a_picker_are_told(
    layers: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {"pick": 0, "forward_passes": 96.0, "backward_passes": 48.0, "seconds": 5.0}
    monkeypatch.setattr(layers, "saliency", lambda *_: found)
    config: Any = SimpleNamespace()
    assert layers.FIXED in layers.PICKERS
    tables = {name: layers.picked_by(name, config, 6, None) for name in ("mean_abs", layers.FIXED)}
    lines = layers.picks_table(layers.picks_of(tables, ROWS))
    assert "| forward passes | backward passes | s | of the sweep's training s |" in lines[0]
    assert len({line.count("|") for line in lines}) == 1
    assert lines[2:] == [
        "| mean_abs | 0 | 2 | 0.150 | 0.013 | 96 | 48 | 5.0 | 5% |",
        "| fixed: the top layer | 5 | 1 | 0.000 | 0.000 | 0 | 0 | 0.0 | 0% |",
    ]
