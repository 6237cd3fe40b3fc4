"""Training an editor at a layer, and what it leaves in the run's folder."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, Timer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from saledit import config as configuration
from saledit import distributed
from saledit.artifact import EDITOR_FACTS, REVISION, environment, save_editor, versions
from saledit.building import make_editor, make_search
from saledit.calibration import RATES, calibrate
from saledit.config import RunConfig
from saledit.data.datamodule import EditDataModule
from saledit.errors import JobError
from saledit.files import write_json, write_text
from saledit.interrupts import interruptible
from saledit.ledger.checking import check_links
from saledit.models.precision import precision_here
from saledit.module import EditModule
from saledit.report import Ui, training_bar
from saledit.requests import hold
from saledit.run.budget import is_timed, length
from saledit.run.curves import EARLIER, METRICS, join_metrics, set_metrics_aside
from saledit.run.resuming import (
    BEST,
    LAST,
    LearnedFrom,
    Patience,
    WholeCheckpoints,
    restoring,
    steps_of,
)
from saledit.run.setup.caching import banks_of, learned_by, moments_of, takes_moments
from saledit.run.setup.kept import held_samples, write_kept
from saledit.run.setup.launching import strategy_of
from saledit.run.setup.placing import device_of, place
from saledit.run.setup.prepare import PARTS, Prepared
from saledit.site import Layer

_TESTS = ("results*.json", "results*.png", "answers*.jsonl")
FITTED = "fit.json"  # the record of a training, its last file
_OF_TRAINING = (LAST, BEST, METRICS, EARLIER, EDITOR_FACTS, FITTED)
SCORE = "val/score"  # what a state is kept by


def train_at(
    prepared: Prepared, layer: Layer, resume: bool, table: dict[str, Any] | None = None,
    callbacks: Sequence[Callback] = (), parts: Sequence[str] = PARTS,
) -> dict[str, Any]:  # fmt: skip
    """Train the configured editor at a layer and write it into the run's folder.

    Args:
        prepared: what ``prepare`` made of the run's configuration.
        layer: the layer to edit.
        resume: go on from ``last.ckpt`` where there is one.
        table: what the layer was picked from, for the record.
        callbacks: further ones of the trainer.
        parts: parts of the data whose sizes are told, see ``Prepared.counts``.

    Returns:
        What was trained, on what, and the validation metrics of the kept state.

    Raises:
        JobError: training diverged, or the disk is full.
        ArtifactError: what is to be gone on with is broken, or a link to another place.
    """
    config, ui = prepared.config, prepared.ui
    folder, last = config.folder, config.folder / LAST
    L.seed_everything(config.seed, verbose=False)  # whatever picking the layer has drawn
    splits = prepared.counts(parts)
    check_links(folder / name for name in (LAST, BEST, METRICS, EARLIER, "hparams.yaml"))
    mark = f"{prepared.learned_from} {[site.name for site in layer.sites]}"
    told = LearnedFrom(mark, torch.get_num_threads() if is_timed(config) else 0)
    found = last if resume and last.exists() else None
    done = told.steps_of(found)  # before anything of it is written over
    if distributed.is_main():
        _begin(prepared, resume)
    distributed.barrier()
    module, data = _assemble(prepared, layer)
    began = time.perf_counter()
    keep = _keeper(folder, BEST, SCORE)
    trainer = _trainer(config, folder, keep, ui, [told, *callbacks])
    doing = "training" if module.editor.is_trained else "validating"
    if config.train.validation_edits:  # others have nothing to do here
        ui.stage(f"{doing} the editor at layer {layer.index}")
    if module.editor.is_trained:
        _fit(trainer, module, data, found)
    # Of all sessions of a run that was cut off, as are its steps.
    seconds = module.seconds() if module.editor.is_trained else time.perf_counter() - began
    steps, validation = trainer.global_step, {}
    batches = trainer.fit_loop.epoch_loop.batch_progress.total.completed
    if config.train.validation_edits:
        validation = _restore_best(trainer, keep, module, data)
    module.eval()
    place(prepared.base, config.trainer)  # Lightning takes a module back to main memory
    result = {
        "revision": REVISION,
        "run": str(folder),
        "base_model": {"name": prepared.base.name, "fingerprint": prepared.base.fingerprint},
        "layer": layer.index,
        "n_layers": prepared.base.n_blocks,
        "sites": [site.name for site in layer.sites],
        "saliency": table,
        "splits": splits,
        # Of a training that was over before it was gone on with, none is "completed" here.
        "epochs": int(getattr(trainer.fit_loop.epoch_progress.current, "processed", 0)),
        "train_seconds": seconds,
        "edits_per_second": batches
        * config.train.edits(config.schedule.batch_size)
        / max(seconds, 1e-9),
        "validation": validation,
        "editor_parameters": sum(p.numel() for p in module.editor.parameters()),
        "precision": trainer.precision,
        "memory": prepared.peaks.as_json(),
        "processes": distributed.world_size(),
        "weights": prepared.base.weights.where,
        "cache": prepared.room.as_json(),
        "versions": versions(),
        "environment": environment(prepared.base.device, ui.command),
    }
    if distributed.is_main():
        join_metrics(folder)
        if steps > done:  # another editor than the one that was tested
            clear(folder, tests_alone=True)
        save_editor(folder, module.editor, config, prepared.base, layer)
        write_json(folder / FITTED, result)
    distributed.barrier()
    return result


def _begin(prepared: Prepared, resume: bool) -> None:
    """What a run's folder holds before training; what is of an earlier editor goes."""
    folder = prepared.config.folder
    if not resume:
        if (folder / LAST).exists() or (folder / EDITOR_FACTS).exists():
            prepared.ui.stage(
                f"beginning anew: what was trained and tested in {folder} before is removed "
                "(--resume goes on with it)"
            )
        clear(folder)
    # Behind it: of what is there, nothing may pass for this configuration's.
    write_text(folder / "config.yaml", configuration.to_yaml(prepared.config))
    write_kept(prepared, folder)
    set_metrics_aside(folder)


