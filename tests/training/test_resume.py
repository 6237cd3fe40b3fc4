"""Training that was cut off: resumed is uninterrupted."""

from __future__ import annotations

import errno
import json
import resource
import shutil
import signal
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from quick import quick
from tiny import build, save
from whole_runs import EPOCHS, STEPS, KilledError, assert_same_run, interrupt, metrics, ui, weights

from saledit import config as configuration
from saledit.artifact import EDITOR_FACTS, EDITOR_WEIGHTS, load_editor
from saledit.config import RunConfig
from saledit.errors import ArtifactError, ConfigError, JobError
from saledit.module import EditModule
from saledit.run import fit
from saledit.run import test as run_test
from saledit.run.resuming import LearnedFrom, WholeCheckpoints, restoring, steps_of
from saledit.run.setup.prepare import prepare
from saledit.run.training import train_at
from saledit.saliency.base import TABLE

#: A run that nothing cut off, and what its training found.
Whole = tuple[RunConfig, dict[str, Any]]


def seconds_kept(config: RunConfig) -> float:
    """How long training had taken at the newest checkpoint of a run that was cut off."""
    last = config.folder / "last.ckpt"
    if not last.exists():
        return 0.0
    state = torch.load(last, weights_only=True)["callbacks"]["Timer"]
    found: float = state["time_elapsed"]["train"]
    assert found > 0
    return found


@pytest.mark.parametrize(
    ("step", "error"),
    quick(
        ["in an epoch"],
        {
            "in an epoch": (2 * STEPS + 1, KeyboardInterrupt()),
            "between epochs": (STEPS, KilledError()),
            "before any checkpoint": (1, KilledError()),
        },
    ),
)
def test_resumed_is_uninterrupted(
    make: Callable[..., RunConfig], whole: Whole, monkeypatch: pytest.MonkeyPatch, step: int,
    error: BaseException,
) -> None:  # fmt: skip
    broken, (run, expected) = make("broken"), whole
    assert len(metrics(run)) >= EPOCHS * STEPS
    interrupt(monkeypatch, step, error)
    with pytest.raises(type(error)):
        fit(broken, False, ui())
    assert not (broken.folder / EDITOR_FACTS).exists()
    before = seconds_kept(broken)
    found = fit(broken, True, ui())
    assert_same_run(run, broken)
    assert found["epochs"] == expected["epochs"] == EPOCHS
    assert found["train_seconds"] > before
    for facts in (expected, found):  # of 4 edits a step, whatever session made them
        edits = facts["train_seconds"] * facts["edits_per_second"]
        assert edits == pytest.approx(EPOCHS * STEPS * 4)
    assert found["validation"] == pytest.approx(expected["validation"], rel=1e-5, abs=1e-6)


