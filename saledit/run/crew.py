"""Cells of a comparison in processes of their own, one after another or some beside each other."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from saledit.errors import JobError
from saledit.files import read_text

#: Runs the cell of a configuration file; raises JobError with what went wrong.
Runner = Callable[[Path], None]

_CELL = "import sys; from saledit.run.cell import main; sys.exit(main(*sys.argv[1:]))"
_NOTE = 1 << 20  # bytes of a note at most
_GRACE = 10.0  # seconds to end by itself: a terminal's Ctrl-C reaches every process


class OwnProcess:
    """Runs a cell in a process: its peak of memory is its own, and it takes nobody down.

    Args:
        quiet: show nothing of its progress.
        threads: processor threads it may use.
    """

    def __init__(self, quiet: bool, threads: int) -> None:
        self._options = [str(int(quiet)), str(threads)]
        self._live: set[subprocess.Popen[bytes]] = set()
        self._ended = False

    def __call__(self, path: Path) -> None:
        """Run the cell of a configuration file to its end.

        Raises:
            JobError: it failed, or was killed.
            KeyboardInterrupt: it was interrupted.
        """
        if self._ended:
            raise KeyboardInterrupt
        command = [sys.executable, "-c", _CELL, str(path), *self._options]
        # Our own interpreter and module; the path is one that the caller wrote.
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: S603
        self._live.add(process)
        try:
            status = process.wait()
        finally:
            self._live.discard(process)
        if status in (-signal.SIGINT, 130):
            raise KeyboardInterrupt
        if status < 0:
            name = signal.Signals(-status).name
            raise JobError(f"killed by {name}" + (", out of memory?" if name == "SIGKILL" else ""))
        if status:
            raise JobError(_note(path.with_suffix(".error")) or f"status {status}")

    def interrupt(self) -> None:
        """Let the cells that run write their state and end; no other one begins.

        Those of a run in the background ignore SIGINT, as it does, and get SIGTERM.
        """
        self._ended = True
        for number in (signal.SIGINT, signal.SIGTERM):
            for process in tuple(self._live):
                try:
                    process.wait(_GRACE)
                except subprocess.TimeoutExpired:
                    process.send_signal(number)


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
) -> Iterator[tuple[Path, JobError | None]]:
    """Run cells, some at a time; one that fails leaves the others alone.

    Args:
        paths: configuration files of the cells.
        runner: runs one; called in the caller's thread if it is one at a time.
        jobs: how many at a time.
        begin: called as a cell begins.

    Yields:
        (path, what went wrong or None) as they end. An interruption ends those that run.
    """
    waiting = list(reversed(paths))
    running: dict[Future[None], Path] = {}
    with _Here() if jobs == 1 else ThreadPoolExecutor(jobs) as pool:
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
                runner.interrupt()
            raise
