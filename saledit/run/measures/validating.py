"""Validation by the field's measures: ES, PS, NS and S of the edits that training goes by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from saledit.data.episodes import EditBatch
from saledit.run.measures.preferences import KINDS, Preferences

#: S among other metrics, whose ``score`` is what training goes by.
S = "preference"
MEASURES = (*KINDS, S)


class Preferred(Callback):
    """Counts how often answers of validation edits are likelier than their rivals.

    Not while an editor is trained, whose states are kept by ``val/score``: once, of the kept one.

    Args:
        preferences: of the validation part.
    """

    def __init__(self, preferences: Preferences) -> None:
        self._preferences = preferences

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: EditBatch,
        batch_idx: int, dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        """Count a batch; ``outputs`` are those of ``EditModule.validation_step``."""
        if trainer.state.fn != "fit":
            self._preferences.count(batch.members[0], outputs["edits"])

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log shares and S."""
        if trainer.state.fn != "fit":
            for name, value in preferred(self._preferences.metrics()).items():
                pl_module.log(f"val/{name}", value)


def preferred(metrics: Mapping[str, float]) -> dict[str, float]:
    """Shares and S by their names among other metrics."""
    named = zip(MEASURES, (*KINDS, "score"), strict=True)
    return {name: metrics[known] for name, known in named if known in metrics}
