"""Relative links of the pages lead somewhere."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "docs" / "_ext"))

import links  # noqa: E402


def test_every_link_leads_somewhere() -> None:
    assert not links.broken(ROOT)


def test_the_pages_are_found() -> None:
    names = {page.relative_to(ROOT).as_posix() for page in links.pages(ROOT)}
    assert {"README.md", "docs/index.md", "docs/editors.md", "docs/first_fix.ipynb"} <= names
    assert "docs/results/facts.md" in names


def test_what_a_build_leaves_is_no_page(tmp_path: Path) -> None:
    for folder in ("deep/er", "_build/html"):
        (tmp_path / "docs" / folder).mkdir(parents=True)
        (tmp_path / "docs" / folder / "page.md").touch()
    assert links.pages(tmp_path) == [tmp_path / "docs/deep/er/page.md"]


@pytest.mark.parametrize(
    ("page", "text", "marked"),
    [
        ("page", "[x](../README.md)", "[x](path:../README.md)"),
        ("page", "[x](other.md)", "[x](other.md)"),
        ("deep/page", "[x](../other.md)", "[x](../other.md)"),
        ("deep/page", "[x](../../README.md)", "[x](path:../../README.md)"),
        ("deep/page", "[x](<../../data/README.md>)", "[x](<path:../../data/README.md>)"),
    ],
)
def test_links_that_leave_the_site_are_marked(page: str, text: str, marked: str) -> None:
    assert links.beyond(page, text) == marked


def test_every_page_of_the_site_is_in_its_contents() -> None:
    docs = ROOT / "docs"
    names = {
        page.relative_to(docs).with_suffix("") for page in links.pages(ROOT) if docs in page.parents
    }
    listed = {"index"}
    for name in names:
        # The contents of a page of a folder's name, e.g. results.md, name the folder's pages.
        path = (docs / name).with_suffix(".md")
        if path.exists():
            for block in re.findall(
                r"^```{toctree}\n(.*?)^```", path.read_text("utf-8"), re.M | re.S
            ):
                listed |= {(name.parent / word).as_posix() for word in block.split()}
    assert not {name.as_posix() for name in names} - listed


@pytest.fixture
def page(tmp_path: Path) -> Path:
    (tmp_path / "docs").mkdir()
    (tmp_path / "other.md").write_text("# One\n\n## Two words, `code`\n\n```\n# none\n```\n")
    return tmp_path / "docs" / "page.md"


@pytest.mark.parametrize(
    "text",
    [
        "[gone](gone.md)",
        "[a\\] b](../gone.yaml)",
        "![picture](gone.png)",
        "[x](../other.md#three)",
        "[x](#nowhere)",
        "[x](../other.md#none)",
        "[in code](gone.md) `[x](other.md)`",
        '[titled](gone.md "title")',
        "[absolute](/etc/hosts)",
    ],
)
def test_a_broken_one_is_found(page: Path, text: str) -> None:
    page.write_text(f"# Page\n\n{text}\n")
    (fault,) = links.broken(page.parents[1])
    assert fault.startswith("docs/page.md:3: ")


@pytest.mark.parametrize(
    "text",
    [
        "[x](../other.md)",
        "[x](../other.md#two-words-code)",
        "[x](#page)",
        "[x](https://example.org/gone.md)",
        "`[x](gone.md)`",
        "```text\n[x](gone.md)\n```",
    ],
)
def test_a_good_one_is_left_alone(page: Path, text: str) -> None:
    page.write_text(f"# Page\n\n{text}\n")
    assert not links.broken(page.parents[1])


def test_links_of_notebooks_are_followed(page: Path) -> None:
    cell = '{"cell_type": "markdown", "source": ["[x](gone.md)"]}'
    page.with_suffix(".ipynb").write_text(f'{{"cells": [{cell}]}}')
    assert links.broken(page.parents[1]) == ["docs/page.ipynb:0: 'gone.md' leads to no file"]
