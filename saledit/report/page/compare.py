"""The page of a comparison."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from saledit.report.compared import COURSES, EDITORS, listings, schedules_of
from saledit.report.courses import courses_figure, courses_of
from saledit.report.page.model import Chart, Page, Section, Table
from saledit.report.scatter import comparison_figure
from saledit.report.schedules import schedules_figure


def compare_page(table: Mapping[str, Any]) -> Page:
    """Lay out ``compare.json``."""
    words, _ = schedules_of(table)
    charts = {EDITORS: Chart("compare", comparison_figure(table), "edit accuracy against drawdown")}
    courses = courses_of(table["cells"])
    if courses:
        charts[COURSES] = Chart("course", courses_figure(courses), "what holds as edits pile up")
    sections = []
    for listing in (own.without_empty() for own in listings(table)):
        said = Table(listing.columns, listing.rows, listing.words)
        own = [charts[listing.title]] if listing.title in charts else []
        sections.append(Section(listing.title, [*own, said, *filter(None, [listing.note])]))
    if len(table.get("schedules", [])) > 1:
        chart = Chart(
            "schedules", schedules_figure(table), "failures mended and drawdown by schedule"
        )
        sections.insert(1, Section("Schedules", [chart]))
    command = table.get("command", "")
    return Page(
        f"Editors on {table['config']}", f"{table['task']}, {words}", [],
        sections, [command] if command else [],
    )  # fmt: skip
