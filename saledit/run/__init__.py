"""The verbs as plain functions: configuration in, JSON-able results out."""

from saledit.run.comparing import compare
from saledit.run.fitting import fit
from saledit.run.fixing import FixOptions, fix
from saledit.run.guarding import Bounds
from saledit.run.ledgers import log, undo
from saledit.run.picking import saliency
from saledit.run.quickstart import quickstart
from saledit.run.reporting import report
from saledit.run.testing import test

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
