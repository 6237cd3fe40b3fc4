"""From a page to HTML."""

from __future__ import annotations

from functools import cache
from importlib import resources

from saledit.report.page.model import Answers, Chart, Page, Table
from saledit.report.plots import svg

_KINDS = {Table: "table", Chart: "chart", Answers: "answers", str: "text"}


def render_page(page: Page) -> str:
    """One HTML file: style, script, figures and answers are within it.

    Every text from outside is escaped; the page's own policy forbids it to load anything.
    """
    from jinja2 import Environment
    from markupsafe import Markup

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.tests["of_kind"] = lambda part, kind: _KINDS[type(part)] == kind
    # Ours, drawn by matplotlib, which escapes the texts in it.
    environment.filters["svg"] = lambda chart: Markup(svg(chart.figure, chart.name))  # noqa: S704
    template = environment.from_string(_file("page.html"))
    style, script = (Markup(_file(name)) for name in ("page.css", "page.js"))  # noqa: S704
    return template.render(page=page, style=style, script=script)


@cache
def _file(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
