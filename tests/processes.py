"""What tests of several processes share."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from saledit import config as configuration
from saledit.config import RunConfig
from saledit.files import read_tensors, write_text

TWO = ("trainer.devices=2", "train.edits_per_step=5", "train.steps_per_epoch=5", "loss.margin=0.01")
TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m")


def command(
    config: RunConfig, folder: Path, *launcher: str, more: tuple[str, ...] = ()
) -> list[str]:
    path = folder / f"{config.name}.yaml"
    write_text(path, configuration.to_yaml(config))
    return verb("fit", path, *launcher, more=more)


def verb(name: str, target: Path, *launcher: str, more: tuple[str, ...] = ()) -> list[str]:
    """The command line of a verb, as given to a launcher or to the interpreter."""
    own = [name, str(target), *more, "--json", "--threads", "1"]
    return [sys.executable, "-m", *launcher, "saledit", *own]


def shared_run(words: list[str]) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if k not in ("RANK", "LOCAL_RANK", "WORLD_SIZE")}
    return subprocess.run(words, env=clean, capture_output=True, text=True, timeout=170)


def losses(config: RunConfig) -> list[list[float]]:
    with (config.folder / "metrics.csv").open() as stream:
        return [[float(v) for v in row.values() if v] for row in csv.DictReader(stream)]


def check_same(one: RunConfig, two: RunConfig) -> None:
    for a, b in zip(losses(one), losses(two), strict=True):
        assert a == pytest.approx(b, rel=1e-4, abs=1e-6)
    weights = [read_tensors(c.folder / "editor.safetensors", "an editor") for c in (one, two)]
    for name, tensor in weights[0].items():
        apart = (tensor - weights[1][name]).abs().max()
        # Adam divides a slope by its own size, however small both are.
        assert apart <= 1e-2 * tensor.abs().max(), name


def check_tested_alike(config: RunConfig, one: dict[str, Any], two: dict[str, Any]) -> None:
    """What one process found of a run (with ``trainer.devices=1``) and what two found."""
    assert (one["processes"], two["processes"]) == (1, 2)
    for name in ("n_edits", "per_edit", "counts", "schedule", "sites"):
        assert one[name] == two[name], name
    for name in ("metrics", "unedited", "adapt_by_kind", "course"):
        if name in one:
            same_numbers(one[name], two[name], name)
    rows = [
        [json.loads(line) for line in (config.folder / f"answers{end}.jsonl").open()]
        for end in ("-trainer.devices=1", "")
    ]
    assert rows[0] == rows[1]


def same_numbers(one: Any, two: Any, name: str) -> None:
    """Values of JSON that differ by rounding alone."""
    if isinstance(one, dict):
        assert one.keys() == two.keys(), name
        for key, value in one.items():
            same_numbers(value, two[key], f"{name}.{key}")
    elif isinstance(one, list):
        for i, (a, b) in enumerate(zip(one, two, strict=True)):
            same_numbers(a, b, f"{name}[{i}]")
    else:
        assert two == pytest.approx(one, rel=1e-4, abs=1e-6), name
