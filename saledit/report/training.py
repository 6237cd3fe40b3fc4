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
    """A callback that shows how many optimizer steps are done; use no other progress bar with it.

    Where nobody watches it leaves a plain line every few seconds, which Lightning's own bars
    do not.

    Args:
        ui: where progress is shown.
        text: what is trained.
        watch: a logged metric to show beside the bar, e.g. ``val/score``.
    """
    from lightning.pytorch.callbacks import Callback

    class TrainingBar(Callback):
        """Steps of ``Trainer.fit``."""

        def __init__(self) -> None:
            self._open = ExitStack()
            self._bar: Bar | None = None

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

        def on_exception(
            self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
        ) -> None:
            # The bar learns of it, and does not say "done".
            self._open.__exit__(type(exception), exception, exception.__traceback__)

    return TrainingBar()
