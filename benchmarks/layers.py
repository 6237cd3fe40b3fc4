"""Is the pick a good one? The same small editor at every layer, and each picker's regret.

    python benchmarks/layers.py --data FOLDER --set-name sick --out checkpoints/layers
    python benchmarks/layers.py --data FOLDER --set-name sick --out checkpoints/layers --seconds 60
    python benchmarks/layers.py --group qa --set-name worldfacts --layers 0 3 6 9 --seconds 60

The first form trains for the same number of steps at every layer, the second for the same time:
a step at the top runs a fraction of the model and costs a fiftieth of one at the bottom.

Regret = edit accuracy (and drawdown) of the best layer of the sweep minus those of the picked
one; "best" is the layer with the highest edit accuracy - LAMBDA x drawdown on the test split.
Passes are of one sample through the whole model. The share of the sweep is a picker's seconds (on a
warm cache those of the call that scored) in the seconds in which all layers' editors were trained,
without their tests and the caching that all share.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from table import files, finished

from saledit import config as configuration
from saledit.building import make_editor
from saledit.config import RunConfig
from saledit.errors import ConfigError
from saledit.files import write_json
from saledit.report import Ui, quiet_libraries
from saledit.run import fit, saliency
from saledit.run.cells.done import facts_of
from saledit.run.setup.caching import banks_at, takes_moments
from saledit.run.setup.prepare import Prepared, prepare

FIXED = "fixed: the top layer"
PICKERS = {
    "mean_abs": ["site.select=gradient", "site.score=mean_abs"],
    "mean_abs / norm": ["site.select=gradient", "site.score=mean_abs", "site.per_parameter=true"],
    "frobenius": ["site.select=gradient", "site.score=frobenius"],
    "frobenius / norm": ["site.select=gradient", "site.score=frobenius", "site.per_parameter=true"],
    "trial-step, bare": ["site.select=trial-step", "site.whiten=0"],
    "trial-step": ["site.select=trial-step"],
    "tracing, rome": ["site.select=causal-tracing"],
    "tracing, rome at all": ["site.select=causal-tracing", "site.trace.at=all"],
    "tracing, masking": ["site.select=causal-tracing", "site.trace.protocol=masking"],
    "sweep": ["site.select=sweep"],
    FIXED: [],  # asks nothing
}
LAMBDA = 4.0
_PROBES = (3, 15)  # steps of two short fits, whose difference is the time of a step
_MOST_STEPS = 6000


def steps_for(seconds: float, config: str, overrides: list[str], run: str, ui: Ui) -> int:
    """Optimizer steps that a layer takes in a given time, by two short fits."""
    spent = []
    for steps in _PROBES:
        keys = [*overrides, "train.epochs=1", f"train.steps_per_epoch={steps}"]
        keys += ["train.validation_edits=1", f"name={run}-probe"]
        spent.append(fit(configuration.load(config, keys), False, ui)["train_seconds"])
    step = max((spent[1] - spent[0]) / (_PROBES[1] - _PROBES[0]), 1e-3)
    return min(_MOST_STEPS, max(_PROBES[1], round(seconds / step)))


def steps_before(folder: Path) -> int:
    """Steps of an epoch that an earlier call found to take the time; 1 where there was none."""
    try:
        return configuration.load(folder / "config.yaml").train.steps_per_epoch
    except ConfigError:
        return 1


def train_at(layer: int, args: argparse.Namespace, overrides: list[str], ui: Ui) -> dict[str, Any]:
    """The row of one layer: fitted and tested, or read from disk."""
    config, folder = f"{args.group}/{args.set_name}", Path(args.out)
    run = f"{args.set_name}-layer{layer}" + (f"-{args.seconds:g}s" if args.seconds else "")
    own = [*overrides, f"name={run}", "site.select=fixed", f"site.layer={layer}"]
    if args.seconds:
        own.append("train.epochs=3")
        steps = f"train.steps_per_epoch={steps_before(folder / run)}"
        if facts_of(configuration.load(config, [*own, steps])) is None:
            many = steps_for(args.seconds, config, own, args.set_name, ui)
            steps = f"train.steps_per_epoch={-(-many // 3)}"
        own.append(steps)
    found = finished(configuration.load(config, own), ui)
    m = found["metrics"]
    judged = m | m.get("generated", {})  # of words what is said freely
    score = judged["edit_accuracy"] - LAMBDA * judged["drawdown"]
    return {"layer": layer, "score": score, "seconds": found["timing"]["train_seconds"], **judged}


def cache_all(layers: list[int], prepared: Prepared) -> None:
    """Cache the samples at all layers in one pass, which each layer's run then finds."""
    config = prepared.config
    chosen = [prepared.base.layer(i, config.site.maps) for i in layers]
    editor = make_editor(config.editor, chosen[0].sites, prepared.base.embedding_size)
    banks_at(prepared, prepared.train, chosen, editor, takes_moments(prepared, editor))
    for part in (prepared.validation, prepared.test):
        banks_at(prepared, part, chosen, editor)


