"""Task models: loading them, and what is known of their inside."""

from saledit.models.base import CAUSAL, CLASSIFIER, SEQ2SEQ, TaskModel
from saledit.models.fingerprints import fingerprint
from saledit.models.loading import find_weights, load_classifier, load_text_model
from saledit.models.plain import model_files
from saledit.models.wrapping import wrap

__all__ = [
    "CAUSAL",
    "CLASSIFIER",
    "SEQ2SEQ",
    "TaskModel",
    "find_weights",
    "fingerprint",
    "load_classifier",
    "load_text_model",
    "model_files",
    "wrap",
]
