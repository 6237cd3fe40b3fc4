"""``EditModule`` and ``EditDataModule`` under a trainer that knows nothing of saledit."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from test_oracle import make_case
from tiny import build, samples, save, weights
from torch.utils.data import DataLoader
from whole_runs import rows

from saledit.errors import UserError
from saledit.files import write_jsonl
from saledit.losses import Multiplier

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


def test_a_sanity_check_is_no_reason_to_tighten_a_margin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before a step of training no editor does any harm, so it would keep any margin."""
    case = make_case(tmp_path, "bert", 1)
    case.module.multiplier = Multiplier(2.0, 1.0)
    batch, told = case.batch(*case.draw(2)), list[float]()
    monkeypatch.setattr(Multiplier, "anneal", lambda self, kl: told.append(kl))
    settings: dict[str, Any] = {
        "max_epochs": 1, "limit_train_batches": 1, "logger": False, "accelerator": "cpu",
        "enable_progress_bar": False, "enable_checkpointing": False, "enable_model_summary": False,
    }  # fmt: skip
    given = DataLoader([batch], batch_size=None)
    L.Trainer(**settings, inference_mode=False).fit(case.module, given, given)
    assert len(told) == 1
    message = "Trainer: expected inference_mode=False, .* got True; pass inference_mode=False"
    with pytest.raises(UserError, match=message):
        L.Trainer(**settings).validate(case.module, given, verbose=False)