def picked_by(picker: str, config: RunConfig, n_layers: int, ui: Ui) -> dict[str, Any]:
    """A picker's layer, and what it took to find it."""
    if picker != FIXED:
        return saliency(config, ui)
    return {"pick": n_layers - 1, "forward_passes": 0, "backward_passes": 0, "seconds": 0.0}


def picks_of(
    tables: Mapping[str, Mapping[str, Any]], rows: Mapping[int, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """For each picker its regret and its cost; rows: what the editor of each layer does."""
    swept = sum(row["seconds"] for row in rows.values())
    order = sorted(rows.values(), key=lambda r: -r["score"])
    best = order[0]
    picks = {}
    for picker, table in tables.items():
        picked = rows[table["pick"]]
        picks[picker] = {
            "pick": table["pick"],
            "rank": 1 + order.index(picked),
            "regret_edit_accuracy": best["edit_accuracy"] - picked["edit_accuracy"],
            "regret_drawdown": picked["drawdown"] - best["drawdown"],
            "forward_passes": table["forward_passes"],
            "backward_passes": table["backward_passes"],
            "seconds": table["seconds"],
            "share_of_sweep": table["seconds"] / swept if swept else None,
        }
    return picks


def picks_table(picks: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A line a picker."""
    head = ["picker", "pick", "rank", "regret acc.", "regret drawdown", "forward passes"]
    head += ["backward passes", "s", "of the sweep's training s"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for picker, p in picks.items():
        regrets = f"{p['regret_edit_accuracy']:.3f} | {p['regret_drawdown']:.3f}"
        cost = f"{p['forward_passes']:.0f} | {p['backward_passes']:.0f} | {p['seconds']:.1f}"
        share = "-" if p["share_of_sweep"] is None else f"{100 * p['share_of_sweep']:.0f}%"
        lines.append(f"| {picker} | {p['pick']} | {p['rank']} | {regrets} | {cost} | {share} |")
    return lines


def main() -> None:
    """Ask the pickers, sweep the layers, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="folder with one folder a set; none for bundled sets")
    parser.add_argument("--group", default="nli", help="folder of configurations: nli, qa")
    parser.add_argument("--set-name", default="worldfacts", help="a configuration in it")
    parser.add_argument("--out", default="checkpoints/layers")
    parser.add_argument("--layers", type=int, nargs="+", default=[*range(6)])
    parser.add_argument("--pickers", nargs="+", default=[*PICKERS], choices=[*PICKERS])
    parser.add_argument("--seconds", type=float, default=0, help="train each layer for this long")
    parser.add_argument("--set", nargs="*", default=["train.epochs=3", "schedule.batch_size=1"])
    args = parser.parse_args()
    quiet_libraries()
    name, folder = args.set_name, Path(args.out)
    overrides = [f"output={folder}", *files(args, name), *args.set]
    config = f"{args.group}/{name}"
    with Ui() as ui:
        prepared = prepare(configuration.load(config, overrides), ui)
        tables = {}
        for picker in args.pickers:
            own = [*overrides, f"name={name}-picks", *PICKERS[picker]]
            chosen = configuration.load(config, own)
            tables[picker] = picked_by(picker, chosen, prepared.base.n_blocks, ui)
        # A picked layer that the sweep leaves out is trained as well.
        layers = sorted({*args.layers, *(table["pick"] for table in tables.values())})
        cache_all(layers, prepared)
        rows = {layer: train_at(layer, args, overrides, ui) for layer in layers}
    best, picks = max(rows.values(), key=lambda r: r["score"]), picks_of(tables, rows)
    write_json(
        folder / f"{name}-layers{f'-{args.seconds:g}s' * bool(args.seconds)}.json",
        {"layers": [*rows.values()], "best": best["layer"], "picks": picks},
    )
    print("| layer | fail | adapt | edit accuracy | drawdown | KL | train s |\n|" + "---|" * 7)
    for r in rows.values():
        shares = [r[c] for c in ("fail_accuracy", "adapt_accuracy", "edit_accuracy", "drawdown")]
        text = " | ".join(f"{v:.3f}" for v in (*shares, r["locality_kl"]))
        print(f"| {r['layer']} | {text} | {r['seconds']:.0f} |")
    print("\n" + "\n".join(picks_table(picks)))


if __name__ == "__main__":
    main()
