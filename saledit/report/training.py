"""Progress of a ``lightning.Trainer``, shown by a ``Ui``."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from saledit.report.look import number
from saledit.report.ui import Bar, Ui

if TYPE_CHECKING:
    import lightning as L
    from lightning.pytorch.callbacks import Callback


def training_bar(ui: Ui, text: str = "training", watch: str = "") -> Callback:
    """A callback that shows how many steps are done; use no other progress bar with it.

    Batches of a validation have a bar of their own: those of an editor that is not trained are
    all that it does. Where nobody watches it leaves a plain line every few seconds, which
    Lightning's own bars do not.

    Args:
        ui: where progress is shown.
        text: what is trained.
        watch: a logged metric to show beside the bar, e.g. ``val/score``.
    """
    from lightning.pytorch.callbacks import Callback

    class TrainingBar(Callback):
        """Optimizer steps of ``Trainer.fit``, and batches of every validation."""

        def __init__(self) -> None:
            self._open, self._within = ExitStack(), ExitStack()
            self._bar: Bar | None = None
            self._checked: Bar | None = None

        def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            steps = trainer.estimated_stepping_batches
            total = int(steps) if steps != float("inf") else 0
            self._bar = self._open.enter_context(ui.progress(text, total))
            self._bar.update(trainer.global_step)

        def on_train_batch_end(
            self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any
        ) -> None:
            value = trainer.callback_metrics.get(watch)
            note = "" if value is None else f"{watch} {number(float(value))}"
            if self._bar is not None:
                self._bar.update(trainer.global_step, note)

        def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            self._open.close()

        def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            counts = trainer.num_val_batches
            total = sum(n for n in counts if n != float("inf"))
            self._checked = self._within.enter_context(ui.progress("validating", int(total)))

        def on_validation_batch_end(
            self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any,
            batch_idx: int, dataloader_idx: int = 0,
        ) -> None:  # fmt: skip
            if self._checked is not None:
                self._checked.update(batch_idx + 1)

        def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            self._within.close()

        def on_exception(
            self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
        ) -> None:
            # The bars learn of it, and do not say "done".
            for bars in (self._within, self._open):
                bars.__exit__(type(exception), exception, exception.__traceback__)

    return TrainingBar()
