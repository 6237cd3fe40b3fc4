"""What ``fit`` and ``test`` leave, and what their numbers mean, on a tiny model."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from quick import quick
from tiny import encode
from whole_runs import ANY, check_answers, metrics, ui

from saledit import config as configuration
from saledit.artifact import load_editor
from saledit.config import RunConfig
from saledit.data.sources import load_records
from saledit.editors.request import Request
from saledit.errors import ConfigError, JobError
from saledit.files import alone, write_jsonl
from saledit.forward.scoring import base_logits
from saledit.models import load_classifier
from saledit.module import EditModule
from saledit.run import fit, fix, saliency
from saledit.run import test as run_test
from saledit.run.measures import decided
from saledit.run.setup import caching
from saledit.run.setup.caching import banks_of
from saledit.run.setup.kept import write_kept
from saledit.run.setup.prepare import prepare
from saledit.run.tested import check_trained, slug
from saledit.saliency.trial import TrialStep


def test_what_fit_leaves(fitted: RunConfig) -> None:
    names = {path.name for path in fitted.folder.iterdir()}
    assert names >= {
        "editor.safetensors", "editor.json", "config.yaml", "last.ckpt", "metrics.csv",
        "saliency.json", "saliency.png", "check.jsonl", "fit.json",
    }  # fmt: skip
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert configuration.load(fitted.folder / "config.yaml") == fitted
    table = json.loads((fitted.folder / "saliency.json").read_text())
    found = json.loads((fitted.folder / "fit.json").read_text())
    assert table["pick"] == found["layer"] == load_editor(fitted.folder).layer.index
    # No weight of the base is in the checkpoint.
    kept = torch.load(fitted.folder / "last.ckpt", weights_only=True)["state_dict"]
    assert kept
    assert all(name.startswith("editor.") for name in kept)


def test_fit_of_a_trial_step_layer(make: Callable[..., RunConfig]) -> None:
    config = make(
        "trial", "site.select=trial-step", "site.layer=-1", "site.samples=6", "train.epochs=1"
    )
    result = fit(config, False, ui())
    assert len(result["saliency"]["layers"]) == result["n_layers"]
    assert result["layer"] == result["saliency"]["pick"]


@pytest.mark.long
def test_what_is_not_trained_needs_no_validation(make: Callable[..., RunConfig]) -> None:
    found = []
    for edits in (0, 2):
        settings = ("editor.name=step", "site.select=fixed", f"train.validation_edits={edits}")
        config = make(f"step-{edits}", "site.layer=0", *settings)
        assert bool(fit(config, False, ui())["validation"]) == (edits > 0)
        found.append(run_test(str(config.folder), [], ui())["metrics"])
    assert found[0] == found[1]
    for editor, refused in {"mend": "whose best", "step": "as site.select=sweep judges"}.items():
        config = make(
            editor, f"editor.name={editor}", "train.validation_edits=0",
            *(["site.select=sweep"] if editor == "step" else ["site.select=fixed", "site.layer=0"]),
        )  # fmt: skip
        with pytest.raises(ConfigError, match=f"train.validation_edits: .*{refused}"):
            fit(config, False, ui())


@pytest.mark.parametrize("editor", ["ft", "step"])
def test_what_is_not_trained_caches_what_it_reads(
    editor: str, make: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A first rate is found on one batch, second moments on all pass samples; nothing else is."""
    asked, real = [], caching.open_banks
    monkeypatch.setattr(
        caching, "open_banks", lambda *given: asked.append(given[2:4]) or real(*given)
    )
    config = make(
        f"few-{editor}", f"editor.name={editor}", "train.validation_edits=0", "site.layer=0",
        "editor.ft.steps=2", "train.edits_per_step=2",
    )  # fmt: skip
    fit(config, False, ui())
    ((read, (spec,)),) = asked
    assert spec.rank == (0 if editor == "ft" else 4), "gradients where they are looked at"
    whole = prepare(config, ui()).train
    assert len(read.fail) == 4 < len(whole.fail)  # two edits of two failures
    rewordings = dict(zip(whole.fail, whole.adapt, strict=True))
    assert all(rewordings[s] == own for s, own in zip(read.fail, read.adapt, strict=True))
    passing = list(whole.passing)
    assert list(read.passing) == passing if editor == "step" else len(read.passing) == 6
    assert set(read.passing) <= set(passing)