@pytest.mark.long
def test_edits_on_top_of_edits_go_on_as_they_would_have(
    make: Callable[..., RunConfig], whole: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which are beneath a step's follows from its number, and they are made anew."""
    given = ["train.earlier=3"]
    straight, broken = make("straight", *given), make("broken-off", *given)
    fit(straight, False, ui())
    losses, bare = ([row["train/loss"] for row in metrics(c)] for c in (straight, whole[0]))
    assert losses != bare
    interrupt(monkeypatch, STEPS + 1, KilledError())
    with pytest.raises(KilledError):
        fit(broken, False, ui())
    fit(broken, True, ui())
    assert_same_run(straight, broken)


@pytest.mark.long
def test_the_last_epoch_ends_where_training_does(
    make: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = (EPOCHS - 1) * STEPS + 1
    whole, broken = (make(name, f"trainer.max_steps={steps}") for name in ("whole", "broken"))
    found = fit(whole, False, ui())
    assert found["epochs"] == EPOCHS
    assert torch.load(whole.folder / "last.ckpt", weights_only=True)["global_step"] == steps
    seen = [row for row in metrics(whole) if row["val/score"]]
    assert len(seen) == EPOCHS + 1, "each epoch is validated, and the kept state once more"
    fit_killed_at(broken, monkeypatch, STEPS + 1, steps - 1)
    assert_same_run(whole, broken)
    again = fit(whole, True, ui())
    assert again["validation"] == found["validation"], "there is nothing left to train"


@pytest.mark.long
def test_batches_that_are_gathered_are_one_step(
    make: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last one of an epoch is of what is left, and all batches count for the speed."""
    rates: list[float] = []
    real = EditModule.on_train_epoch_end

    def end(self: EditModule) -> None:
        real(self)
        rates.append(self.optimizers().param_groups[0]["lr"])

    monkeypatch.setattr(EditModule, "on_train_epoch_end", end)
    own = ("trainer.accumulate_grad_batches=2", "trainer.max_steps=5")
    whole, broken = (make(name, *own) for name in ("whole", "broken"))
    found = fit(whole, False, ui())
    assert found["epochs"] == EPOCHS
    assert torch.load(whole.folder / "last.ckpt", weights_only=True)["global_step"] == 5
    assert found["train_seconds"] * found["edits_per_second"] == pytest.approx((3 + 3 + 2) * 4)
    assert rates == pytest.approx([0.003 * left for left in (3 / 5, 1 / 5, 0.02)])
    fit_killed_at(broken, monkeypatch, 2, 4)
    assert_same_run(whole, broken)


def fit_killed_at(config: RunConfig, monkeypatch: pytest.MonkeyPatch, *steps: int) -> None:
    """A fit that is killed at each of some steps, and gone on with to its end."""
    for number, step in enumerate(steps):
        with monkeypatch.context() as patch:
            interrupt(patch, step, KilledError())
            with pytest.raises(KilledError):
                fit(config, number > 0, ui())
    fit(config, True, ui())


@pytest.mark.long
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


@pytest.mark.long
def test_resuming_twice_loses_nothing(
    make: Callable[..., RunConfig], whole: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = make("broken")
    fit_killed_at(broken, monkeypatch, STEPS + 1, 2 * STEPS + 2)
    assert_same_run(whole[0], broken)


def test_a_run_that_was_moved_goes_on_where_it_is_now(
    make: Callable[..., RunConfig], whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint names the best state, with its score, by the path that it had."""
    before, after = tmp_path / "before", tmp_path / "after"
    broken = make("broken", f"output={before}")
    # No later state is better: what is kept is what was so before the move.
    scores = iter([3.0, 2.0, 1.0, 2.5])
    real = EditModule.log

    def log(self: EditModule, name: str, value: Any, **options: Any) -> None:
        real(self, name, next(scores) if name == "val/score" else value, **options)

    with monkeypatch.context() as patch:
        interrupt(patch, STEPS + 1, KilledError())
        patch.setattr(EditModule, "log", log)
        with pytest.raises(KilledError):
            fit(broken, False, ui())
    best = (broken.folder / "best.ckpt").read_bytes()
    before.rename(after)
    moved = make("broken", f"output={after}")
    monkeypatch.setattr(EditModule, "log", log)
    fit(moved, True, ui())
    assert (moved.folder / "best.ckpt").read_bytes() == best
    assert not before.exists()
    kept = torch.load(moved.folder / "best.ckpt", weights_only=True)["state_dict"]
    for name, tensor in weights(moved).items():
        assert torch.equal(kept[f"editor.{name}"], tensor)
    ends = [
        torch.load(config.folder / "last.ckpt", weights_only=True)["state_dict"]
        for config in (whole[0], moved)
    ]
    torch.testing.assert_close(ends[1], ends[0], rtol=1e-6, atol=1e-6)


FAULTS: dict[str, Exception] = {
    "an accelerator": torch.OutOfMemoryError("CUDA out of memory"),
    "main memory": RuntimeError(
        "DefaultCPUAllocator: can't allocate memory: you tried to allocate"
    ),
    "a list": MemoryError(),
    "a file that may not be read": PermissionError(errno.EACCES, "Permission denied"),
    "a disk": OSError(errno.EIO, "Input/output error"),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_what_may_be_over_at_the_next_try_is_no_broken_checkpoint(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be begun anew by a comparison and by a sweep, and hours of training be gone."""
    fault, trainer = FAULTS[kind], SimpleNamespace(callbacks=[])
    path = tmp_path / "last.ckpt"
    torch.save({"global_step": 7, "epoch": 1, "state_dict": {}}, path)

    def fails(*_args: Any, **_options: Any) -> None:
        raise fault

    with pytest.raises(type(fault)) as found, restoring(trainer, path, "on_train_start"):  # type: ignore[arg-type]
        fails()
    assert found.value is fault
    assert not trainer.callbacks
    monkeypatch.setattr(torch, "load", fails)
    with pytest.raises(type(fault)) as found:
        steps_of(path)
    assert found.value is fault
    monkeypatch.undo()
    assert steps_of(path) == 7


@pytest.mark.parametrize(
    ("there", "message"),
    [
        (LearnedFrom("x"), None),
        (LearnedFrom("y"), "expected a training at this layer on the model and the data"),
        (LearnedFrom("x", 2), r"as many threads as here \(0\), got one with 2; set --threads 2"),
    ],
)
def test_a_checkpoint_goes_on_with_what_it_was_learned_from(
    there: LearnedFrom, message: str | None, tmp_path: Path
) -> None:
    path, kept = tmp_path / "last.ckpt", {there.state_key: there.state_dict()}
    torch.save({"global_step": 7, "epoch": 1, "state_dict": {}, "callbacks": kept}, path)
    if message is None:
        assert LearnedFrom("x").steps_of(path) == 7
    else:
        with pytest.raises(ArtifactError, match=message):
            LearnedFrom("x").steps_of(path)


@pytest.mark.parametrize(
    "fault", [KeyError("optimizer_states"), RuntimeError("size mismatch for x"), ValueError("x")]
)
def test_a_checkpoint_that_does_not_fit_is_told_as_one(fault: Exception, tmp_path: Path) -> None:
    trainer: Any = SimpleNamespace(callbacks=[])
    with (
        pytest.raises(ArtifactError, match=r"last\.ckpt: expected a checkpoint of this run"),
        restoring(trainer, tmp_path / "last.ckpt", "on_train_start"),
    ):
        raise fault


def test_a_fit_in_another_thread_leaves_its_editor(make: Callable[..., RunConfig]) -> None:
    """Only the main thread may say what signals do."""
    config = make("thread", "train.epochs=1")
    with ThreadPoolExecutor() as threads:
        threads.submit(fit, config, False, ui()).result()
    load_editor(config.folder)


def test_ctrl_c_in_the_last_validation_comes_out_as_what_it_is(
    make: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = EditModule.validation_step

    def stopped(self: EditModule, batch: Any, batch_idx: int) -> Any:
        if self.trainer.state.fn == "validate":
            raise KeyboardInterrupt
        return real(self, batch, batch_idx)

    handler = signal.getsignal(signal.SIGINT)
    config = make("stopped", "train.epochs=1")
    with monkeypatch.context() as patch:
        patch.setattr(EditModule, "validation_step", stopped)
        with pytest.raises(KeyboardInterrupt):
            fit(config, False, ui())
    assert signal.getsignal(signal.SIGINT) is handler
    assert not (config.folder / EDITOR_FACTS).exists()
    fit(config, True, ui())
    load_editor(config.folder)


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
    assert again["train_seconds"] == pytest.approx(first["train_seconds"], rel=0.5)
    assert again["edits_per_second"] == pytest.approx(first["edits_per_second"], rel=0.5)
    assert (config.folder / EDITOR_WEIGHTS).read_bytes() == bytes_before
    assert metrics(config)[: len(before)] == before
    assert again["validation"] == first["validation"]


def test_a_run_cut_off_before_its_training_can_be_resumed(
    make: Callable[..., RunConfig], whole: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = make("broken")

    def cut_off(*_args: object) -> None:
        raise KeyboardInterrupt

    for config in (make("broken", "seed=1"), broken):  # a second try may differ from the first
        with monkeypatch.context() as patch:
            patch.setattr("saledit.run.fitting.prepare", cut_off)
            with pytest.raises(KeyboardInterrupt):
                fit(config, False, ui())
    fit(broken, True, ui())
    assert_same_run(whole[0], broken)


def test_a_trained_editor_without_a_checkpoint_is_not_trained_anew_by_a_resume(
    make: Callable[..., RunConfig],
) -> None:
    """Whoever has deleted 100 MB of checkpoints would lose the editor and what it was tested by."""
    config = make("bare", "train.epochs=1")
    config.folder.mkdir(parents=True)
    (config.folder / "config.yaml").write_text(configuration.to_yaml(config))
    (config.folder / EDITOR_FACTS).write_text("{}")
    message = r"expected a state to go on from \(last\.ckpt\), got a trained editor without one"
    with pytest.raises(ArtifactError, match=message):
        fit(config, True, ui())
    assert (config.folder / EDITOR_FACTS).read_text() == "{}"


def test_resuming_another_configuration_is_refused(make: Callable[..., RunConfig]) -> None:
    config = make("one", "train.epochs=1")
    fit(config, False, ui())
    with pytest.raises(ConfigError, match=r"loss\.edit: expected 0\.1 as in the run to resume"):
        fit(make("one", "train.epochs=1", "loss.edit=0.5"), True, ui())
    with pytest.raises(ArtifactError, match="expected a run to resume"):
        fit(make("none"), True, ui())


def test_same_seed_same_bytes_other_seed_other_editor(
    make: Callable[..., RunConfig], whole: Whole
) -> None:
    a, b, c = whole[0], make("b"), make("c", "seed=1")
    for config in (b, c):
        fit(config, False, ui())
    one, two, three = ((x.folder / EDITOR_WEIGHTS).read_bytes() for x in (a, b, c))
    assert one == two
    assert metrics(a) == metrics(b)
    assert one != three


def test_training_learns(make: Callable[..., RunConfig]) -> None:
    # Without the KL, which holds an editor of a tiny model close to where calibration put it.
    own = ("loss.locality=0", "train.decay=false", "train.learning_rate=0.01")
    still = ("train.epochs=1", "train.steps_per_epoch=1", "train.learning_rate=0")
    found = []
    for name, settings in {
        "learns": ("train.epochs=3", "train.steps_per_epoch=10"),
        "still": (*still, "train.rate_learning_rate=0"),
    }.items():
        config = make(name, *own, *settings)
        fit(config, False, ui())
        found.append([float(row["val/loss"]) for row in metrics(config) if row["val/loss"]])
    learned, untrained = found
    assert len(learned) == 3 + 1  # the kept state is measured once more
    assert min(learned) < 0.6 * untrained[0]


@pytest.mark.parametrize("steps", [1, 3], ids=["seen in validation", "seen in training"])
def test_divergence_is_an_error_and_leaves_no_editor(
    make: Callable[..., RunConfig], steps: int
) -> None:
    # One step an epoch: the validation after it is the first to see the ruined editor.
    config = make(
        f"nan{steps}", "train.learning_rate=1e30", "train.rate_learning_rate=1e30",
        f"train.steps_per_epoch={steps}",
    )  # fmt: skip
    remedy = (
        r"training diverged at step .*; lower train\.learning_rate or loss\.edit and start anew"
    )
    with pytest.raises(JobError, match=remedy):
        fit(config, False, ui())
    assert not (config.folder / EDITOR_FACTS).exists()
    with pytest.raises(ArtifactError):
        load_editor(config.folder)


@pytest.mark.long
def test_resuming_on_another_model_or_other_data_is_refused(
    make: Callable[..., RunConfig], home: Path, tmp_path: Path
) -> None:
    """The names in the configuration are the same; what lies there is not."""
    shutil.copytree(home / "model", tmp_path / "model")
    shutil.copy(make("any").data.train, tmp_path / "data.jsonl")
    config = make(
        "mine", f"model.name={tmp_path / 'model'}", f"data.train={tmp_path / 'data.jsonl'}"
    )
    fit(config, False, ui())
    kept = {path.name: path.read_bytes() for path in config.folder.iterdir() if path.is_file()}
    rows = (tmp_path / "data.jsonl").read_text().splitlines()
    (tmp_path / "data.jsonl").write_text("\n".join(rows[:-3]) + "\n")
    with pytest.raises(ArtifactError, match=r"on others, which have changed since; start anew"):
        fit(config, True, ui())
    (tmp_path / "data.jsonl").write_text("\n".join(rows) + "\n")
    save(build("bert", seed=9), tmp_path / "model")
    with pytest.raises(ArtifactError, match=r"on others, which have changed since; start anew"):
        fit(config, True, ui())
    assert kept == {p.name: p.read_bytes() for p in config.folder.iterdir() if p.is_file()}
    fit(config, False, ui())


@pytest.mark.long
def test_a_run_that_was_over_stays_over_and_a_longer_patience_goes_on(
    make: Callable[..., RunConfig],
) -> None:
    impatient = ["train.patience=1", "train.epochs=12", "train.learning_rate=0.3"]
    config = make("over", *impatient)
    epochs = fit(config, False, ui())["epochs"]
    assert epochs < 12
    for _ in range(2):
        assert fit(config, True, ui())["epochs"] == epochs
    longer = make("over", *impatient, "train.patience=30", "train.epochs=9")
    assert fit(longer, True, ui())["epochs"] == 9


@pytest.mark.long
def test_what_was_tested_is_gone_with_its_editor(make: Callable[..., RunConfig]) -> None:
    config = make("tested", "train.epochs=1")
    fit(config, False, ui())
    run_test(str(config.folder), [], ui())
    fit(config, True, ui())
    assert (config.folder / "results.json").exists()  # of the editor that is there still
    longer = make("tested", "train.epochs=2")
    fit(longer, True, ui())
    assert not [*config.folder.glob("results*"), *config.folder.glob("answers*")]
    told: Any = ui()
    fit(longer, True, told)
    assert not any("beginning anew" in line for line in told.stages)
    fit(longer, False, told)
    assert sum("beginning anew" in line and "--resume" in line for line in told.stages) == 1


@pytest.mark.long
def test_a_resumed_run_stays_at_its_layer(
    make: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """``saliency`` of other settings leaves its table in the same folder."""
    own = ["site.select=trial-step", "site.samples=5", "site.layer=-1"]
    config = make("stays", *own)
    interrupt(monkeypatch, STEPS + 1, KilledError())
    with pytest.raises(KilledError):
        fit(config, False, ui())
    table = json.loads((config.folder / TABLE).read_text())
    other = {**table, "pick": (table["pick"] + 1) % 3, "method": "another"}
    (config.folder / TABLE).write_text(json.dumps(other))
    assert fit(config, True, ui())["layer"] == table["pick"]
    assert json.loads((config.folder / TABLE).read_text())["pick"] == table["pick"]
    whole = make("whole-stays", *own)
    fit(whole, False, ui())
    assert_same_run(config, whole)
    prepared = prepare(config, ui())
    with pytest.raises(ArtifactError, match="expected a training at this layer"):
        train_at(prepared, prepared.base.layer(other["pick"]), True)


def test_a_checkpoint_is_never_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does it pass through the system's folder for temporary files, maybe on another disk."""
    path, kept = tmp_path / "last.ckpt", {"x": torch.arange(1000)}
    monkeypatch.setattr(tempfile, "mkstemp", lambda *_a, **_k: pytest.fail("another disk"))
    WholeCheckpoints().save_checkpoint(kept, path)
    real = torch.save

    def cut_off(found: object, part: Path) -> None:
        real(found, part)
        part.write_bytes(part.read_bytes()[:500])
        raise KilledError

    monkeypatch.setattr(torch, "save", cut_off)
    with pytest.raises(KilledError):
        WholeCheckpoints().save_checkpoint({"x": torch.zeros(9)}, path)
    monkeypatch.setattr(torch, "save", real)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limits[1]))
    try:
        with pytest.raises(JobError, match=r"last\.ckpt: cannot be written: .*nothing was changed"):
            WholeCheckpoints().save_checkpoint({"x": torch.zeros(1 << 20)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert torch.equal(torch.load(path, weights_only=True)["x"], kept["x"])
    assert [found.name for found in tmp_path.iterdir()] == ["last.ckpt"]
