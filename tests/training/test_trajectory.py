"""Whole runs through ``run.fit``, ``run.test`` and ``run.fix`` on a tiny model."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import LABELS, build, encode, samples, save
from torch import Tensor

from saledit import config as configuration
from saledit.artifact import EDITOR_FACTS, EDITOR_WEIGHTS, load_editor, load_edits
from saledit.config import RunConfig
from saledit.editors.request import Request
from saledit.errors import ArtifactError, ConfigError, DataError, JobError
from saledit.files import read_tensors, write_jsonl
from saledit.models import TaskModel, load_classifier
from saledit.module import EditModule
from saledit.overlay import applied
from saledit.records import Sample
from saledit.run import decided, fit, fix, saliency
from saledit.run import test as run_test
from saledit.run.caching import banks_of
from saledit.run.prepare import prepare
from saledit.saliency.trial import TrialStep
from saledit.scoring import base_logits

EPOCHS, STEPS = 4, 3


class Bar:
    def update(self, done: int, note: str = "") -> None:
        pass


class FakeUi:
    """Remembers the stages, shows nothing."""

    interactive = False
    quiet = True

    def __init__(self) -> None:
        self.stages: list[str] = []

    def stage(self, text: str) -> None:
        self.stages.append(text)

    @contextmanager
    def progress(self, text: str, total: int) -> Iterator[Bar]:
        yield Bar()


def ui() -> Any:
    return FakeUi()


def shuffled(sample: Sample, n: int) -> tuple[str, ...]:
    rng = random.Random(f"{sample.id} {n}")
    return tuple(" ".join(rng.sample(words, len(words))) for words in map(str.split, sample.inputs))


def rows(base: TaskModel, chosen: Sequence[Sample], wrong_share: float = 0.5) -> list[dict]:
    """Records of which the model answers a share wrongly, by construction."""
    logits = base_logits(base, encode(base, chosen))
    ranked = logits.argsort(-1, descending=True).tolist()
    out = []
    for i, sample in enumerate(chosen):
        wrong = i < wrong_share * len(chosen)
        others = [shuffled(sample, n) for n in range(i % 3)]
        out.append(
            {
                "id": f"r{sample.id}",
                "premise": sample.inputs[0],
                "hypothesis": sample.inputs[1],
                "label": base.model.config.id2label[ranked[i][1 if wrong else 0]],
                "paraphrases": [
                    {"premise": p, "hypothesis": h, "kind": f"shuffle-{n}"}
                    for n, (p, h) in enumerate(others)
                ],
            }
        )
    return out


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, data, and the caches that all runs share."""
    folder = tmp_path_factory.mktemp("trajectory")
    base = build("bert")
    save(base, folder / "model")
    write_jsonl(folder / "data.jsonl", rows(base, samples(150)))
    return folder


@pytest.fixture
def make(home: Path, tmp_path: Path) -> Callable[..., RunConfig]:
    """Configurations of small runs, each test with runs of its own."""

    def make(name: str, *overrides: str) -> RunConfig:
        return configuration.load(
            None,
            [
                f"output={home}",
                f"name={tmp_path.name}-{name}",
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
                "train.learning_rate=0.003",
                "trainer.accelerator=cpu",
                "trainer.log_every_n_steps=1",
                *overrides,
            ],
        )

    return make


def weights(config: RunConfig) -> dict[str, Tensor]:
    return read_tensors(config.folder / EDITOR_WEIGHTS, "an editor")


def metrics(config: RunConfig) -> list[dict[str, str]]:
    with (config.folder / "metrics.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def assert_same_run(a: RunConfig, b: RunConfig) -> None:
    first, second = weights(a), weights(b)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, rtol=1e-6, atol=1e-6, msg=name)
    left, right = metrics(a), metrics(b)
    assert [row["step"] for row in left] == [row["step"] for row in right]
    for one, other in zip(left, right, strict=True):
        assert one.keys() == other.keys()
        for name, text in one.items():
            assert bool(text) == bool(other[name]), name
            if text:
                assert float(other[name]) == pytest.approx(float(text), rel=1e-5, abs=1e-6), name


def interrupt(monkeypatch: pytest.MonkeyPatch, step: int, error: BaseException) -> None:
    """Let training end with an exception at a step, once."""
    real, left = EditModule.training_step, [1]

    def training_step(self: EditModule, batch: Any, batch_idx: int) -> Tensor:
        if self.global_step == step and left:
            left.clear()
            raise error
        return real(self, batch, batch_idx)

    monkeypatch.setattr(EditModule, "training_step", training_step)


class KilledError(Exception):
    """Stands for the end of the process."""


