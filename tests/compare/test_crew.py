"""Cells that run beside each other, and what ends them."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

import saledit
from saledit.errors import JobError
from saledit.run.cells import cell, crew
from saledit.run.cells.crew import OwnProcess, run_all


def test_as_many_run_at_once_as_were_asked_for() -> None:
    live, most, lock = 0, 0, threading.Lock()
    both = threading.Barrier(2)

    def runner(path: Path) -> None:
        nonlocal live, most
        with lock:
            live += 1
            most = max(most, live)
        both.wait(30)
        with lock:
            live -= 1
        if path.name == "3":
            raise JobError("broken")

    paths = [Path(str(i)) for i in range(6)]
    found = dict(run_all(paths, runner, jobs=2))
    assert most == 2
    assert {path.name for path, error in found.items() if error} == {"3"}
    assert sorted(found) == paths


@pytest.fixture
def sigint() -> Iterator[None]:
    """As in the foreground: a shell's background jobs, and all that they start, ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("sigint")
@pytest.mark.parametrize(
    ("number", "jobs", "deaf", "ends"),
    [
        pytest.param(signal.SIGINT, 1, "", "saved", marks=pytest.mark.long),
        (signal.SIGINT, 2, "", "saved"),
        (signal.SIGINT, 2, "SIGINT", "runs"),  # ended by SIGTERM
        (signal.SIGINT, 1, "SIGINT SIGTERM", "runs"),  # killed
        (signal.SIGTERM, 1, "", "saved"),
        pytest.param(signal.SIGTERM, 2, "", "saved", marks=pytest.mark.long),
    ],
)
def test_an_interruption_ends_the_cells_that_run(
    number: signal.Signals, jobs: int, deaf: str, ends: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    marks = tmp_path / "marks"
    marks.mkdir()
    # In the place of a cell: says that it lives, and ends as one does that is interrupted.
    waits = """
import os, signal, sys, time
from pathlib import Path
for name in DEAF.split():
    signal.signal(getattr(signal, name), signal.SIG_IGN)
mark = Path(MARKS) / Path(sys.argv[1]).stem
try:
    mark.with_suffix(".pid").write_text(str(os.getpid()))
    mark.write_text("runs")
    time.sleep(600)
except KeyboardInterrupt:
    time.sleep(0.2)
    mark.write_text("saved")
    sys.exit(130)
""".replace("MARKS", repr(str(marks))).replace("DEAF", repr(deaf))
    monkeypatch.setattr(crew, "_CELL", waits)
    # A cell that is not told otherwise is waited for in vain: nobody else interrupts it here.
    monkeypatch.setattr(crew, "_GRACE", 0.5 if deaf else 2.0)
    runner = OwnProcess(True, 1)
    paths = [tmp_path / f"{i}.yaml" for i in range(4)]

    def seen() -> list[Path]:
        return sorted(path for path in marks.iterdir() if not path.suffix)

    def interrupt() -> None:
        while len([path for path in seen() if path.read_text()]) < jobs:
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    before = signal.getsignal(signal.SIGTERM)
    killer = threading.Thread(target=interrupt)
    killer.start()
    with pytest.raises(KeyboardInterrupt):
        list(run_all(paths, runner, jobs=jobs))
    killer.join()
    assert [path.name for path in seen()] == [str(i) for i in range(jobs)], "no other one begins"
    assert {path.read_text() for path in seen()} == {ends}
    assert not runner._live
    assert signal.getsignal(signal.SIGTERM) == before
    for path in marks.glob("*.pid"):
        with pytest.raises(ProcessLookupError):
            os.kill(int(path.read_text()), 0)


@pytest.mark.usefixtures("sigint")
def test_what_ends_the_table_ends_the_cells_that_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew, "_CELL", "import sys, time; time.sleep('1' in sys.argv[1] and 600)")
    monkeypatch.setattr(crew, "_GRACE", 0.1)
    runner = OwnProcess(True, 1)
    with closing(run_all([Path("0"), Path("1")], runner, jobs=2)) as ended:
        assert next(ended)[0] == Path("0")
        until = time.monotonic() + 60
        while not runner._live and time.monotonic() < until:  # the other may not have begun yet
            time.sleep(0.01)
        (process,) = runner._live
    assert process.poll() is not None
    assert not runner._live


def test_a_cell_finds_the_modules_that_its_comparison_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a module of the working folder, nor another saledit."""
    (tmp_path / "colorsys.py").write_text("raise SystemExit('of the working folder')")
    monkeypatch.chdir(tmp_path)
    home = str(Path(saledit.__file__).parents[1])
    own = ["/a/place", *(path for path in sys.path if path and path != home)]
    for paths in ([home, *own], ["", *own]):
        monkeypatch.setattr(sys, "path", paths)
        monkeypatch.setattr(
            crew,
            "_CELL",
            "import colorsys, pathlib, sys, saledit\n"
            f"assert pathlib.Path(saledit.__file__).parents[1] == pathlib.Path({home!r})\n"
            "assert '/a/place' in sys.path",
        )
        OwnProcess(True, 1)(tmp_path / "cell.yaml")


def test_a_process_that_cannot_be_started_is_a_cell_that_has_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(*_args: object, **_options: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(subprocess, "Popen", refused)
    paths = [Path("0"), Path("1")]
    found = dict(run_all(paths, OwnProcess(True, 1)))
    assert [*found] == paths
    for error in found.values():
        assert "its process cannot be started: Cannot allocate memory" in str(error)


def test_an_error_is_told_once_and_its_traceback_where_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "cell.yaml"
    path.write_text("what: ever")
    monkeypatch.setattr(cell, "use_threads", lambda _n: None)
    for debug in "01":
        assert cell.main(str(path), "1", "1", debug) == 2
        said = capfd.readouterr().err
        assert ("Traceback" in said) == (debug == "1")
        assert path.with_suffix(".error").read_text().startswith("what: unknown key")
    runner = OwnProcess(True, 3, debug=True)
    assert runner._options == ["1", "3", "1"]
