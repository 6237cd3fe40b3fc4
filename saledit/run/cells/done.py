"""What a cell of a comparison left: its results, where they are there and of its configuration."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from saledit import config as configuration
from saledit.artifact import EDITOR_WEIGHTS, REVISION
from saledit.config import RunConfig
from saledit.data.readers import file_rows
from saledit.errors import ArtifactError, SaleditError
from saledit.files import is_file, read_json, read_text
from saledit.report.bootstrap import PER_EDIT as _COUNTS
from saledit.report.bootstrap import SHARES
from saledit.report.look import count
from saledit.run.budget import is_timed
from saledit.run.cells.summing import PEAKS, TIMES
from saledit.run.measures.said import FAIL
from saledit.run.peaks import highest
from saledit.run.setup.origins import origins
from saledit.run.training import FITTED

_NUMBER = (float, None)
_WATCHED = (
    "current", "earlier", "adapt", "pass_accuracy", "perplexity", "locality_kl", "weight_norm",
    "delta_norm",
)  # fmt: skip
_VERSIONS, _PLACES = ("saledit", "torch"), ("device", "threads")
#: What a training and a test say of what made them.
_MADE_WITH = {
    "versions": dict.fromkeys(_VERSIONS, str), "environment": {"device": str, "threads": int},
}  # fmt: skip
#: What a comparison reads of ``results.json``,
_RESULTS = {
    "layer": int, "sites": list, "schedule": {"mode": str, "batch_size": int},
    "data?": {"test": str}, "origins?": {str: str},
    "metrics": {
        "generated?": {str: _NUMBER}, "preference?": {str: float},
        **{f"{name}?": _NUMBER for name in (*SHARES, "locality_kl")},
    },
    "per_edit": {name: [float] for name in _COUNTS}, "timing": {str: _NUMBER},
    "memory": {"peak_rss_mb": float, **{f"{name}?": float for name in PEAKS}},
    "course?": [
        {"n_failures": int, "abilities?": {str: float}, **{f"{name}?": float for name in _WATCHED}}
    ],
    "collapse?": (int, None), "stopped?": int, "n_edits?": int, "n_refused?": int,
    "counts?": {"fail": int, "adapt?": int, "pass?": int}, **_MADE_WITH,
}  # fmt: skip
#: ... and of ``fit.json``.
_PICKED = ("seconds", "forward_passes", "backward_passes")
_TRAINED = {
    "memory": {str: float}, "saliency": (dict.fromkeys(_PICKED, float), None), **_MADE_WITH,
}  # fmt: skip
_AS_THEY_ARE = ("course", "collapse", "stopped", "n_edits", "n_refused", "counts")
_TOLD = 3  # settings that are named
_MOST = 1e300  # numbers up to it can be added up
#: What tells a failure, of a line of ``answers.jsonl``.
_FAILURE = ("edit", "id", "inputs", "target")


def is_of(folder: Path, config: RunConfig) -> bool:
    """Whether a run's folder is of this configuration."""
    try:
        return read_text(folder / "config.yaml") == configuration.to_yaml(config)
    except (OSError, UnicodeDecodeError):  # there is none, or a broken one
        return False


@dataclass(frozen=True, slots=True)
class Found:
    """What a cell's folder holds.

    Attributes:
        facts: what a row of the comparison says; None where the cell is not done: there is no
            editor, or there are no results of this configuration, by this code, of the data and
            the model that are there now, that can be read.
        why: why results that are there are not taken; "" where there are none.
        is_other: they are whole results of something else, not to be lost without asking.
    """

    facts: dict[str, Any] | None = None
    why: str = ""
    is_other: bool = False


def facts_of(config: RunConfig, threads: int | None = None) -> dict[str, Any] | None:
    """What a row of the comparison says of a cell; None where it is not done."""
    return found_of(config, threads).facts


def found_of(config: RunConfig, threads: int | None = None) -> Found:
    """What a cell's folder holds of its configuration.

    Args:
        config: the whole configuration of the cell.
        threads: those that it has to have been trained with, where the clock ends its training;
            None for any.
    """
    folder = config.folder
    paths = (folder / "results.json", folder / FITTED)
    if not is_of(folder, config):
        return _of_another(folder, config) if is_file(paths[0]) else Found()
    if not all(map(is_file, (*paths, folder / EDITOR_WEIGHTS))):
        return Found()
    try:
        for path in paths:
            told = read_json(path, "a record of this cell", {"revision?": int})
            if told.get("revision") != REVISION:  # of older code there is none, or another shape
                return Found(why="made by other code")
        results = read_json(paths[0], "results", _RESULTS)
        trained = read_json(paths[1], "a record of training", _TRAINED)
        own = trained["environment"]["threads"]
        if threads not in (None, own) and is_timed(config):
            why = f"of train.seconds with {count(own, 'thread')} in place of {threads}"
            return Found(why=why, is_other=True)
        # A cell's peak is that of both, whichever process has trained.
        results["memory"] = highest(trained["memory"], results["memory"])
        results["picking"] = {name: (trained["saliency"] or {}).get(name) for name in _PICKED}
        if not _is_sound(results):
            return Found(why="damaged")
        if changed := _changed(results, config):
            return Found(why=f"of another {changed} than is there now")
        return Found(_facts(results, trained, folder))
    except (ArtifactError, OSError):
        return Found(why="damaged")


