"""saledit: fix what a fine-tuned language model gets wrong by training an editor."""

from __future__ import annotations

from saledit.lazy import lazily

__version__ = "0.1.0"

# Loaded on first use, so that `import saledit` stays light.
_API = {
    "Edits": "saledit.delta",
    "LowRank": "saledit.delta",
    "applied": "saledit.overlay",
    "merge": "saledit.overlay",
    "load_editor": "saledit.artifact",
    "load_edits": "saledit.artifact",
    "EditModule": "saledit.module",
    "EditDataModule": "saledit.data.datamodule",
}

__all__ = ["__version__", *sorted(_API)]


__getattr__ = lazily(__name__, _API)
