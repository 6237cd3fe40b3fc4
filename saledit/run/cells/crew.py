"""Cells of a comparison in processes of their own, one after another or some beside each other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Lock
from typing import Any

import saledit
from saledit.errors import JobError
from saledit.files import read_text, reason

#: Runs the cell of a configuration file; raises JobError with what went wrong.
Runner = Callable[[Path], None]

_CELL = "import sys; from saledit.run.cells.cell import main; sys.exit(main(*sys.argv[1:]))"
_NOTE = 1 << 20  # bytes of a note at most
_GRACE = 10.0  # seconds to end by itself: a terminal's Ctrl-C reaches every process


def _environment() -> dict[str, str]:
    """A cell finds the modules that its comparison does, in the same order."""
    own, paths = str(Path(saledit.__file__).parents[1]), [path for path in sys.path if path]
    if own not in paths:  # it was found in the working folder, which has no name there
        paths.insert(0, own)
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


class OwnProcess:
    """Runs a cell in a process: its peak of memory is its own, and it takes nobody down.

    Args:
        quiet: show nothing of its progress.
        threads: processor threads it may use.
        debug: show the traceback of an error.
    """

    def __init__(self, quiet: bool, threads: int, debug: bool = False) -> None:
        self._options = [str(int(quiet)), str(threads), str(int(debug))]
        self._live: set[subprocess.Popen[bytes]] = set()
        self._ended, self._starting = False, Lock()

    def __call__(self, path: Path) -> None:
        """Run the cell of a configuration file to its end.

        Raises:
            JobError: it failed, or was killed.
            KeyboardInterrupt: it was interrupted.
        """
        # Safe (-P): the folder in which one works is no place for modules.
        command = [sys.executable, "-P", "-c", _CELL, str(path), *self._options]
        with self._starting:  # what is started is seen by an interruption, or is not started
            if self._ended:
                raise KeyboardInterrupt
            # Our own interpreter and module; the path is one that the caller wrote.
            try:
                process = subprocess.Popen(  # noqa: S603
                    command, stdout=subprocess.DEVNULL, env=_environment()
                )
            except OSError as error:
                raise JobError(
                    f"its process cannot be started: {reason(error)}; free some memory, or take "
                    "fewer --jobs"
                ) from error
            self._live.add(process)
        try:
            status = process.wait()
        finally:
            if process.poll() is not None:  # an interruption has to wait for one that runs
                self._live.discard(process)
        if status in (-signal.SIGINT, 130):
            raise KeyboardInterrupt
        if status < 0:
            name = signal.Signals(-status).name
            raise JobError(f"killed by {name}" + (", out of memory?" if name == "SIGKILL" else ""))
        if status:
            raise JobError(_note(path.with_suffix(".error")) or f"status {status}")

    def interrupt(self, heard: bool = True) -> None:
        """Let the cells that run write their state and end; no other one begins, none is left.

        Those of a run in the background ignore SIGINT, as it does, and get SIGTERM. One that does
        not end by that either is killed; its files are whole, whenever that is.

        Args:
            heard: they may have been interrupted, too, and end by themselves.
        """
        with self._starting:
            self._ended = True
        try:
            if heard:
                self._wait()
            for number in (signal.SIGINT, signal.SIGTERM):
                self._send(number)
                self._wait()
        finally:  # whoever does not want to wait interrupts once more
            self._send(signal.SIGKILL)
            self._wait()

    def _send(self, number: signal.Signals) -> None:
        for process in tuple(self._live):
            process.send_signal(number)  # nothing is sent to one that has ended

    def _wait(self) -> None:
        """Wait for those that run, for a while."""
        until = time.monotonic() + _GRACE
        for process in tuple(self._live):
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, until - time.monotonic()))
                self._live.discard(process)


@contextmanager
def _hearing_sigterm() -> Iterator[Event]:
    """Take SIGTERM for an interruption, unless it is ignored.

    Yields:
        Set when it has come. Unlike Ctrl-C on a terminal it comes to this process alone.
    """
    before, came = signal.getsignal(signal.SIGTERM), Event()
    if before == signal.SIG_IGN or threading.current_thread() is not threading.main_thread():
        yield came
        return

    def end(_number: int, _frame: object) -> None:
        came.set()
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)
    try:
        yield came
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


def _note(path: Path) -> str:
    """What a cell left of its error; "" where that cannot be read."""
    try:
        return read_text(path, _NOTE)
    except (OSError, UnicodeDecodeError):
        return ""


class _Here(Executor):
    """Runs what is submitted at once, in the caller's thread, which gets signals."""

    def submit(self, call: Callable[..., Any], /, *args: Any, **options: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(call(*args, **options))
        except Exception as error:
            future.set_exception(error)
        return future


def run_all(
    paths: Sequence[Path],
    runner: Runner,
    jobs: int = 1,
    begin: Callable[[Path], None] | None = None,
) -> Generator[tuple[Path, JobError | None]]:
    """Run cells, some at a time; one that fails leaves the others alone.

    Args:
        paths: configuration files of the cells.
        runner: runs one; called in the caller's thread if it is one at a time.
        jobs: how many at a time.
        begin: called as a cell begins.

    Yields:
        (path, what went wrong or None) as they end. An interruption, also by SIGTERM, ends those
        that run. Close it, so that what ends the caller's loop ends them, too.

    Raises:
        KeyboardInterrupt: it was interrupted, or one of them was.
    """
    waiting = list(reversed(paths))
    running: dict[Future[None], Path] = {}
    pool: Executor = _Here() if jobs == 1 else ThreadPoolExecutor(jobs)
    with _hearing_sigterm() as sigterm, pool:
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    path = waiting.pop()
                    if begin is not None:
                        begin(path)
                    running[pool.submit(runner, path)] = path
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    error = future.exception()
                    if error is not None and not isinstance(error, JobError):
                        raise error
                    yield running.pop(future), error
        except BaseException:
            if isinstance(runner, OwnProcess):
                runner.interrupt(heard=not sigterm.is_set())
            raise
