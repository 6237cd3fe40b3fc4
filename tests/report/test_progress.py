"""Progress on a terminal and in a log, and what is said where a run fails."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from shown import Terminal

from saledit.errors import JobError
from saledit.report import (
    Ui,
)
from saledit.report.failures import explain
from saledit.report.look import drawdown

ROOT = Path(__file__).resolve().parents[2]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_plain_progress_is_a_line_every_few_seconds():
    stream, clock = io.StringIO(), Clock()
    with Ui(stream=stream, clock=clock) as ui:
        assert not ui.interactive
        ui.stage("reading [data]")
        with ui.progress("caching", 200) as bar:
            for done in range(1, 201):
                clock.now += 0.1
                bar.update(done, "loss 0.1")
    lines = stream.getvalue().splitlines()
    assert lines[0] == "reading [data] ..."
    assert lines[1].startswith("caching: ")
    assert lines[1].endswith(" of 200 (25%), loss 0.1")
    assert lines[-1] == "caching: done in 20.0 s"
    assert len(lines) <= 6


def test_short_work_and_work_of_no_steps_leaves_no_line():
    stream, clock = io.StringIO(), Clock()
    ui = Ui(stream=stream, clock=clock)
    with ui.progress("caching", 0) as bar:
        bar.update(0)
    assert stream.getvalue() == ""
    with ui.progress("caching", 0) as bar:
        clock.now += 9
        bar.update(0)
    assert stream.getvalue().startswith("caching: 0 of 0\n")


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_quiet_is_silent(stream: Any):
    with Ui(quiet=True, stream=stream) as ui:
        assert not ui.interactive
        ui.stage("reading")
        with ui.progress("caching", 10) as bar:
            bar.update(5)
        ui.foreign().write("a library speaks")
    stream.seek(0)
    assert stream.read() == ""


def test_live_progress_on_a_terminal():
    stream = Terminal()
    with Ui(stream=stream) as ui:
        assert ui.interactive
        ui.stage("reading [data]")
        ui.stage("training")
        with ui.progress("epochs", 4) as bar:
            bar.update(1, "loss 0.5")
            ui.foreign().write("a library speaks\n")
            bar.update(2)
    text = stream.text()
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)
    assert "✓ reading [data]" in plain
    assert "✓ training" in plain
    assert "a library speaks" in plain
    assert text.rstrip().endswith("\x1b[0m") or "\x1b[?25h" in text  # the cursor is back
    assert text.count("\x1b[?25h") >= text.count("\x1b[?25l") > 0


def test_a_failed_stage_is_marked_and_the_display_taken_away():
    stream = Terminal()
    ui = Ui(stream=stream)

    def work():
        with ui, ui.progress("epochs", 4):
            ui.stage("training")
            raise JobError("diverged")

    with pytest.raises(JobError):
        work()
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", stream.text())
    assert "✗ training" in text


def test_foreign_text_goes_to_the_stream():
    stream = io.StringIO()
    out = Ui(stream=stream).foreign()
    assert out.writable()
    assert not out.isatty()
    out.write("x")
    out.flush()
    assert stream.getvalue() == "x"


def test_a_real_terminal_is_interactive():
    leader, follower = pty.openpty()
    with os.fdopen(follower, "w") as stream:
        assert Ui(stream=stream).interactive
        assert Ui(stream=stream).foreign().fileno() == stream.fileno()
    os.close(leader)


def test_a_full_disk_and_memory_are_named():
    assert explain(OSError(28, "No space left on device", "/a/b"), [])[0] == (
        "error: the disk is full (/a/b); free some space and run again"
    )
    assert "out of memory" in explain(MemoryError(), [])[0]
    assert explain(PermissionError(13, "Permission denied", "/a"), []) == (
        "error: /a: Permission denied",
        1,
    )
    assert explain(BrokenPipeError(), []) == ("", 141)


def test_an_exit_that_stands_for_ctrl_c_is_an_interrupt():
    def lightning():
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            sys.exit(1)

    with pytest.raises(SystemExit) as caught:
        lightning()
    words = ["--quiet", "fit", "my.yaml", "--resume", "name=a b"]
    assert explain(caught.value, words) == (
        "interrupted: go on with 'saledit --quiet fit my.yaml 'name=a b' --resume'",
        130,
    )
    assert explain(caught.value, ["test", "fit"]) == ("interrupted", 130)
    assert explain(SystemExit(3), [])[0].startswith("error: internal: SystemExit: 3")


QUIET = """
import sys
from saledit.report import quiet_libraries
quiet_libraries()
import logging, warnings
import lightning as L, torch
from transformers.utils import logging as hf
from torch.utils.data import DataLoader

