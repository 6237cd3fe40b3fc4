"""The examples in docstrings do what they say."""

from __future__ import annotations

import doctest
import importlib
import inspect
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "saledit"
#: What a user reads first; each has an example.
SHOWN = (
    "saledit.applied",
    "saledit.config.load",
    "saledit.Edits",
    "saledit.LowRank",
    "saledit.merge",
    "saledit.data.sources.load_records",
    "saledit.editors.terms.aggregate",
    "saledit.editors.solvers.memit",
    "saledit.site.resolve",
    "saledit.site.Site",
)


def modules() -> list[str]:
    """The modules with examples."""
    found = [path for path in PACKAGE.rglob("*.py") if ">>>" in path.read_text(encoding="utf-8")]
    names = (path.relative_to(PACKAGE.parent).with_suffix("").parts for path in sorted(found))
    return [".".join(name).removesuffix(".__init__") for name in names]


@pytest.mark.parametrize("name", modules())
def test_examples(name: str) -> None:
    module = importlib.import_module(name)
    said: list[str] = []
    finder, runner = doctest.DocTestFinder(), doctest.DocTestRunner(verbose=False)
    for example in finder.find(module, name):
        runner.run(example, out=said.append)
    assert runner.tries > 0, "its examples stand where nobody runs them"
    assert not runner.failures, "".join(said)


@pytest.mark.parametrize("path", SHOWN)
def test_there_is_one(path: str) -> None:
    module, _, name = path.rpartition(".")
    shown = getattr(importlib.import_module(module), name)
    assert ">>>" in (inspect.getdoc(shown) or ""), f"{path} has no example"
