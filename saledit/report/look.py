"""How numbers, texts and tables look, on a terminal and in a pipe."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.cells import cell_len, set_cell_size
from rich.table import Table
from rich.text import Text

#: Widest output, in columns: longer lines are hard to read.
MAX_WIDTH = 110
#: Narrowest output that tables are fitted into.
MIN_WIDTH = 60
#: The field's measures, each a share of answers that are likelier than their rivals.
KINDS = ("efficacy", "paraphrase", "neighborhood")
#: What the field calls the shares of answers that are likelier than their rivals, and the harmonic
#: mean of these.
PREFERENCES = {**dict(zip(KINDS, ("ES", "PS", "NS"), strict=True)), "score": "S"}

_EIGHTHS = " ▏▎▍▌▋▊▉"
_MANY = 1000.0  # percent: beyond it, digits behind the point tell nothing


@dataclass(frozen=True, slots=True)
class Look:
    """The signs and the width that a place can show.

    Attributes:
        fancy: a terminal that knows Unicode; otherwise plain ASCII signs and Markdown tables.
        width: columns.
    """

    fancy: bool = False
    width: int = 80

    @property
    def arrow(self) -> str:
        """From before to after."""
        return "→" if self.fancy else "->"

    @property
    def dots(self) -> str:
        """Where a text was cut."""
        return "…" if self.fancy else "..."

    def mark(self, ok: bool) -> Text:
        """A tick or a cross."""
        sign = ("✓" if ok else "✗") if self.fancy else ("yes" if ok else "NO")
        return Text(sign, style="green" if ok else "bold red")

    def bar(self, share: float, columns: int, style: str = "cyan") -> Text:
        """A bar of a share in [0, 1] of so many columns."""
        share = min(max(share, 0.0), 1.0)
        if not self.fancy:
            return Text("#" * round(share * columns))
        eighths = round(share * columns * 8)
        full, rest = divmod(eighths, 8)
        return Text("█" * full + (_EIGHTHS[rest] if rest else ""), style=style)

    def table(self, *columns: str, left: Sequence[int] = (0,)) -> Table:
        """A table without rows.

        Args:
            *columns: headings.
            left: the columns of text; the others are numbers and stand to the right.
        """
        table = Table(
            box=box.SIMPLE_HEAD if self.fancy else box.MARKDOWN,
            header_style="bold",
            border_style="dim",
        )
        for i, heading in enumerate(columns):
            # Texts are cut to the width beforehand; folding is the last resort.
            table.add_column(
                Text(heading), justify="left" if i in left else "right", overflow="fold"
            )
        return table

    def cut(self, value: object, columns: int) -> str:
        """A text on one line of at most so many columns."""
        text = clean(value)
        if cell_len(text) <= columns:
            return text
        keep = max(0, columns - len(self.dots))
        return set_cell_size(text, keep).rstrip() + self.dots

    def inputs(self, values: Sequence[object], columns: int) -> str:
        """The texts of a sample, cut to fill two lines or little more.

        On a terminal each begins a line; elsewhere they follow each other.
        """
        texts = [clean(value) for value in values]
        both = 2 * columns - 8  # words that do not fit leave gaps
        if self.fancy:
            return "\n".join(
                [*(self.cut(text, columns) for text in texts[:-1]), self.cut(texts[-1], both)]
                if texts
                else []
            )
        room = both - 3 * (len(texts) - 1)
        # Short texts leave their room to the long ones.
        for n, i in enumerate(sorted(range(len(texts)), key=lambda i: cell_len(texts[i]))):
            texts[i] = self.cut(texts[i], max(8, room // (len(texts) - n)))
            room -= cell_len(texts[i])
        return " / ".join(texts)


def clean(value: object) -> str:
    """A text of unknown origin on one line, without control characters (colours, say)."""
    text = " ".join(str(value).split())
    bad = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
    return "".join(c for c in text if unicodedata.category(c) not in bad)


def percent(value: float | None) -> str:
    """A share as percent; '-' for none."""
    return "-" if value is None else f"{hundredfold(value)}%"


def hundredfold(value: float) -> str:
    """A share or a rise times a hundred: to a tenth, and in few digits what is far above all."""
    found = round(100 * value, 1) + 0.0  # which takes the sign off a negative zero
    return f"{found:.1f}" if abs(found) < _MANY else number(found)


def not_made(results: Mapping[str, Any]) -> str:
    """What a test's results say of edits that could not be made; "" where all were."""
    refused, stopped = results.get("n_refused", 0), results.get("stopped")
    if stopped is not None:
        return (
            f"The sequence ended after {count(stopped, 'failure')} of "
            f"{number(results['counts']['fail'])}: the next edit, or the model, gave no numbers."
        )
    if not refused:
        return ""
    return (
        f"{count(refused, 'edit')} gave NaN or infinity and counted as the model without an edit; "
        "load the model in single precision (model.dtype), or train with a lower rate."
    )


