"""The run that a test is of, and what a test may set otherwise than it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from saledit import config as configuration
from saledit.config import EditorConfig, RunConfig
from saledit.errors import ArtifactError, ConfigError, did_you_mean
from saledit.files import is_file

#: Of an editor's settings those that are about how its edits are made, not about itself.
_FREE = ("steps", "enough", "bound", "sample_rank", "gradient_rank")
#: Parts of a configuration that only training reads.
_TRAINING = ("site", "loss", "train")
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
    try:
        given = configuration.load(target, overrides)
    except ConfigError as error:
        runs = [found.parent.name for found in target.parent.glob("*/config.yaml")]
        if not runs or target.is_file():
            raise
        raise ArtifactError(
            f"{target}: expected a run folder or a configuration, got neither; "
            + did_you_mean(target.name, runs)
        ) from error
    if is_file(given.folder / "config.yaml"):
        _check_given(target, given, configuration.load(given.folder / "config.yaml", overrides))
    return given.folder


def _check_given(target: Path, given: RunConfig, run: RunConfig) -> None:
    """Refuse a configuration whose settings a test would pass over: the run has its own."""
    told = dict(configuration.flatten(given))
    for key, value in configuration.flatten(run):
        if told[key] != value and key.split(".")[0] not in (*_TRAINING, "editor"):
            raise ConfigError(
                f"{key}: expected what the run in {run.folder} has, {value!r}, got {told[key]!r} "
                f"in {target}; test the run by its settings (saledit test {run.folder}) or set it "
                f"there (saledit test {run.folder} {key}=...)"
            )


def check_trained(trained: RunConfig, asked: RunConfig) -> None:
    """Refuse settings that a trained editor has no ear for.

    Args:
        trained: the run's configuration.
        asked: that of the test.

    Raises:
        ConfigError: one that says how it is built or trained.
    """
    free = tuple(f"editor.{name}" for name in _FREE)
    own = {
        f"editor.{item.name}": getattr(trained.editor, item.name) for item in fields(EditorConfig)
    }
    now = {f"editor.{item.name}": getattr(asked.editor, item.name) for item in fields(EditorConfig)}
    before = dict(configuration.flatten(trained))
    for key, value in configuration.flatten(asked):
        if key.split(".")[0] in _TRAINING:
            own[key], now[key] = before[key], value
    for key, value in now.items():
        if key not in free and own[key] != value:
            raise ConfigError(
                f"{key}: expected what the editor was trained with, got something else; "
                f"train another one with saledit fit (a test may set {', '.join(_FREE)})"
            )


def slug(overrides: Sequence[str]) -> str:
    """Part of a file's name that tells settings from others; a hash where letters give way."""
    text = "_".join(sorted(overrides))
    plain = "".join(c if c.isalnum() or c in "=.-" else "_" for c in text)
    if len(plain) <= _SLUG and plain.replace("_", "") == text.replace("_", "").replace(" ", ""):
        return plain
    mark = hashlib.blake2b(text.encode(errors="replace"), digest_size=4).hexdigest()
    return f"{plain[: _SLUG - len(mark) - 1]}-{mark}"
