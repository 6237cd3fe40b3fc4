"""From a plain model to a task model: fine-tuning, once, cached by fingerprint."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.utils.data import DataLoader

from saledit import distributed
from saledit.config import FinetuneConfig
from saledit.errors import ConfigError, JobError, did_you_mean
from saledit.files import new_folder
from saledit.forward.scoring import forward
from saledit.interrupts import interruptible
from saledit.models import TaskModel
from saledit.models.precision import precision_here
from saledit.records import Record, Sample
from saledit.tasks.base import Encoded, Task, task_settings

_CPU = torch.device("cpu")
_SCHEMA = 2  # of cached models; to be raised with what fine-tuning does
_PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
_SHUFFLE_BATCHES = 16  # batches whose texts are sorted by length together
logger = logging.getLogger(__name__)


class _Finetuning(L.LightningModule):
    """Plain fine-tuning: AdamW, linear warm-up and decay."""

    def __init__(self, base: TaskModel, task: Task, config: FinetuneConfig, steps: int) -> None:
        super().__init__()
        self.base, self.task, self.config, self.steps = base, task, config, steps
        self.model: nn.Module = base.model

    def training_step(self, batch: Encoded, batch_idx: int) -> Tensor:
        outputs = forward(self.base, batch.inputs, batch.at)
        logits = self.task.logits(self.base, outputs, batch.targets)
        loss = self.task.losses(self.base, logits, batch.targets).mean()
        if not torch.isfinite(loss):
            raise JobError(
                f"fine-tuning diverged at step {self.global_step}: the loss is {loss.item()}; "
                "lower model.finetune.learning_rate"
            )
        self.log("finetune/loss", loss, prog_bar=True, batch_size=len(batch.targets))
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=self.config.learning_rate, weight_decay=0.01
        )
        warm = max(1, int(self.config.warmup * self.steps))
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer,
            lambda step: min((step + 1) / warm, max(0.0, (self.steps - step) / self.steps)),
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


def finetuned(
    name: str,
    task: Task,
    records: Sequence[Record],
    load: Callable[[str], TaskModel],
    config: FinetuneConfig,
    folder: Path,
    callbacks: Sequence[Callback] = (),
    check: Callable[[TaskModel], object] = lambda _plain: None,
    device: torch.device = _CPU,
) -> TaskModel:
    """Load the fine-tuned model, training it first where no cached one fits.

    Args:
        name: the plain model.
        task: the task.
        records: what it learns from; of questions their rewordings, too.
        load: loads a model by its name; a classifier with a fresh head for the labels.
        config: how.
        folder: where task models are cached.
        callbacks: of its trainer, such as a progress bar.
        check: called with the plain model before minutes are spent on it; may raise.
        device: where it is trained.

    Returns:
        The frozen task model, read back from its folder.

    Raises:
        ConfigError: no such precision.
        ModelError: the model cannot be loaded.
        JobError: training diverged, or the disk is full.
    """
    if config.precision not in _PRECISIONS:
        raise ConfigError(
            f"model.finetune.precision: unknown name '{config.precision}'; "
            + did_you_mean(config.precision, _PRECISIONS)
        )
    L.seed_everything(config.seed, verbose=False)
    plain = load(name)
    check(plain)
    place = folder / f"finetuned-{_key(plain, task, records, config)}"
    distributed.once(place, lambda: _make(place, plain, task, records, config, callbacks, device))
    return load(str(place))


def _make(
    place: Path,
    plain: TaskModel,
    task: Task,
    records: Sequence[Record],
    config: FinetuneConfig,
    callbacks: Sequence[Callback],
    device: torch.device,
) -> None:
    """Fine-tune the plain model, in place, and write it."""
    logger.info("fine-tuning %s on %d records", plain.name, len(records))
    samples = [record.sample for record in records]
    if task.generates:
        samples += [sample for record in records for sample in record.rewordings]
    _train(plain, task, _batches(samples, config), config, callbacks, device)
    with new_folder(place) as part:
        plain.model.save_pretrained(part)
        plain.tokenizer.save_pretrained(part)


def _train(
    plain: TaskModel,
    task: Task,
    batches: list[list[Sample]],
    config: FinetuneConfig,
    callbacks: Sequence[Callback],
    device: torch.device,
) -> None:
    def collate(batch: list[Sample]) -> Encoded:
        return task.encode(plain, batch)

    loader: DataLoader[list[Sample]] = DataLoader(
        batches,  # type: ignore[arg-type]
        batch_size=None,
        shuffle=False,
        collate_fn=collate,
    )
    plain.model.requires_grad_(True)
    plain.model.train()
    trainer = L.Trainer(
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        callbacks=list(callbacks),
        gradient_clip_val=1.0,
        precision=precision_here(config.precision, device.type),
        accelerator=device.type,
        # By one process, whatever shares the run: the others wait for what it writes.
        devices=[device.index or 0] if device.type == "cuda" else 1,
        plugins=[LightningEnvironment()],
    )
    with interruptible():
        trainer.fit(_Finetuning(plain, task, config, len(batches)), loader)
    plain.model.requires_grad_(False)
    plain.model.eval()


def _batches(samples: Sequence[Sample], config: FinetuneConfig) -> list[list[Sample]]:
    """All batches of all epochs; texts of similar length together, in random order."""
    draws = torch.Generator().manual_seed(config.seed)
    size = config.batch_size
    out: list[list[Sample]] = []
    for _ in range(config.epochs):
        order = torch.randperm(len(samples), generator=draws).tolist()
        epoch = []
        for start in range(0, len(order), size * _SHUFFLE_BATCHES):
            chunk = [samples[i] for i in order[start : start + size * _SHUFFLE_BATCHES]]
            chunk.sort(key=lambda sample: sum(map(len, sample.inputs)))
            epoch += [chunk[i : i + size] for i in range(0, len(chunk), size)]
        out += [epoch[i] for i in torch.randperm(len(epoch), generator=draws).tolist()]
    return out


def _key(
    plain: TaskModel,
    task: Task,
    records: Sequence[Record],
    config: FinetuneConfig,
) -> str:
    digest = hashlib.blake2b(digest_size=16)
    settings = task_settings(task)
    head = [_SCHEMA, plain.reading, asdict(config), settings]
    digest.update(json.dumps(head, sort_keys=True).encode())
    for record in records:
        digest.update(json.dumps([*record.sample.inputs, record.sample.target]).encode())
        if task.generates:  # are trained on as well
            for sample in record.rewordings:
                digest.update(json.dumps([*sample.inputs, sample.target]).encode())
    return digest.hexdigest()
