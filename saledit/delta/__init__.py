"""Deltas: changes of a site, as values.

Dimension letters used throughout saledit:
    B rows (samples) in a batch     T tokens            N rows x tokens
    E edits in a batch              K failures an edit  S rows an edit
    R rank of a delta               D_in, D_out sizes of a site
    C classes                       L layers (blocks)

A delta is oriented as (D_out, D_in) whatever the module stores, and is always
*added*: an editor that wants to step down a gradient owns the minus sign.
"""

from saledit.delta.changes import Delta, Dense, Edits, LowRank
from saledit.delta.routed import Mixture, Routed

__all__ = ["Delta", "Dense", "Edits", "LowRank", "Mixture", "Routed"]
