"""From a result to the text that a stream can show."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, TextIO

from rich.console import Console, RenderableType
from rich.text import Text

from saledit.report.comparison import compare_tables
from saledit.report.fixes import fix_tables
from saledit.report.ledger import log_tables, undo_tables
from saledit.report.look import MAX_WIDTH, MIN_WIDTH, Look
from saledit.report.story import quickstart_story
from saledit.report.tables import fit_tables, report_tables, saliency_tables, test_tables

_TABLES: Mapping[str, Callable[[Mapping[str, Any], Look], Iterator[RenderableType]]] = (
    MappingProxyType(
        {
            "compare": compare_tables,
            "fit": fit_tables,
            "fix": fix_tables,
            "log": log_tables,
            "quickstart": quickstart_story,
            "report": report_tables,
            "saliency": saliency_tables,
            "test": test_tables,
            "undo": undo_tables,
        }
    )
)


def render(verb: str, result: Mapping[str, Any], stream: TextIO) -> str:
    """Lay out a result for a stream.

    Args:
        verb: whose result it is.
        result: what the function of ``saledit.run`` returned.
        stream: where it will be written; decides width, colours and signs. A pipe gets plain
            text of 80 columns, tables in Markdown, and only characters that it can encode.

    Returns:
        The text, with a newline at its end.
    """
    place = Console(file=stream)
    unicode = place.encoding.startswith("utf")
    terminal = place.is_terminal and not place.is_dumb_terminal
    look = Look(terminal and unicode, max(MIN_WIDTH, min(place.width, MAX_WIDTH)))
    page = Console(
        file=io.StringIO(),
        width=look.width,
        force_terminal=terminal,
        color_system="auto" if terminal else None,
        highlight=False,
        markup=False,
        emoji=False,
        legacy_windows=False,
    )
    with page.capture() as capture:
        for part in _TABLES[verb](result, look):
            # A command is to be copied: printed as any text it would be broken, whatever it says.
            page.print(part, soft_wrap=isinstance(part, Text) and bool(part.no_wrap))
    text = "\n".join(row.rstrip() for row in capture.get().splitlines()) + "\n"
    return text.encode(place.encoding, "replace").decode(place.encoding)
