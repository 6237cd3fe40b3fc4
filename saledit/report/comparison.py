"""``saledit compare`` on the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from saledit.report.compared import EDITORS, FAILED, NOT_MADE, listings, schedules_of
from saledit.report.look import Look, clean, heading, line

#: What is told in lines: for a table it is too long.
_LINES = {NOT_MADE: ("", "yellow"), FAILED: ("failed: ", "bold red")}


def compare_tables(result: Mapping[str, Any], look: Look) -> Iterator[RenderableType]:
    """What ``run.compare`` returns."""
    words, _ = schedules_of(result)
    about = f"Editors on {clean(result['config'])}"
    for listing in map(lambda own: own.without_empty(), listings(result)):
        if listing.title in _LINES:
            begin, style = _LINES[listing.title]
            for where, told in listing.rows:
                yield line(Text(begin, style=style), Text(f"{clean(where)}: {clean(told)}"))
            continue
        if listing.title == EDITORS:
            yield line(heading(about), f" ({clean(result['task'])}), {clean(words)}")
        else:
            yield line(heading(clean(listing.title)))
        table = look.table(*listing.columns, left=tuple(listing.words))
        for row in listing.rows:
            table.add_row(*map(clean, row))
        yield table
        if listing.note:
            yield line(listing.note)
    if "folder" in result:
        yield line("Table, figure and cells: ", Text(clean(result["folder"]), style="bold"))
