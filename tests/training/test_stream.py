"""Whole runs of a model that stays on disk: the numbers of a loaded one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import build, samples
from whole_runs import ANY, rows, ui

from saledit.artifact import load_editor, load_edits
from saledit.config import RunConfig
from saledit.errors import UserError
from saledit.files import read_tensors, write_jsonl
from saledit.models import load_classifier
from saledit.run import fit, fix, fixing, saliency
from saledit.run import test as run_test

SHORT = ("train.epochs=1", "train.steps_per_epoch=4", "train.validation_edits=2")
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def streamed(config: RunConfig, cache: Path) -> RunConfig:
    """The same run of a model on disk, with caches of its own."""
    shutil.rmtree(cache, ignore_errors=True)
    model = replace(config.model, stream=True)
    return replace(config, name=f"{config.name}-stream", model=model)


@pytest.mark.long
@pytest.mark.parametrize(
    ("editor", "looks"), [("mend", 2), pytest.param("enn", 1, marks=pytest.mark.slow)]
)
def test_a_streamed_run_is_that_of_a_loaded_model(
    make: Callable[..., RunConfig], home: Path, tmp_path: Path, editor: str, looks: int
) -> None:
    own = (f"editor.looks={looks}", "editor.enough=0.01")
    plain = make("plain", f"editor.name={editor}", "site.layer=0", *own, *SHORT)
    other = streamed(plain, home / "cache")
    failing = rows(build("bert"), samples(6, seed=7), wrong_share=1.0)
    write_jsonl(tmp_path / "failures.jsonl", failing)
    base, found = load_classifier(str(home / "model")), []
    for config in (plain, other):
        if config is other:
            shutil.rmtree(home / "cache")
        fit(config, False, ui())
        metrics = run_test(str(config.folder), [], ui())["metrics"]
        out = tmp_path / config.name
        fix(str(config.folder), str(tmp_path / "failures.jsonl"), str(out), ANY, ui())
        edits = load_edits(out, base.model)
        found.append((read_tensors(config.folder / "editor.safetensors", "it"), metrics, edits))
    for name, tensor in found[0][0].items():
        torch.testing.assert_close(tensor, found[1][0][name], **CLOSE)
    assert found[0][1] == pytest.approx(found[1][1], rel=1e-4, abs=1e-5)
    for one, same in zip(found[0][2].tensors(), found[1][2].tensors(), strict=True):
        torch.testing.assert_close(one, same, **CLOSE)
    assert load_editor(other.folder).config.model.stream


@pytest.mark.long
def test_a_fix_may_leave_the_model_on_disk(
    fitted: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = rows(build("bert"), samples(6, seed=7), wrong_share=1.0)
    write_jsonl(tmp_path / "failures.jsonl", failing)
    given, seen = str(tmp_path / "failures.jsonl"), []
    real = fixing.load_model
    monkeypatch.setattr(fixing, "load_model", lambda *of: seen.append(real(*of)) or seen[-1])
    for options in (ANY, replace(ANY, stream=True)):
        fix(str(fitted.folder), given, str(tmp_path / str(options.stream)), options, ui())
    assert [base.weights.in_place for base in seen] == [True, False]
    one, other = (load_edits(tmp_path / name, seen[0].model) for name in ("False", "True"))
    for a, b in zip(one.tensors(), other.tensors(), strict=True):
        torch.testing.assert_close(a, b, **CLOSE)


def test_layers_are_scored_on_disk(make: Callable[..., RunConfig], home: Path) -> None:
    plain = make("scored", "site.select=gradient", "site.samples=8")
    tables = [saliency(plain, ui())]
    for path in (home / "cache").glob("layers-*.json"):
        path.unlink()
    tables.append(saliency(replace(plain, model=replace(plain.model, stream=True)), ui()))
    one, other = ([layer["score"] for layer in table["layers"]] for table in tables)
    assert one == pytest.approx(other, rel=1e-4)


@pytest.mark.long
def test_a_merged_model_is_not_made_of_one_on_disk(fitted: RunConfig, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "failures.jsonl", rows(build("bert"), samples(6, seed=7)))
    options = replace(ANY, format="merged", stream=True)
    given, out = str(tmp_path / "failures.jsonl"), tmp_path / "out"
    with pytest.raises(UserError, match=r"model\.stream"):
        fix(str(fitted.folder), given, str(out), options, ui())
    assert not out.exists()
