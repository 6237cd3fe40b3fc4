"""How long one failure takes from its text to its edit, beside the passes that it needs at least.

    python benchmarks/latency.py RUN --failures f.jsonl --repeats 20

In a warm process, for each failure in turn (taking turns, so that both meet the same machine):

*fix*: ``EditSession.step``: encode, forward to the loss, backward to the edited layer, the editor,
and the search for the edit's length where one is configured.

*passes*: one forward of the whole model with the loss, and its backward to the edited layer's
outputs, the frozen weights without gradient: what a gradient editor needs at least.

Prints medians in milliseconds and the median of the ratios. With ``--whole`` then also how long
the command ``saledit fix`` takes for the first failure, from the shell to the end, and where its
time goes, by the stages that it names on stderr.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from saledit.artifact import TrainedEditor, load_editor
from saledit.building import load_model
from saledit.data.sources import load_records
from saledit.files import write_jsonl
from saledit.forward.scoring import forward
from saledit.models import TaskModel
from saledit.records import Sample
from saledit.report import quiet_libraries, use_threads
from saledit.tasks.answering import answers


def main() -> None:
    """Time both, by turns."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="the run of a trained editor")
    parser.add_argument("--failures", required=True, help="data file")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--whole", action="store_true", help="time the command as well")
    args = parser.parse_args()
    quiet_libraries()
    if args.threads:
        use_threads(args.threads)
    trained = load_editor(args.run)
    task = trained.task
    model = replace(trained.config.model, name=trained.base_name)
    base = load_model(task, model, trained.config.cache)
    samples = [r.sample for r in load_records(task, args.failures)][: 8 * args.repeats]
    said = answers(base, task, samples)
    samples = [s for s, a in zip(samples, said, strict=True) if not a.right][: args.repeats]
    if len(samples) < 2:
        parser.error(f"{args.failures}: expected some failures of this model, got {len(samples)}")
    times: dict[str, list[float]] = {"fix": [], "passes": []}
    for number, sample in enumerate([*samples[:3], *samples]):
        pair = {"fix": _fix(base, trained, sample), "passes": _passes(base, trained, sample)}
        for name, run in pair.items():
            began = time.perf_counter()
            run()
            if number >= 3:  # the first ones warm up
                times[name].append(1000 * (time.perf_counter() - began))
    ratios = [a / b for a, b in zip(times["fix"], times["passes"], strict=True)]
    found: dict[str, Any] = {
        f"{name}_ms": statistics.median(values) for name, values in times.items()
    }
    found["ratio"] = statistics.median(ratios)
    found["ratio_quartiles"] = statistics.quantiles(ratios)[::2]
    found["threads"] = torch.get_num_threads()
    if args.whole:
        found["command"] = _command(args.run, [task.row(samples[0])], found["threads"])
    print(json.dumps(found, indent=2))


def _command(run: Path, rows: list[dict[str, Any]], threads: int) -> dict[str, float]:
    """Seconds of each stage of ``saledit fix``; what comes before the first is Python's start."""
    with TemporaryDirectory() as folder:
        write_jsonl(Path(folder) / "one.jsonl", rows)
        words = ["fix", str(run), "--failures", f"{folder}/one.jsonl", "--out", f"{folder}/fixed"]
        words += ["--min-fixed", "0"]
        command = [sys.executable, "-m", "saledit", *words, "--threads", str(threads)]
        began = last = time.perf_counter()
        stage, spent = "start", dict[str, float]()
        with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as child:
            assert child.stderr is not None
            for line in child.stderr:
                now, text = time.perf_counter(), line.decode().strip()
                if text.endswith(" ...") and not text.startswith("Writing model"):
                    spent[stage] = spent.get(stage, 0.0) + now - last
                    stage, last = text.removesuffix(" ...").split(" /")[0], now
        now = time.perf_counter()
        assert child.returncode == 0, "saledit fix failed"
        return {**spent, stage: now - last, "all": now - began}


def _fix(base: TaskModel, trained: TrainedEditor, sample: Sample) -> Callable[[], object]:
    session = trained.session(base)
    return lambda: session.step([sample])


def _passes(base: TaskModel, trained: TrainedEditor, sample: Sample) -> Callable[[], object]:
    task, names = trained.task, [site.name for site in trained.layer.sites]
    module = base.model.get_submodule(names[0])

    def run() -> None:
        encoded = task.encode(base, [sample])
        seen: list[torch.Tensor] = []

        def keep(_module: object, _inputs: object, output: torch.Tensor) -> torch.Tensor:
            seen.append(output.detach().requires_grad_())
            return seen[-1]

        handle = module.register_forward_hook(keep)
        try:
            with torch.enable_grad():
                outputs = forward(base, encoded.inputs, encoded.at)
                logits = task.logits(base, outputs, encoded.targets)
                loss = task.losses(base, logits, encoded.targets).sum()
                torch.autograd.grad(loss, seen)
        finally:
            handle.remove()

    return run


if __name__ == "__main__":
    main()
