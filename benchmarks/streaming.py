"""A model that stays on disk beside the same one loaded: memory, time, and what comes out.

    python benchmarks/streaming.py
    python benchmarks/streaming.py --model my-model --layer 28 --set model.dtype=bfloat16

Scores of layers, a small editor, its test and the fix of one failure are made twice, with
``model.stream`` off and on, each verb in a process of its own; both modes have caches of their own
and take turns, so that they meet the same machine. Plain weights of a quantised file, and a model
that the configuration fine-tunes, are made before anything is measured.

*MB*: the largest resident size (VmHWM) above that of the process when everything is imported and
nothing is done. Pages of mapped files count, though the system may drop them. What the model
answered is remembered, so the first verb asks the training part, and the next ones the others.

*difference*: the largest of any number, and in parentheses relative to the largest number: of the
scores, the editor's weights, the metrics of the test, the matrices that the fix adds. Both modes
fix with the editor that was trained with the model loaded.

Linux only: memory is read from /proc.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from children import CLEAR, forget_peak, import_everything, in_a_child, status
from torch import Tensor

from saledit import config as configuration
from saledit import run
from saledit.artifact import load_editor, read_edits, versions
from saledit.building import make_task
from saledit.config import RunConfig
from saledit.errors import SaleditError, UserError
from saledit.files import read_tensors, write_json, write_jsonl
from saledit.records import Sample
from saledit.report import Ui, quiet_libraries
from saledit.run.setup.prepare import prepare

VERBS = ("saliency", "fit", "test", "fix")
MODES = {"plain": "false", "stream": "true"}  # folder -> model.stream
RUN, SAME, FIXED, FAILURE = "run", "same", "fixed", "failure.jsonl"
# Small enough for ten minutes on a core for 135 M parameters.
SMALL = (
    "data.limit=600", "data.max_failures=60", "data.max_passes=60", "data.max_made=0",
    "data.max_test_failures=10", "data.max_test_passes=30", "train.epochs=1",
    "train.steps_per_epoch=5", "train.edits_per_step=4", "train.passes_per_edit=5",
    "train.validation_edits=4", "trainer.precision=32-true", "trainer.accelerator=cpu",
    "schedule.batch_size=1",
)  # fmt: skip


@dataclass(frozen=True)
class Job:
    """What one child process does.

    Attributes:
        verb: one of ``VERBS``, or "prepare".
        config: name or path of the configuration.
        settings: over it.
        output: folder of the mode's runs and caches.
        threads: processor threads.
        result: file for what was measured.
    """

    verb: str
    config: str
    settings: tuple[str, ...]
    output: str
    threads: int
    result: str

    def loaded(self) -> RunConfig:
        """The configuration."""
        return configuration.load(self.config, self.settings)

    def run(self) -> dict[str, Any]:
        """Do it; what the verb gives."""
        folder = Path(self.output)
        with Ui(quiet=True) as ui:
            if self.verb == "prepare":
                config = self.loaded()
                base = prepare(config, ui).base
                layer = base.layer(config.site.layer, config.site.maps, config.site.span)
                return {"model": base.name, "sites": [site.name for site in layer.sites]}
            if self.verb == "saliency":
                return run.saliency(self.loaded(), ui)
            if self.verb == "fit":
                return run.fit(self.loaded(), False, ui)
            if self.verb == "test":
                return run.test(str(folder / RUN), [], ui)
            failure = str(folder.parent / FAILURE)
            any_edit = run.FixOptions(bounds=run.Bounds(min_fixed=0.0))
            return run.fix(str(folder / SAME), failure, str(folder / FIXED), any_edit, ui)


def measure(job: Job) -> None:
    """Run a job in this process and write down what it took."""
    import_everything(job.threads)
    before = status()["VmRSS"]
    forget_peak()
    began = time.perf_counter()
    found = job.run()
    seconds, after = time.perf_counter() - began, status()
    taken = {
        "peak_mb": after["VmHWM"] - before,
        "interpreter_mb": before,
        "anonymous_at_end_mb": after["RssAnon"],
        "files_at_end_mb": after["RssFile"],
        "seconds": seconds,
    }
    write_json(Path(job.result), {"taken": taken, "found": found})


def _done(job: Job) -> dict[str, Any]:
    return in_a_child(__file__, "--child", asdict(job), f"{job.verb} in {job.output}")


class Bench:
    """Runs the verbs in both modes.

    Args:
        args: the command line.
        work: folder for all of it.
    """

    def __init__(self, args: argparse.Namespace, work: Path) -> None:
        self._args, self._work = args, work
        model = [f"model.name={args.model}"] if args.model else []
        self.settings = (*SMALL, *model, *args.set)
        # Times and peaks of each verb and mode, one a round.
        self.taken: dict[str, dict[str, list[dict[str, float]]]] = {
            verb: {mode: [] for mode in MODES} for verb in VERBS
        }
        self.found: dict[str, dict[str, dict[str, Any]]] = {verb: {} for verb in VERBS}

    def job(self, verb: str, mode: str) -> Job:
        """The job of a verb in a mode."""
        output = self._work / mode
        own = {
            "saliency": ("name=saliency", "site.select=gradient", "site.samples=16"),
        }.get(verb, (f"name={RUN}", "site.select=fixed", f"site.layer={self._args.layer}"))
        settings = (*self.settings, f"output={output}", f"model.stream={MODES[mode]}", *own)
        result = self._work / f"{mode}-{verb}.json"
        return Job(verb, self._args.config, settings, str(output), self._args.threads, str(result))

    def prepare(self) -> None:
        """Make what is no part of the measure, and read the weights once, for both."""
        self.job("fit", "plain").loaded()  # refused here in one line
        for mode in MODES:
            _done(self.job("prepare", mode))

    def round(self) -> None:
        """Run every verb once in each mode, by turns, with nothing remembered."""
        for mode in MODES:
            forget(self._work / mode)
        for verb in VERBS:
            for mode in MODES:
                one = _done(self.job(verb, mode))
                self.taken[verb][mode].append(one["taken"])
                self.found[verb][mode] = one["found"]
            if verb == "test":
                self._write_failure()
                self._share_editor()

    def _share_editor(self) -> None:
        """One editor for both: two that are trained apart differ in their last digits."""
        for mode, stream in MODES.items():
            folder = self._work / mode / SAME
            shutil.copytree(self._work / "plain" / RUN, folder)
            own = [f"output={self._work / mode}", f"name={SAME}", f"model.stream={stream}"]
            config = configuration.load(folder / "config.yaml", own)
            (folder / "config.yaml").write_text(configuration.to_yaml(config), encoding="utf-8")

    def _write_failure(self) -> None:
        """The same failure for both."""
        rows = (self._work / "plain" / RUN / "answers.jsonl").read_text(encoding="utf-8")
        row = next(r for r in map(json.loads, rows.splitlines()) if r["part"] == "fail")
        sample = Sample(row["id"], tuple(row["inputs"]), row["target"])
        task = make_task(self.job("fit", "plain").loaded().task)
        write_jsonl(self._work / FAILURE, [task.row(sample)])

    def rows(self) -> list[dict[str, Any]]:
        """What was measured, a row for each verb."""
        return [self._row(verb) for verb in VERBS]

    def _row(self, verb: str) -> dict[str, Any]:
        sides = {mode: middle(self.taken[verb][mode]) for mode in MODES}
        plain, stream = sides["plain"], sides["stream"]
        one, other = (dict(self._numbers(verb, mode)) for mode in MODES)
        if one.keys() != other.keys():
            raise SystemExit(f"{verb}: the modes differ in {sorted(one.keys() ^ other.keys())}")
        apart, largest = largest_difference(one, other)
        return {
            "verb": verb,
            "loaded": plain,
            "streamed": stream,
            "memory_ratio": stream["peak_mb"] / max(plain["peak_mb"], 1e-9),
            "time_ratio": stream["seconds"] / plain["seconds"],
            "difference": apart,
            "relative_difference": apart / largest if largest else 0.0,
            "rounds": self.taken[verb],
        }

    def _numbers(self, verb: str, mode: str) -> Iterable[tuple[str, Tensor | float]]:
        """What a verb made in a mode, by name."""
        folder, found = self._work / mode, self.found[verb][mode]
        if verb == "saliency":
            return ((str(row["layer"]), row["score"]) for row in found["layers"])
        if verb == "fit":
            return read_tensors(folder / RUN / "editor.safetensors", "an editor").items()
        if verb == "test":
            return flat(found["metrics"])
        sites = {site.name: site for site in load_editor(folder / RUN).layer.sites}
        edits = read_edits(folder / FIXED, sites.__getitem__)
        if edits.are_routed:  # no matrices
            return ((str(i), tensor) for i, tensor in enumerate(edits.tensors()))
        # Factors of the same matrix may differ in their signs.
        return ((site.name, delta.dense()) for site, delta in edits.items())


def forget(output: Path) -> None:
    """Remove what earlier rounds left, but for the models that were made."""
    kept = [*output.glob("cache/dequantized-*"), *output.glob("cache/finetuned-*")]
    above = {parent for path in kept for parent in path.parents}
    for folder in (output / "cache", output):
        for path in folder.glob("*"):
            if path in kept or path in above:
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def middle(rounds: list[dict[str, float]]) -> dict[str, float]:
    """Of several rounds the largest peak, and medians of the rest."""
    found = {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}
    return found | {"peak_mb": max(one["peak_mb"] for one in rounds)}


def flat(metrics: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of nested metrics."""
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{above}{name}.")
        elif isinstance(value, int | float):
            yield f"{above}{name}", float(value)


