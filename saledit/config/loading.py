"""Reading a configuration: includes, overrides, checks.

A configuration file may name others under ``include:`` (relative to itself, or the
name of a bundled one); they are merged in order, then the file's own keys, then
``key=value`` overrides. Nothing in a file is ever imported or executed.
"""

from __future__ import annotations

import difflib
import functools
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from saledit.bundled import bundled
from saledit.config.describing import flatten
from saledit.config.plain import BROKEN, parsed, read_layer
from saledit.config.ranges import check_ranges
from saledit.config.schema import RunConfig
from saledit.errors import ConfigError, did_you_mean
from saledit.files.reading import is_file, reason

_INCLUDE, _FILES = "include", 50  # files that a configuration may be put together of
_KEY = re.compile(r"\w[\w-]*(\.\w[\w-]*)*")


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

    Example:
        >>> config = load("nli/worldfacts", ["schedule.batch_size=1"], ["editors/enn"])
        >>> config.name, config.schedule.batch_size, config.editor.name
        ('worldfacts', 1, 'enn')
        >>> load(None, ["schedule.batchsize=1"])  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        saledit.errors.ConfigError: schedule.batchsize: unknown key ... mean 'batch_size'? ...
    """
    layers: list[tuple[str, DictConfig]] = []
    for name in [*([] if path is None else [path]), *presets]:
        _add_with_includes(_find(name), (), layers)
    layers += [(given, _override(given)) for given in overrides]
    for where, layer in layers:
        _check_keys(layer, RunConfig, where)
    try:
        config = OmegaConf.to_object(_merged(layers))
        assert isinstance(config, RunConfig)
        # Merging leaves an empty map in a list of texts alone; to check all again takes long.
        lists = [value for _, value in flatten(config) if isinstance(value, list)]
        if any(isinstance(item, dict | list) for value in lists for item in value):
            OmegaConf.structured(config)
    except BROKEN as error:
        raise ConfigError(_type_message(error, str(path))) from error
    _check_numbers(config)
    check_ranges(config)
    return config


def to_yaml(config: RunConfig) -> str:
    """The resolved configuration as YAML."""
    return OmegaConf.to_yaml(OmegaConf.create(asdict(config)))


@functools.cache
def _schema() -> DictConfig:
    """Every key with its type and default."""
    schema: DictConfig = OmegaConf.structured(RunConfig)
    return schema


def _merged(layers: Sequence[tuple[str, DictConfig]]) -> Any:
    """All layers over the defaults, each with where it comes from.

    At once, which copies the whole tree once; only where it fails one by one, to name the place.

    Raises:
        ConfigError: a value of a wrong type.
    """
    try:
        return OmegaConf.merge(_schema(), *(layer for _, layer in layers))
    except BROKEN:
        merged: Any = _schema()
        for where, layer in layers:
            try:
                merged = OmegaConf.merge(merged, layer)
            except BROKEN as error:
                raise ConfigError(_type_message(error, where)) from error
        raise


def found(path: str | Path) -> Path | None:
    """The file that a path, or the name of a bundled configuration, stands for; None of no file."""
    given = Path(path)
    if is_file(given):
        return given
    root = bundled("bundled:configs")
    named = root / f"{path}.yaml" if given.suffix != ".yaml" else root / given
    inside = not given.is_absolute() and is_file(named) and named.resolve().is_relative_to(root)
    return named if inside else None


def _find(path: str | Path) -> Path:
    if (file := found(path)) is not None:
        return file
    root, name = bundled("bundled:configs"), str(path)[:200]
    names = [str(p.relative_to(root).with_suffix("")) for p in root.rglob("*.yaml")]
    # All sixty are no help; those like it, or in the folder that is meant, are.
    kinds = sorted({one.partition("/")[0] + "/..." for one in names})
    near = difflib.get_close_matches(name, names, cutoff=0.65)
    near += [one for one in names if one.partition("/")[0] == name.partition("/")[0]]
    raise ConfigError(
        f"{name}: expected a YAML file or the name of a bundled configuration, got neither; "
        + (did_you_mean(name, {*near}) if near else f"check the path (bundled: {', '.join(kinds)})")
    )


def _override(given: str) -> DictConfig:
    key, equals, value = given.partition("=")
    if not equals or not _KEY.fullmatch(key):
        raise ConfigError(f"{given:.200}: expected key=value, got no such; e.g. seed=1")
    whole = given if value else f"{key}=''"
    return parsed(value, key, lambda _value: OmegaConf.from_dotlist([whole]))


def _add_with_includes(
    path: Path, above: tuple[Path, ...], layers: list[tuple[str, DictConfig]]
) -> None:
    if path.resolve() in above:
        raise ConfigError(f"{path}: includes itself; take the circle out")
    if len(layers) + len(above) > _FILES:
        raise ConfigError(
            f"{path}: expected at most {_FILES} files in each other's '{_INCLUDE}', got more; "
            "include each one once"
        )
    own = read_layer(path)
    includes = own.pop(_INCLUDE, None) or []
    includes = includes if isinstance(includes, list | ListConfig) else [includes]
    for name in includes:
        if not isinstance(name, str) or not name:
            raise ConfigError(
                f"{path}: expected names of files in '{_INCLUDE}', got {name!r:.60}; "
                "e.g. include: [nli/base]"
            )
        beside = path.parent / (name if name.endswith(".yaml") else f"{name}.yaml")
        found = beside if is_file(beside) else _find(name)
        _add_with_includes(found, (*above, path.resolve()), layers)
    layers.append((str(path), own))


def _check_keys(layer: DictConfig, kind: type[Any], where: str, prefix: str = "") -> None:
    known = {f.name: f for f in fields(kind)}
    for key in layer:
        name = str(key)
        if name not in known:
            raise ConfigError(
                f"{prefix}{name:.60}: unknown key in {where}; {did_you_mean(name[:60], known)}"
            )
        default: Any = known[name].default_factory
        if isinstance(default, type) and is_dataclass(default):
            value = layer.get(key) if not OmegaConf.is_missing(layer, key) else None
            if not isinstance(value, DictConfig):
                raise ConfigError(
                    f"{prefix}{name}: expected keys below it, got {value!r:.60} in {where}; "
                    f"(known: {', '.join(f.name for f in fields(default))})"
                )
            _check_keys(value, default, where, f"{prefix}{name}.")


def _type_message(error: Exception, where: str) -> str:
    key = getattr(error, "full_key", None) or where
    return f"{key}: {reason(error)} (in {where})"


def _check_numbers(value: Any, key: str = "") -> None:
    """Refuse numbers that are not finite, or too large for a machine's whole numbers."""
    if is_dataclass(value):
        value = {f.name: getattr(value, f.name) for f in fields(value)}
    if isinstance(value, dict):
        for name, inner in value.items():
            _check_numbers(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for inner in value:
            _check_numbers(inner, key)
    elif isinstance(value, int) and not abs(value) < 2**63:
        raise ConfigError(f"{key}: expected a number, got {value!s:.30}; give a smaller one")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{key}: expected a finite number, got {value}")
