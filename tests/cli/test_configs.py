"""Every configuration that comes with saledit can be read, and names what there is."""

from __future__ import annotations

import inspect
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from editing import PRESETS
from lightning import Trainer

from saledit import config as configuration
from saledit.building import make_task
from saledit.config import EditorConfig
from saledit.editors.locating import FactSpec
from saledit.errors import ConfigError
from saledit.registry import EDITORS, look_up
from saledit.run.checks import check

ROOT = Path(__file__).parents[2] / "configs"
FILES = sorted(path.relative_to(ROOT).with_suffix("").as_posix() for path in ROOT.rglob("*.yaml"))


def test_there_are_some() -> None:
    assert {"nli/quickstart", "qa/pararel", "editors/memit"} <= set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_it_can_be_read(name: str) -> None:
    config = configuration.load(name)
    make_task(config.task)
    check(config)
    if name.startswith("editors/") and config.editor.name != "locate":
        default = EditorConfig(name=config.editor.name)
        is_default = replace(config.editor, held=default.held) == default
        assert is_default or name in PRESETS, (
            f"of other numbers than the default, so it needs the contract of editors: add '{name}' "
            "to PRESETS in tests/editing.py"
        )


@pytest.mark.parametrize("name", EDITORS)
def test_a_setting_left_out_in_python_is_the_configuration_s(name: str) -> None:
    own = inspect.signature(look_up(EDITORS, name, "editor.name")).parameters
    section = asdict(getattr(EditorConfig(), name))
    assert {key: own[key].default for key in section} == section
    # What has no setting is the class's own affair, and never asked for.
    others = set(own) - set(section) - {"sites", "embedding_size"}
    assert all(own[key].default is not inspect.Parameter.empty for key in others)


def test_facts_are_found_as_the_configuration_says() -> None:
    own = inspect.signature(FactSpec).parameters
    assert own["measure"].default == EditorConfig().locate.measure


@pytest.mark.parametrize(
    "setting",
    ["task.max_new_tokens=0", "data.max_made=-1", "train.made=-0.1", "train.made=1.5",
     "train.validation_passes=-1"],
)  # fmt: skip
def test_numbers_out_of_their_range_are_refused(setting: str) -> None:
    key, value = setting.split("=")
    with pytest.raises(ConfigError, match=rf"{key}: expected at least .*, got {value}"):
        configuration.load(None, [setting])


def test_each_argument_of_a_trainer_is_taken_or_refused_with_a_remedy() -> None:
    """A new one of Lightning's is to be looked at before it is taken."""
    taken = {
        "accelerator", "strategy", "devices", "num_nodes", "precision", "max_steps",
        "log_every_n_steps", "enable_progress_bar", "enable_model_summary",
        "accumulate_grad_batches", "gradient_clip_algorithm", "deterministic", "benchmark",
        "profiler", "detect_anomaly", "enable_autolog_hparams",
    }  # fmt: skip
    refused = set()
    for key in inspect.signature(Trainer.__init__).parameters.keys() - {"self"}:
        if key not in taken:
            with pytest.raises(ConfigError, match=rf"trainer\.{key}: is set by saledit itself; ."):
                check(configuration.load(None, [f"trainer.{key}=1"]))
            refused.add(key)
    assert {"max_time", "limit_val_batches", "barebones", "val_check_interval"} < refused
