"""``EditModule`` and ``EditDataModule`` under a trainer that knows nothing of saledit."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import build, samples, save, weights
from whole_runs import rows

from saledit.files import write_jsonl

PAGE = Path(__file__).parents[2] / "docs" / "api.md"


def test_the_example_of_the_page_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = build("bert")
    save(base, tmp_path / "my-model")
    chosen = samples(60)
    for name, own in {"train": chosen[:40], "validation": chosen[40:]}.items():
        write_jsonl(tmp_path / f"{name}.jsonl", rows(base, own))
    (source,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text("utf-8"), re.M | re.S)
    for asked, here in {
        "TrainConfig(epochs=10)": "TrainConfig(epochs=1, steps_per_epoch=2, edits_per_step=2)",
        "L.Trainer(": "L.Trainer(accelerator='cpu', ",
        "trainer.fit(": "begun = dict(copy.deepcopy(editor).named_parameters())\ntrainer.fit(",
    }.items():
        assert source.count(asked) == 1
        source = source.replace(asked, here)
    told: dict[str, Any] = {"copy": copy}
    monkeypatch.chdir(tmp_path)
    exec(compile(source, str(PAGE), "exec"), told)
    trainer, editor = told["trainer"], told["module"].editor
    assert trainer.global_step == 2
    moved = [
        name for name, p in editor.named_parameters() if not torch.equal(p, told["begun"][name])
    ]
    assert any(name.endswith("up") for name in moved)
    assert "log_rate" in moved
    for name in ("train/loss", "val/score", "val/edit_accuracy", "val/drawdown"):
        assert trainer.callback_metrics[name].isfinite(), name
    kept = torch.load(trainer.checkpoint_callback.best_model_path, weights_only=True)["state_dict"]
    assert kept
    assert all(name.startswith("editor.") for name in kept), "a checkpoint never holds the base"
    after = weights(told["base"].model)
    assert all(torch.equal(after[name], tensor) for name, tensor in weights(base.model).items())