class Module(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.map = torch.nn.Linear(2, 1)
    def training_step(self, batch, _):
        return self.map(batch).sum()
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)

L.seed_everything(0)
L.Trainer(max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
          enable_model_summary=False, accelerator="cpu").fit(Module(), DataLoader(torch.ones(4, 2)))
assert not hf.is_progress_bar_enabled()
import io
from saledit.report import Ui, training_bar
stream = io.StringIO()
clock = iter(range(0, 1000, 4)).__next__
bar = training_bar(Ui(stream=stream, clock=clock), "tuning")
L.Trainer(max_epochs=3, logger=False, enable_checkpointing=False, enable_progress_bar=False,
          enable_model_summary=False, accelerator="cpu", callbacks=[bar]).fit(
    Module(), DataLoader(torch.ones(4, 2)))
lines = stream.getvalue().splitlines()
assert "of 12 (" in lines[0] and lines[-1].startswith("tuning: done in"), lines
class Checked(Module):
    def validation_step(self, batch, _):
        return self.map(batch).sum()
bar = training_bar(Ui(stream=stream, clock=clock), "tuning")
L.Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False,
          enable_model_summary=False, accelerator="cpu", callbacks=[bar]).validate(
    Checked(), DataLoader(torch.ones(4, 2)), verbose=False)
checked = stream.getvalue().splitlines()[len(lines):]
assert checked[0] == "validating: 2 of 4 (50%)", checked
assert checked[-1].startswith("validating: done in"), checked
lines += checked
class Failing(Module):
    def training_step(self, batch, i):
        if i == 1:
            raise RuntimeError("in the middle")
        return super().training_step(batch, i)
bar = training_bar(Ui(stream=stream, clock=clock), "failing")
try:
    L.Trainer(max_epochs=3, logger=False, enable_checkpointing=False, enable_progress_bar=False,
              enable_model_summary=False, accelerator="cpu", callbacks=[bar]).fit(
        Failing(), DataLoader(torch.ones(4, 2)))
except RuntimeError as error:
    assert str(error) == "in the middle"
failed = stream.getvalue().splitlines()[len(lines):]
assert failed and not any("done in" in line for line in failed), failed
logging.getLogger("datasets").warning("noise")
warnings.warn("noise of another package")
"""


@pytest.mark.parametrize(
    ("own", "spins"),
    [({}, "10000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, None)],
)
def test_threads_that_wait_leave_the_processor_unless_one_has_it_otherwise(
    own: dict[str, str], spins: str | None, monkeypatch: pytest.MonkeyPatch
):
    """Set before torch is imported, or its OpenMP does not read it."""
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    check = (
        "import os, sys, importlib.util; importlib.util.find_spec = lambda *_: None\n"
        "from saledit.report.quiet import quiet_libraries; quiet_libraries()\n"
        "print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(spins), "False"]


@pytest.mark.long
def test_libraries_are_silent_and_training_is_shown(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-c", QUIET],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("value", "text", "said"),
    [
        (0.012, False, "1.2 pt"),
        (-0.012, False, "-1.2 pt"),
        (0.0263, True, "2.6% more"),
        (-0.0006, True, "0.1% less"),
        (9.9994, True, "999.9% more"),
        (12.5, True, "1,250% more"),
        (1e298, True, "1e+300% more"),
        (None, True, "-"),
    ],
)
def test_a_drawdown_of_text_says_which_way(value: float | None, text: bool, said: str) -> None:
    assert drawdown(value, text) == said
