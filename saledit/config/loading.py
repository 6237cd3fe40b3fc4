"""Reading a configuration: includes, overrides, checks.

A configuration file may name others under ``include:`` (relative to itself, or the
name of a bundled one); they are merged in order, then the file's own keys, then
``key=value`` overrides. Nothing in a file is ever imported or executed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from saledit.bundled import bundled
from saledit.config.schema import RunConfig
from saledit.errors import ConfigError, did_you_mean

_INCLUDE = "include"
_MAX_YAML = 100_000

# (key, least, most): what must hold whatever the task. None is open.
_RANGES: tuple[tuple[str, float | None, float | None], ...] = (
    ("task.max_length", 4, None),
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
    ("data.max_test_failures", 1, None),
    ("data.max_test_passes", 1, None),
    ("data.adapt.per_failure", 0, 16),
    ("data.adapt.threshold", -1, 1),
    ("site.samples", 2, None),
    ("site.span", 1, None),
    ("editor.mend.rank", 1, None),
    ("editor.mend.n_blocks", 1, 8),
    ("editor.mend.whiten", 0, None),
    ("editor.mend.decouple", 0, 1),
    ("editor.step.whiten", 0, None),
    ("editor.step.bound", 0, None),
    ("editor.step.enough", 0, None),
    ("editor.ft.steps", 1, None),
    ("editor.ft.rate", 0, None),
    ("editor.ft.kl", 0, None),
    ("editor.ft.bound", 0, None),
    ("editor.ft.rank", 0, 512),
    ("editor.ft.enough", 0, None),
    ("editor.enn.steps", 1, None),
    ("editor.enn.rate", 0, None),
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
    ("loss.edit", 0, None),
    ("loss.locality", 0, None),
    ("loss.margin", 0, None),
    ("loss.least_margin", 0, None),
    ("schedule.batch_size", 1, None),
    ("train.epochs", 1, None),
    ("train.steps_per_epoch", 1, None),
    ("train.seconds", 0, None),
    ("train.edits_per_step", 0, None),
    ("train.passes_per_edit", 1, None),
    ("train.learning_rate", 0, None),
    ("train.rate_learning_rate", 0, None),
    ("train.gradient_clip", 0, None),
    ("train.patience", 1, None),
    ("train.validation_edits", 1, None),
    ("test.passes_per_edit", 0, None),
    ("test.edits_per_batch", 1, None),
)


def load(
    path: str | Path | None, overrides: Sequence[str] = (), presets: Sequence[str] = ()
) -> RunConfig:
    """Read a configuration.

    Args:
        path: a YAML file, a bundled name such as ``nli/worldfacts``, or None for the
            defaults alone.
        presets: further files or bundled names, merged behind it; e.g. ``editors/enn``.
        overrides: ``key=value`` strings, applied last.

    Returns:
        The typed, frozen configuration.

    Raises:
        ConfigError: no such file, broken YAML, an unknown key, a value of a wrong type
            or out of range.
    """
    schema = OmegaConf.structured(RunConfig)
    layers = _with_includes(_find(path), ()) if path is not None else []
    for preset in presets:
        layers += _with_includes(_find(preset), ())
    for given in overrides:
        key, equals, value = given.partition("=")
        if not equals or not key:
            raise ConfigError(f"{given}: expected key=value, got no '='; e.g. seed=1")
        try:
            layers.append((given, OmegaConf.from_dotlist([given if value else f"{key}=''"])))
        except (OmegaConfBaseException, yaml.YAMLError) as error:
            raise ConfigError(f"{key}: cannot be read: {_first_line(error)}") from error
    merged = schema
    for where, layer in layers:
        _check_keys(layer, RunConfig, where)
        try:
            merged = OmegaConf.merge(merged, layer)
        except OmegaConfBaseException as error:
            raise ConfigError(_type_message(error, where)) from error
    try:
        config = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise ConfigError(_type_message(error, str(path))) from error
    assert isinstance(config, RunConfig)
    _check_ranges(config)
    return config


def to_yaml(config: RunConfig) -> str:
    """The resolved configuration as YAML."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def _find(path: str | Path) -> Path:
    given = Path(path)
    if given.is_file():
        return given
    root = bundled("bundled:configs")
    named = root / given.with_suffix(".yaml")
    if not given.is_absolute() and named.resolve().is_relative_to(root) and named.is_file():
        return named
    names = [str(p.relative_to(root).with_suffix("")) for p in root.rglob("*.yaml")]
    raise ConfigError(
        f"{path}: expected a YAML file or the name of a bundled configuration, got neither; "
        + did_you_mean(str(path), names)
    )


def _with_includes(path: Path, above: tuple[Path, ...]) -> list[tuple[str, DictConfig]]:
    if path.resolve() in above:
        raise ConfigError(f"{path}: includes itself; take the circle out")
    try:
        text = path.read_text(encoding="utf-8")
        if len(text) > _MAX_YAML:
            raise ConfigError(f"{path}: expected a configuration below {_MAX_YAML} characters")
        # Anchors have no use here, and a few lines of them expand without bound.
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text)):
            raise ConfigError(f"{path}: expected plain YAML, got an alias (*name); write it out")
        own = OmegaConf.create(text)
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark is not None else ""
        raise ConfigError(f"{path}{line}: expected YAML, got {_first_line(error)}") from error
    except (UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    if not isinstance(own, DictConfig):
        raise ConfigError(f"{path}: expected 'key: value' lines, got {type(own).__name__}")
    includes = own.pop(_INCLUDE, None) or []
    if isinstance(includes, str):
        includes = [includes]
    layers: list[tuple[str, DictConfig]] = []
    for name in includes:
        beside = (path.parent / str(name)).with_suffix(".yaml")
        found = beside if beside.is_file() else _find(str(name))
        layers += _with_includes(found, (*above, path.resolve()))
    return [*layers, (str(path), own)]


def _check_keys(layer: DictConfig, kind: type[Any], where: str, prefix: str = "") -> None:
    known = {f.name: f for f in fields(kind)}
    for key in layer:
        name = str(key)
        if name not in known:
            raise ConfigError(
                f"{prefix}{name}: unknown key in {where}; {did_you_mean(name, known)}"
            )
        default: Any = known[name].default_factory
        if isinstance(default, type) and is_dataclass(default):
            value = layer.get(key) if not OmegaConf.is_missing(layer, key) else None
            if not isinstance(value, DictConfig):
                raise ConfigError(
                    f"{prefix}{name}: expected keys below it, got {value!r} in {where}; "
                    f"(known: {', '.join(f.name for f in fields(default))})"
                )
            _check_keys(value, default, where, f"{prefix}{name}.")


def _type_message(error: OmegaConfBaseException, where: str) -> str:
    key = getattr(error, "full_key", None) or where
    return f"{key}: {_first_line(error)} (in {where})"


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _check_ranges(config: RunConfig) -> None:
    for key, least, most in _RANGES:
        value: Any = config
        for part in key.split("."):
            value = getattr(value, part)
        below, above = least is not None and value < least, most is not None and value > most
        if below or above or value != value:
            upper = "" if most is None else f" and at most {most}"
            raise ConfigError(f"{key}: expected at least {least}{upper}, got {value}")
    if not config.name or set(config.name) & set("/\\\0") or config.name in {".", "..", "cache"}:
        raise ConfigError(f"name: expected a plain folder name, got '{config.name}'")
