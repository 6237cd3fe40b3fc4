"""The command line without any model: help, errors, exit statuses, what goes where."""

from __future__ import annotations

import errno
import inspect
import json
import os
import signal
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.utilities.exceptions import SIGTERMException

import saledit
from saledit import cli, config, run, verbs
from saledit.errors import DataError, JobError

ROOT = Path(__file__).resolve().parents[2]
VERBS = tuple(verbs.VERBS)
RUN_VERBS = tuple(verb for verb in VERBS if verb != "config")
CALLS = {
    "quickstart": ["quickstart"],
    "fit": ["fit", "nli/quickstart"],
    "test": ["test", "some/run"],
    "saliency": ["saliency", "nli/quickstart"],
    "compare": ["compare", "nli/quickstart", "--editors", "salem", "step"],
    "report": ["report", "some/run"],
    "fix": ["fix", "some/run", "--failures", "f.jsonl", "--out", "o", "editor.looks=2"],
    "log": ["log", "o"],
    "undo": ["undo", "o", "2"],
}
# How the real functions are declared; read before a test puts another module in their place.
SIGNATURES = {verb: inspect.signature(getattr(run, verb)) for verb in RUN_VERBS}
FixOptions, Bounds = run.FixOptions, run.Bounds
HEAVY = ("torch", "lightning", "transformers", "datasets", "matplotlib", "numpy")


class Runs(types.ModuleType):
    """Stands in for ``saledit.run``: notes its calls, and answers or raises as told.

    What is called is noted by the names of the real function's parameters; what that would not take
    is an error here too.
    """

    def __init__(self) -> None:
        super().__init__("saledit.run")
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.act: Callable[[], dict[str, Any]] = dict
        self.FixOptions, self.Bounds = FixOptions, Bounds
        for verb in RUN_VERBS:
            setattr(self, verb, self._function(verb))

    def _function(self, verb: str) -> Callable[..., dict[str, Any]]:
        def call(*args: Any, **named: Any) -> dict[str, Any]:
            self.calls.append((verb, SIGNATURES[verb].bind(*args, **named).arguments))
            return self.act()

        return call


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    fake = Runs()
    monkeypatch.setitem(sys.modules, "saledit.run", fake)
    monkeypatch.setattr(saledit, "run", fake, raising=False)
    # They would change logging and warnings for all other tests.
    monkeypatch.setattr("saledit.report.quiet_libraries", lambda: None)
    monkeypatch.setattr("saledit.report.render", lambda verb, result, stream: f"{verb} {result}\n")
    return fake


def raising(error: BaseException) -> Callable[[], dict[str, Any]]:
    def act() -> dict[str, Any]:
        raise error

    return act


