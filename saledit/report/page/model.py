"""What a page is made of: values, without a word of HTML."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 20_000  # answers on a page
#: What became of an answer.
FIXED, WRONG, KEPT, BROKEN = "fixed", "still wrong", "kept", "broken"


@dataclass(frozen=True, slots=True)
class Tile:
    """A number that is seen first.

    Attributes:
        label: what it is.
        value: as it is shown.
        note: its interval, or what it was before.
    """

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of texts; the first column is words, the others are numbers.

    Attributes:
        columns: their names.
        rows: as they are shown.
        words: further columns that are words, not numbers.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: frozenset[int] = frozenset({0})


@dataclass(frozen=True, slots=True)
class Chart:
    """A figure.

    Attributes:
        name: of its files.
        figure: as ``saledit.report.figures`` draws it.
        text: what it shows, for those who cannot see it.
    """

    name: str
    figure: Figure
    text: str


@dataclass(frozen=True, slots=True)
class Answers:
    """What was said before and after, to be searched.

    Attributes:
        rows: as ``answers.jsonl`` holds them, or ``fix`` gives them; the first ``MOST``.
        total: how many there are.
        source: the file that holds all of them.
    """

    rows: Sequence[Mapping[str, Any]]
    total: int
    source: str

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]], source: str) -> Answers:
        """As many as a page takes; the others are counted."""
        rest = iter(rows)
        shown = list(islice(rest, MOST))
        return cls(shown, len(shown) + sum(1 for _ in rest), source)

    def compact(self) -> dict[str, Any]:
        """Rows for the page's script."""
        named = ("part", "edit", "inputs", "target", "before", "after", "kind")
        rows = [[state_of(row), *(row.get(name, "") for name in named)] for row in self.rows]
        return {"columns": ["state", *named], "rows": rows, "total": self.total}


def state_of(row: Mapping[str, Any]) -> str:
    """What became of an answer."""
    if row["is_right"]:
        return KEPT if row["was_right"] else FIXED
    return BROKEN if row["was_right"] else WRONG


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a page under a heading.

    Attributes:
        title: the heading.
        parts: in the order in which they are shown; a text is a paragraph.
        code: a text to be shown as it is, folded away.
    """

    title: str
    parts: Sequence[Table | Chart | Answers | str]
    code: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """A page.

    Attributes:
        title: what the result is of.
        subtitle: a line below it.
        tiles: numbers that are seen first.
        sections: the rest.
        commands: what was typed to get there.
    """

    title: str
    subtitle: str
    tiles: Sequence[Tile]
    sections: Sequence[Section]
    commands: Sequence[str] = ()

    @property
    def charts(self) -> list[Chart]:
        """All figures of the page."""
        return [part for s in self.sections for part in s.parts if isinstance(part, Chart)]
