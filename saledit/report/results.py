"""Results on disk, and the configuration as commented YAML."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from saledit.config import RunConfig, describe
from saledit.files import write_json

#: What every ``results.json`` holds.
KEYS = (
    "schema",
    "task",
    "editor",
    "base_model",
    "sites",
    "schedule",
    "n_edits",
    "metrics",
    "timing",
    "memory",
    "versions",
    "seed",
)
_COMMENT_COLUMN, _WIDTH = 40, 100


def write_results(folder: Path, results: Mapping[str, Any], name: str = "results.json") -> Path:
    """Write ``results.json``, whole or not at all.

    Args:
        folder: the run's folder.
        results: at least ``KEYS``.
        name: of the file.

    Returns:
        The file.

    Raises:
        JobError: a number is NaN or infinite, or the disk is full.
    """
    missing = [key for key in KEYS if key not in results]
    assert not missing, f"results lack {missing}"
    path = folder / name
    write_json(path, dict(results))
    return path


def annotated_yaml(config: RunConfig) -> str:
    """The configuration as YAML with a comment behind each key; ``config.load`` reads it back."""
    lines: list[str] = []
    above: list[str] = []
    for key, value, comment in describe(config):
        *parents, name = key.split(".")
        shared = 0
        while shared < min(len(parents), len(above)) and parents[shared] == above[shared]:
            shared += 1
        if above and not parents:
            lines.append("")
        for depth in range(shared, len(parents)):
            if depth == 0:
                lines.append("")
            lines.append(f"{'  ' * depth}{parents[depth]}:")
        above = parents
        indent = "  " * len(parents)
        text = f"{indent}{name}: {_scalar(value)}"
        beside = f"{text:<{_COMMENT_COLUMN}}  # {comment}"
        if not comment:
            lines.append(text)
        elif len(beside) <= _WIDTH:
            lines.append(beside)
        else:
            rows = textwrap.wrap(comment, _WIDTH - len(indent) - 2)
            lines += [*(f"{indent}# {row}" for row in rows), text]
    return "\n".join(lines) + "\n"


def _scalar(value: Any) -> str:
    text: str = yaml.safe_dump(
        value, default_flow_style=True, allow_unicode=True, width=float("inf"), sort_keys=False
    )
    return text.removesuffix("...\n").strip()
