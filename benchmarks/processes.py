"""Two processes against one, a thread each: asking, caching, training and testing.

    python benchmarks/processes.py --out processes.json
    python benchmarks/processes.py --config nli/quickstart --rounds 3

``saledit fit`` and ``saledit test`` of one configuration run with one process, with two that copy
the model (ddp) and with two that divide it (fsdp), in turns, each with caches of its own, but for
plain weights of a quantised file and a fine-tuned model; these a first round makes that does not
count. The global batch is the same. *MB* is the largest resident size of the first process.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from saledit.artifact import versions
from saledit.files import write_json
from saledit.verbs import positive

WAYS = {
    "one": ("trainer.devices=1",),
    "ddp": ("trainer.devices=2", "trainer.strategy=ddp"),
    "fsdp": ("trainer.devices=2", "trainer.strategy=fsdp"),
}
#: Small enough for minutes a round of 135 M parameters.
SMALL = (
    "trainer.accelerator=cpu", "trainer.precision=32-true", "data.limit=600",
    "data.max_failures=120", "data.max_passes=120", "data.max_made=0", "train.made=0",
    "data.max_test_failures=40", "data.max_test_passes=60", "train.epochs=1",
    "train.steps_per_epoch=40", "train.edits_per_step=16", "train.passes_per_edit=5",
    "train.validation_edits=2", "train.validation_passes=5", "site.select=fixed", "site.layer=20",
    "schedule.batch_size=1", "name=run",
)  # fmt: skip
MADE = ("dequantized-*", "finetuned-*")
COLUMNS = {
    "fit_seconds": "fit s", "caching_seconds": "caching s", "edits_per_second": "edits/s",
    "test_seconds": "test s", "peak_mb": "MB",
}  # fmt: skip


def saledit(verb: str, target: str, settings: Sequence[str], args: argparse.Namespace) -> Any:
    """What a verb gives as JSON, and the seconds that it took."""
    words = [sys.executable, "-m", "saledit", verb, target, *settings, "--json", "--threads"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(args.threads)}
    began = time.perf_counter()
    done = subprocess.run(
        [*words, str(args.threads)], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{verb} failed:\n{done.stderr.strip()[-3000:]}")
    return json.loads(done.stdout), time.perf_counter() - began


def measured(way: str, args: argparse.Namespace, models: Path) -> dict[str, float]:
    """One run, from empty caches to results; the models that it makes are kept in a folder."""
    with tempfile.TemporaryDirectory(prefix="processes-") as work:
        cache = Path(work) / "cache"
        shutil.copytree(models, cache)
        own = (*SMALL, *args.set, *WAYS[way], f"output={work}")
        fitted, fit_seconds = saledit("fit", args.config, own, args)
        tested, test_seconds = saledit("test", str(Path(work) / "run"), (), args)
        for made in (path for kind in MADE for path in cache.glob(kind)):
            shutil.copytree(made, models / made.name, dirs_exist_ok=True)
    return {
        "fit_seconds": fit_seconds,
        "caching_seconds": fitted["cache"]["making_seconds"],
        "edits_per_second": fitted["edits_per_second"],
        "test_seconds": test_seconds,
        "peak_mb": max(value for name, value in tested["memory"].items() if "rss" in name),
    }


def main() -> None:
    """Measure in turns, print medians and ratios to one process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="qa/quickstart")
    parser.add_argument("--rounds", type=positive, default=3)
    parser.add_argument("--threads", type=positive, default=1, help="of each process")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--set", action="append", default=[], metavar="key=value")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    args = parser.parse_args()
    rounds: dict[str, list[dict[str, float]]] = {way: [] for way in args.ways}
    with tempfile.TemporaryDirectory(prefix="processes-models-") as models:
        measured("one", args, Path(models))
        for i in range(args.rounds):
            for way in args.ways:
                rounds[way].append(measured(way, args, Path(models)))
                print(f"round {i + 1} {way}: {rounds[way][-1]}", file=sys.stderr, flush=True)
                if args.out:
                    write_json(args.out, {"rounds": rounds, "versions": versions()})
    print("| | " + " | ".join(COLUMNS.values()) + " |\n|---|" + "---|" * len(COLUMNS))
    middle = {
        way: {key: statistics.median(run[key] for run in runs) for key in COLUMNS}
        for way, runs in rounds.items()
    }
    for way, row in middle.items():
        print(f"| {way} | " + " | ".join(f"{row[key]:.4g}" for key in COLUMNS) + " |")
    for way in [way for way in middle if way != "one" and "one" in middle]:
        ratios = (middle[way][key] / middle["one"][key] for key in COLUMNS)
        print(f"| {way} / one | " + " | ".join(f"{ratio:.2f}" for ratio in ratios) + " |")


if __name__ == "__main__":
    main()
