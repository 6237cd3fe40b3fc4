"""The NLI table: sets x seeds x edit batch sizes, fitted and tested, resumable.

    python benchmarks/nli.py --data FOLDER --out checkpoints/nli-table --sets snli sick

FOLDER holds one folder a set with train.jsonl.gz and test.jsonl.gz. A cell that has its
results on disk is not run again. Each cell is one editor, trained and tested at its k.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from saledit import config as configuration
from saledit.report import Ui, quiet_libraries
from saledit.run import fit, test

COLUMNS = ("fail_accuracy", "adapt_accuracy", "edit_accuracy", "drawdown", "locality_kl")


def cell(name: str, seed: int, k: int, args: argparse.Namespace, ui: Ui) -> dict[str, Any]:
    """Fit and test one editor, or read what an earlier call left."""
    folder = Path(args.out)
    data = Path(args.data) / name
    run = f"{args.prefix}{name}-k{k}-s{seed}"
    overrides = [
        f"name={run}",
        f"output={folder}",
        f"seed={seed}",
        f"schedule.batch_size={k}",
        f"data.train={data / 'train.jsonl.gz'}",
        f"data.test={data / 'test.jsonl.gz'}",
        *args.set,
    ]
    results = folder / run / "results.json"
    if not results.exists():
        fit(configuration.load(f"nli/{name}", overrides), False, ui)
        test(str(folder / run), [], ui)
    found: dict[str, Any] = json.loads(results.read_text(encoding="utf-8"))
    return found


def averages(cells: list[dict[str, Any]]) -> list[str]:
    """The columns of a table: mean and, over several runs, standard deviation."""
    values = []
    for column in COLUMNS:
        numbers = [found["metrics"][column] for found in cells]
        spread = f" ± {stdev(numbers):.3f}" if len(numbers) > 1 else ""
        values.append(f"{mean(numbers):.3f}{spread}")
    return values


def row(cells: list[dict[str, Any]], name: str, k: int) -> str:
    """One line of the markdown table."""
    layers = "/".join(str(found["layer"]) for found in cells)
    speed = mean(found["timing"].get("edits_per_second", float("nan")) for found in cells)
    seconds = mean(found["timing"].get("train_seconds", float("nan")) for found in cells)
    peak = max(found["memory"]["peak_rss_mb"] for found in cells)
    facts = [
        name,
        str(k),
        layers,
        str(len(cells)),
        *averages(cells),
        f"{seconds:.0f}",
        f"{speed:.0f}",
    ]
    return "| " + " | ".join([*facts, f"{peak:.0f}"]) + " |"


def unedited(found: dict[str, Any], name: str) -> str:
    """The same line without any edit."""
    u = found["unedited"]
    shares = [f"{u[c]:.3f}" for c in COLUMNS[:3]]
    return "| " + " | ".join([name, "unedited", "", "", *shares, "0", "0", "", "", ""]) + " |"


def main() -> None:
    """Run the cells and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="folder with one folder a set")
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
                (Path(args.out) / f"{args.prefix}table.md").write_text(
                    "\n".join(lines) + "\n", encoding="utf-8"
                )
    print("\n".join(lines))


if __name__ == "__main__":
    main()
