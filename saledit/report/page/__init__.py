"""A result as one HTML page that needs nothing but itself: no network, no files beside it."""

from saledit.report.page.compare import compare_page
from saledit.report.page.fixes import fixes_page
from saledit.report.page.model import Answers, Chart, Page, Section, Table, Tile
from saledit.report.page.render import render_page
from saledit.report.page.run import RunFiles, run_page

__all__ = [
    "Answers",
    "Chart",
    "Page",
    "RunFiles",
    "Section",
    "Table",
    "Tile",
    "compare_page",
    "fixes_page",
    "render_page",
    "run_page",
]
