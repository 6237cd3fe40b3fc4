"""What a cell of a comparison left: its results, where they are there and of its configuration."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from saledit import config as configuration
from saledit.artifact import EDITOR_WEIGHTS
from saledit.bootstrap import SHARES
from saledit.config import RunConfig
from saledit.data.readers import file_rows
from saledit.errors import ArtifactError, SaleditError
from saledit.files import is_file, read_json, read_text
from saledit.run.said import FAIL
from saledit.run.summing import TIMES

_COUNTS = ("fail", "fail_of", "adapt", "adapt_of", "lost", "lost_of")
#: What a comparison reads of ``results.json``.
_RESULTS = {
    "layer": int, "sites": list, "metrics": {str: (float, None, {str: (float, None)})},
    "per_edit": {name: [float] for name in _COUNTS}, "timing": {str: (float, None)},
    "memory": {"peak_rss_mb": float, "peak_device_mb?": float},
    "course?": [{"n_failures": int, "abilities?": {str: float}}], "collapse?": (int, None),
    "data?": {"test": str},
}  # fmt: skip
#: What tells a failure, of a line of ``answers.jsonl``.
_FAILURE = ("edit", "id", "inputs", "target")


def is_of(folder: Path, config: RunConfig) -> bool:
    """Whether a run's folder is of this configuration."""
    try:
        return read_text(folder / "config.yaml") == configuration.to_yaml(config)
    except (OSError, UnicodeDecodeError):  # there is none, or a broken one
        return False


def is_done(config: RunConfig) -> bool:
    """Whether a cell has its results."""
    left = (config.folder / "results.json", config.folder / EDITOR_WEIGHTS)
    return is_of(config.folder, config) and all(map(is_file, left))


def facts_of(config: RunConfig) -> dict[str, Any] | None:
    """What a row of the comparison says of a cell; None where it is not done."""
    if not is_done(config):
        return None
    return _facts(_read(config.folder / "results.json"), config.folder)


def _read(path: Path) -> dict[str, Any]:
    """The results of a cell.

    Raises:
        ArtifactError: they are broken, or of no test.
    """
    results: dict[str, Any] = read_json(path, "results", _RESULTS)
    counts = [results["per_edit"][name] for name in _COUNTS]
    if len(set(map(len, counts))) > 1 or not all(abs(n) < 2**53 for own in counts for n in own):
        raise ArtifactError(
            f"{path}: expected counts of the same edits in per_edit, got others; delete the file, "
            "and the cell is run again"
        )
    return results


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


def _facts(results: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    metrics = results["metrics"]
    return {
        "layer": results["layer"],
        "n_sites": len(results["sites"]),
        "metrics": metrics.get("generated", {})
        | {
            k: v
            for k, v in metrics.items()
            if k not in (*metrics.get("generated", {}), "generated")
        },
        "teacher_forced": {k: metrics.get(k) for k in SHARES} if "generated" in metrics else None,
        "per_edit": results["per_edit"],
        "failures": failures_of(folder),
        "test": results.get("data", {}).get("test"),
        "timing": {name: results["timing"].get(name) for name in TIMES},
        "peak_rss_mb": results["memory"]["peak_rss_mb"],
        "peak_device_mb": results["memory"].get("peak_device_mb"),
        "editor_mb": (folder / EDITOR_WEIGHTS).stat().st_size / 1e6,
    } | {name: results[name] for name in ("course", "collapse") if name in results}
