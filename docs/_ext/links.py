"""Relative links of Markdown pages: each must lead to a file, and to a heading of it.

Sphinx follows what stays inside ``docs/``. Links to other files of the repository, and those of
pages that are not part of the site, are followed here. ``tests/docs`` uses this without Sphinx.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parents[2]
_LINK = re.compile(r"\]\(\s*<?([^()\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
_FENCE = re.compile(r"^\s*(```+|~~~+|:::+)")
_CODE = re.compile(r"(`+)(?!`).*?(?<!`)\1(?!`)")
_HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*$")
_UP = re.compile(r"(\]\(<?)((?:\.\./)+)([^()\s>]+\.md)(?=[)>])")
_ELSEWHERE = re.compile(r"^[a-z][a-z0-9+.-]*:", re.IGNORECASE)


def pages(root: Path = ROOT) -> list[Path]:
    """The pages whose links are followed: those at the top, the site's, and the data's."""
    found = [*root.glob("*.md"), *root.glob("docs/**/*.md"), *root.glob("docs/**/*.ipynb")]
    found += [*root.glob("data/*/*.md"), *root.glob("checkpoints/*.md")]
    built = root / "docs" / "_build"
    return sorted(page for page in found if built not in page.parents)


def broken(root: Path = ROOT) -> list[str]:
    """Links that lead nowhere, as ``page:line: what is wrong``."""
    return [f"{page.relative_to(root)}:{fault}" for page in pages(root) for fault in faults(page)]


def faults(page: Path) -> Iterator[str]:
    """What is wrong with the links of one page, each with its line."""
    for number, line in _prose(page):
        for target in _LINK.findall(_CODE.sub("", line)):
            if _ELSEWHERE.match(target):
                continue
            path, _, anchor = unquote(target).partition("#")
            place = page if not path else (page.parent / path)
            if path.startswith("/"):
                yield f"{number}: '{target}' is absolute; write it relative to the page"
            elif not place.exists():
                yield f"{number}: '{target}' leads to no file"
            elif anchor and place.suffix == ".md" and anchor not in anchors(place):
                yield f"{number}: '{target}' leads to no heading of {place.name}"


def beyond(page: str, text: str) -> str:
    """A page's text with its links to Markdown beyond ``docs/`` marked as links to files.

    Args:
        page: its name in the site, e.g. ``results/facts``: how deep it lies.
        text: what is in it.
    """

    def marked(link: re.Match[str]) -> str:
        start, up, rest = link.groups()
        return f"{start}path:{up}{rest}" if up.count("../") > page.count("/") else link.group()

    return _UP.sub(marked, text)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MyST make them."""
    found: set[str] = set()
    for _, line in _prose(page):
        if match := _HEADING.match(line):
            words = re.sub(r"[`*]", "", match.group(1)).lower()
            slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
            name, n = slug, 0
            while name in found:
                n += 1
                name = f"{slug}-{n}"
            found.add(name)
    return found


def _prose(page: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines that are not code."""
    fence = ""
    for number, line in _lines(page):
        if match := _FENCE.match(line):
            mark = match.group(1)
            if not fence:
                fence = mark
            elif mark.startswith(fence):
                fence = ""
        elif not fence:
            yield number, line


def _lines(page: Path) -> Iterator[tuple[int, str]]:
    text = page.read_text(encoding="utf-8")
    if page.suffix != ".ipynb":
        yield from enumerate(text.splitlines(), start=1)
        return
    for i, cell in enumerate(json.loads(text)["cells"]):  # a cell stands for a line
        if cell["cell_type"] == "markdown":
            yield from ((i, line) for line in "".join(cell["source"]).splitlines())


def setup(app: Any) -> dict[str, Any]:
    """Warn of each broken link, once a build."""
    from sphinx.util import logging

    logger = logging.getLogger(__name__)

    def check(_app: Any) -> None:
        for fault in broken():
            logger.warning("broken link: %s", fault)

    def leave(_app: Any, page: str, source: list[str]) -> None:
        # Markdown beyond docs/ is no page of the site: it is handed over as a file.
        source[0] = beyond(page, source[0])

    app.connect("builder-inited", check)
    app.connect("source-read", leave)
    return {"version": "1", "parallel_read_safe": True}
