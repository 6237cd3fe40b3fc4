"""The page of a comparison."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from saledit.report.comparison import k_of, preferences_of, remarks_of, schedules_of
from saledit.report.figures import comparison_figure, courses_figure, courses_of
from saledit.report.look import drawdown, duration, number, of_text, percent, points
from saledit.report.page.model import Chart, Page, Section, Table
from saledit.report.schedules import schedules_figure


def compare_page(table: Mapping[str, Any]) -> Page:
    """Lay out ``compare.json``."""
    known = [row for row in table["editors"] if row["seeds"]]
    text = any(of_text(cell.get("metrics", {})) for cell in table["cells"])

    words, differ = schedules_of(table)
    k = ["k"] if differ else []

    def lost(value: float) -> str:
        return drawdown(value, text)

    shares = [
        [
            row["editor"],
            *([k_of(row)] if differ else []),
            str(len(row["seeds"])),
            *(percent(row[name]["mean"]) for name in ("fail_accuracy", "adapt_accuracy")),
            _with_interval(row["edit_accuracy"], percent),
            _with_interval(row["drawdown"], lost),
            number(row["locality_kl"]),
        ]
        for row in known
    ]
    costs = [
        [
            row["editor"],
            _time(row["train_seconds"]),
            number(None if row["edits_per_second"] is None else round(row["edits_per_second"], 1)),
            _time(row["fix_seconds_per_edit"]),
            number(round(row["peak_rss_mb"])),
            number(round(row["editor_mb"], 2)),
        ]
        for row in known
    ]
    sections = [
        Section(
            "Editors",
            [
                Chart("compare", comparison_figure(table), "edit accuracy against drawdown"),
                Table(
                    ("editor", *k, "seeds", "fail", "adapt", "edit accuracy", "drawdown", "KL"),
                    shares,
                ),
                "Intervals are 95% of a bootstrap over the edits, of these trained editors.",
            ],
        ),
        Section(
            "Costs",
            [Table(("editor", "training", "edits/s", "a fix", "peak MB", "editor MB"), costs)],
        ),
    ]
    beside = [row for row in known if row.get("beside")]
    if beside:
        sections.insert(1, _beside(beside))
    if len(table.get("schedules", [])) > 1:
        chart = Chart(
            "schedules", schedules_figure(table), "failures mended and drawdown by schedule"
        )
        sections.insert(1, Section("Schedules", [chart]))
    headings, preferences = preferences_of(known)
    if preferences:
        named = Table(tuple(headings), preferences)
        sections.insert(1, Section("Answers that are likelier than their rivals", [named]))
    courses = courses_of(table["cells"])
    if courses:
        chart = Chart("course", courses_figure(courses), "what holds as edits pile up")
        sections.append(Section("Forgetting", [chart]))
    if remarks := remarks_of(table["cells"]):
        told = [[where, said] for where, said in remarks]
        sections.append(Section("Not made", [Table(("cell", ""), told, frozenset({0, 1}))]))
    failed = [cell for cell in table["cells"] if cell.get("error")]
    if failed:
        rows = [[c["editor"], str(c["seed"]), c["error"]] for c in failed]
        columns = ("editor", "seed", "error")
        sections.append(Section("Failed", [Table(columns, rows, frozenset({0, 2}))]))
    command = table.get("command", "")
    return Page(
        f"Editors on {table['config']}", f"{table['task']}, {words}", [],
        sections, [command] if command else [],
    )  # fmt: skip


def _beside(rows: Sequence[Mapping[str, Any]]) -> Section:
    first = rows[0]["beside"]["editor"]
    table = Table(
        ("editor", "edit accuracy", "drawdown"),
        [
            [
                row["editor"],
                *(_with_interval(row["beside"][n], points) for n in ("edit_accuracy", "drawdown")),
            ]
            for row in rows
        ],
    )
    said = f"How far each lies above {first} on the same edits."
    return Section(f"Beside {first}", [said, table])


def _time(seconds: float | None) -> str:
    return "-" if seconds is None else duration(seconds)


def _with_interval(found: Mapping[str, Any], shown: Callable[[float], str]) -> str:
    if found["mean"] is None:
        return "-"
    if found["low"] is None:
        return shown(found["mean"])
    return f"{shown(found['mean'])} ({100 * found['low']:.1f} to {100 * found['high']:.1f})"