def sizes(results: Mapping[str, Any]) -> str:
    """How many edits a test made of how many failures, in words."""
    n, k = results["n_edits"], results["schedule"]["batch_size"]
    words, failures = count(n, "edit"), results.get("counts", {}).get("fail", k)
    if failures < k:
        return f"{words} of {count(failures, 'failure')} (fewer than the {number(k)} asked for)"
    # Where a sequence ended early, or left alone what was mended, nobody knows which edits it made.
    last = failures % k if n == -(-failures // k) and failures > k else 0
    rest = f", the last of {number(last)}" if last else ""
    return f"{words}, {count(k, 'failure')} each{rest}"


def points(value: float | None) -> str:
    """A difference of two shares in percentage points; '-' for none."""
    return "-" if value is None else f"{hundredfold(value)} pt"


def of_text(metrics: Mapping[str, Any]) -> bool:
    """Whether what must not change was text: its drawdown is a rise of perplexity, no share."""
    return "perplexity_before" in metrics


def drawdown(value: float | None, text: bool) -> str:
    """A drawdown: of answers in percentage points, of text the rise of its perplexity.

    Of a difference between editors likewise: points, or how much more perplexity.
    """
    if not text or value is None:
        return points(value)
    return f"{percent(-value)} less" if value < 0 else f"{percent(value)} more"


def number(value: float | None) -> str:
    """A number of any size in few digits; '-' for none."""
    if value is None:
        return "-"
    if isinstance(value, int) or (float(value).is_integer() and abs(value) < 1e6):
        return f"{int(value):,}"
    return f"{value:.2e}" if abs(value) < 1e-3 else f"{value:.4g}"


def duration(seconds: float) -> str:
    """A time in words: 80 ms, 3.2 s, 4 min 10 s, 2 h 5 min."""
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def heading(text: str) -> Text:
    """A line above a table."""
    return Text(clean(text), style="bold")


def line(*parts: object) -> Text:
    """A line of text; a ``Text`` among the parts keeps its style."""
    out = Text()
    for part in parts:
        out.append_text(part if isinstance(part, Text) else Text(clean_keep(part)))
    return out


def clean_keep(value: object) -> str:
    """Like ``clean``, with the spaces at both ends kept, for parts of a line."""
    text = str(value)
    if not text.strip():
        return " " if text else ""
    left, right = " " * text[:1].isspace(), " " * text[-1:].isspace()
    return left + clean(text) + right


def count(n: int, what: str, plural: str = "") -> str:
    """A number with its noun: 1 failure, 2 failures."""
    return f"{n:,} {what if n == 1 else plural or what + 's'}"


def widest(values: Sequence[Any], least: int, most: int) -> int:
    """The width that a column needs for short texts, within limits."""
    return min(most, max([least, *(cell_len(clean(value)) for value in values)]))
