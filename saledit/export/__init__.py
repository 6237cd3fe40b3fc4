"""What edits in force add up to, as files that other programs read."""

from saledit.export.formats import FORMATS, Format
from saledit.export.settling import CHANGED, CUT_OFF, SETTLED, settle, state

__all__ = ["CHANGED", "CUT_OFF", "FORMATS", "SETTLED", "Format", "settle", "state"]
