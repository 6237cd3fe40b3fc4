"""Ctrl-C while a trainer of Lightning runs."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C come out of a trainer as what it is.

    Lightning makes an exit of it, and switches SIGINT off for good. In another thread than the main
    one, where no signal arrives and no handler may be set, there is nothing to put back.

    Raises:
        KeyboardInterrupt: it came.
    """
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)