def clear(folder: Path, tests_alone: bool = False) -> None:
    """Take away what an earlier editor has left in a run's folder.

    Args:
        folder: the run's.
        tests_alone: leave the editor, whose tests by other settings they are.
    """
    # Tests of the editor that was here are of no editor now.
    left = [path for kind in _TESTS for path in folder.glob(kind)]
    if not tests_alone:
        left += [folder / name for name in _OF_TRAINING]
    for path in left:
        path.unlink(missing_ok=True)


def _assemble(prepared: Prepared, layer: Layer) -> tuple[EditModule, EditDataModule]:
    config = prepared.config
    editor = make_editor(config.editor, layer.sites, prepared.base.embedding_size)
    editor.to(prepared.base.device)
    learned = learned_by(prepared, editor)
    train = banks_of(prepared, learned, layer, editor, takes_moments(prepared, editor))
    validation = train
    if config.train.validation_edits:
        validation = banks_of(prepared, prepared.validation, layer, editor)
    moments = None
    if editor.needs_moments:
        moments = moments_of(prepared, train, editor)
    prepared.peaks.begin()  # what is kept is made, for this run and others
    data = EditDataModule(
        train, validation, config.schedule, config.train, config.editor.gradient_rank,
        config.seed, prepared.base.positions_at_once, prepared.base.weights.is_divided,
        length(config).batches,
    )  # fmt: skip
    held, search = None, make_search(config.editor)
    if editor.needs_held or search.needs_held:
        held = hold(prepared.base, prepared.task, held_samples(prepared), layer)
    module = EditModule(
        prepared.base, prepared.task, editor, train.fail.entry, config.loss, config.train,
        search, held, length(config).steps,
    )  # fmt: skip
    first = data.episodes(0)
    batches = [first[i] for i in range(min(4, len(first)))]
    for batch in batches:
        editor.prime(batch.terms.pairs, moments)
        moments = None
    if editor.needs_calibration:
        # One that is not trained descends anew for every edit at every rate that is tried.
        batches = batches if editor.is_trained else batches[:1]
        with prepared.ui.progress("calibrating", len(RATES)) as bar:
            calibrate(module, batches, told=bar.update)
    return module, data


def _keeper(folder: Path, file: str, score: str | None = None) -> ModelCheckpoint:
    """Keeps the newest state, or the one with the highest score."""
    return ModelCheckpoint(
        dirpath=folder,
        filename=Path(file).stem,
        monitor=score,
        mode="max",
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )


def _trainer(
    config: RunConfig, folder: Path, keep: ModelCheckpoint, ui: Ui, further: Sequence[Callback]
) -> L.Trainer:
    patience = config.train.patience
    stop = Patience(SCORE, mode="max", patience=patience, check_on_train_epoch_end=True)
    clock = Timer(timedelta(seconds=config.train.seconds)) if config.train.seconds else Timer()
    callbacks: list[Callback] = [
        clock,
        keep,
        _keeper(folder, LAST),  # of every epoch, for --resume
        stop,
        training_bar(ui, "training", SCORE),
        *further,
    ]
    settings: dict[str, Any] = {"num_sanity_val_steps": 0, "enable_model_summary": False}
    settings |= {"log_every_n_steps": 10, "enable_progress_bar": False}
    settings |= {name: value for name, value in config.trainer.items() if name != "max_steps"}
    settings["strategy"] = strategy_of(config.trainer)
    if device_of(config.trainer).type == "cpu":  # also beside an accelerator without doubles
        settings["accelerator"] = "cpu"
    settings["plugins"] = [WholeCheckpoints()]
    if SLURMEnvironment.detect():  # what it would save and take up is not this run's
        settings["plugins"].append(SLURMEnvironment(auto_requeue=False))
    if "precision" in settings:
        settings["precision"] = precision_here(
            settings["precision"], str(settings.get("accelerator", "auto"))
        )
    return L.Trainer(
        default_root_dir=folder,
        max_epochs=length(config).epochs,
        callbacks=callbacks,
        logger=[
            CSVLogger(folder, name="", version=""),
            TensorBoardLogger(folder, name="", version=""),
        ],
        inference_mode=False,  # every gradient editor differentiates in validation and test too
        reload_dataloaders_every_n_epochs=1,
        gradient_clip_val=config.train.gradient_clip or None,
        use_distributed_sampler=False,  # batches are divided as they are drawn
        **settings,
    )


def _fit(trainer: L.Trainer, module: EditModule, data: EditDataModule, last: Path | None) -> None:
    try:
        with interruptible(), restoring(trainer, last, "on_train_start"):
            trainer.fit(module, data, ckpt_path=last, weights_only=True)
    except OSError as error:
        raise JobError(f"{trainer.default_root_dir}: cannot be read or written: {error}") from error


def _restore_best(
    trainer: L.Trainer, keep: ModelCheckpoint, module: EditModule, data: EditDataModule
) -> dict[str, float]:
    """Load the best state's weights and measure it on the validation part once more."""
    best = keep.best_model_path or None  # none of an editor that is not trained
    steps_of(Path(best) if best else None)
    with interruptible(), restoring(trainer, Path(best) if best else None, "on_validation_start"):
        found = trainer.validate(module, data, ckpt_path=best, verbose=False, weights_only=True)
    return {name.removeprefix("val/"): float(value) for name, value in found[0].items()}
