"""The errors of saledit: one clear line each, sorted by whose fault it is.

A ``UserError`` is wrong input (exit status 2); a ``JobError`` is work that began
and could not be finished (exit status 1). Both print as one line; ``--debug``
shows the traceback.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

_LONGEST = 4000  # characters of a message


class SaleditError(Exception):
    """Base of every error that saledit raises on purpose.

    Its message is one line of printable characters, whatever was quoted from a file.

    Args:
        message: what is wrong, where, and the remedy.

    Attributes:
        exit_status: what the command line returns for it.
    """

    exit_status = 1

    def __init__(self, message: object = "") -> None:
        text = re.sub(r"\s*[\r\n\t]\s*", " ", str(message))
        text = "".join(c if c.isprintable() else " " for c in text)
        if len(text) > _LONGEST:
            text = f"{text[: _LONGEST - 1000]} [...] {text[-900:]}"
        super().__init__(text)


class UserError(SaleditError):
    """The user's input is wrong: a file, a key, a value (exit status 2)."""

    exit_status = 2


class ConfigError(UserError):
    """A configuration key or value is wrong."""


class DataError(UserError):
    """A record or a data file is wrong; the message starts with ``file:line``."""


class ModelError(UserError):
    """A model cannot be loaded or is of a kind that the task cannot use."""


class SiteError(UserError):
    """A site or a layer does not exist in the model."""


class ArtifactError(UserError):
    """A saved editor or edit is broken, or belongs to another model."""


class JobError(SaleditError):
    """The job ran and failed: NaN in training, a full disk (exit status 1)."""


class DivergedError(JobError):
    """A training gives no numbers: it would not at the same rates, wherever it is gone on with."""


class NoNumbersError(JobError):
    """A model, or an edit of one, gives what is no number."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a remedy that names the closest known word.

    Args:
        name: what the user wrote.
        known: what could have been written.

    Returns:
        ``"did you mean 'x'? (known: x, y)"`` or, with nothing close, only the known words; where
        there are none, to check the name.

    Example:
        >>> did_you_mean("batchsize", ["batch_size", "cumulative"])
        "did you mean 'batch_size'? (known: batch_size, cumulative)"
    """
    words = sorted(known)
    if not words:
        return "check the name, there is nothing else of this kind"
    close = difflib.get_close_matches(name, words, n=1, cutoff=0.65)
    listed = f"(known: {', '.join(words)})"
    return f"did you mean '{close[0]}'? {listed}" if close else listed
