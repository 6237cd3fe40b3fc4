"""Training steps and single fixes at layers in the first, middle and last third of models.

    python benchmarks/thirds.py --out thirds.json
    python benchmarks/thirds.py --configs qa/quickstart --modes loaded

Each model is asked once, then measured at each layer, loaded and streamed (``model.stream``), in
turns and each in a process of its own with its own caches of states. What is timed is what
``growth.py layer`` times (``growth_points.py``): medians of training steps with the optimizer, and
of single fixes from text to edit. The last table is streamed / loaded.

Linux only: memory is read from /proc.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from children import in_a_child
from growth import STEPS
from growth_points import Job

from saledit import config as configuration
from saledit.artifact import versions
from saledit.files import write_json
from saledit.report import quiet_libraries, use_threads
from saledit.verbs import positive

MODES = {"loaded": "false", "streamed": "true"}  # -> model.stream
COLUMNS = {
    "edits_per_second": ("edits/s", 1.0),
    "fix_seconds": ("fix ms", 1e3),
    "caching_seconds": ("caching ms a sample", 1e3),
    "peak_mb": ("peak MB", 1.0),
}
GROWTH = Path(__file__).with_name("growth.py")  # runs the jobs


def thirds(n_blocks: int) -> tuple[int, int, int]:
    """Layers in the middle of each third."""
    return n_blocks // 6, n_blocks // 2, n_blocks - 1 - n_blocks // 6


def measured(args: argparse.Namespace, config: str, work: Path) -> list[dict[str, Any]]:
    """All points of one configuration."""
    first = work / "asked"
    settings = (*STEPS, *args.set, "name=run")

    def job(what: str, output: Path, *more: str) -> dict[str, Any]:
        own = (*settings, f"output={output}", *more)
        result = str(work / "result.json")
        job = Job(what, config, own, args.steps, args.fixes, args.threads, args.clock, result)
        return in_a_child(str(GROWTH), "child", asdict(job), f"{config}: {' '.join(more)}")

    n_blocks = job("prepare", first, "site.layer=0")["found"]["n_blocks"]
    rows = []
    for layer in thirds(n_blocks):
        for mode in args.modes:
            output = work / "own"
            shutil.copytree(first, output)
            stream = f"model.stream={MODES[mode]}"
            done = job("steps", output, f"site.layer={layer}", stream)
            shutil.rmtree(output)
            found = {**done["found"], "peak_mb": done["taken"]["peak_mb"]}
            rows.append({"config": config, "layer": layer, "mode": mode, **found})
            print(f"{config} layer {layer} {mode}: measured", file=sys.stderr, flush=True)
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """All points, and below them streamed / loaded."""
    heads = [head for head, _ in COLUMNS.values()]
    out = [
        "| configuration | layer | mode | " + " | ".join(heads) + " |",
        "|---|---|---|" + "---|" * len(heads),
    ]
    for row in rows:
        cells = (f"{row[key] * scale:.4g}" for key, (_, scale) in COLUMNS.items())
        out.append(f"| {row['config']} | {row['layer']} | {row['mode']} | {' | '.join(cells)} |")
    loaded = {(r["config"], r["layer"]): r for r in rows if r["mode"] == "loaded"}
    streamed = [r for r in rows if r["mode"] == "streamed" and (r["config"], r["layer"]) in loaded]
    for row in streamed:
        other = loaded[row["config"], row["layer"]]
        cells = (f"{row[key] / other[key]:.2f}" for key in COLUMNS)
        out.append(f"| {row['config']} | {row['layer']} | ratio | {' | '.join(cells)} |")
    return "\n".join(out)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    both = ["nli/quickstart", "qa/quickstart"]
    parser.add_argument("--configs", nargs="+", default=both, metavar="CONFIG")
    parser.add_argument("--modes", nargs="+", default=list(MODES), choices=list(MODES))
    parser.add_argument("--steps", type=positive, default=9, help="training steps to time")
    parser.add_argument("--fixes", type=positive, default=9, help="fixes to time")
    parser.add_argument("--threads", type=positive, default=1)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--set", action="append", default=[], metavar="key=value")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    args = parser.parse_args()
    quiet_libraries()
    use_threads(args.threads)
    rows: list[dict[str, Any]] = []
    for config in args.configs:
        configuration.load(config, (*STEPS, *args.set))  # refused before anything is measured
        with tempfile.TemporaryDirectory(prefix="thirds-") as work:
            rows += measured(args, config, Path(work))
        if args.out:
            write_json(args.out, {"rows": rows, "versions": versions()})
    print(table(rows))


if __name__ == "__main__":
    main()