@pytest.mark.parametrize(
    ("step", "error"),
    [(2 * STEPS + 1, KeyboardInterrupt()), (STEPS, KilledError()), (1, KilledError())],
    ids=["in an epoch", "between epochs", "before any checkpoint"],
)
def test_resumed_is_uninterrupted(
    make: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch, step: int, error: BaseException
) -> None:
    whole, broken = make("whole"), make("broken")
    expected = fit(whole, False, ui())
    assert len(metrics(whole)) >= EPOCHS * STEPS
    interrupt(monkeypatch, step, error)
    with pytest.raises(type(error)):
        fit(broken, False, ui())
    assert not (broken.folder / EDITOR_FACTS).exists()
    found = fit(broken, True, ui())
    assert_same_run(whole, broken)
    assert found["epochs"] == expected["epochs"] == EPOCHS
    assert found["validation"] == pytest.approx(expected["validation"], rel=1e-5, abs=1e-6)


def test_a_multiplier_is_part_of_what_is_resumed(
    make: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = ("loss.locality=1", "loss.margin=1e-4", "loss.least_margin=1e-5")
    whole, broken = make("whole", *keys), make("broken", *keys)
    fit(whole, False, ui())
    seen = [float(row["val/multiplier"]) for row in metrics(whole) if row["val/multiplier"]]
    assert seen == sorted(seen)
    assert seen[0] > 1.05, "above its margin the weight of the KL grows"
    interrupt(monkeypatch, STEPS, KilledError())
    with pytest.raises(KilledError):
        fit(broken, False, ui())
    fit(broken, True, ui())
    assert_same_run(whole, broken)


def test_resuming_twice_loses_nothing(
    make: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = make("whole"), make("broken")
    fit(whole, False, ui())
    for resume, step in ((False, STEPS + 1), (True, 2 * STEPS + 2)):
        with monkeypatch.context() as patch:
            interrupt(patch, step, KilledError())
            with pytest.raises(KilledError):
                fit(broken, resume, ui())
    fit(broken, True, ui())
    assert_same_run(whole, broken)


def test_last_is_the_last_epoch_and_not_the_last_best_one(
    make: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make("worse")
    scores = iter(range(EPOCHS + 1, 0, -1))
    real = EditModule.log

    def log(self: EditModule, name: str, value: Any, **options: Any) -> None:
        real(self, name, float(next(scores)) if name == "val/score" else value, **options)

    monkeypatch.setattr(EditModule, "log", log)
    fit(config, False, ui())
    steps = {
        name: torch.load(config.folder / name, weights_only=True)["global_step"]
        for name in ("best.ckpt", "last.ckpt")
    }
    assert steps == {"best.ckpt": STEPS, "last.ckpt": EPOCHS * STEPS}


def test_resuming_a_finished_run_changes_nothing(make: Callable[..., RunConfig]) -> None:
    config = make("done")
    first = fit(config, False, ui())
    before, bytes_before = metrics(config), (config.folder / EDITOR_WEIGHTS).read_bytes()
    assert len(before) > EPOCHS * STEPS
    again = fit(config, True, ui())
    assert (config.folder / EDITOR_WEIGHTS).read_bytes() == bytes_before
    assert metrics(config)[: len(before)] == before
    assert again["validation"] == first["validation"]


def test_a_run_cut_off_before_its_training_can_be_resumed(
    make: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = make("whole"), make("broken")
    fit(whole, False, ui())

    def cut_off(*_args: object) -> None:
        raise KeyboardInterrupt

    for config in (make("broken", "seed=1"), broken):  # a second try may differ from the first
        with monkeypatch.context() as patch:
            patch.setattr("saledit.run.fitting.prepare", cut_off)
            with pytest.raises(KeyboardInterrupt):
                fit(config, False, ui())
    fit(broken, True, ui())
    assert_same_run(whole, broken)


def test_resuming_another_configuration_is_refused(make: Callable[..., RunConfig]) -> None:
    config = make("one", "train.epochs=1")
    fit(config, False, ui())
    with pytest.raises(ConfigError, match=r"loss\.edit: expected 0\.1 as in the run to resume"):
        fit(make("one", "train.epochs=1", "loss.edit=0.5"), True, ui())
    with pytest.raises(ArtifactError, match="expected a run to resume"):
        fit(make("none"), True, ui())


def test_same_seed_same_bytes_other_seed_other_editor(make: Callable[..., RunConfig]) -> None:
    a, b, c = make("a"), make("b"), make("c", "seed=1")
    for config in (a, b, c):
        fit(config, False, ui())
    one, two, three = ((x.folder / EDITOR_WEIGHTS).read_bytes() for x in (a, b, c))
    assert one == two
    assert metrics(a) == metrics(b)
    assert one != three


def test_training_learns(make: Callable[..., RunConfig]) -> None:
    config = make("learns", "train.epochs=6", "train.steps_per_epoch=10", "train.decay=false")
    fit(config, False, ui())
    losses = [float(row["val/loss"]) for row in metrics(config) if row["val/loss"]]
    assert len(losses) == 6 + 1  # the kept state is measured once more
    assert min(losses) < losses[0]


@pytest.mark.parametrize("steps", [1, 3], ids=["seen in validation", "seen in training"])
def test_divergence_is_an_error_and_leaves_no_editor(
    make: Callable[..., RunConfig], steps: int
) -> None:
    # One step an epoch: the validation after it is the first to see the ruined editor.
    config = make(
        f"nan{steps}", "train.learning_rate=1e30", "train.rate_learning_rate=1e30",
        f"train.steps_per_epoch={steps}",
    )  # fmt: skip
    with pytest.raises(JobError, match="training diverged at step"):
        fit(config, False, ui())
    assert not (config.folder / EDITOR_FACTS).exists()
    with pytest.raises(ArtifactError):
        load_editor(config.folder)


@pytest.fixture(scope="module")
def fitted(home: Path) -> RunConfig:
    """One trained editor for the tests that only read it."""
    overrides = [
        f"output={home}", "name=fitted", f"model.name={home / 'model'}",
        f"data.train={home / 'data.jsonl'}", "data.adapt.rewrite=false", "site.select=gradient",
        "site.samples=8", "editor.mend.rank=6", "schedule.batch_size=3", "train.epochs=2",
        "train.steps_per_epoch=5", "train.edits_per_step=4", "train.passes_per_edit=3",
        "trainer.accelerator=cpu",
    ]  # fmt: skip
    config = configuration.load(None, overrides)
    fit(config, False, ui())
    return config


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


def test_a_layer_beside_a_picker_is_refused_before_anything_is_loaded(
    make: Callable[..., RunConfig],
) -> None:
    config = make("both", "site.select=trial-step", "site.layer=1", "model.name=/nowhere")
    with pytest.raises(ConfigError, match=r"site\.layer: expected none .*add site\.select=fixed"):
        fit(config, False, ui())


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
    assert json.loads(kept.read_text())["layers"] == table["layers"]


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


def test_results_are_those_of_the_contract(fitted: RunConfig) -> None:
    results = run_test(str(fitted.folder), [], ui())
    assert json.loads((fitted.folder / "results.json").read_text()) == results
    failures = results["counts"]["fail"]
    check_results(results, "batch", 3, failures)
    kinds = results["adapt_by_kind"]
    assert {kind: v["n"] for kind, v in kinds.items()} == results["counts"]["adapt_kinds"]
    for overrides, mode, k in (
        (["schedule.cumulative=true"], "sequential-batched", 3),
        (["schedule.cumulative=true", "schedule.batch_size=1"], "sequential", 1),
        (["schedule.batch_size=1", "test.passes_per_edit=0"], "batch", 1),
    ):
        check_results(run_test(str(fitted.folder), overrides, ui()), mode, k, failures)
    # The run's own results stay.
    assert json.loads((fitted.folder / "results.json").read_text()) == results


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
        run_test(str(fitted.folder), ["seed=3"], ui())


def test_a_session_step_is_a_batch_edit(fitted: RunConfig) -> None:
    prepared = prepare(fitted, ui())
    trained = load_editor(fitted.folder)
    part, c = prepared.test, fitted.editor
    banks = banks_of(prepared, part, trained.layer)
    passing = torch.zeros(1, 1, dtype=torch.long)
    for positions in ([0], [2], [1, 3, 4]):
        session = trained.session(prepared.base)
        step = session.step([part.fail[i] for i in positions])
        with torch.no_grad():
            batch = banks.batch(torch.tensor([positions]), passing, c.gradient_rank)
            edits = trained.editor(Request(batch.gradients))
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


def fix_rows(home: Path, seed: int, n: int = 6) -> list[dict]:
    base = build("bert")
    out = rows(base, samples(n, seed=seed), wrong_share=1.0)
    return [{k: v for k, v in row.items() if k != "paraphrases"} for row in out]


def test_fix_turns_failures_into_edits(fitted: RunConfig, home: Path, tmp_path: Path) -> None:
    failing = fix_rows(home, seed=7)
    base = load_classifier(str(home / "model"))
    right = rows(base, samples(2, seed=8), wrong_share=0.0)
    write_jsonl(tmp_path / "failures.jsonl", [*failing, {**right[0], "id": "right"}])
    out = tmp_path / "fixed"
    result = fix(str(fitted.folder), str(tmp_path / "failures.jsonl"), str(out), None, ui())
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
    result = fix(str(config.folder), str(tmp_path / "failures.jsonl"), str(out), None, ui())
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


def test_rewritten_rewordings_and_none_at_all(
    make: Callable[..., RunConfig], home: Path, tmp_path: Path
) -> None:
    base = load_classifier(str(home / "model"))
    bare = [
        {k: v for k, v in row.items() if k != "paraphrases"} for row in rows(base, samples(60, 3))
    ]
    write_jsonl(tmp_path / "bare.jsonl", bare)
    data = f"data.train={tmp_path / 'bare.jsonl'}"
    written = fit(make("written", data, "data.adapt.rewrite=true", "train.epochs=1"), False, ui())
    assert written["validation"]["fail_accuracy"] >= 0  # the words are no English: none may be made
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
