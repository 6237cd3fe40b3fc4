"""What ``fix`` mended, answer by answer, and what else it changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from saledit.report.look import (
    Look,
    clean,
    count,
    duration,
    heading,
    line,
    number,
    percent,
    points,
    widest,
)

_MAX_ROWS = 10
_MAX_BROKEN = 5


def fix_tables(result: Mapping[str, Any], look: Look) -> Iterator[RenderableType]:
    """What ``run.fix`` returns."""
    fixed, wrong, n = result["n_fixed"], result["n_wrong_before"], result["n_failures"]
    yield line(
        heading(f"{fixed:,} of {count(wrong, 'failure')} fixed"),
        f" by an edit of layer {result['layer']}, {duration(result['seconds'])} in all.",
        f" {count(n - wrong, 'record was', 'records were')} right already." if n > wrong else "",
    )
    yield from before_after(result["rows"], look)
    yield from _lost([row for row in result["rows"] if was_right(row) and not is_right(row)], look)
    check = result.get("check")
    if check is None:
        yield line("What else changed was not checked: name samples that must stay right, --check.")
    else:
        yield from _broken(check, look)
    if result.get("refused"):
        yield from _refused(result)
        return
    yield from _form(result)


def _lost(rows: Sequence[Mapping[str, Any]], look: Look) -> Iterator[RenderableType]:
    """Records of the file that were right before the edit, and are not behind it."""
    if not rows:
        return
    n = count(len(rows), "record that was right already is", "records that were right already are")
    yield line(Text(f"{n} wrong now:", style="bold red"))
    yield from _first(rows, look)


def _form(result: Mapping[str, Any]) -> Iterator[RenderableType]:
    """What was written, in which form, and how to take it back."""
    out, form = result["out"], result.get("format", "delta")
    what = {"delta": "The edit", "merged": "The whole model", "lora": "The LoRA adapter"}[form]
    step = result.get("step", 1.0)
    yield line(
        f"{what}: ",
        Text(clean(out), style="bold"),
        f", of {step:.0%} of the edit's length" if step != 1 else "",
        f", rank {result['rank']}, {percent(result['rank_error'])} of the edit cut off"
        if form == "lora"
        else "",
    )
    if "entry" in result:
        yield line(f"Take it back: saledit undo {clean(out)} {result['entry']}")


def _refused(result: Mapping[str, Any]) -> Iterator[RenderableType]:
    """By how much the edit misses its bounds, and the part of it that would not."""
    refused, part = result["refused"], result["refused"]["part"]
    reasons = []
    if "drawdown_above" in refused:
        reasons.append(f"its drawdown is {points(refused['drawdown_above'])} above the bound")
    if "fixed_below" in refused:
        reasons.append(f"it mends {points(refused['fixed_below'])} fewer than it has to")
    if "nothing_fixed" in refused:
        n = result["n_wrong_before"]
        reasons.append(f"it mends none of the {n:,} failures (--min-fixed 0 writes such an edit)")
    yield line(
        Text("Refused", style="bold red"), f": {' and '.join(reasons)}. Nothing was written."
    )
    if part is None:
        if "drawdown_above" in refused:
            yield line("No part of it mends anything within the bound.")
        return
    yield line(
        f"Within the bound {part['n_fixed']:,} of {result['n_wrong_before']:,} can be fixed ("
        f"drawdown {points(part['drawdown'])}): {part['n_steps']:,} of its steps at "
        f"{part['step']:.0%} of their length; --part writes that"
        + (", if --min-fixed allows it." if "fixed_below" in refused else ".")
    )


def before_after(
    rows: Sequence[Mapping[str, Any]], look: Look, most: int = _MAX_ROWS
) -> Iterator[RenderableType]:
    """Failures before and after the edit; where many, those that stay wrong are among them."""
    wrong = [row for row in rows if not was_right(row)] or list(rows)
    stay = {id(row) for row in [r for r in wrong if not r["fixed"]][: most // 2]}
    room = most - len(stay)
    shown = []
    for row in wrong:
        if id(row) in stay:
            shown.append(row)
        elif room > 0:
            shown.append(row)
            room -= 1
    shown = shown[:most]
    yield _answers(shown, look, [look.mark(bool(row["fixed"])) for row in shown])
    if len(wrong) > len(shown):
        yield line(f"... and {len(wrong) - len(shown):,} more (--json lists all).")
        yield line("")


def _answers(
    rows: Sequence[Mapping[str, Any]], look: Look, marks: Sequence[Text]
) -> RenderableType:
    """Inputs, right answer, answers before and after, and a mark."""
    keys = {"target": "right", "before": "before", "after": "after"}
    cap = max(8, (look.width - 34) // 3)
    widths = {k: widest([row[k] for row in rows], len(name), cap) for k, name in keys.items()}
    room = max(16, look.width - sum(widths.values()) - (8 if look.fancy else 10) - 3 * 4)
    table = look.table("input", *keys.values(), "", left=range(5))
    for row, mark in zip(rows, marks, strict=True):
        cells = [Text(look.cut(row[k], widths[k])) for k in keys]
        cells[1].stylize("green" if was_right(row) else "red")
        cells[2].stylize("green" if is_right(row) else "red")
        table.add_row(Text(look.inputs(row["inputs"], room)), *cells, mark)
    return table


def was_right(row: Mapping[str, Any]) -> bool:
    """Whether the answer before the edit was right; words may be right in other words."""
    return bool(row.get("was_right", row["before"] == row["target"]))


def is_right(row: Mapping[str, Any]) -> bool:
    """Whether the answer after the edit is right."""
    return bool(row.get("is_right", row["after"] == row["target"]))


def _broken(check: Mapping[str, Any], look: Look) -> Iterator[RenderableType]:
    if "perplexity_before" in check:
        texts = [number(check[f"perplexity_{when}"]) for when in ("before", "after")]
        yield line(
            heading("Check set"),
            f" of {count(check['n'], 'text')}: perplexity {f' {look.arrow} '.join(texts)}, "
            f"{percent(check['drawdown'])} more.",
        )
        return
    pair = f"{percent(check['accuracy_before'])} {look.arrow} {percent(check['accuracy_after'])}"
    yield line(
        heading("Check set"),
        f" of {count(check['n'], 'sample')}: accuracy {pair}, "
        f"drawdown {points(check['drawdown'])}.",
    )
    changed: Sequence[Mapping[str, Any]] = check["changed"]
    broken = [row for row in changed if was_right(row) and not is_right(row)]
    mended = sum(is_right(row) and not was_right(row) for row in changed)
    if mended:
        yield line(f"{count(mended, 'answer')} there became right.")
    if not broken:
        yield line("Nothing that was right broke.")
        return
    yield line(f"{count(len(broken), 'answer')} broke there (right before, wrong now):")
    yield from _first(broken, look)


def _first(rows: Sequence[Mapping[str, Any]], look: Look) -> Iterator[RenderableType]:
    """Answers that broke, the first few of them."""
    shown = rows[:_MAX_BROKEN]
    yield _answers(shown, look, [Text("")] * len(shown))
    if len(rows) > len(shown):
        yield line(f"... and {len(rows) - len(shown):,} more (--json lists all).")
