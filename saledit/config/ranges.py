"""What numbers of a configuration may be, whatever the task."""

from __future__ import annotations

from typing import Any

from saledit.config.schema import RunConfig
from saledit.errors import ConfigError

# (key, least, most): what must hold whatever the task. None is open.
_RANGES: tuple[tuple[str, float | None, float | None], ...] = (
    ("seed", 0, 2**32 - 1),
    ("task.max_length", 4, None),
    ("task.max_new_tokens", 1, None),
    ("model.finetune.seed", 0, 2**32 - 1),
    ("model.finetune.records", 1, None),
    ("model.finetune.epochs", 1, None),
    ("model.finetune.batch_size", 1, None),
    ("model.finetune.learning_rate", 0, None),
    ("model.finetune.warmup", 0, 1),
    ("data.limit", 0, None),
    ("data.validation", 0.01, 0.9),
    ("data.test_share", 0.01, 0.9),
    ("data.max_failures", 2, None),
    ("data.max_passes", 1, None),
    ("data.max_made", 0, None),
    ("data.max_test_failures", 1, None),
    ("data.max_test_passes", 1, None),
    ("data.adapt.per_failure", 0, 16),
    ("data.adapt.threshold", -1, 1),
    ("site.samples", 2, None),
    ("site.span", 1, None),
    ("site.whiten", 0, None),
    ("editor.mend.rank", 1, None),
    ("editor.mend.n_blocks", 1, 8),
    ("editor.mend.whiten", 0, None),
    ("editor.mend.decouple", 0, 1),
    ("editor.step.whiten", 0, None),
    ("editor.step.bound", 0, None),
    ("editor.step.enough", 0, None),
    ("editor.ft.steps", 1, None),
    ("editor.ft.kl", 0, None),
    ("editor.ft.bound", 0, None),
    ("editor.ft.rank", 0, 512),
    ("editor.ft.enough", 0, None),
    ("editor.enn.steps", 1, None),
    ("editor.ke.lstm", 1, None),
    ("editor.ke.condition", 1, None),
    ("editor.ke.hidden", 1, None),
    ("editor.malmen.rank", 1, None),
    ("editor.malmen.n_blocks", 1, 8),
    ("editor.malmen.whiten", 0, None),
    ("editor.held", 1, None),
    ("editor.sample_rank", 1, 512),
    ("editor.gradient_rank", 0, 512),
    ("editor.enough", 0, None),
    ("editor.looks", 1, None),
    ("loss.edit", 0, None),
    ("loss.locality", 0, None),
    ("loss.margin", 0, None),
    ("loss.least_margin", 0, None),
    ("schedule.batch_size", 1, None),
    ("train.epochs", 1, None),
    ("train.steps_per_epoch", 1, None),
    ("train.looks", 1, None),
    ("train.seconds", 0, 1e9),  # thirty years
    ("train.edits_per_step", 0, None),
    ("train.earlier", 0, None),
    ("train.passes_per_edit", 1, None),
    ("train.made", 0, 1),
    ("train.learning_rate", 0, None),
    ("train.rate_learning_rate", 0, None),
    ("train.gradient_clip", 0, None),
    ("train.patience", 1, None),
    ("train.validation_edits", 0, None),
    ("train.validation_passes", 0, None),
    ("test.passes_per_edit", 0, None),
    ("test.edits_per_batch", 1, None),
    ("test.every", 0, None),
    ("test.n_texts", 1, None),
    ("test.n_abilities", 0, None),
    ("test.fluency", 0, None),
)
# Lengths of a step, which are learned as exponents.
_ABOVE_ZERO = ("editor.ft.rate", "editor.enn.rate")


_DEFAULTS = RunConfig()


def check_ranges(config: RunConfig) -> None:
    """Refuse numbers that no run can have.

    Raises:
        ConfigError: a number out of its range, or a name that is none.
    """
    for key, least, most in _RANGES:
        value = _at(config, key)
        below, above = least is not None and value < least, most is not None and value > most
        if below or above or value != value:
            upper = "" if most is None else f" and at most {most}"
            raise ConfigError(
                f"{key}: expected at least {least}{upper}, got {value}; e.g. {_at(_DEFAULTS, key)}"
            )
    for key in _ABOVE_ZERO:
        if not _at(config, key) > 0:
            raise ConfigError(
                f"{key}: expected a number above 0, got {_at(config, key)}; "
                f"e.g. {_at(_DEFAULTS, key)}"
            )
    if not config.name or set(config.name) & set("/\\\0") or config.name in {".", "..", "cache"}:
        raise ConfigError(f"name: expected a plain folder name, got '{config.name}'")


def _at(config: RunConfig, key: str) -> Any:
    """The value of a key with dots."""
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    return value
