"""What a configuration asks of a training, checked before anything is loaded."""

from __future__ import annotations

import inspect

import lightning as L

from saledit.building import check_editor, is_trained
from saledit.config import RunConfig, TrainConfig
from saledit.errors import ConfigError, did_you_mean
from saledit.losses import penalty
from saledit.run.picking import check_site
from saledit.run.setup.caching import kept_as
from saledit.run.setup.launching import DIVIDES, check_strategy

#: What the run itself decides, or never comes to, and what to do in its place; the rest of
#: Trainer's arguments are the user's.
_LEFT_OUT = "leave it out"
_RESERVED = {
    "max_epochs": "set train.epochs",
    "min_epochs": "raise train.patience",
    "min_steps": "raise train.patience",
    "max_time": "set train.seconds",
    "limit_train_batches": "set train.steps_per_epoch",
    "overfit_batches": "set data.max_failures",
    # A state is kept by its validation: one that is left out, or is of less, would choose another.
    "limit_val_batches": "set train.validation_edits",
    "check_val_every_n_epoch": "set train.steps_per_epoch",
    "val_check_interval": "set train.steps_per_epoch",
    "num_sanity_val_steps": _LEFT_OUT,  # it would tighten the margin of a loss before training
    "fast_dev_run": "set train.epochs=1 and train.steps_per_epoch=1",
    "limit_test_batches": "set data.max_test_failures",
    "limit_predict_batches": _LEFT_OUT,
    "gradient_clip_val": "set train.gradient_clip",
    "default_root_dir": "set output and name",
    **dict.fromkeys(
        ("barebones", "callbacks", "enable_checkpointing", "inference_mode", "logger", "plugins",
         "model_registry", "reload_dataloaders_every_n_epochs", "sync_batchnorm",
         "use_distributed_sampler"),
        _LEFT_OUT,
    ),
}  # fmt: skip

_WHOLE = "32-true"
#: Of all numbers, the editor's too.
_OTHERS = frozenset(("64", "64-true", "bf16-true", "16-true"))


def check(config: RunConfig) -> None:
    """Refuse what no training can be of; the same for ``fit`` and each cell of ``compare``.

    Raises:
        ConfigError: an unknown name, or a setting that is out of its range or another's place.
    """
    _check_trainer(config)
    check_strategy(config.trainer)
    check_site(config.site, config.train.validation_edits)
    check_editor(config.editor, config.schedule.batch_size)
    _check_slopes(config)
    _check_validation(config)
    penalty(config.loss.penalty)  # refuses unknown names
    kept_as(config.caches)


def _check_trainer(config: RunConfig) -> None:
    known = set(inspect.signature(L.Trainer.__init__).parameters) - {"self", *_RESERVED}
    for key in config.trainer:
        if key in _RESERVED:
            raise ConfigError(f"trainer.{key}: is set by saledit itself; {_RESERVED[key]}")
        if key not in known:
            raise ConfigError(
                f"trainer.{key}: unknown argument of lightning.Trainer; {did_you_mean(key, known)}"
            )
    precision = str(config.trainer.get("precision", _WHOLE))
    if precision in _OTHERS or precision.startswith("transformer"):
        raise ConfigError(
            f"trainer.precision: expected {_WHOLE}, bf16-mixed or 16-mixed, got {precision!r}: an "
            "editor is of single precision; for a base of another one set model.dtype"
        )
    for key in ("max_steps", "accumulate_grad_batches"):
        value = config.trainer.get(key, 1)
        if not isinstance(value, int) or (value < 1 and (key, value) != ("max_steps", -1)):
            raise ConfigError(f"trainer.{key}: expected a whole number above 0, got {value!r}")


def _check_validation(config: RunConfig) -> None:
    if not config.train.validation_edits and is_trained(config.editor):
        raise ConfigError(
            f"train.validation_edits: expected at least 1 for {config.editor.name}, whose best "
            f"state is what is kept, got 0; e.g. {TrainConfig().validation_edits}"
        )


def _check_slopes(config: RunConfig) -> None:
    c = config.editor
    if config.trainer.get("strategy") == DIVIDES and c.name == "enn" and c.enn.second_order:
        raise ConfigError(
            "editor.enn.second_order: expected false beside trainer.strategy=fsdp, which gathers "
            "weights for a slope, not for the slope of one, got true; turn it off, or use ddp"
        )