@pytest.mark.long
@pytest.mark.parametrize("dtype", quick(["bfloat16"], ["bfloat16", "float16"]))
def test_a_classifier_of_half_precision_has_an_editor_of_single(
    dtype: str, make: Callable[..., RunConfig], tmp_path: Path
) -> None:
    config = make(dtype, f"model.dtype={dtype}", "train.epochs=1")
    fit(config, False, ui())
    found = run_test(str(config.folder), [], ui())
    assert math.isfinite(found["metrics"]["locality_kl"])
    trained = load_editor(config.folder)
    assert {p.dtype for p in trained.editor.parameters()} == {torch.float32}
    prepared = prepare(config, ui())
    assert prepared.base.dtype == getattr(torch, dtype)
    failures, out = tmp_path / "failures.jsonl", tmp_path / "fixed"
    write_jsonl(failures, [prepared.task.row(sample) for sample in prepared.test.fail[:2]])
    fixed = fix(str(config.folder), str(failures), str(out), replace(ANY, format="merged"), ui())
    assert fixed["n_wrong_before"] == 2
    weights = load_classifier(str(out), dtype=dtype).model.state_dict()
    changed = {
        name for name, value in prepared.base.model.state_dict().items()
        if not torch.equal(value, weights[name])
    }  # fmt: skip
    assert changed <= {f"{site.name}.weight" for site in trained.layer.sites}
    assert changed


def test_a_classifier_is_fine_tuned_in_single_precision(make: Callable[..., RunConfig]) -> None:
    seen: list[torch.dtype] = []

    class Seen(Callback):
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            seen.extend(p.dtype for p in pl_module.model.parameters())

    config = make("tuned", "model.dtype=bfloat16", "model.finetune.enabled=true",
                  "model.finetune.records=20", "model.finetune.epochs=1")  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("saledit.run.setup.prepare.training_bar", lambda *_: Seen())
        base = prepare(config, ui()).base
    assert set(seen) == {torch.float32}
    assert base.dtype == torch.bfloat16


def test_a_layer_beside_a_picker_is_refused_before_anything_is_loaded(
    make: Callable[..., RunConfig],
) -> None:
    config = make("both", "site.select=trial-step", "site.layer=1", "model.name=/nowhere")
    with pytest.raises(ConfigError, match=r"site\.layer: expected none .*add site\.select=fixed"):
        fit(config, False, ui())


