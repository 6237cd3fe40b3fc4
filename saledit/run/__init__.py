"""The verbs as plain functions: configuration in, JSON-able results out.

Each is loaded when it is first asked for: a fix needs nothing of what trains.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from saledit.lazy import lazily

if TYPE_CHECKING:
    from saledit.run.comparing import compare
    from saledit.run.fitting import fit
    from saledit.run.fixes.guarding import Bounds
    from saledit.run.fixes.options import FixOptions
    from saledit.run.fixing import fix
    from saledit.run.ledgers import log, undo
    from saledit.run.reporting import report
    from saledit.run.scoring import saliency
    from saledit.run.story import quickstart
    from saledit.run.testing import test

_WHERE = {
    "Bounds": "fixes.guarding",
    "FixOptions": "fixes.options",
    "compare": "comparing",
    "fit": "fitting",
    "fix": "fixing",
    "log": "ledgers",
    "quickstart": "story",
    "report": "reporting",
    "saliency": "scoring",
    "test": "testing",
    "undo": "ledgers",
}

__all__ = [
    "Bounds",
    "FixOptions",
    "compare",
    "fit",
    "fix",
    "log",
    "quickstart",
    "report",
    "saliency",
    "test",
    "undo",
]

__getattr__ = lazily(__name__, {name: f"{__name__}.{own}" for name, own in _WHERE.items()})
