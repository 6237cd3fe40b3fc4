"""Rewordings by rule: the same meaning and label in other words."""

from saledit.data.paraphrase.rewriter import (
    DEFAULT_THRESHOLD,
    Rewording,
    reword,
    reword_all,
    reword_inputs,
)
from saledit.data.paraphrase.similarity import EmbeddingSimilarity

__all__ = [
    "DEFAULT_THRESHOLD",
    "EmbeddingSimilarity",
    "Rewording",
    "reword",
    "reword_all",
    "reword_inputs",
]
