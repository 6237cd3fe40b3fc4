"""The verbs as plain functions: configuration in, JSON-able results out."""

from saledit.run.comparing import compare
from saledit.run.fitting import fit
from saledit.run.fixing import fix
from saledit.run.picking import saliency
from saledit.run.quickstart import quickstart
from saledit.run.testing import test

__all__ = ["compare", "fit", "fix", "quickstart", "saliency", "test"]
