"""``fix`` on a tiny model, and runs and data that are refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import LABELS, build, encode, samples, save
from whole_runs import ANY, rows, ui

from saledit import config as configuration
from saledit.artifact import EDITOR_FACTS, load_editor, load_edits, save_editor
from saledit.cli import main
from saledit.config import RunConfig
from saledit.errors import ArtifactError, ConfigError, DataError
from saledit.files import write_jsonl
from saledit.forward.scoring import base_logits
from saledit.models import load_classifier
from saledit.overlay import applied
from saledit.records import Sample
from saledit.run import FixOptions, fit, fix, fixing
from saledit.run import test as run_test
from saledit.run.measures import decided


def fix_rows(home: Path, seed: int, n: int = 6) -> list[dict]:
    base = build("bert")
    out = rows(base, samples(n, seed=seed), wrong_share=1.0)
    return [{k: v for k, v in row.items() if k != "paraphrases"} for row in out]


def test_an_editor_finds_its_model_from_another_folder(
    fitted: RunConfig, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(home / "model", tmp_path / "project" / "model")
    shutil.copytree(fitted.folder, run := tmp_path / "project" / "runs" / "mine")
    trained = load_editor(run)
    monkeypatch.chdir(tmp_path / "project")
    base = load_classifier("model")
    save_editor(Path("runs/mine"), trained.editor, trained.config, base, trained.layer)
    assert load_editor("runs/mine").base_name == "model"
    monkeypatch.chdir(run)
    assert Path(load_editor(".").base_name) == tmp_path / "project" / "model"
    write_jsonl(tmp_path / "failures.jsonl", fix_rows(home, seed=7))
    out = str(tmp_path / "fixed")
    assert fix(".", str(tmp_path / "failures.jsonl"), out, ANY, ui())["n_wrong_before"] == 6


def test_fix_turns_failures_into_edits(fitted: RunConfig, home: Path, tmp_path: Path) -> None:
    failing = fix_rows(home, seed=7)
    base = load_classifier(str(home / "model"))
    right = rows(base, samples(2, seed=8), wrong_share=0.0)
    write_jsonl(tmp_path / "failures.jsonl", [*failing, {**right[0], "id": "right"}])
    out = tmp_path / "fixed"
    result = fix(str(fitted.folder), str(tmp_path / "failures.jsonl"), str(out), ANY, ui())
    assert result["n_failures"] == 7
    assert result["n_wrong_before"] == 6
    assert result["n_fixed"] == sum(row["fixed"] for row in result["rows"])
    answers = {row["id"]: row for row in result["rows"]}
    assert answers["right"]["before"] == answers["right"]["target"]
    assert not answers["right"]["fixed"]
    edits = load_edits(out, base.model)
    # What the edits do to the whole model is what the result says.
    chosen = [Sample(r["id"], tuple(r["inputs"]), r["target"]) for r in result["rows"]]
    with applied(base.model, edits):
        logits = base_logits(base, encode(base, chosen))
    after = [LABELS[i] for i in logits.argmax(-1).tolist()]
    assert after == [row["after"] for row in result["rows"]]
    check = result["check"]
    assert check["accuracy_before"] == 1
    assert check["drawdown"] == pytest.approx(check["accuracy_before"] - check["accuracy_after"])
    assert len(check["changed"]) >= round(check["drawdown"] * check["n"])


def test_a_fix_may_be_made_otherwise_than_the_run(
    fitted: RunConfig, home: Path, tmp_path: Path
) -> None:
    failures = tmp_path / "failures.jsonl"
    write_jsonl(failures, fix_rows(home, seed=7))
    short = ("editor.steps=[0.1]", "editor.enough=0.001")

    def norm(*settings: str) -> float:
        out = tmp_path / str(len(settings))
        fix(str(fitted.folder), str(failures), str(out), replace(ANY, settings=settings), ui())
        return float(load_edits(out, load_classifier(str(home / "model")).model).norm())

    assert 0 < norm(*short) < norm()
    assert norm(*short) < norm(*short, "editor.looks=3")

    def refused(setting: str, says: str, out: str = "none") -> None:
        options = FixOptions(settings=[setting])
        with pytest.raises(ConfigError, match=says):
            fix(str(fitted.folder), str(failures), str(tmp_path / out), options, ui())
        assert not (tmp_path / out).exists()

    refused("data.test=x.jsonl", "data.test: expected a setting of how the edit is made, .*known: ")
    refused("editor.loks=3", r"made, got editor.loks=3; did you mean 'editor\.looks'\?")
    refused("editor.looks=0", "editor.looks: expected at least 1")
    refused("more", "more")
    told = main(
        ["fix", str(fitted.folder), "--failures", str(failures), "--out", str(tmp_path / "cli"),
         *short, "editor.looks=2", "--quiet", "--min-fixed", "0"]
    )  # fmt: skip
    assert told == 0
    assert "editor.looks=2" in (tmp_path / "cli" / "ledger.jsonl").read_text()


def test_a_fix_is_one_process_on_the_first_device(
    fitted: RunConfig, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(fitted.folder, tmp_path / "run")
    many = replace(fitted, trainer={"accelerator": "cpu", "devices": 8, "strategy": "ddp"})
    text = configuration.to_yaml(many)
    (tmp_path / "run" / "config.yaml").write_text(text, encoding="utf-8")
    write_jsonl(tmp_path / "failures.jsonl", fix_rows(home, seed=7, n=2))
    placed = []
    monkeypatch.setattr(fixing, "place", lambda _base, trainer: placed.append(trainer))
    failures, out = str(tmp_path / "failures.jsonl"), str(tmp_path / "fixed")
    fix(str(tmp_path / "run"), failures, out, ANY, ui())
    assert placed == [{"accelerator": "cpu", "devices": 1}]


@pytest.mark.long
def test_routed_edits_go_all_the_way(
    make: Callable[..., RunConfig], home: Path, tmp_path: Path
) -> None:
    """Tested one by one and piled up, made of new failures, written and read."""
    config = make("memoe", "editor.name=memoe", "editor.memoe.steps=2", "editor.memoe.rate=0.01")
    fit(config, False, ui())
    alone = run_test(str(config.folder), [], ui())
    piled = run_test(str(config.folder), ["schedule.cumulative=true"], ui())
    assert alone["n_edits"] == piled["n_edits"]
    assert alone["metrics"] != piled["metrics"]
    write_jsonl(tmp_path / "failures.jsonl", fix_rows(home, seed=7))
    out = tmp_path / "fixed"
    result = fix(str(config.folder), str(tmp_path / "failures.jsonl"), str(out), ANY, ui())
    base = load_classifier(str(home / "model"))
    edits = load_edits(out, base.model)
    assert edits.are_routed
    chosen = [Sample(r["id"], tuple(r["inputs"]), r["target"]) for r in result["rows"]]
    with applied(base.model, edits):
        logits = base_logits(base, encode(base, chosen))
    after = [LABELS[i] for i in logits.argmax(-1).tolist()]
    assert after == [row["after"] for row in result["rows"]]
    assert not torch.equal(logits, base_logits(base, encode(base, chosen)))


def test_fix_without_a_failure_is_refused(fitted: RunConfig, home: Path, tmp_path: Path) -> None:
    base = load_classifier(str(home / "model"))
    write_jsonl(tmp_path / "right.jsonl", rows(base, samples(4, seed=9), wrong_share=0.0))
    with pytest.raises(DataError, match="makes no mistake here"):
        fix(str(fitted.folder), str(tmp_path / "right.jsonl"), str(tmp_path / "out"), None, ui())
    assert not (tmp_path / "out").exists()


def test_a_label_that_is_none_is_told_with_its_record(
    fitted: RunConfig, home: Path, tmp_path: Path
) -> None:
    made = rows(load_classifier(str(home / "model")), samples(5, seed=3), wrong_share=1.0)
    made[3]["label"] = "perhaps"
    write_jsonl(tmp_path / "f.jsonl", made)
    line = rf"f.jsonl, {made[3]['id']}: expected a label of .* in 'label', got 'perhaps'"
    with pytest.raises(DataError, match=line):
        fix(str(fitted.folder), str(tmp_path / "f.jsonl"), str(tmp_path / "out"), None, ui())


def test_a_check_set_that_is_gone_is_told(fitted: RunConfig, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(fitted.folder, run)
    (run / "check.jsonl").unlink()
    failures = next(run.glob("held.jsonl"))
    with pytest.raises(ArtifactError, match=r"check\.jsonl: .*got no file; .*\(--check\)"):
        fix(str(run), str(failures), str(tmp_path / "out"), None, ui())


def test_a_model_without_mistakes_is_refused(
    make: Callable[..., RunConfig], home: Path, tmp_path: Path
) -> None:
    base = load_classifier(str(home / "model"))
    write_jsonl(tmp_path / "right.jsonl", rows(base, samples(40, seed=5), wrong_share=0.0))
    config = make("right", f"data.train={tmp_path / 'right.jsonl'}")
    with pytest.raises(DataError, match=r"data\.train: expected samples .* answers wrongly"):
        fit(config, False, ui())
    assert not (config.folder / EDITOR_FACTS).exists()


def test_a_run_that_is_not_there_is_answered_with_those_that_are(
    fitted: RunConfig,
) -> None:
    wrong = fitted.folder.with_name(fitted.folder.name + "x")
    with pytest.raises(ArtifactError, match=f"got neither; did you mean '{fitted.folder.name}'"):
        run_test(str(wrong), [], ui())


def test_an_editor_of_another_model_is_refused(
    fitted: RunConfig, home: Path, tmp_path: Path
) -> None:
    save(build("bert", seed=1), tmp_path / "other")
    with pytest.raises(ArtifactError, match="expected the model it was trained on"):
        run_test(str(fitted.folder), [f"model.name={tmp_path / 'other'}"], ui())
    trained = load_editor(fitted.folder)
    with pytest.raises(ArtifactError, match="expected the model it was trained on"):
        trained.session(load_classifier(str(tmp_path / "other")))


@pytest.mark.long
def test_rewritten_rewordings_and_none_at_all(
    make: Callable[..., RunConfig], home: Path, tmp_path: Path
) -> None:
    base = load_classifier(str(home / "model"))
    said = [
        f"The {who} is not {what} on the {where}."
        for who in ("man", "woman", "child", "dog")
        for what in ("sleeping", "eating", "waiting", "standing", "working")
        for where in ("bench", "boat", "street")
    ]
    english = [
        replace(sample, inputs=(sample.inputs[0], text))
        for sample, text in zip(samples(60, 3), said, strict=True)
    ]
    bare = [{k: v for k, v in row.items() if k != "paraphrases"} for row in rows(base, english)]
    write_jsonl(tmp_path / "bare.jsonl", bare)
    data = f"data.train={tmp_path / 'bare.jsonl'}"
    written = fit(make("written", data, "data.adapt.rewrite=true", "train.epochs=1"), False, ui())
    assert written["splits"]["train"]["adapt"] > 0  # "isn't", or another order of words
    config = make("none", data, "train.epochs=1")
    result = fit(config, False, ui())
    assert result["splits"]["train"]["adapt"] == 0
    found = run_test(str(config.folder), [], ui())
    assert "adapt_accuracy" not in found["metrics"]
    assert found["metrics"]["edit_accuracy"] == found["metrics"]["fail_accuracy"]


@pytest.mark.parametrize("overrides", [[], ["schedule.cumulative=true"]])
def test_what_is_decided_is_a_part_of_the_drawdown(
    fitted: RunConfig, overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for lead in (-float("inf"), 0.0, float("inf")):
        monkeypatch.setattr(decided, "LEAD", lead)
        found.append(run_test(str(fitted.folder), overrides, ui())["metrics"])
    every, ahead, none = found
    for m in (every, ahead):  # a pass sample's right label leads
        assert m["share_decided"] == 1
        assert m["drawdown_decided"] == pytest.approx(m["drawdown"])
    assert none["share_decided"] == 0
    assert "drawdown_decided" not in none
