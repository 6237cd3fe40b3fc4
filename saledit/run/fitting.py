"""``saledit fit``: build the splits, pick the layer, train the editor."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

from saledit import config as configuration
from saledit import distributed
from saledit.artifact import EDITOR_FACTS
from saledit.config import RunConfig
from saledit.errors import ArtifactError, ConfigError
from saledit.files import alone, write_text
from saledit.report import Ui
from saledit.run.checks import check
from saledit.run.picking import SWEEP, pick_layer
from saledit.run.resuming import LAST
from saledit.run.setup.chance import doubt
from saledit.run.setup.launching import launch
from saledit.run.setup.prepare import Prepared, prepare
from saledit.run.training import train_at

# What a resumed run may have otherwise: how long it trains, where the model lies, and where the
# run itself does, which may have been moved.
_MAY_DIFFER = frozenset(("train.epochs", "train.patience", "model.stream", "output", "name"))


def fit(config: RunConfig, resume: bool, ui: Ui) -> dict[str, Any]:
    """Train an editor and write it into the run's folder.

    Args:
        config: the run.
        resume: go on from ``last.ckpt``; the numbers are those of an uninterrupted run.
        ui: where progress is shown.

    Returns:
        What was trained, on what, and the validation metrics of the kept state.

    Raises:
        UserError: the configuration, the data or the model is wrong.
        JobError: training diverged, the disk is full, or another process trains into the folder.
    """
    check(config)
    launch(config.trainer, ui)
    if distributed.world_size() > 1 and config.site.select == SWEEP:
        raise ConfigError(
            "site.select: expected a picker that reads samples, got sweep in several processes; "
            "run saledit saliency first, and name the layer: site.select=fixed site.layer=N"
        )
    # Two trainings into one folder would leave the editor of one and the settings of the other.
    with alone(config.folder) if distributed.is_main() else nullcontext():
        if resume:
            _check_same(config, config.folder)
        elif distributed.is_main() and not _has_begun(config.folder):
            # So that a run that is cut off before its training can go on, too.
            write_text(config.folder / "config.yaml", configuration.to_yaml(config))
        return train(prepare(config, ui), resume)


def train(prepared: Prepared, resume: bool) -> dict[str, Any]:
    """``fit`` for a task model and samples that are ready.

    Args:
        prepared: what ``prepare`` made of the run's configuration.
        resume: as in ``fit``.

    Returns:
        As ``fit``.

    Raises:
        JobError: training diverged, or the disk is full.
    """
    if said := doubt(prepared):
        prepared.ui.stage(said)
    layer, table = pick_layer(prepared)
    result = train_at(prepared, layer, resume, table)
    prepared.peaks.forget()  # they are told: what comes behind a training has its own
    return result


def _has_begun(folder: Path) -> bool:
    return any((folder / name).exists() for name in (LAST, EDITOR_FACTS))


def _check_same(config: RunConfig, folder: Path) -> None:
    saved = folder / "config.yaml"
    if not saved.exists():
        raise ArtifactError(f"{folder}: expected a run to resume, got none; leave out --resume")
    if (folder / EDITOR_FACTS).exists() and not (folder / LAST).exists():
        raise ArtifactError(
            f"{folder}: expected a state to go on from ({LAST}), got a trained editor without one; "
            "use it as it is, or start anew without --resume"
        )
    for key, before, value in configuration.differing(configuration.load(saved), config):
        if key not in _MAY_DIFFER:
            raise ConfigError(
                f"{key}: expected {before!r} as in the run to resume, got {value!r}; "
                "give the same value or start anew without --resume"
            )
