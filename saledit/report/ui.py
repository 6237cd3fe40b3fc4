"""Progress of long work, on stderr: live on a terminal, a few plain lines elsewhere."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Protocol, TextIO, cast

from rich.console import Console
from rich.progress import (
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from saledit.report.look import clean, duration

#: Seconds between two plain lines of one progress.
_PLAIN_EVERY = 5.0
_COLUMNS = 24


class Bar(Protocol):
    """What ``Ui.progress`` yields."""

    def update(self, done: int, note: str = "") -> None:
        """Say how much is done, and perhaps a word about it."""
        ...


class Ui:
    """Shows what a run is doing.

    A context manager: at its end the live display is taken away.

    Args:
        quiet: show nothing at all.
        stream: where to; stderr where none is given.
        clock: seconds, for tests.
        command: what was typed, for the record; "" where nothing was.
        debug: show the tracebacks of errors, also of those that end no command.

    Attributes:
        command: as given.
        debug: as given.
        quiet: nothing is shown.
        interactive: a person is watching a terminal.
    """

    def __init__(
        self,
        quiet: bool = False,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
        command: str = "",
        debug: bool = False,
    ) -> None:
        self.command, self.debug = command, debug
        self._stream = stream if stream is not None else sys.stderr
        self._console = Console(file=self._stream, highlight=False)
        self._clock = clock
        self.quiet = quiet
        terminal = self._console.is_terminal and not self._console.is_dumb_terminal
        self.interactive = terminal and not quiet
        self._unicode = self._console.encoding.startswith("utf")
        self._live: Progress | None = None
        self._stage: tuple[str, TaskID | None] | None = None

    def __enter__(self) -> Ui:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close(failed=kind is not None)

    def stage(self, text: str) -> None:
        """Begin a stage of the work; it lasts until the next one."""
        self._end_stage()
        text = clean(text)
        if self.interactive:
            self._stage = (text, self._started().add_task(text, total=None))
        else:
            self._stage = (text, None)
            self._plain(f"{text} ...")

    @contextmanager
    def progress(self, text: str, total: int) -> Iterator[Bar]:
        """Show how far a piece of work is.

        Args:
            text: what is done.
            total: how many steps it has.

        Yields:
            A bar with ``update(done)``.
        """
        text = clean(text)
        if self.interactive:
            task = self._started().add_task(text, total=total)
            try:
                yield _LiveBar(self, task)
            finally:
                if self._live is not None:
                    self._live.remove_task(task)
        else:
            plain = _PlainBar(text, total, self._plain, self._clock)
            yield plain
            plain.end()

    def hush(self) -> None:
        """Show nothing from here on."""
        self._end_stage()
        self.quiet, self.interactive = True, False

    def pause(self) -> None:
        """Take the live display away; it comes back with the next stage, bar or update."""
        if self._live is not None:
            self._live.stop()

    def close(self, failed: bool = False) -> None:
        """End the last stage and take the live display away for good."""
        self._end_stage(failed)
        if self._live is not None:
            self._live.stop()
            self._live = None

    def foreign(self) -> TextIO:
        """A stream for what libraries write to stdout: it goes to stderr, clear of the display.

        Use it with ``contextlib.redirect_stdout``, so that stdout holds results alone.
        """
        return cast(TextIO, _Foreign(self))

    def _started(self) -> Progress:
        if self._live is None:
            self._live = Progress(
                SpinnerColumn("dots" if self._unicode else "line", style="cyan"),
                TextColumn("{task.description}", markup=False),
                _Counted(self._unicode),
                TimeElapsedColumn(),
                console=self._console,
                transient=True,
                refresh_per_second=5,  # a core is a lot where there are two
                redirect_stdout=False,
                redirect_stderr=False,
            )
        if not self._live.live.is_started:
            self._live.start()
        return self._live

    def _end_stage(self, failed: bool = False) -> None:
        if self._stage is None:
            return
        text, task = self._stage
        self._stage = None
        if task is None or self._live is None:
            return
        self._live.remove_task(task)
        sign = ("✗" if failed else "✓") if self._unicode else ("x" if failed else "*")
        mark = Text(sign, style="red" if failed else "green")
        self._console.print(mark, Text(text, style="dim"))

    def _plain(self, text: str) -> None:
        if not self.quiet:
            self._stream.write(text + "\n")
            self._stream.flush()

    def _write_foreign(self, text: str) -> None:
        if not self.quiet:
            self.pause()
            self._stream.write(text)


class _LiveBar:
    """A bar of the live display."""

    def __init__(self, ui: Ui, task: TaskID) -> None:
        self._ui, self._task = ui, task

    def update(self, done: int, note: str = "") -> None:
        self._ui._started().update(self._task, completed=done, note=clean(note))


class _PlainBar:
    """A line every few seconds."""

    def __init__(
        self, text: str, total: int, write: Callable[[str], None], clock: Callable[[], float]
    ) -> None:
        self._text, self._total, self._write, self._clock = text, total, write, clock
        self._began = self._last = clock()
        self._shown = False

    def update(self, done: int, note: str = "") -> None:
        now = self._clock()
        if now - self._last < _PLAIN_EVERY:
            return
        self._last, self._shown = now, True
        share = f" ({100 * done // self._total}%)" if self._total > 0 else ""
        about = f", {clean(note)}" if note else ""
        self._write(f"{self._text}: {done} of {self._total}{share}{about}")

    def end(self) -> None:
        if self._shown:
            self._write(f"{self._text}: done in {duration(self._clock() - self._began)}")


class _Counted(ProgressColumn):
    """Bar, count and note of a task with a known end; nothing for a stage."""

    def __init__(self, unicode: bool) -> None:
        super().__init__()
        self._sign = "━" if unicode else "-"

    def render(self, task: Task) -> Text:
        if task.total is None:
            return Text("")
        full = round(_COLUMNS * min(task.completed / task.total, 1.0)) if task.total else 0
        out = Text(self._sign * full, style="cyan")
        out.append(self._sign * (_COLUMNS - full), style="bright_black")
        out.append(f" {int(task.completed)}/{int(task.total)}", style="default")
        note = task.fields.get("note", "")
        return out.append(f"  {note}", style="dim") if note else out


class _Foreign(io.TextIOBase):
    """Passes text on to the stream of a ``Ui``."""

    def __init__(self, ui: Ui) -> None:
        super().__init__()
        self._ui = ui

    def write(self, text: str) -> int:
        self._ui._write_foreign(text)
        return len(text)

    def flush(self) -> None:
        self._ui._stream.flush()

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self._ui.interactive

    def fileno(self) -> int:
        return self._ui._stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._ui._console.encoding