def _of_another(folder: Path, config: RunConfig) -> Found:
    """What a folder holds that is not of a configuration, as it stands there."""
    try:
        before = configuration.load(folder / "config.yaml")
    except SaleditError:
        return Found(why="of a configuration that cannot be read", is_other=True)
    before = replace(before, name=config.name, output=config.output)  # wherever it was
    told = [
        f"{key}={value} in place of {now}"
        for key, value, now in configuration.differing(before, config)
    ]
    if not told:
        return Found(why="written elsewhere or by other code")
    more = f" and {len(told) - _TOLD} more" if len(told) > _TOLD else ""
    return Found(why=f"of {', '.join(told[:_TOLD])}{more}", is_other=True)


def _changed(results: Mapping[str, Any], config: RunConfig) -> str:
    """The setting whose file holds something else now than results are of; "" for none."""
    before = results.get("origins", {})  # of older code they may say of nothing
    return next((key for key, mark in origins(config).items() if before.get(key) != mark), "")


def _is_sound(results: Mapping[str, Any]) -> bool:
    """Whether results of the right shape are those of a test, and can be summed up and drawn."""
    counts = [results["per_edit"][name] for name in _COUNTS]
    if len(set(map(len, counts))) > 1 or not all(abs(n) < 2**53 for own in counts for n in own):
        return False
    if any(n < 0 for name in _COUNTS if name.endswith("_of") for n in results["per_edit"][name]):
        return False
    named = ("metrics", "timing", "memory", "counts", "picking")
    kept = (results.get(name, {}) for name in named)
    if not all(abs(n) < _MOST for part in kept for n in _numbers(part)):
        return False
    if _judged(results["metrics"]).get("edit_accuracy") is None:
        return False
    return "course" not in results or ("collapse" in results and _is_course(results["course"]))


def _is_course(points: Sequence[Mapping[str, Any]]) -> bool:
    return bool(points) and all(
        ("pass_accuracy" in point or "perplexity" in point or point.get("collapsed"))
        and point.get("abilities") != {}
        and ("delta_norm" not in point or point.get("weight_norm", 0) > 0)
        for point in points
    )


def _numbers(value: Any) -> Iterator[float]:
    """All numbers in objects."""
    if isinstance(value, Mapping):
        for item in value.values():
            yield from _numbers(item)
    elif isinstance(value, int | float):
        yield value


def failures_of(folder: Path) -> str | None:
    """Fingerprint of the failures that a cell's edits are of, edit by edit.

    Returns:
        32 hexadecimal digits; None where its answers cannot be read.
    """
    digest, path = hashlib.blake2b(digest_size=16), folder / "answers.jsonl"
    try:
        for _, row in file_rows(path, str(path)):
            if row["part"] == FAIL:
                digest.update(json.dumps([row[name] for name in _FAILURE]).encode())
    except (SaleditError, OSError, KeyError):
        return None
    return digest.hexdigest()


def _made_with(record: Mapping[str, Any]) -> dict[str, Any]:
    """What numbers may depend on beside the configuration and the code."""
    versions, environment = record["versions"], record["environment"]
    return {
        **{name: versions[name] for name in _VERSIONS},
        **{name: environment[name] for name in _PLACES},
    }


def _facts(results: Mapping[str, Any], trained: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    metrics = results["metrics"]
    return {
        "layer": results["layer"],
        "n_sites": len(results["sites"]),
        "schedule": {name: results["schedule"][name] for name in ("mode", "batch_size")},
        "metrics": _judged(metrics),
        "teacher_forced": {k: metrics.get(k) for k in SHARES} if "generated" in metrics else None,
        "per_edit": results["per_edit"],
        "failures": failures_of(folder),
        "test": results.get("data", {}).get("test"),
        "timing": {name: results["timing"].get(name) for name in TIMES},
        **{f"picking_{name}": value for name, value in results["picking"].items()},
        **{name: results["memory"].get(name) for name in PEAKS},
        "made_with": {"training": _made_with(trained), "test": _made_with(results)},
        "editor_mb": (folder / EDITOR_WEIGHTS).stat().st_size / 1e6,
    } | {name: results[name] for name in _AS_THEY_ARE if name in results}


def _judged(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics by which editors are compared: of text under free generation, where there are two."""
    rest = {name: value for name, value in metrics.items() if name != "generated"}
    return {**rest, **metrics.get("generated", {})}