def largest_difference(
    one: Mapping[str, Tensor | float], other: Mapping[str, Tensor | float]
) -> tuple[float, float]:
    """The largest difference of any number, and the largest number."""
    apart, largest = [0.0], [0.0]
    for name, value in one.items():
        a, b = (torch.as_tensor(side, dtype=torch.float64) for side in (value, other[name]))
        if a.shape != b.shape:
            raise SystemExit(f"{name}: the modes differ in shape, {a.shape} and {b.shape}")
        if a.numel():
            apart.append(float((a - b).abs().max()))
            largest.append(float(a.abs().max()))
    # Unlike Python's, torch's maximum of something and NaN is NaN.
    return float(torch.tensor(apart).max()), float(torch.tensor(largest).max())


def table(rows: Iterable[Mapping[str, Any]]) -> str:
    """The markdown table."""
    head = ("verb", "loaded: MB, s", "streamed: MB, s", "memory", "time", "difference")
    lines = [head, ("---",) * len(head)]
    for row in rows:
        sides = [
            f"{row[m]['peak_mb']:.0f}, {row[m]['seconds']:.1f}" for m in ("loaded", "streamed")
        ]
        apart = f"{row['difference']:.1e} ({row['relative_difference']:.1e})"
        ratios = [f"{row[name]:.2f}" for name in ("memory_ratio", "time_ratio")]
        lines.append((row["verb"], *sides, *ratios, apart))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="qa/quickstart")
    parser.add_argument("--model", help="another model.name")
    parser.add_argument("--layer", type=int, default=20, help="the layer to edit")
    parser.add_argument("--work", type=Path, help="an empty folder (default: a temporary one)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], metavar="key=value")
    parser.add_argument("--repeat", type=int, default=1, metavar="N", help="rounds")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if sys.platform != "linux" or not os.access(CLEAR, os.W_OK):
        parser.error("memory is read from Linux's /proc/self/status and reset by clear_refs: "
                     f"expected both, got none on {sys.platform}")  # fmt: skip
    if args.repeat < 1:
        parser.error(f"--repeat: expected at least 1, got {args.repeat}")
    if args.work and args.work.exists() and any(args.work.iterdir()):
        parser.error(f"--work {args.work}: expected an empty folder")
    return args


def main() -> None:
    """Measure in children, compare, and print."""
    args = arguments()
    if args.child:
        job = json.loads(args.child.read_text(encoding="utf-8"))
        try:
            measure(Job(**{**job, "settings": tuple(job["settings"])}))
        except SaleditError as error:
            raise SystemExit(str(error)) from error
        return
    quiet_libraries()
    with tempfile.TemporaryDirectory(prefix="streaming-") as spare:
        work = (args.work or Path(spare)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        bench = Bench(args, work)
        try:
            bench.prepare()
        except UserError as error:
            raise SystemExit(str(error)) from error
        for _ in range(args.repeat):
            bench.round()
        rows = bench.rows()
    print(table(rows))
    if args.out:
        facts = {
            "config": args.config,
            "settings": list(bench.settings),
            "layer": args.layer,
            "threads": args.threads,
            "rounds": args.repeat,
            "versions": versions(),
            "platform": platform.platform(),
        }
        write_json(args.out, {**facts, "rows": rows})


if __name__ == "__main__":
    main()
