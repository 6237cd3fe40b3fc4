"""Sphinx settings. ``make docs`` builds the site; any warning is an error there."""

from __future__ import annotations

import re
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path[:0] = [str(DOCS / "_ext"), str(DOCS.parent)]

import saledit  # noqa: E402

project = "saledit"
author = "the authors of saledit"
copyright = "the authors of saledit, Apache-2.0"
version = release = saledit.__version__

extensions = [
    "myst_nb",  # Markdown and notebooks
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "generated",  # docs/_ext: pages made from the code
    "links",  # docs/_ext: relative links, also those that leave docs/
]
exclude_patterns = ["_build", "_ext"]
suppress_warnings: list[str] = []

# ---------------------------------------------------------------------------- Markdown

myst_heading_anchors = 4  # so that a link to a heading that is gone is an error
myst_enable_extensions = ["colon_fence"]
nb_execution_mode = "off"  # tests/docs run the notebook; its outputs are stored in it

# ---------------------------------------------------------------------------- API

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
# Types of other libraries, which it takes a network to look up, and those inside saledit that
# docs/api.md leaves out. Whatever a page itself refers to is found or is an error.
_INSIDE = (
    "cache.bank",
    "data.episodes",
    "data.part_banks",
    "data.spool",
    "data.views",
    "families",
    "ledger",
    "models.disk",
    "models.weights",
    "editors.nullspace",
    "judging.judged",
    "outcomes",
    "delta.parts",
    "report",
    "requests",
    "run.setup.prepare",
    "run.sequence",
    "run.unfinished",
    "editors.stepping",
    "forward.suffix",
)
nitpick_ignore_regex = [
    (r"py:.*", r"(?!saledit\.).*"),
    *((r"py:class", rf"saledit\.{re.escape(inside)}\..*") for inside in _INSIDE),
]

# ---------------------------------------------------------------------------- HTML

html_theme = "furo"  # light and dark, no file from the network
html_title = f"saledit {version}"
html_copy_source = False
html_show_sphinx = False
# No page has formulas in TeX, so MathJax, which would come from the network, is never asked for.
