"""Rewordings by rule: the same meaning and label in other words."""

from saledit.data.paraphrase.rewriter import (
    DEFAULT_THRESHOLD,
    EmbeddingSimilarity,
    Rewording,
    reword,
    reword_all,
    reword_inputs,
)

__all__ = [
    "DEFAULT_THRESHOLD",
    "EmbeddingSimilarity",
    "Rewording",
    "reword",
    "reword_all",
    "reword_inputs",
]
