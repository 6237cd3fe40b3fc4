"""The ledger: what was done to a model, entry by entry, each of which can be taken back."""

from saledit.ledger.chain import BEGIN, FIX, UNDO, Entry
from saledit.ledger.folder import ENTRIES, LEDGER, EditFolder

__all__ = ["BEGIN", "ENTRIES", "FIX", "LEDGER", "UNDO", "EditFolder", "Entry"]
