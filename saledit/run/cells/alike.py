"""Editors that are trained alike are trained once: cells may differ in their schedule alone."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from saledit import config as configuration
from saledit.artifact import EDITOR_FACTS, EDITOR_WEIGHTS, HELD, REVISION, load_editor
from saledit.config import RunConfig, TestConfig
from saledit.errors import ArtifactError, UserError
from saledit.files import file_hash, is_file, keep_json, kept_json, one_at_a_time, write_text
from saledit.files.writing import replacing
from saledit.run.budget import is_timed
from saledit.run.cells.done import is_of
from saledit.run.curves import METRICS
from saledit.run.fitting import train
from saledit.run.setup.kept import CHECK
from saledit.run.setup.origins import corpus_digest
from saledit.run.setup.prepare import Prepared
from saledit.run.training import FITTED, clear
from saledit.saliency.base import TABLE

#: What a training leaves, its record last. (Where the layer is fixed there is no table of layers.)
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
    config = prepared.config
    note = config.cache / f"editor-{_key(prepared)}.json"
    with one_at_a_time(note):
        noted = _noted(note)
        if noted is not None and noted.take(config):
            return config.folder if noted.is_at(config.folder) else noted.folder
        train(prepared, resume)
        _Noted(config.folder.resolve(), _hashes(config.folder)).keep(note)
        return config.folder


def _key(prepared: Prepared) -> str:
    """Fingerprint of all that a training reads."""
    config = prepared.config
    schedule = replace(config.schedule, cumulative=False)
    plain = replace(config, schedule=schedule, test=TestConfig())
    samples = prepared.fingerprint(plain, prepared.train, prepared.validation)
    parts = [str(REVISION), samples, corpus_digest(config.editor.moments)]
    if is_timed(config):
        parts.append(f"{torch.get_num_threads()}-threads")
    return "-".join(filter(None, parts))


@dataclass(frozen=True, slots=True)
class _Noted:
    """An editor that was trained somewhere.

    Attributes:
        folder: where.
        files: hashes of what its training left. A record of training tells when and where that
            was, so there are no two alike, whatever an editor's weights are.
    """

    folder: Path
    files: Mapping[str, str]

    def keep(self, note: Path) -> None:
        keep_json(note, {"run": str(self.folder), "files": dict(self.files)})

    def is_at(self, folder: Path) -> bool:
        return folder.resolve() == self.folder

    def take(self, config: RunConfig) -> bool:
        """Make it that of a run; what tests of another one have left there goes.

        Returns:
            False where it is not there any more, or not as it was.
        """
        folder = config.folder
        if _hashes(self.folder) != self.files:
            return False
        if not self.is_at(folder):
            clear(folder)
            for name in _LEFT:
                (folder / name).unlink(missing_ok=True)
            write_text(folder / "config.yaml", configuration.to_yaml(config))
            for name in self.files:
                with replacing(folder / name) as part:
                    shutil.copyfile(self.folder / name, part)
            if _hashes(folder) != self.files:  # another process wrote there meanwhile
                return False
        elif not is_of(folder, config):
            clear(folder, tests_alone=True)
            write_text(folder / "config.yaml", configuration.to_yaml(config))
        with suppress(UserError):
            load_editor(folder)
            return True
        return False


def _noted(note: Path) -> _Noted | None:
    """What a note tells; None where there is none, or it is damaged."""
    with suppress(ArtifactError, LookupError, TypeError, ValueError):
        told = kept_json(note, "where an editor is")
        folder, files = Path(told["run"]), told["files"]
        if {FITTED, EDITOR_WEIGHTS, EDITOR_FACTS} <= files.keys() <= set(_LEFT):
            return _Noted(folder, {name: str(files[name]) for name in _LEFT if name in files})
    return None


def _hashes(folder: Path) -> dict[str, str]:
    return {name: file_hash(folder / name) for name in _LEFT if is_file(folder / name)}