def saledit_process(*words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    settings: dict[str, Any] = {"cwd": ROOT, "capture_output": True, "text": True, "check": False}
    return subprocess.run([sys.executable, "-m", "saledit", *words], **(settings | options))


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr; nothing is on stdout."""
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith("\n")
    assert err.count("\n") == 1
    return err.rstrip("\n")


# ----------------------------------------------------------------------------------- help


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]):
    for words in ([], ["--help"], ["-h"], ["help"]):
        assert cli.main(words) == 0
        out = capsys.readouterr().out
        assert all(f"\n  {verb} " in out for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_has_examples(verb: str, capsys: pytest.CaptureFixture[str]):
    assert cli.main([verb, "--help"]) == 0
    out = capsys.readouterr().out
    assert f"usage: saledit {verb}" in out
    assert f"examples:\n  saledit {verb}" in out
    for option in ("--json", "--quiet", "--debug", "--threads"):
        assert option in out
    assert cli.main(["help", verb]) == 0
    assert capsys.readouterr().out == out


def test_version(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"saledit {saledit.__version__}\n"


@pytest.mark.parametrize("words", [["--help"], ["fit", "--help"], ["config"], ["tset"]])
def test_nothing_heavy_is_imported(words: list[str]):
    # Not timed: what takes the time of a start is what is imported.
    code = (
        f"import sys; from saledit.cli import main; main({words!r}); "
        f"print('heavy:', *sorted({{*{HEAVY!r}}} & {{*sys.modules}}), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stderr.splitlines()[-1:] == ["heavy:"]


# ----------------------------------------------------------------------------- user errors


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["tset"], "unknown verb 'tset'; did you mean 'test'? (known: compare, config, fit,"),
        (["--jsno", "fit"], "unknown option '--jsno' before the verb"),
        (["fix", "run", "--fialures", "a", "--out", "b"], "did you mean '--failures'?"),
        (["compare", "x", "--editor=salem"], "unknown option '--editor'; did you mean '--edit"),
        (["fit", "x", "-x"], "unknown option '-x'"),
        (["fit"], "the following arguments are required: CONFIG; see: saledit fit --help"),
        (["fix", "run"], "required: --failures, --out"),
        (
            ["fit", "nli/quickstart", "--resum"],
            "unknown option '--resum'; did you mean '--resume'?",
        ),
        (["quickstart", "extra"], "unexpected 'extra'; see: saledit quickstart --help"),
        (
            ["test", "run", "--threads", "none"],
            "--threads: expected a whole number above 0, got 'none'",
        ),
        (["test", "run", "--threads", "0"], "--threads: expected a whole number above 0, got '0'"),
        (
            ["fix", "r", "--failures", "f", "--out", "o", "--format", "dleta"],
            "did you mean 'delta'?",
        ),
        (["fit", "nli/quickstar"], "did you mean 'nli/quickstart'?"),
        (
            ["compare", "nli/quickstart", "--editors", "step", "--seeds", "one"],
            "--seeds: expected whole numbers, got 'one'",
        ),
        (
            ["compare", "nli/quickstart", "--editors", ",", "--seeds", "0"],
            "--editors: expected words, got ','",
        ),
        (
            ["compare", "nli/quickstart", "--seeds", "0,", "1,two", "--editors", "step"],
            "--seeds: expected whole numbers, got '0 1 two'",
        ),
        (
            ["compare", "nli/quickstart", "--seeds", "0", "sed=1", "--editors", "step"],
            "did you mean 'seed'?",
        ),
        (["saliency", "no/such.yaml"], "no/such.yaml: expected a YAML file"),
        (["fit", "nli/quickstart", "sed=1"], "did you mean 'seed'?"),
        (["config", "nli/quickstart", "train.epoch=1"], "did you mean 'epochs'?"),
        (["config", "nli/quickstart", "seed"], "seed: expected key=value"),
        (["config", "seed=x"], "seed: "),
        (["config", "train.epochs=0"], "train.epochs: expected at least 1"),
    ],
)
def test_a_user_error_is_one_line(
    words: list[str], expected: str, runs: Runs, capsys: pytest.CaptureFixture[str]
):
    assert cli.main(words) == 2
    line = one_line(capsys)
    assert line.startswith("error: ")
    assert expected in line
    assert not runs.calls


def test_a_message_of_several_lines_becomes_one(runs: Runs, capsys: pytest.CaptureFixture[str]):
    runs.act = raising(DataError("a.jsonl:3: expected\n  text,\tgot \x1b[31mred"))
    assert cli.main(CALLS["test"]) == 2
    assert one_line(capsys) == "error: a.jsonl:3: expected text, got [31mred"


# ---------------------------------------------------------------------------------- status


@pytest.mark.parametrize(
    ("error", "status", "expected"),
    [
        (JobError("training diverged"), 1, "error: training diverged"),
        (OSError(errno.ENOSPC, "No space left"), 1, "error: the disk is full; free some space"),
        (FileNotFoundError(errno.ENOENT, "No such file", "x.y"), 1, "error: x.y: No such file"),
        (MemoryError(), 1, "error: out of memory"),
        (ZeroDivisionError("a\nb"), 1, "error: internal: ZeroDivisionError: a b; run again with"),
    ],
)
def test_a_failed_job_is_one_line(
    error: Exception, status: int, expected: str, runs: Runs, capsys: pytest.CaptureFixture[str]
):
    runs.act = raising(error)
    assert cli.main(CALLS["test"]) == status
    assert one_line(capsys).startswith(expected)


@pytest.mark.parametrize(("cells", "status"), [([{}, {"error": "killed"}], 1), ([{}, {}], 0)])
def test_a_comparison_with_a_failed_cell_has_failed(
    cells: list[dict[str, str]], status: int, runs: Runs, capsys: pytest.CaptureFixture[str]
):
    runs.compare = runs._function("compare")  # type: ignore[attr-defined]
    runs.act = lambda: {"cells": cells}
    words = ["compare", "nli/quickstart", "--editors", "step", "--json"]
    assert cli.main(words) == status
    assert json.loads(capsys.readouterr().out) == {"cells": cells}, "the table is there"


def test_debug_shows_the_traceback(runs: Runs, capsys: pytest.CaptureFixture[str]):
    runs.act = raising(JobError("training diverged"))
    assert cli.main([*CALLS["test"], "--debug"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("Traceback")
    assert err.endswith("\nerror: training diverged\n")


@pytest.mark.parametrize("verb", RUN_VERBS)
@pytest.mark.parametrize(
    ("error", "status", "how"),
    [(KeyboardInterrupt, 130, "interrupted"), (SIGTERMException, 143, "terminated")],
)
def test_ctrl_c_is_130_and_sigterm_143(
    error: type[BaseException], status: int, how: str, verb: str, runs: Runs,
    capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    runs.act = raising(error())
    assert cli.main([*CALLS[verb], "--debug"]) == status
    expected = how
    if verb == "fit":
        expected += ": go on with 'saledit fit nli/quickstart --debug --resume'"
    if verb == "compare":
        again = "saledit compare nli/quickstart --editors salem step --debug"
        expected += f": go on with '{again}'; what is finished is kept"
    assert one_line(capsys) == expected


def test_a_real_ctrl_c(tmp_path: Path):
    code = (
        "import signal, sys, types, time, saledit\n"
        # A shell's background job, as a CI may be, inherits a SIGINT that is ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "run = types.ModuleType('saledit.run')\n"
        "def test(**args):\n"
        "    sys.stderr.write('ready\\n'); sys.stderr.flush(); time.sleep(60)\n"
        "run.test = test\n"
        "sys.modules['saledit.run'] = saledit.run = run\n"
        "import saledit.report; saledit.report.quiet_libraries = lambda: None\n"
        "from saledit.cli import main\n"
        "sys.exit(main(['test', 'x']))\n"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == "interrupted\n"
        assert process.wait(10) == 130


def test_a_closed_pipe_is_no_error():
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as pipe:
        done = saledit_process("config", capture_output=False, stdout=pipe, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_under_stdout_is_said():
    with Path("/dev/full").open("w") as full:
        done = saledit_process("config", capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1
    assert done.stderr == "error: the disk is full; free some space and run again\n"


# ----------------------------------------------------------------------------------- calls


# Each option with a value of its own, so that none can stand in for another.
FULL = {
    "quickstart": ("--out o --task qa", {"out": "o", "task": "qa"}),
    "fit": ("nli/quickstart seed=3 --resume", {"config": ("seed=3",), "resume": True}),
    "test": ("some/run seed=2", {"target": "some/run", "overrides": ["seed=2"]}),
    "saliency": ("nli/quickstart seed=4", {"config": ("seed=4",)}),
    "compare": (
        ("nli/quickstart seed=5 --editors salem,step --seeds 6 7 --schedules batch:8 --edits 9 "
        "--seconds 10.5 --jobs 11 --anew"),
        {
            "target": "nli/quickstart", "overrides": ["seed=5"], "editors": ["salem", "step"],
            "seeds": [6, 7], "schedules": ["batch:8"], "edits": 9, "seconds": 10.5, "jobs": 11,
            "anew": True,
        },
    ),
    "fix": (
        ("some/run editor.looks=2 --failures f --out o --check c --format lora --rank 3 "
        "--max-drawdown 0.25 --min-fixed 0.5 --stream"),
        {
            "run_dir": "some/run", "failures": "f", "out": "o",
            "options": FixOptions(
                check="c", format="lora", rank=3, bounds=Bounds(max_drawdown=0.25, min_fixed=0.5),
                part=False, stream=True, settings=["editor.looks=2"],
            ),
        },
    ),
    "log": ("o", {"out": "o"}),
    "undo": ("o 2", {"out": "o", "number": 2}),
    "report": ("some/run --out r.html", {"target": "some/run", "out": "r.html"}),
}  # fmt: skip
# What the functions get where no option is given.
BARE = {
    "quickstart": {"out": None, "task": "nli"},
    "fit": {"config": (), "resume": False},
    "test": {"target": "some/run", "overrides": []},
    "saliency": {"config": ()},
    "compare": {
        "target": "nli/quickstart", "overrides": [], "editors": ["salem", "step"], "seeds": [0],
        "schedules": [], "edits": 0, "seconds": 0.0, "jobs": 1, "anew": False,
    },
    "fix": {
        "run_dir": "some/run", "failures": "f.jsonl", "out": "o",
        "options": FixOptions(settings=["editor.looks=2"]),
    },
    "log": {"out": "o"},
    "undo": {"out": "o", "number": 2},
    "report": {"target": "some/run", "out": None},
}  # fmt: skip


def called(runs: Runs, verb: str, words: list[str]) -> dict[str, Any]:
    """The arguments of the verb's function, all but the progress, by name."""
    assert cli.main([verb, *words, "--quiet"]) == 0
    name, given = runs.calls[-1]
    assert name == verb
    given = dict(given)
    assert given.pop("ui").quiet is True
    return given


def loaded(expected: dict[str, Any]) -> dict[str, Any]:
    """What is expected, with the configuration that its settings make."""
    if "config" not in expected:
        return expected
    return expected | {"config": config.load("nli/quickstart", list(expected["config"]))}


@pytest.mark.parametrize("verb", RUN_VERBS)
def test_every_option_reaches_its_parameter(verb: str, runs: Runs):
    words, expected = FULL[verb]
    assert called(runs, verb, words.split()) == loaded(expected)


@pytest.mark.parametrize("verb", RUN_VERBS)
def test_without_options_the_defaults_are_passed(verb: str, runs: Runs):
    assert called(runs, verb, CALLS[verb][1:]) == loaded(BARE[verb])


def test_a_flag_is_no_other_flag(runs: Runs):
    words = FULL["fix"][0].replace("--stream", "--part").split()
    options = called(runs, "fix", words)["options"]
    assert (options.part, options.stream) == (True, False)


@pytest.mark.parametrize("verb", RUN_VERBS)
def test_no_option_is_left_out_above(verb: str):
    names = {a.name for a in verbs.VERBS[verb].arguments if a.name.startswith("--")}
    assert names - {"--part"} == {word for word in FULL[verb][0].split() if word.startswith("--")}


def test_options_stand_anywhere(runs: Runs, capsys: pytest.CaptureFixture[str]):
    for words in (
        ["--json", "fit", "nli/quickstart", "seed=3", "--resume", "train.epochs=2"],
        ["fit", "--resume", "--json", "nli/quickstart", "seed=3", "train.epochs=2"],
        ["fit", "nli/quickstart", "--resume", "seed=3", "train.epochs=2", "--json"],
    ):
        assert cli.main(words) == 0
        given = runs.calls[-1][1]
        assert (given["config"].seed, given["config"].train.epochs) == (3, 2)
        assert (given["resume"], given["ui"].quiet) == (True, False)
        assert capsys.readouterr().out == "{}\n"


@pytest.mark.parametrize(
    "words",
    [
        ["--editors", "salem,mend,mine/x.yaml", "--seeds", "0,1", "seed.x=[1,2]"],
        ["--editors", "salem", "mend,mine/x.yaml", "seed.x=[1,2]", "--seeds", "0", "1"],
        ["--editors", "salem,", "mend", "mine/x.yaml", "seed.x=[1,2]", "--seeds", "0,", "1"],
    ],
)
def test_several_words_stand_apart_or_with_commas(words: list[str]):
    parser = cli._parser("compare", cli.VERBS["compare"])
    args = cli._parse(parser, ["nli/quickstart", *words])
    assert args.editors == ["salem", "mend", "mine/x.yaml"]
    assert args.seeds == [0, 1]
    assert args.overrides == ["seed.x=[1,2]"]


# ---------------------------------------------------------------------------------- output


@pytest.mark.parametrize("verb", RUN_VERBS)
def test_json_stands_alone_on_stdout(verb: str, runs: Runs, capsys: pytest.CaptureFixture[str]):
    result = {"accuracy": 0.5, "text": "Paraná \ud800", "none": None}

    def act() -> dict[str, Any]:
        print("a library speaks")
        return result

    runs.act = act
    assert cli.main([*CALLS[verb], "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == result
    assert out.isascii()
    assert "a library speaks" in err


def test_json_never_holds_nan(runs: Runs, capsys: pytest.CaptureFixture[str]):
    runs.act = lambda: {"accuracy": float("nan")}
    assert cli.main([*CALLS["test"], "--json"]) == 1
    assert "NaN" in one_line(capsys)


@pytest.mark.parametrize("verb", RUN_VERBS)
def test_people_get_the_page_of_the_verb(verb: str, runs: Runs, capsys: pytest.CaptureFixture[str]):
    runs.act = lambda: {"a": 1}
    assert cli.main(CALLS[verb]) == 0
    assert capsys.readouterr() == (f"{verb} {{'a': 1}}\n", "")


def test_quiet_keeps_the_result_and_drops_the_rest(runs: Runs, capsys: pytest.CaptureFixture[str]):
    def act() -> dict[str, Any]:
        print("a library speaks")
        runs.calls[-1][1]["ui"].stage("testing")
        return {}

    runs.act = act
    assert cli.main([*CALLS["test"], "--quiet"]) == 0
    assert capsys.readouterr() == ("test {}\n", "")
    assert cli.main(CALLS["test"]) == 0
    assert "testing ..." in capsys.readouterr().err


def test_config_is_yaml_with_comments(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    assert cli.main(["config", "nli/quickstart", "seed=9"]) == 0
    out = capsys.readouterr().out
    assert "seed: 9 " in out
    assert "# seed of splits" in out
    path = tmp_path / "my.yaml"
    path.write_text(out, encoding="utf-8")
    assert config.load(path) == config.load("nli/quickstart", ["seed=9"])
    monkeypatch.chdir(tmp_path)
    assert cli.main(["config", "my.yaml", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["seed"] == 9
    assert shown["train"]["epochs"] == config.load(path).train.epochs
    assert cli.main(["config", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "run"


def test_threads_are_set(runs: Runs, monkeypatch: pytest.MonkeyPatch):
    seen: list[int] = []
    monkeypatch.setattr("saledit.report.use_threads", seen.append)
    assert cli.main([*CALLS["test"], "--threads", "2"]) == 0
    assert seen == [2]
