"""Editors that are trained alike are trained once: cells may differ in their schedule alone."""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from saledit import config as configuration
from saledit.artifact import EDITOR_FACTS, EDITOR_WEIGHTS, HELD, load_editor
from saledit.config import RunConfig, TestConfig
from saledit.errors import ArtifactError
from saledit.files import file_hash, is_file, keep_json, kept_json, one_at_a_time, write_text
from saledit.files.writing import replacing
from saledit.run.curves import METRICS
from saledit.run.fitting import train
from saledit.run.kept import CHECK
from saledit.run.prepare import Prepared
from saledit.run.training import FITTED
from saledit.saliency.base import TABLE

_SCHEMA = 1  # of notes; to be raised with what a training does
#: What a training leaves, its record last; weights that nothing declares are no editor.
_LEFT = (TABLE, METRICS, HELD, CHECK, EDITOR_WEIGHTS, EDITOR_FACTS, FITTED)


def train_once(prepared: Prepared, resume: bool) -> Path:
    """Train a run's editor, or take that of another run that was trained alike.

    Alike are runs of the same settings, model and samples but for how edits are laid on each other
    and what a test looks at, which training does not read. Of several at a time one trains, and the
    others wait for it.

    Args:
        prepared: what ``prepare`` made of the run's configuration.
        resume: as in ``fit``, where there is no such editor.

    Returns:
        The folder in which it was trained.

    Raises:
        JobError: training diverged, or the disk is full.
        ArtifactError: what is to be gone on with is broken.
    """
    folder, note = prepared.config.folder, prepared.config.cache / f"editor-{_key(prepared)}.json"
    with one_at_a_time(note):
        found = _trained(note)
        if found is None:
            train(prepared, resume)
            place, weights = str(folder.resolve()), file_hash(folder / EDITOR_WEIGHTS)
            keep_json(note, {"run": place, "weights": weights})
            return folder
        if found == folder.resolve():
            return folder
        _copy(found, folder, prepared.config)
        return found


def _key(prepared: Prepared) -> str:
    """Fingerprint of all that a training reads."""
    config = prepared.config
    schedule = replace(config.schedule, cumulative=False)
    plain = replace(config, schedule=schedule, test=TestConfig())
    return f"{_SCHEMA}-{prepared.fingerprint(plain, prepared.train, prepared.validation)}"


def _trained(note: Path) -> Path | None:
    """The folder that a note names, if its editor is there, whole, and the one that was noted."""
    with suppress(ArtifactError, LookupError, TypeError):
        noted = kept_json(note, "where an editor is")
        folder = Path(noted["run"])
        if file_hash(folder / EDITOR_WEIGHTS) == noted["weights"]:
            load_editor(folder)
            return folder if is_file(folder / FITTED) else None
    return None


def _copy(source: Path, folder: Path, config: RunConfig) -> None:
    """Put a run's editor, and what tells of its training, into another run's folder."""
    for path in (*folder.glob("*.ckpt"), *(folder / name for name in _LEFT)):
        path.unlink(missing_ok=True)
    write_text(folder / "config.yaml", configuration.to_yaml(config))
    for name in _LEFT:
        if is_file(source / name):
            with replacing(folder / name) as part:
                shutil.copyfile(source / name, part)
