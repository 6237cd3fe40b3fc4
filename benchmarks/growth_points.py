"""One point of a growth curve: what a fit, or some training steps and fixes, take."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from children import forget_peak, import_everything, status
from torch.nn.utils import clip_grad_norm_

from saledit import config as configuration
from saledit import run
from saledit.building import make_editor, make_search
from saledit.config import RunConfig
from saledit.data.datamodule import Episodes
from saledit.data.episodes import EditBatch
from saledit.data.part_banks import PartBanks
from saledit.errors import UserError
from saledit.files import write_json
from saledit.module import EditModule
from saledit.report import Bar, Ui
from saledit.run.setup.caching import banks_of, takes_moments
from saledit.run.setup.prepare import Prepared, prepare
from saledit.session import EditSession

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
#: How a stage or a bar of ``fit`` begins -> what its time and memory are counted as.
STAGES = {
    "reading data": "reading",
    "task model": "loading",
    "asking": "asking",
    "caching": "caching",
    "training": "training",
}
OTHER = "other"
WARM_UP = 2  # steps and fixes that are not counted


class Stages:
    """What the parts of some work take: time, and the largest resident size meanwhile.

    Args:
        clock: one of ``CLOCKS``.

    Attributes:
        before: the kernel's counts, in MB, when nothing was done.
        taken: for each part its seconds, its peak, and what is there at its end, in MB above
            what was there before.
    """

    def __init__(self, clock: str) -> None:
        self._now, self._name, self._began = CLOCKS[clock], "", 0.0
        self.before = status()
        self.taken: dict[str, dict[str, float]] = {}

    def begin(self, name: str) -> None:
        """A part begins; it lasts until the next one, and may come again."""
        self.end()
        forget_peak()
        self._name, self._began = name, self._now()

    def end(self) -> None:
        """The part that has begun is over."""
        if not self._name:
            return
        seconds, now, before = self._now() - self._began, status(), self.before
        part = self.taken.setdefault(self._name, {"seconds": 0.0, "peak_mb": -math.inf})
        part["seconds"] += seconds
        part["peak_mb"] = max(part["peak_mb"], now["VmHWM"] - before["VmRSS"])
        part["anonymous_mb"] = now["RssAnon"] - before["RssAnon"]
        part["files_mb"] = now["RssFile"] - before["RssFile"]
        self._name = ""

    def as_json(self) -> dict[str, Any]:
        """All of it, and what it comes to; call it at the end."""
        self.end()
        now, before = status(), self.before
        return {
            "seconds": sum(part["seconds"] for part in self.taken.values()),
            "peak_mb": max(part["peak_mb"] for part in self.taken.values()),
            "anonymous_mb": now["RssAnon"] - before["RssAnon"],
            "files_mb": now["RssFile"] - before["RssFile"],
            "interpreter_mb": before["VmRSS"],
            "stages": self.taken,
        }


class Timed(Ui):
    """Shows nothing; what a run says that it is doing becomes stages."""

    def __init__(self, stages: Stages) -> None:
        super().__init__(quiet=True)
        self._stages = stages

    def stage(self, text: str) -> None:
        """A stage of the run begins."""
        self._stages.begin(_kind(text))
        super().stage(text)

    @contextmanager
    def progress(self, text: str, total: int) -> Iterator[Bar]:
        """A piece of work with an end; what comes behind it is none of the known stages."""
        self._stages.begin(_kind(text))
        with super().progress(text, total) as bar:
            yield bar
        self._stages.begin(OTHER)


def _kind(text: str) -> str:
    return next((kind for start, kind in STAGES.items() if text.startswith(start)), OTHER)


@dataclass(frozen=True)
class Job:
    """What one child process does.

    Attributes:
        what: "fit"; "steps": training steps and fixes; "prepare": ask the model, so that its
            answers are known.
        config: name or path of the configuration; None for the defaults.
        settings: over it.
        steps: training steps to time.
        fixes: fixes to time.
        threads: processor threads.
        clock: one of ``CLOCKS``.
        result: file for what was found.
    """

    what: str
    config: str | None
    settings: tuple[str, ...]
    steps: int
    fixes: int
    threads: int
    clock: str
    result: str

    def loaded(self) -> RunConfig:
        """The configuration."""
        return configuration.load(self.config, self.settings)

    def run(self, stages: Stages) -> dict[str, Any]:
        """Do it; what was found."""
        config = self.loaded()
        stages.begin(OTHER)
        with Timed(stages) as ui:
            if self.what == "fit":
                return run.fit(config, False, ui)
            prepared = prepare(config, ui)
            part = prepared.train
            if self.what == "prepare":
                return {**part.counts(), "n_blocks": prepared.base.n_blocks}
            return steps_and_fixes(prepared, self, stages)


def steps_and_fixes(prepared: Prepared, job: Job, stages: Stages) -> dict[str, Any]:
    """Cache the training part at the configured layer, train for some steps, fix failures."""
    config, base, task, now = prepared.config, prepared.base, prepared.task, CLOCKS[job.clock]
    c, t, k = config.editor, config.train, config.schedule.batch_size
    layer = base.layer(config.site.layer, config.site.maps, config.site.span)
    if c.name != "mend":
        raise UserError(f"editor.name: expected mend, got {c.name}; leave it out")
    torch.manual_seed(config.seed)
    editor = make_editor(c, layer.sites, base.embedding_size)
    moments = takes_moments(prepared, editor)
    banks = banks_of(prepared, prepared.train, layer, editor, moments)
    n = sum(len(bank) for bank in (banks.fail, banks.adapt, banks.passing) if bank is not None)
    stages.begin("training")
    length = WARM_UP + job.steps
    episodes = Episodes(
        banks, k, t.edits(k), t.passes_per_edit, c.gradient_rank, length, config.seed, 0, t.made
    )
    first = episodes[0]
    editor.prime(first.terms.pairs, banks.passing.moments() if moments else None)
    search = make_search(c)
    module = EditModule(base, task, editor, banks.fail.entry, config.loss, t, search)
    module.train()
    optimizer = module.configure_optimizers()
    steps = []
    for number in range(length):
        began = now()
        loss = module.training_step(episodes[number], 0)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        clip_grad_norm_(editor.parameters(), t.gradient_clip)
        optimizer.step()
        steps.append(now() - began)
    stages.begin("fixing")
    fixes = []
    for sample in prepared.train.fail[: WARM_UP + job.fixes]:
        session = EditSession(base, task, editor, layer, c.sample_rank, c.gradient_rank, search)
        began = now()
        session.step([sample])
        fixes.append(now() - began)
    stages.end()
    step = statistics.median(steps[WARM_UP:])
    weights = [*base.model.parameters()]
    return {
        "layer": config.site.layer % base.n_blocks,
        "blocks": base.n_blocks - config.site.layer % base.n_blocks,
        "parameters": sum(weight.numel() for weight in weights),
        "weights_mb": sum(weight.nbytes for weight in weights) / 2**20,
        "samples": n,
        "rows_per_step": len(first),
        **counted(prepared, banks, [episodes[i] for i in range(WARM_UP, length)]),
        "step_seconds": step,
        "edits_per_second": t.edits(k) / step,
        "fix_seconds": statistics.median(fixes[WARM_UP:]),
        "caching_seconds": stages.taken["caching"]["seconds"] / n,
        "all_steps": steps,
        "all_fixes": fixes,
    }


#: Sizes of a Llama-shaped configuration that ``estimate.py`` counts by.
_SIZES = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "vocab_size",
)  # fmt: skip


def counted(prepared: Prepared, banks: PartBanks, batches: Sequence[EditBatch]) -> dict[str, Any]:
    """What operations are counted by: tokens of steps and of samples, and the model's sizes."""
    every = [bank for bank in (banks.fail, banks.adapt, banks.passing) if bank is not None]
    lengths = torch.cat([bank.lengths for bank in every]).float()
    scored = [bank.answer_lengths for bank in every if bank.answer_lengths is not None]
    rows = [batch.rows.inputs.get("attention_mask") for batch in batches]
    tokens = [float(mask.sum()) for mask in rows if mask is not None]
    own = prepared.base.model.config.to_dict()
    return {
        "step_tokens": statistics.mean(tokens) if tokens else 0.0,
        "step_scored": statistics.mean(batch.n_scored for batch in batches),
        "sample_tokens": float(lengths.mean()),
        "sample_scored": float(torch.cat(scored).float().mean()) if scored else 1.0,
        "shape": {name: own[name] for name in _SIZES if name in own},
    }


def measure(job: Job) -> None:
    """Do a job in this process and write down what it took."""
    import_everything(job.threads)
    stages = Stages(job.clock)
    found = job.run(stages)
    write_json(Path(job.result), {"taken": stages.as_json(), "found": found})
