"""The table of ``saledit compare``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from saledit.report.look import (
    PREFERENCES,
    Look,
    clean,
    count,
    drawdown,
    duration,
    heading,
    line,
    not_made,
    number,
    of_text,
    percent,
    points,
)


def compare_tables(result: Mapping[str, Any], look: Look) -> Iterator[RenderableType]:
    """What ``run.compare`` returns."""
    known = [row for row in result["editors"] if row["seeds"]]
    words, differ = schedules_of(result)
    yield line(heading(f"Editors on {clean(result['config'])}"), f" ({result['task']}), {words}")
    k = ["k"] if differ else []
    headings = ("editor", *k, "seeds", "fail", "adapt", "edit", "(95%)", "drawdown", "(95%)")
    text = any(of_text(cell.get("metrics", {})) for cell in result["cells"])
    rows = []
    for row in known:
        edit, lost = row["edit_accuracy"], row["drawdown"]
        rows.append(
            (
                clean(row["editor"]),
                *([k_of(row)] if differ else []),
                str(len(row["seeds"])),
                *(percent(row[name]["mean"]) for name in ("fail_accuracy", "adapt_accuracy")),
                percent(edit["mean"]),
                _between(edit),
                drawdown(lost["mean"], text),
                _between(lost),
            )
        )
    yield _table(look, headings, rows)
    yield from _preferences(known, look)
    yield line("Intervals: bootstrap over the edits, of these trained editors.")
    yield line("")
    rows = []
    for row in known:
        times = (row["train_seconds"], row["fix_seconds_per_edit"])
        train, fix = ("-" if value is None else duration(value) for value in times)
        speed = row["edits_per_second"]
        rows.append(
            (
                clean(row["editor"]),
                number(row["locality_kl"]),
                train,
                number(None if speed is None else round(speed, 1)),
                fix,
                number(round(row["peak_rss_mb"])),
                number(round(row["editor_mb"], 2)),
            )
        )
    yield _table(look, ("editor", "KL", "train", "edits/s", "a fix", "peak MB", "editor MB"), rows)
    beside = [row for row in known if "beside" in row]
    if beside:
        yield line(heading(f"Beside {clean(beside[0]['beside']['editor'])}"), ", on the same edits")
        table = look.table("editor", "edit accuracy", "(95%)", "drawdown", "(95%)")
        for row in beside:
            edit, lost = (row["beside"][name] for name in ("edit_accuracy", "drawdown"))
            table.add_row(
                clean(row["editor"]),
                points(edit["mean"]), _between(edit), points(lost["mean"]), _between(lost),
            )  # fmt: skip
        yield table
    yield from _courses(result["cells"], look)
    for where, told in remarks_of(result["cells"]):
        yield line(Text(f"{clean(where)}: {told}", style="yellow"))
    for row in result["cells"]:
        if "error" in row:
            where = f"{row['editor']}, seed {row['seed']}: {row['error']}"
            yield line(Text("failed: ", style="bold red"), clean(where))
    if "folder" in result:
        yield line("Table, figure and cells: ", Text(clean(result["folder"]), style="bold"))


def schedules_of(result: Mapping[str, Any]) -> tuple[str, bool]:
    """How failures were grouped into edits.

    Args:
        result: what ``run.compare`` returns, also of an older version.

    Returns:
        The schedule in words, those of several editors apart; and whether their k differ, so that
        each one's is to be told.
    """
    if result.get("schedules"):  # they stand beside the editors' names
        return f"schedules {', '.join(map(clean, result['schedules']))}", False
    asked = result["schedule"]
    known = {row["editor"]: row["schedule"] for row in result["editors"] if row.get("schedule")}
    sizes = {schedule["batch_size"] for schedule in known.values()} or {asked["batch_size"]}
    words = count(next(iter(sizes)), "failure") if len(sizes) == 1 else "k failures"
    modes: dict[str, list[str]] = {}
    for editor, schedule in known.items():
        modes.setdefault(clean(schedule["mode"]), []).append(clean(editor))
    if not modes and asked.get("cumulative"):
        modes["edits pile up"] = []
    told = [f"{mode}: {', '.join(own)}" for mode, own in modes.items()]
    if len(modes) < 2:
        told = [mode for mode in modes if mode != "batch"]
    return "; ".join([f"{words} an edit", *told]), len(sizes) > 1


def k_of(row: Mapping[str, Any]) -> str:
    """Failures an edit of an editor, by its own schedule."""
    return str((row.get("schedule") or {}).get("batch_size", "-"))


def preferences_of(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """The field's measures, as far as there are any: headings, and a row for each editor."""
    names = [name for name in PREFERENCES if any(name in row.get("preference", {}) for row in rows)]
    values = [
        [row["editor"], *(percent(row["preference"].get(name)) for name in names)]
        for row in rows
        if row.get("preference")
    ]
    return ["editor", *(PREFERENCES[name] for name in names)], values


def _preferences(rows: Sequence[Mapping[str, Any]], look: Look) -> Iterator[RenderableType]:
    headings, values = preferences_of(rows)
    if values:
        yield line(heading("Answers that are likelier than their rivals"))
        table = look.table(*headings)
        for editor, *shares in values:
            table.add_row(clean(editor), *shares)
        yield table


def remarks_of(cells: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """What has to be known beside the numbers: edits that were not made, by cell.

    An edit that was not made breaks nothing, so such an editor looks the safer for it.
    """
    told = (
        (f"{row['editor']}, seed {row['seed']}", not_made(row)) for row in cells if "counts" in row
    )
    return [(where, said) for where, said in told if said]


_COURSE = (
    "editor", "seed", "failures", "current", "earlier", "pass", "perplexity", "others", "collapsed"
)  # fmt: skip


def _courses(cells: Sequence[Mapping[str, Any]], look: Look) -> Iterator[RenderableType]:
    """Where sequences ended."""
    rows = [row for row in cells if row.get("course")]
    if not rows:
        return
    yield line(heading("At the end of the sequence"))
    several = len({row["seed"] for row in rows}) > 1
    said = []
    for row in rows:
        last = row["course"][-1]
        kinds = last.get("abilities")
        said.append(
            (
                clean(row["editor"]),
                str(row["seed"]) if several else "-",
                str(last["n_failures"]),
                *(percent(last.get(name)) for name in ("current", "earlier", "pass_accuracy")),
                number(last.get("perplexity")),
                percent(sum(kinds.values()) / len(kinds) if kinds else None),
                _end(row),
            )
        )
    yield _table(look, _COURSE, said)


def _end(row: Mapping[str, Any]) -> str:
    """Whether a sequence's model collapsed, and where it could not be edited any more."""
    told = "no" if row["collapse"] is None else f"after {row['collapse']}"
    stopped = row.get("stopped")
    return told if stopped is None else f"{told}; ended after {stopped}"


def _table(
    look: Look, headings: Sequence[str], rows: Sequence[Sequence[str | Text]]
) -> RenderableType:
    """A table without the columns that tell nothing: they take room from those that do."""
    said = [i for i in range(len(headings)) if any(str(row[i]) != "-" for row in rows)]
    table = look.table(*(headings[i] for i in said))
    for row in rows:
        table.add_row(*(row[i] for i in said))
    return table


def _between(found: Mapping[str, float | None]) -> str:
    low, high = found["low"], found["high"]
    return "-" if low is None or high is None else f"{100 * low:.1f} to {100 * high:.1f}"
