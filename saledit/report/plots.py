"""Figures as files, PNG or SVG, and as SVG within a page."""

from __future__ import annotations

import contextlib
import io
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from saledit.errors import JobError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DPI = 144
# matplotlib numbers its ids anew in each figure. In texts < and > are escaped, so tags are these.
_TAG, _ID = re.compile("<[^>]+>"), re.compile(r'(\sid="|href="#|url\(#)')


def write_plot(figure: Figure, path: Path) -> None:
    """Write a figure, whole or not at all.

    Args:
        figure: what ``saledit.report.figures`` draws.
        path: the file; its ending says which format, ``.png`` or ``.svg``.

    Raises:
        JobError: the file cannot be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as stream:
            figure.savefig(stream, format=path.suffix.removeprefix("."), dpi=_DPI)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    except OSError as error:
        raise JobError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def svg(figure: Figure, name: str) -> str:
    """A figure as an SVG element without a background, its text as text.

    Args:
        figure: what ``saledit.report.figures`` draws.
        name: keeps its ids apart from those of other figures on a page.
    """
    import matplotlib

    out = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    text = out.getvalue()
    return _TAG.sub(lambda tag: _ID.sub(rf"\1{name}-", tag[0]), text[text.index("<svg") :])
