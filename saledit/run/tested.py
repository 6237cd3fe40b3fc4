"""The run that a test or a fix is of, and what these may set otherwise than it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from saledit import config as configuration
from saledit.artifact import TrainedEditor
from saledit.building import check_editor, check_failures
from saledit.config import RunConfig
from saledit.errors import ArtifactError, ConfigError, did_you_mean
from saledit.files import is_file

#: Parts of a configuration that an editor is built and trained by; a test reads of them
_TRAINED = ("site", "loss", "train", "editor")
#: what is about how edits are made, not about the editor itself.
_FREE = tuple(
    f"editor.{name}"
    for name in ("steps", "enough", "bound", "looks", "sample_rank", "gradient_rank")
)
#: Settings that say nothing about what is tested: those of training, and where and how it is run.
_NOT_TESTED = (
    *(f"{part}." for part in _TRAINED), "name", "output", "caches.", "model.stream",
    "trainer", "test.edits_per_batch",
)  # fmt: skip
#: By which records are dealt to training and test where the test has no file of its own.
_DEALT = (
    "seed", "data.train", "data.test", "data.limit", "data.validation", "data.test_share",
    "task.fields", "task.subjects", "model.finetune.",
)  # fmt: skip
#: ... and by which those that bring pass samples alone are, whatever is tested.
_DEALT_PASSES = ("seed", "data.limit", "data.validation", "data.test_share")
_PRECISION = "trainer.precision"
_SLUG = 80  # letters of a name at most


def run_folder(target: Path, overrides: Sequence[str]) -> Path:
    """The folder of a run that was named itself or by its configuration.

    Args:
        target: either.
        overrides: ``key=value`` of the test.

    Raises:
        ArtifactError: it is neither.
        ConfigError: a configuration that says otherwise than its run about what is tested.
    """
    if is_file(target / "config.yaml"):
        return target
    if configuration.found(target) is None:
        runs = [config.parent.name for config in target.parent.glob("*/config.yaml")]
        raise ArtifactError(
            f"{target}: expected a run folder or a configuration, got neither; "
            + (did_you_mean(target.name, runs) if runs else "check the path")
        )
    given = configuration.load(target, overrides)
    if is_file(given.folder / "config.yaml"):
        _check_given(target, given, configuration.load(given.folder / "config.yaml", overrides))
    return given.folder


def _check_given(target: Path, given: RunConfig, run: RunConfig) -> None:
    """Refuse a configuration whose settings a test would pass over: the run has its own."""
    told = dict(configuration.flatten(given)) | {_PRECISION: given.trainer.get("precision")}
    found = dict(configuration.flatten(run)) | {_PRECISION: run.trainer.get("precision")}
    for key, value in found.items():
        if told.get(key) != value and (key == _PRECISION or not key.startswith(_NOT_TESTED)):
            raise ConfigError(
                f"{key}: expected what the run in {run.folder} has, {value!r}, got "
                f"{told.get(key)!r} in {target}; test the run by its settings (saledit test "
                f"{run.folder}) or set it there (saledit test {run.folder} {key}=...)"
            )


def check_trained(trained: RunConfig, asked: RunConfig) -> None:
    """Refuse settings that a trained editor has no ear for.

    Args:
        trained: the run's configuration.
        asked: that of the test.

    Raises:
        ConfigError: one that says how it is built or trained, or one by which what it was trained
            on would be tested.
    """
    before = dict(configuration.flatten(trained))
    shared = set(trained.data.locality) & set(asked.data.locality)
    dealt = _DEALT if not asked.data.test else _DEALT_PASSES if shared else ()
    for key, value in configuration.flatten(asked):
        if before[key] != value and key.startswith(dealt):
            raise ConfigError(
                f"{key}: expected {before[key]!r}, by which records were dealt to training and "
                f"test, got {value!r}: the editor would be tested on what it has learned from; "
                "leave it, or name files of other records (data.test, data.locality)"
            )
        if before[key] != value and key.split(".")[0] in _TRAINED and key not in _FREE:
            raise ConfigError(
                f"{key}: expected what the editor was trained with, got something else; "
                f"train another one with saledit fit (a test may set {', '.join(_FREE)})"
            )


def tuned(trained: TrainedEditor, overrides: Sequence[str]) -> TrainedEditor:
    """A trained editor by other settings than those of its run.

    Raises:
        ConfigError: settings that there are not, or that it has no ear for.
    """
    config = configuration.load(trained.folder / "config.yaml", overrides)
    check_editor(config.editor)
    check_trained(trained.config, config)
    check_failures(trained.config.editor, config.schedule.batch_size)  # of what was trained
    return replace(trained, config=config)


def check_made(overrides: Sequence[str]) -> None:
    """Refuse settings of a fix that say nothing about how edits are made.

    Raises:
        ConfigError: there is one.
    """
    known = (*_FREE, "schedule.batch_size")
    for word in overrides:
        key = word.partition("=")[0]
        if "=" in word and key not in known:
            raise ConfigError(
                f"{key}: expected a setting of how the edit is made, got {word}; "
                + did_you_mean(key, known)
            )


def slug(overrides: Sequence[str]) -> str:
    """Part of a file's name that tells settings from others; a hash where letters give way."""
    text = "_".join(sorted(overrides))
    plain = "".join(c if c.isalnum() or c in "=.-_" else "_" for c in text)
    if plain == text and len(plain) <= _SLUG:
        return plain
    mark = hashlib.blake2b(text.encode(errors="replace"), digest_size=4).hexdigest()
    return f"{plain[: _SLUG - len(mark) - 1]}-{mark}"
