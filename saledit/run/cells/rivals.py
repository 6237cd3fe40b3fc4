"""What a comparison is of: editors, their schedules, and the configurations of its cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from saledit import config as configuration
from saledit.building import check_failures, is_trained
from saledit.config import RunConfig, ScheduleConfig
from saledit.config.schedules import name_of
from saledit.config.schedules import schedules as read_schedules
from saledit.errors import ConfigError
from saledit.report import Ui
from saledit.run.budget import budgeted
from saledit.run.checks import check
from saledit.run.setup.launching import alone


def check_once(editors: Sequence[str], seeds: Sequence[int]) -> None:
    """Refuse what would be one cell twice.

    Raises:
        ConfigError: an editor or a seed that comes twice, or two editors' files of one name.
    """
    if len(set(editors)) < len(editors) or len(set(seeds)) < len(seeds):
        raise ConfigError("compare: expected each editor and each seed once, got one twice")
    named: dict[str, str] = {}
    for editor in editors:
        first = named.setdefault(_named(editor), editor)
        if first != editor:
            raise ConfigError(
                f"compare: expected editors of different names, got {first} and {editor}, whose "
                f"runs would both be '{_named(editor)}'; rename the file"
            )


def _named(editor: str) -> str:
    """What an editor's runs are named by: the name of its preset or file."""
    return Path(editor).name.removesuffix(".yaml").removesuffix(".yml")


@dataclass(frozen=True)
class Rival:
    """What is compared: an editor, and its schedule where several are compared.

    Attributes:
        editor: a preset, or a file.
        schedule: None for the configured one.
    """

    editor: str
    schedule: ScheduleConfig | None = None

    @property
    def label(self) -> str:
        """What it is called in tables."""
        return f"{self.editor} {name_of(self.schedule)}" if self.schedule else self.editor

    @property
    def run(self) -> str:
        """What its runs are named by."""
        own = _named(self.editor)
        return f"{own}-{name_of(self.schedule).replace(':', '-')}" if self.schedule else own

    def load(self, target: str, overrides: Sequence[str]) -> RunConfig:
        """Its configuration."""
        name = self.editor
        preset = name if name.endswith((".yaml", ".yml")) else f"editors/{name}"
        config = configuration.load(target, overrides, [preset])
        return replace(config, schedule=self.schedule) if self.schedule else config


Cells = dict[tuple[Rival, int], RunConfig]


def rivals_of(
    target: str, editors: Sequence[str], words: Sequence[str], overrides: Sequence[str], ui: Ui
) -> list[Rival]:
    """Every editor with every schedule that is for it; told where one is not.

    Raises:
        ConfigError: an unknown editor or schedule, or none that is for an editor.
    """
    if not words:
        return [Rival(editor) for editor in editors]
    out = []
    for editor in editors:
        for schedule in read_schedules(words):
            rival = Rival(editor, schedule)
            own = rival.load(target, overrides).editor
            try:
                check_failures(own, schedule.batch_size)
            except ConfigError as error:
                ui.stage(f"{rival.label} left out: {error}")
            else:
                out.append(rival)
    if not out:
        raise ConfigError("--schedules: expected one that an editor can take, got none")
    return out


def cell_of(
    target: str, rival: Rival, seed: int, overrides: Sequence[str], edits: int, seconds: float
) -> RunConfig:
    """The whole configuration of a cell.

    Args:
        target: the configuration that the editors share.
        rival: the editor.
        seed: of splits, draws and initial weights.
        overrides: ``key=value`` set over file and presets.
        edits: that it is trained on; 0 for as many as configured.
        seconds: that it is trained for; 0 for no limit.

    Raises:
        ConfigError: it cannot be run.
    """
    config = rival.load(target, [*overrides, f"seed={seed}"])
    check(config)  # all cells are checked before one of them runs
    name = f"{config.name}-{rival.run}-s{seed}"
    config = replace(config, name=name, trainer=alone(config.trainer))
    # What is not trained has no budget: with another one it is the same cell.
    return budgeted(config, edits, seconds) if is_trained(config.editor) else config
