"""Artifacts: a trained editor, and edits, on disk. Safetensors and JSON, nothing else."""

from saledit.artifact.editor import (
    EDITOR_FACTS,
    EDITOR_WEIGHTS,
    HELD,
    TrainedEditor,
    load_editor,
    save_editor,
)
from saledit.artifact.edits import (
    EDITS_FACTS,
    EDITS_WEIGHTS,
    MEMORY,
    edits_as_tensors,
    load_edits,
    load_memory,
    read_edits,
    save_edits,
)
from saledit.artifact.recording import REVISION, environment, sites_as_json, versions

__all__ = [
    "EDITOR_FACTS",
    "EDITOR_WEIGHTS",
    "EDITS_FACTS",
    "EDITS_WEIGHTS",
    "HELD",
    "MEMORY",
    "REVISION",
    "TrainedEditor",
    "edits_as_tensors",
    "environment",
    "load_editor",
    "load_edits",
    "load_memory",
    "read_edits",
    "save_editor",
    "save_edits",
    "sites_as_json",
    "versions",
]
