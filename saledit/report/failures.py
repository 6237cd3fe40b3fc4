"""An error as one line and an exit status."""

from __future__ import annotations

import errno
import shlex
from collections.abc import Sequence

from saledit.errors import SaleditError

# As a shell counts: 128 and the number of the signal.
INTERRUPTED, PIPE_CLOSED, TERMINATED = 130, 141, 143


def explain(error: BaseException, words: Sequence[str]) -> tuple[str, int]:
    """What to tell the user of an error that ended a command.

    Args:
        error: whatever was raised.
        words: the command line after the program's name.

    Returns:
        The message, empty where nothing is left to say, and the exit status.
    """
    if isinstance(error, SystemExit) and isinstance(error.__context__, KeyboardInterrupt):
        error = error.__context__  # Lightning makes an exit of Ctrl-C
    if isinstance(error, BrokenPipeError):
        return "", PIPE_CLOSED
    if isinstance(error, KeyboardInterrupt):
        return _stopped("interrupted", words), INTERRUPTED
    if type(error).__name__ == "SIGTERMException":  # what Lightning makes of SIGTERM
        return _stopped("terminated", words), TERMINATED
    if isinstance(error, SaleditError):
        return f"error: {error}", error.exit_status
    return f"error: {_unexpected(error)}", 1


def _stopped(how: str, words: Sequence[str]) -> str:
    given = [word for word in words if word != "--resume"]
    verb = next((word for word in given if not word.startswith("-")), "")
    if verb == "compare":
        again = shlex.join(["saledit", *given])
        return f"{how}: go on with '{again}'; what is finished is kept"
    if verb != "fit":
        return how
    return f"{how}: go on with '{shlex.join(['saledit', *given, '--resume'])}'"


def _unexpected(error: BaseException) -> str:
    kind = type(error).__name__
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        where = f" ({error.filename})" if error.filename else ""
        return f"the disk is full{where}; free some space and run again"
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, MemoryError) or kind == "OutOfMemoryError":  # torch has its own
        return (
            "out of memory; lower train.edits_per_step, train.passes_per_edit or "
            "test.edits_per_batch"
        )
    return f"internal: {kind}: {error}; run again with --debug for the traceback"
