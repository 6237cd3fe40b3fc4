"""The table of a task: sets x seeds x edit batch sizes, fitted and tested, resumable.

    python benchmarks/table.py --data FOLDER --out checkpoints/nli-table --sets snli sick
    python benchmarks/table.py --data FOLDER --out checkpoints/qa-table --group qa --sets zsre

FOLDER holds one folder a set with train.jsonl.gz and test.jsonl.gz; bundled sets need none. A cell
that has its results on disk, of these settings and by this code, is not run again. Each cell is one
editor, trained and tested at its k. Of text there are two lines: teacher-forced, and under free
generation.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from saledit import config as configuration
from saledit.config import RunConfig
from saledit.report import Ui, quiet_libraries
from saledit.run import fit, test
from saledit.run.cells.done import facts_of

COLUMNS = ("fail_accuracy", "adapt_accuracy", "edit_accuracy", "drawdown", "locality_kl")
_TRAIN, _TEST = "train.jsonl.gz", "test.jsonl.gz"


def files(args: argparse.Namespace, name: str) -> list[str]:
    """The settings that name a set's files; none for a set that comes with saledit."""
    folder = Path(args.data) / name if args.data else Path()
    found = [f"data.train={folder / _TRAIN}"] if args.data and folder.is_dir() else []
    return [*found, f"data.test={folder / _TEST}"] if found and (folder / _TEST).exists() else found


def cell(name: str, seed: int, k: int, args: argparse.Namespace, ui: Ui) -> dict[str, Any]:
    """Fit and test one editor, or read what an earlier call left."""
    folder = Path(args.out)
    run = f"{args.prefix}{name}-k{k}-s{seed}"
    overrides = [
        f"name={run}",
        f"output={folder}",
        f"seed={seed}",
        f"schedule.batch_size={k}",
        *files(args, name),
        *args.set,
    ]
    return finished(configuration.load(f"{args.group}/{name}", overrides), ui)


def finished(config: RunConfig, ui: Ui) -> dict[str, Any]:
    """The results of a run, which is fitted and tested where there are none of its settings."""
    if facts_of(config) is None:
        fit(config, False, ui)
        test(str(config.folder), [], ui)
    found: dict[str, Any] = json.loads((config.folder / "results.json").read_text(encoding="utf-8"))
    return found


def averages(cells: list[dict[str, Any]], generated: bool = False) -> list[str]:
    """The columns of a table: mean and, over several runs, standard deviation."""
    values = []
    for column in COLUMNS:
        metrics = [found["metrics"] for found in cells]
        numbers = [(m["generated"] if generated else m).get(column) for m in metrics]
        if None in numbers:
            values.append("-")
            continue
        spread = f" ± {stdev(numbers):.3f}" if len(numbers) > 1 else ""
        values.append(f"{mean(numbers):.3f}{spread}")
    return values


def row(cells: list[dict[str, Any]], name: str, k: int, generated: bool = False) -> str:
    """One line of the markdown table."""
    layers = "/".join(str(found["layer"]) for found in cells)
    speed = mean(found["timing"].get("edits_per_second", float("nan")) for found in cells)
    seconds = mean(found["timing"].get("train_seconds", float("nan")) for found in cells)
    peak = max(found["memory"]["peak_rss_mb"] for found in cells)
    facts = [
        f"{name}, generated" if generated else name,
        str(k),
        layers,
        str(len(cells)),
        *averages(cells, generated),
        f"{seconds:.0f}",
        f"{speed:.0f}",
    ]
    return "| " + " | ".join([*facts, f"{peak:.0f}"]) + " |"


def unedited(found: dict[str, Any], name: str) -> str:
    """The same line without any edit."""
    u = found["unedited"]
    shares = [f"{u[c]:.3f}" if c in u else "-" for c in COLUMNS[:3]]
    return "| " + " | ".join([name, "unedited", "", "", *shares, "0", "0", "", "", ""]) + " |"


def main() -> None:
    """Run the cells and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="folder with one folder a set")
    parser.add_argument("--group", default="nli", help="folder of configurations: nli, qa, ...")
    parser.add_argument("--out", default="checkpoints/nli-table")
    parser.add_argument("--sets", nargs="+", default=["snli", "mnli", "sick", "fever"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--k", nargs="+", type=int, default=[1, 10])
    parser.add_argument("--set", nargs="*", default=[], help="further key=value overrides")
    parser.add_argument("--prefix", default="", help="put before the run's name")
    args = parser.parse_args()
    quiet_libraries()
    head = ["set", "k", "layer", "seeds", *COLUMNS, "train s", "edits/s", "peak MB"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    with Ui() as ui:
        for name in args.sets:
            for i, k in enumerate(args.k):
                cells = [cell(name, seed, k, args, ui) for seed in args.seeds]
                if i == 0:
                    lines.append(unedited(cells[0], name))
                lines.append(row(cells, name, k))
                if "generated" in cells[0]["metrics"]:
                    lines.append(row(cells, name, k, generated=True))
                (Path(args.out) / f"{args.prefix}table.md").write_text(
                    "\n".join(lines) + "\n", encoding="utf-8"
                )
    print("\n".join(lines))


if __name__ == "__main__":
    main()