@pytest.mark.long
def test_runs_of_the_same_samples_share_their_layer_scores(
    make: Callable[..., RunConfig], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = ("site.select=trial-step", "site.samples=5")
    before = set((home / "cache").glob("layers-*.json"))
    table = saliency(make("scored", *keys), ui())
    (kept,) = set((home / "cache").glob("layers-*.json")) - before
    monkeypatch.setattr(TrialStep, "__call__", lambda *_: pytest.fail("scored again"))
    assert saliency(make("other", *keys, "schedule.batch_size=5"), ui()) == table
    monkeypatch.undo()

    # Other samples or settings are scored anew, and so is what a broken file held.
    for other in ("seed=3", "site.samples=4", "site.whiten=0"):
        saliency(make("anew", *keys, other), ui())
    assert len(set((home / "cache").glob("layers-*.json")) - before) == 4
    kept.write_text("{")
    again = saliency(make("mended", *keys), ui())
    assert again["layers"] == table["layers"]
    assert json.loads(kept.read_text())["value"]["layers"] == table["layers"]


@pytest.mark.long
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_fit_in_mixed_precision_and_on_counterfactual_failures(
    make: Callable[..., RunConfig], share: float
) -> None:
    config = make(f"mixed{share:.0f}", "trainer.precision=bf16-mixed", f"train.made={share}")
    result = fit(config, False, ui())
    assert 0 < result["validation"]["loss"] < float("inf")
    assert (result["splits"]["train"]["made"] > 0) == (share > 0)
    assert result["splits"]["validation"]["made"] == 0


CONTRACT = {
    "schema", "task", "editor", "base_model", "sites", "schedule", "n_edits", "metrics", "timing",
    "memory", "versions", "seed",
}  # fmt: skip
METRICS = {
    "fail_accuracy", "adapt_accuracy", "edit_accuracy", "pass_accuracy_before",
    "pass_accuracy_after", "drawdown", "locality_kl", "share_decided",
}  # fmt: skip


def check_results(results: dict[str, Any], mode: str, k: int, failures: int) -> None:
    assert results.keys() >= CONTRACT
    assert results["metrics"].keys() - {"drawdown_decided"} == METRICS
    assert results["base_model"].keys() == {"name", "fingerprint"}
    assert results["schedule"] == {"mode": mode, "batch_size": k}
    assert results["timing"].keys() >= {
        "train_seconds", "edits_per_second", "fix_seconds_per_edit",
    }  # fmt: skip
    assert results["timing"]["fix_seconds_per_edit"] > 0
    assert results["memory"]["peak_rss_mb"] > 0
    assert results["n_edits"] == -(-failures // k)
    m = results["metrics"]
    assert m["drawdown"] == pytest.approx(m["pass_accuracy_before"] - m["pass_accuracy_after"])
    assert m["pass_accuracy_before"] == 1
    assert results["unedited"]["fail_accuracy"] == 0
    json.dumps(results, allow_nan=False)


@pytest.mark.parametrize("has", [True, False])
def test_the_precision_that_was_trained_in_is_on_record(
    has: bool, make: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CPU has no float16, and may have no bfloat16 either, which Lightning takes instead."""
    monkeypatch.setattr("saledit.models.precision.cpu_has_bfloat16", lambda: has)
    config, told = make(f"half-{has}", "trainer.precision=16-mixed", "train.epochs=1"), ui()
    found = fit(config, False, told)
    assert found["precision"] == ("bf16-mixed" if has else "32-true")
    assert any(found["precision"] in line and "16-mixed" in line for line in told.stages)


def test_results_are_those_of_the_contract(fitted: RunConfig) -> None:
    results = run_test(str(fitted.folder), [], ui())
    assert json.loads((fitted.folder / "results.json").read_text()) == results
    failures = results["counts"]["fail"]
    check_results(results, "batch", 3, failures)
    check_answers(fitted.folder / "answers.jsonl", results)
    kinds = results["adapt_by_kind"]
    assert {kind: v["n"] for kind, v in kinds.items()} == results["counts"]["adapt_kinds"]
    for overrides, mode, k in (
        (["schedule.cumulative=true"], "sequential-batched", 3),
        (["schedule.cumulative=true", "schedule.batch_size=1"], "sequential", 1),
        (["schedule.batch_size=1", "test.passes_per_edit=0"], "batch", 1),
    ):
        found = run_test(str(fitted.folder), overrides, ui())
        check_results(found, mode, k, failures)
        name = f"answers-{'_'.join(sorted(overrides))}.jsonl"
        check_answers(fitted.folder / name, found)
    # The run's own results stay.
    assert json.loads((fitted.folder / "results.json").read_text()) == results


@pytest.mark.long
def test_a_new_editor_has_no_tests_of_the_old_one(make: Callable[..., RunConfig]) -> None:
    config = make("again")
    fit(config, False, ui())
    run_test(str(config.folder), [], ui())
    run_test(str(config.folder), ["schedule.batch_size=1"], ui())
    kinds = ("results*.json", "answers*.jsonl")
    assert [len([*config.folder.glob(kind)]) for kind in kinds] == [2, 2]
    fit(config, False, ui())
    assert not [path for kind in kinds for path in config.folder.glob(kind)]


def test_batches_of_edits_are_edits_one_by_one(fitted: RunConfig) -> None:
    many = run_test(str(fitted.folder), ["test.edits_per_batch=16"], ui())["metrics"]
    single = run_test(str(fitted.folder), ["test.edits_per_batch=1"], ui())["metrics"]
    assert many == pytest.approx(single, rel=1e-5, abs=1e-6)


def test_an_editor_that_gives_nan_is_an_error(
    fitted: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = load_editor

    def spoilt(run: Any) -> Any:
        trained = real(run)
        with torch.no_grad():
            trained.editor.log_rate.fill_(float("nan"))
        return trained

    monkeypatch.setattr("saledit.run.testing.load_editor", spoilt)
    with pytest.raises(JobError, match="NaN"):
        run_test(str(fitted.folder), ["test.passes_per_edit=3"], ui())


def test_a_session_step_is_a_batch_edit(fitted: RunConfig) -> None:
    prepared = prepare(fitted, ui())
    trained = load_editor(fitted.folder)
    part, c = prepared.test, fitted.editor
    banks = banks_of(prepared, part, trained.layer, trained.editor)
    passing = torch.zeros(1, 1, dtype=torch.long)
    for positions in ([0], [2], [1, 3, 4]):
        session = trained.session(prepared.base)
        step = session.step([part.fail[i] for i in positions])
        with torch.no_grad():
            batch = banks.batch(torch.tensor([positions]), passing, c.gradient_rank)
            edits = trained.editor(Request(batch.terms.pairs, owners=batch.terms.owners))
        assert list(step) == list(edits)
        for site, delta in step.items():
            torch.testing.assert_close(delta.dense(), edits[site].dense()[0], rtol=1e-3, atol=1e-5)
            torch.testing.assert_close(session.edits[site].dense(), delta.dense())


def test_a_session_piles_up(fitted: RunConfig) -> None:
    prepared = prepare(fitted, ui())
    session = load_editor(fitted.folder).session(prepared.base)
    first = session.step(prepared.test.fail[:1])
    second = session.step(prepared.test.fail[:1])
    for site, delta in session.edits.items():
        torch.testing.assert_close(delta.dense(), first[site].dense() + second[site].dense())
        # The second step sees the model with the first edit.
        assert not torch.equal(first[site].dense(), second[site].dense())


@pytest.mark.parametrize(
    "setting", ["seed=3", "data.limit=20", "data.test_share=0.5", "task.subjects=[premise]"]
)
def test_nobody_is_tested_on_what_he_has_learned_from(fitted: RunConfig, setting: str) -> None:
    """Records are dealt to training and test by these, and a test deals them again."""
    key = setting.split("=")[0]
    message = rf"^{key}: expected .*; leave it, or name files of other records \(data\.test"
    with pytest.raises(ConfigError, match=message):
        run_test(str(fitted.folder), [setting], ui())


@pytest.mark.parametrize(
    ("locality", "setting", "is_refused"),
    [
        (["a"], "seed=3", True),
        (["a"], "data.test_share=0.5", True),
        (["a"], "data.limit=20", True),
        (["a"], "task.subjects=[premise]", False),  # which says nothing of them
        (["b"], "seed=3", False),
        ([], "seed=3", False),
    ],
)
def test_nor_on_the_pass_samples_beside_a_test_file(
    locality: list[str], setting: str, is_refused: bool
) -> None:
    own = ["data.test=t.jsonl", "data.locality=[a]"]
    trained = configuration.load(None, own)
    asked = configuration.load(None, [*own, f"data.locality=[{','.join(locality)}]", setting])
    with pytest.raises(ConfigError, match="has learned from") if is_refused else nullcontext():
        check_trained(trained, asked)


def test_two_trainings_are_not_written_into_one_folder(make: Callable[..., RunConfig]) -> None:
    config = make("taken")
    with alone(config.folder), pytest.raises(JobError, match="another saledit is writing there"):
        fit(config, False, ui())
    assert not config.folder.exists()


@pytest.mark.long
def test_a_test_takes_no_setting_that_it_would_pass_over(
    make: Callable[..., RunConfig], tmp_path: Path
) -> None:
    config = make("heard", "train.epochs=1")
    fit(config, False, ui())
    for setting in ("site.layer=2", "loss.locality=1", "train.epochs=2", "editor.mend.rank=3"):
        with pytest.raises(ConfigError, match=f"{setting.split('=')[0]}: expected what the editor"):
            run_test(str(config.folder), [setting], ui())
    mine = tmp_path / "mine.yaml"
    mine.write_text(configuration.to_yaml(config))
    bare = run_test(str(mine), [], ui())
    assert (config.folder / "results.json").exists()
    mine.write_text(configuration.to_yaml(replace(config, seed=5)))
    with pytest.raises(ConfigError, match=r"seed: expected what the run in .* has, 0, got 5 in"):
        run_test(str(mine), [], ui())
    assert run_test(str(mine), ["seed=0"], ui())["metrics"] == bare["metrics"]
    # Where and how it is run says nothing about what is tested; what numbers are made of does.
    run_as = {"accelerator": "cpu", "devices": 1}
    caches = replace(config.caches, memory_mb=99)
    mine.write_text(configuration.to_yaml(replace(config, trainer=run_as, caches=caches)))
    assert run_test(str(mine), [], ui())["metrics"] == bare["metrics"]
    run_as["precision"] = "bf16-mixed"
    mine.write_text(configuration.to_yaml(replace(config, trainer=run_as)))
    with pytest.raises(ConfigError, match=r"trainer\.precision: expected what the run in"):
        run_test(str(mine), [], ui())


def test_names_of_results_tell_settings_apart() -> None:
    assert slug(["schedule.batch_size=1", "seed=3"]) == "schedule.batch_size=1_seed=3"
    long = "data.test=/home/anna/projects/support-intents/data/heldout/2024-05/tickets.jsonl"
    found = [slug([long, f"seed={i}"]) for i in range(9)] + [slug([long]), slug(["a=x/y"])]
    found += [slug(["a=x_y"]), slug(["a=x y"])]
    assert len(set(found)) == len(found)
    assert all(len(name) <= 80 and "/" not in name for name in found)


def test_what_is_kept_has_ids_of_its_own(
    make: Callable[..., RunConfig], home: Path, tmp_path: Path
) -> None:
    """Two sources may give one id to different samples."""
    config = make("apart", "train.epochs=1")
    prepared = prepare(config, ui())
    sample = prepared.validation.passing[0]
    passing = [sample, replace(sample, inputs=("a", "b")), sample]
    twice = replace(prepared.validation, passing=passing)
    prepared.__dict__["validation"] = twice
    write_kept(prepared, tmp_path)
    records = load_records(prepared.task, str(tmp_path / "check.jsonl"))
    ids = [record.sample.id for record in records]
    assert ids == [sample.id, f"{sample.id}~2", f"{sample.id}~3"]


#: Lengths that edits are tried at: some mend, some break.
LONG = ("editor.steps=[1.0,8.0,64.0]", "editor.enough=0.01")


def test_each_edit_counts_what_its_answers_say(fitted: RunConfig) -> None:
    over = [*LONG, "schedule.batch_size=2"]
    results = run_test(str(fitted.folder), over, ui())
    path = fitted.folder / f"answers-{slug(over)}.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    m, each = results["metrics"], results["per_edit"]
    assert all(0 < m[name] < 1 for name in ("fail_accuracy", "adapt_accuracy", "drawdown"))
    for e in range(results["n_edits"]):
        own = {
            p: [r["is_right"] for r in rows if r["edit"] == e and r["part"] == p]
            for p in ("fail", "adapt", "pass")
        }
        got = {name: each[name][e] for name in each}
        assert got == {
            "fail": sum(own["fail"]),
            "fail_of": len(own["fail"]),
            "adapt": sum(own["adapt"]),
            "adapt_of": len(own["adapt"]),
            "lost": len(own["pass"]),
            "lost_of": got["lost_of"],
        }
    assert m["drawdown"] == pytest.approx(sum(each["lost"]) / sum(each["lost_of"]))
    both = [r["is_right"] for r in rows if r["part"] != "pass"]
    assert m["edit_accuracy"] == pytest.approx(sum(both) / len(both))
    right: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for r in rows:
        if r["part"] == "adapt":
            right[r["kind"]] += r["is_right"]
            total[r["kind"]] += 1
    assert results["adapt_by_kind"] == {
        k: {"accuracy": right[k] / n, "n": n} for k, n in sorted(total.items())
    }


def test_what_is_decided_by_hand(fitted: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = prepare(fitted, ui())
    passing = list(prepared.test.passing)
    top = base_logits(prepared.base, encode(prepared.base, passing)).topk(2, -1).values
    leads = top[:, 0] - top[:, 1]
    middle = float(leads.median())
    monkeypatch.setattr(decided, "LEAD", middle)
    over = [*LONG, "editor.bound=0.05", "schedule.cumulative=true"]
    m = run_test(str(fitted.folder), over, ui())["metrics"]
    rows = [
        json.loads(line)
        for line in (fitted.folder / f"answers-{slug(over)}.jsonl").read_text().splitlines()
    ]
    lost = {r["id"] for r in rows if r["part"] == "pass"}
    clear = {s.id for s, lead in zip(passing, leads, strict=True) if lead >= middle}
    assert m["share_decided"] == pytest.approx(len(clear) / len(passing))
    assert m["drawdown_decided"] == pytest.approx(len(lost & clear) / len(clear))
    assert lost
    assert m["drawdown_decided"] != pytest.approx(m["drawdown"])


def test_the_score_is_accuracy_less_what_it_costs(make: Callable[..., RunConfig]) -> None:
    config = make("score", "train.epochs=1", *LONG)
    fit(config, False, ui())
    rows = [r for r in metrics(config) if r["val/score"]]
    assert rows
    for r in rows:
        v = {k: float(r[f"val/{k}"]) for k in ("score", "edit_accuracy", "drawdown", "locality_kl")}
        assert v["score"] == pytest.approx(
            v["edit_accuracy"] - 4 * v["drawdown"] - v["locality_kl"], abs=1e-6
        )
    assert any(float(r["val/drawdown"]) for r in rows), "or nothing is said"


def test_rates_fall_to_a_fiftieth(
    make: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[float]] = []
    real = EditModule.on_train_batch_end

    def end(self: EditModule, *given: Any) -> None:
        real(self, *given)
        seen.append([group["lr"] for group in self.optimizers().param_groups])

    monkeypatch.setattr(EditModule, "on_train_batch_end", end)
    config = make(
        "rates", "train.steps_per_epoch=8", "train.epochs=2", "train.patience=9",
        "train.learning_rate=0.003", "train.rate_learning_rate=0.02",
    )  # fmt: skip
    fit(config, False, ui())
    assert seen[7] == pytest.approx([0.0015, 0.01])
    assert seen[-1] == pytest.approx([0.02 * 0.003, 0.02 * 0.02])
