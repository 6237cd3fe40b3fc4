"""A model that is divided between processes: the numbers of the whole one, and its editor."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
import tiny_text
from processes import (
    TORCHRUN,
    TWO,
    check_same,
    check_tested_alike,
    command,
    shared_run,
    verb,
)
from whole_runs import ui

from saledit.config import RunConfig
from saledit.errors import ConfigError
from saledit.run import fit
from saledit.run import test as run_test

TESTS = Path(__file__).parents[1]
FEW = ("bert", "text/t5")
ALL = (*tiny.FAMILIES, *(f"text/{name}" for name in tiny_text.STACKED))
FSDP = (*TWO, "trainer.strategy=fsdp")
GRADIENT = ("site.select=gradient", "site.samples=8", "site.layer=-1")


@pytest.mark.long
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("families", [FEW, pytest.param(ALL, marks=pytest.mark.slow)])
def test_divided_models_give_the_same_numbers(tmp_path: Path, families: tuple[str, ...]) -> None:
    words = [sys.executable, "-m", *TORCHRUN[:-1], str(TESTS / "dividing.py"), str(tmp_path)]
    path = {"PYTHONPATH": f"{TESTS.parent}:{TESTS}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*words, *families], env=os.environ | path, capture_output=True, text=True, timeout=1400
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert found == [{"family": family, "wrong": []} for family in families]


@pytest.mark.long
def test_a_divided_model_is_edited_alike(
    make: Callable[..., RunConfig], home: Path, tmp_path: Path
) -> None:
    own = (*GRADIENT, "train.epochs=1")
    one, two = make("one", *TWO[1:], *own), make("two", *FSDP, *own)
    first = fit(one, False, ui())
    shutil.rmtree(home / "cache")  # so that it is asked, scored and cached divided
    done = shared_run(command(two, tmp_path))
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["processes"] == 2
    for name in ("splits", "layer", "base_model"):
        assert told[name] == first[name]
    check_same(one, two)
    assert told["weights"] == "divided"
    # What the run left is that of any other: a whole model is tested with it (or a divided one).
    assert run_test(str(two.folder), ["trainer.devices=1"], ui())["weights"] == "in place"


@pytest.mark.slow
@pytest.mark.parametrize("editor", ["mend", "malmen", "ke", "enn", "step"])
def test_other_editors_of_divided_models(
    make: Callable[..., RunConfig], home: Path, tmp_path: Path, editor: str
) -> None:
    own = (f"editor.name={editor}", "editor.enn.second_order=false", "loss.margin=0")
    course = ("schedule.cumulative=true", "test.every=3")
    one, two = make("one", *TWO[1:], *own, *course), make("two", *FSDP, *own, *course)
    fit(one, False, ui())
    shutil.rmtree(home / "cache")
    done = shared_run(command(two, tmp_path, *TORCHRUN))
    assert done.returncode == 0, done.stderr
    check_same(one, two)
    alone = run_test(str(two.folder), ["trainer.devices=1"], ui())
    done = shared_run(verb("test", two.folder, *TORCHRUN))
    assert done.returncode == 0, done.stderr
    check_tested_alike(two, alone, json.loads(done.stdout))


def test_slopes_of_slopes_are_refused(make: Callable[..., RunConfig]) -> None:
    config = make("enn", "trainer.strategy=fsdp", "editor.name=enn")
    with pytest.raises(ConfigError, match=r"editor\.enn\.second_order: expected false"):
        fit(config, False, ui())
