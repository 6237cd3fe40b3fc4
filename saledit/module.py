"""Training of an editor as a LightningModule."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Timer
from torch import Tensor

from saledit import distributed
from saledit.config import LossConfig, TrainConfig
from saledit.data.episodes import EditBatch
from saledit.delta import Edits
from saledit.editors.base import Editor
from saledit.editors.earlier import laid, n_earlier, one_of, turned
from saledit.editors.looks import edits_for, edits_of_look, turn, upon
from saledit.editors.request import Request
from saledit.editors.stepping import StepSearch
from saledit.errors import DivergedError, UserError
from saledit.forward.suffix import Entry
from saledit.judging.counts import EditMetrics
from saledit.judging.judged import in_numbers, judged
from saledit.losses import Multiplier, in_parts, mean_of, penalty
from saledit.metrics import Mean
from saledit.models import TaskModel
from saledit.outcomes import Losses, Outcome, n_parts, outcome
from saledit.rates import adam, falling
from saledit.requests import Held, request_for
from saledit.tasks.base import Task

_BASE = "model."
_SPOKEN = ("fail_accuracy", "adapt_accuracy", "edit_accuracy", "drawdown")
_DRAWDOWN_PRICE = 4.0  # failures mended that a lost pass answer weighs as much as
_KL = "locality_kl"


class EditModule(L.LightningModule):
    """loss = c_edit NLL(right answers of fail, adapt) + c_loc / sqrt(k) KL(base || edited on pass).

    Source of the loss: MEND (Mitchell et al., ICLR 2022), section 3.3, with SaLEM's
    three kinds of samples; what else than KL may count: ``saledit.losses.PENALTIES``. The base
    model is part of the module, so that it moves with it between devices (unless it stays on
    disk), but never of a checkpoint.

    Args:
        base: the frozen task model.
        task: scores answers.
        editor: what is trained.
        entry: where the cached states enter.
        loss: weights.
        train: learning rates and length of training.
        search: how far edits go in validation and beneath others; of a step of training its looks.
        held: pass samples that the editor may look at, where it needs them.
        steps: of the optimizer, over which rates fall; None for one of each batch of all epochs.
    """

    def __init__(
        self, base: TaskModel, task: Task, editor: Editor, entry: Entry,
        loss: LossConfig | None = None, train: TrainConfig | None = None,
        search: StepSearch | None = None, held: Held | None = None, steps: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.held = held
        self.base, self.task, self.entry = base, task, entry
        if base.weights.in_place:  # others come to where they run by themselves
            self.model = base.model
        self.editor = editor
        self.loss_weights = c = loss or LossConfig()
        self.multiplier = Multiplier(c.locality, c.margin, c.least_margin) if c.margin > 0 else None
        self.train_config = t = train or TrainConfig()
        self._steps = steps or t.epochs * t.steps_per_epoch
        self.search = search or StepSearch()
        self.metrics = EditMetrics()
        # Of text: right as spoken freely, not word by word after the right words.
        self.spoken = EditMetrics() if task.generates else None
        self._val_loss, self._made = Mean(), Mean()
        # The base is left out of checkpoints, so its keys are missing on loading.
        self.strict_loading = False

    def train(self, mode: bool = True) -> EditModule:
        """Switch the editor; the base stays in eval mode, without dropout."""
        super().train(mode)
        self.base.model.eval()
        return self

    def _loss(self, batch: EditBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of the editor's edits, and what is logged of them.

        Rows that are too many for one pass are gone through in parts: the gradient of the loss in
        the edits is summed up over them, and goes back through the editor once. Source: Tan et
        al., ICLR 2024 (MALMEN), section 3.3.
        """
        step, c, request = self.global_step, self.train_config, self.request(batch)
        look = turn(step, min(self.search.looks, c.looks))
        most = min(c.earlier, distributed.all_min(request.n_edits) - 1) if c.earlier else 0
        below = n_earlier(step, most)
        earlier = laid(self.editor, request, below, self.search)
        edits = edits_of_look(self.editor, request, look, self.search.enough, earlier)
        back = one_of(step, below) if below else 0
        n = n_parts(self.base, batch)
        if n == 1:
            return self._weighed_with(edits, batch, batch.share, batch.pass_share, back)
        leaves = edits.map(lambda value: value.detach().requires_grad_())
        weights = list(self.multiplier.parameters()) if self.multiplier else []
        logged: dict[str, Tensor] = {}

        def losses() -> Iterator[Tensor]:
            for cut in batch.parts(n):
                share, pass_share = cut.share * batch.share, cut.pass_share * batch.pass_share
                loss, told = self._weighed_with(leaves, cut.batch, share, pass_share, back)
                logged.update({name: logged.get(name, 0) + value for name, value in told.items()})
                yield loss

        into = [*edits.tensors(), *weights]
        return in_parts(losses(), [*leaves.tensors(), *weights], into, self._scale()), logged

    def _weighed_with(
        self, edits: Edits, batch: EditBatch, share: float, pass_share: float, back: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of edits, and what is logged of them.

        Where they are on top of others, each is judged by what it leaves of one of these as well,
        as many places back; pass samples, of which there are twice as many then, weigh half.
        """
        half = pass_share / 2 if back else pass_share
        loss, seen = self.loss_of(edits, batch, share, half)
        if back:
            loss = loss + self.loss_of(turned(edits, -back), batch, share, half)[0]
        return loss, seen.told(self.task, batch, share, pass_share)

    def _scale(self) -> float:
        """What losses are multiplied with before they go back, in 16-mixed, so that none is lost.

        What overflows stays infinite in the slopes: the trainer sees it, leaves the step out and
        takes a smaller scale.
        """
        plugin = getattr(self._trainer, "precision_plugin", None)
        scaler = getattr(plugin, "scaler", None)
        return 1.0 if scaler is None else float(scaler.get_scale())

    def request(self, batch: EditBatch) -> Request:
        """What the editor may look at for a batch of edits."""
        return request_for(self.base, self.task, self.entry, batch, self.held)

    def loss_of(
        self, edits: Edits, batch: EditBatch, share: float = 1.0, pass_share: float = 1.0
    ) -> tuple[Tensor, Outcome]:
        """The loss of given edits (E,) on a batch, and what the edited model says.

        Args:
            edits: the edits.
            batch: their rows, or a part of them.
            share: of the mean over failures and rewordings that the part is.
            pass_share: of the mean over pass rows.
        """
        with self.base.weights.once_more():
            seen = outcome(self.base, self.task, self.entry, edits, batch)
        return self._weighed(seen, batch, share, pass_share), seen

    def _weighed(
        self, seen: Losses, batch: EditBatch, share: float = 1.0, pass_share: float = 1.0
    ) -> Tensor:
        """The loss of what an edited model says."""
        c = self.loss_weights
        # The damage of an edit grows with its failures, the mean likelihood does not. The root
        # lies between a weight that forbids large edits and one that lets each failure of
        # a large edit disturb as much as it would alone.
        if self.multiplier:  # its margin is one of the KL itself
            damage = self.multiplier(mean_of(seen.locality))
        else:
            damage = c.locality * mean_of(penalty(c.penalty)(seen.locality))
        harm: Tensor = pass_share / math.sqrt(batch.n_fail) * damage
        return share * c.edit * seen.edit_nll + harm

    def training_step(self, batch: EditBatch, batch_idx: int) -> Tensor:
        """One optimizer step's loss.

        Raises:
            DivergedError: the loss is NaN or infinite.
        """
        loss, logged = self._loss(batch)
        # The mean over processes: all of them see where one has diverged.
        mean = torch.stack(distributed.all_gather(loss.detach())).mean()
        self._check_finite(mean)
        n = len(batch.targets)
        self.log("train/loss", mean, prog_bar=True, batch_size=n)
        for name, value in logged.items():
            self.log(f"train/{name}", value, batch_size=n, sync_dist=True)
        return loss

    def _check_finite(self, loss: Tensor) -> None:
        if not torch.isfinite(loss):
            raise DivergedError(
                f"training diverged at step {self.global_step}: the loss is {loss.item()}; "
                "lower train.learning_rate or loss.edit and start anew, without --resume"
            )

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Behind a step: the multiplier is not negative."""
        if self.multiplier:
            self.multiplier.project()

    def on_validation_epoch_start(self) -> None:
        """Begin counting.

        Raises:
            UserError: the trainer is in inference mode, in which no editor can take a gradient.
        """
        if torch.is_inference_mode_enabled():
            raise UserError(
                "Trainer: expected inference_mode=False, as an editor may take gradients where it "
                "is validated, got True; pass inference_mode=False"
            )
        for counted in self._counted():
            counted.reset()
        self._val_loss.reset()
        self._made.reset()

    def validation_step(self, batch: EditBatch, batch_idx: int) -> dict[str, Any]:
        """Count one batch of validation edits; callbacks get them as ``edits``."""
        request = self.request(batch)
        most = min(self.train_config.earlier, request.n_edits - 1)
        earlier = laid(self.editor, request, n_earlier(batch_idx, most), self.search)
        edits = earlier + edits_for(self.editor, upon(self.editor, request, earlier), self.search)
        see = partial(judged, self.base, self.task, self.entry, batch=batch)
        # One edit that broke is no reason to end a training; as in a test it counts as none.
        edits, seen, made = in_numbers(edits, self.editor.resident.detach(), see, request.broadcast)
        loss = self._weighed(seen, batch)
        self._made.update(made.double())
        self.metrics.update(batch, seen)
        if self.spoken is not None:
            self.spoken.update(batch, seen, spoken=True)
        # Edits weigh alike, also those of a last, smaller batch.
        self._val_loss.update(loss.detach(), torch.tensor(float(len(batch.targets))))
        return {"edits": edits}

    def on_validation_epoch_end(self) -> None:
        """Log the validation metrics; early stopping and the kept state go by ``val/score``.

        It is edit accuracy - 4 x drawdown - KL, of text as spoken freely. The loss is no judge:
        failures near the border hold little likelihood to gain, so an editor that does next
        to nothing has a lower loss than one that mends most of them.

        Raises:
            DivergedError: no edit was in numbers; early stopping would take it for an end.
        """
        loss = self._val_loss.compute()
        self._check_finite(loss if self._made.compute() > 0 else loss * math.nan)
        self.log("val/loss", loss)
        values = self.metrics.compute()
        told = values
        if self.spoken is not None:
            told = self.spoken.compute()
            values |= {f"generated_{n}": told[n] for n in _SPOKEN if n in told}
        damage = _DRAWDOWN_PRICE * told["drawdown"] + values["locality_kl"]
        self.log("val/score", told["edit_accuracy"] - damage, prog_bar=True)
        if self.multiplier and self.trainer.state.fn == "fit" and not self.trainer.sanity_checking:
            self.log("val/multiplier", self.multiplier.weight)
            self.log("val/margin", self.multiplier.margin.clone())
            self.multiplier.anneal(values["locality_kl"])
        for name, value in values.items():
            self.log(f"val/{name}", value, prog_bar=name in {"edit_accuracy", "drawdown"})

    def _counted(self) -> list[EditMetrics]:
        return [self.metrics] if self.spoken is None else [self.metrics, self.spoken]

    def configure_optimizers(self) -> Any:
        """Adam in groups: the network, the edit rates (faster), a multiplier (that rises)."""
        c = self.train_config
        # Lightning cannot clip what a fused optimizer unscales.
        is_mixed = self._trainer is not None and "mixed" in str(self.trainer.precision)
        optimizer, groups = adam(self.editor, self.multiplier, c, fused=not is_mixed)
        if not c.decay:
            return optimizer

        def seconds() -> float:
            return 0.0 if self._trainer is None else distributed.broadcast(self.seconds())

        schedule = falling(optimizer, groups, c, self._steps, seconds)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def seconds(self) -> float:
        """How long training has taken, interruptions left out, by the trainer's ``Timer``."""
        timers = [c for c in self.trainer.callbacks if isinstance(c, Timer)]  # type: ignore[attr-defined]
        return timers[0].time_elapsed() if timers else 0.0

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave the base out."""
        state = checkpoint["state_dict"]
        for name in [name for name in state if name.startswith(_BASE)]:
            del state[name]
