"""What a configuration names, built: tasks, models, editors, searches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

from saledit.config import EditorConfig, ModelConfig, TaskConfig
from saledit.config.editors import MomentsConfig
from saledit.editors.base import Editor
from saledit.editors.stepping import StepSearch
from saledit.errors import ConfigError
from saledit.models import TaskModel, load_classifier, load_text_model
from saledit.registry import EDITORS, TASKS, look_up
from saledit.site import Site
from saledit.tasks.base import Task
from saledit.tasks.fields import refuse_settings


def make_task(config: TaskConfig) -> Task:
    """The task that a configuration names.

    Raises:
        ConfigError: no such task, or a setting that it does not have.
    """
    kind: type[Task] = look_up(TASKS, config.name, "task.name")
    refuse_settings(config, kind.settings)
    return kind.of(config)


def load_model(
    task: Task, config: ModelConfig, cache: Path, labels: Sequence[str] | None = None
) -> TaskModel:
    """The model that a configuration names, of the kind that a task needs.

    Args:
        task: the task.
        config: the model's part of the configuration.
        cache: where the plain weights of quantised files are kept.
        labels: of a classifier's fresh head; None where the model brings its own.

    Raises:
        ModelError: it cannot be loaded, or is of another kind.
    """
    on_disk = cache if config.stream else None
    if task.generates:
        return load_text_model(
            config.name, cache, config.stack, config.blocks, config.dtype, on_disk
        )
    if config.stack != ModelConfig.stack:
        raise ConfigError(
            f"model.stack: only for qa and generation, got '{config.stack}'; leave it out"
        )
    return load_classifier(config.name, labels, on_disk, config.dtype, cache, config.blocks)


def editor_kind(config: EditorConfig) -> type[Editor]:
    """The class of the editor that a configuration names.

    Raises:
        ConfigError: no such editor.
    """
    kind: type[Editor] = look_up(EDITORS, config.name, "editor.name")
    return kind


def make_editor(config: EditorConfig, sites: Sequence[Site], embedding_size: int) -> Editor:
    """A fresh editor of the kind that a configuration names.

    Args:
        config: the editor's part of the configuration.
        sites: what it edits.
        embedding_size: of the model's embeddings, for an editor that reads text or routes by it.

    Raises:
        ConfigError: no such editor.
    """
    kind = editor_kind(config)
    asks = kind.needs_text or kind.needs_anchor
    told = {"embedding_size": embedding_size} if asks else {}
    editor = kind(sites, **told, **_settings(config))
    learns = any(parameter.requires_grad for parameter in editor.parameters())
    assert kind.is_trained == learns, (
        f"{kind.__name__}: expected is_trained = {learns} of an editor "
        f"{'with' if learns else 'without'} parameters, got {kind.is_trained}"
    )
    return editor


def check_editor(config: EditorConfig, k: int = 1) -> None:
    """Refuse what no edit can be made of before anything is loaded.

    Args:
        config: the editor's settings.
        k: failures an edit (``schedule.batch_size``).

    Raises:
        ConfigError: no such editor, a setting that it does not have, or more failures than it
            takes.
    """
    kind = editor_kind(config)
    kind.check(_settings(config))
    check_failures(config, k)
    if make_search(config).needs_held and kind.has_resident:
        raise ConfigError(
            f"editor.bound: expected 0 for {config.name}, whose change before any edit cannot be "
            f"told apart from what an edit costs, got {config.bound:g}; leave it out"
        )
    for name, least in (("tokens", 1), ("window", 2)):
        if (value := getattr(config.moments, name)) < least:
            raise ConfigError(
                f"editor.moments.{name}: expected at least {least}, got {value}; "
                f"e.g. {getattr(MomentsConfig(), name)}"
            )


def check_failures(config: EditorConfig, k: int) -> None:
    """Refuse more failures an edit than an editor takes.

    Raises:
        ConfigError: no such editor, or too many.
    """
    editor_kind(config).check_failures(_settings(config), k)


def is_trained(config: EditorConfig) -> bool:
    """Whether there is anything to learn, see ``Editor.is_trained``.

    Raises:
        ConfigError: no such editor.
    """
    return editor_kind(config).is_trained


def needs_subjects(config: EditorConfig) -> bool:
    """Whether failures must name their subjects, see ``Editor.needs_subjects``.

    Raises:
        ConfigError: no such editor.
    """
    return editor_kind(config).needs_subjects(_settings(config))


def _settings(config: EditorConfig) -> dict[str, Any]:
    """The section of the editor that a configuration names."""
    return asdict(getattr(config, config.name))


def make_search(config: EditorConfig) -> StepSearch:
    """How far edits go, as a configuration has it.

    Raises:
        ConfigError: no lengths, lengths that do not rise from above zero, or a bound below it.
    """
    steps = tuple(config.steps)
    if not steps or steps[0] <= 0 or any(a >= b for a, b in pairwise(steps)):
        raise ConfigError(
            f"editor.steps: expected rising numbers above 0, got {config.steps}; "
            "[1.0] for the editor's own step alone"
        )
    if not 0 <= config.bound < math.inf:
        raise ConfigError(
            f"editor.bound: expected at least 0 nats, got {config.bound:g}; 0 for none"
        )
    return StepSearch(steps, config.enough, config.bound, config.looks)
