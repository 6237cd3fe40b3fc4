"""``saledit compare``: several editors on the same splits, task model and budget, in one table."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from saledit import config as configuration
from saledit.artifact import EDITOR_WEIGHTS, check_editor
from saledit.bootstrap import SHARES, Resampled, interval
from saledit.config import RunConfig
from saledit.errors import ArtifactError, ConfigError
from saledit.files import is_file, read_json, write_json, write_text
from saledit.report import Ui, comparison_figure, courses_figure, courses_of, write_plot
from saledit.run.cell import is_of
from saledit.run.crew import OwnProcess, Runner, run_all
from saledit.run.launching import alone
from saledit.run.picking import check_site

_COUNTS = ("fail", "fail_of", "adapt", "adapt_of", "lost", "lost_of")
#: What a comparison reads of ``results.json``.
_RESULTS = {
    "layer": int, "sites": list, "metrics": {str: (float, None, {str: (float, None)})},
    "per_edit": {name: [float] for name in _COUNTS}, "timing": {str: (float, None)},
    "memory": {"peak_rss_mb": float, "peak_device_mb?": float},
    "course?": [{"n_failures": int, "abilities?": {str: float}}], "collapse?": (int, None),
}  # fmt: skip
_FACTS = ("train_seconds", "edits_per_second", "fix_seconds_per_edit")


def compare(
    target: str, editors: Sequence[str], seeds: Sequence[int], overrides: Sequence[str], ui: Ui,
    edits: int = 0, seconds: float = 0.0, jobs: int = 1, runner: Runner | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Fit and test editors side by side.

    Each cell, an editor with a seed, is a run of its own below ``output`` and a process of its
    own: its peak of memory is its own, and one that fails or is killed leaves the others alone.
    Cells with results are not run again, one that was cut off goes on.

    Args:
        target: the configuration that the editors share.
        editors: presets below ``configs/editors``, or files of one's own.
        seeds: of splits, draws and initial weights; each one a cell of every editor.
        overrides: ``key=value`` set over file and presets.
        ui: where progress is shown.
        edits: edits that every editor is trained on; 0 for as many as configured.
        seconds: wall clock that every editor is trained for; 0 for no limit.
        jobs: cells at a time. They share the processor's threads, or the accelerator, so a cell's
            times are then not its own.
        runner: runs a cell; None for a process of its own.

    Returns:
        The table, also written as ``compare.json``, ``compare.csv`` and ``compare.png``.

    Raises:
        ConfigError: an unknown editor, no editor, or both budgets.
    """
    if edits and seconds:
        raise ConfigError("compare: expected one budget, got --edits and --seconds; leave one out")
    if not editors or not seeds:
        raise ConfigError(
            "compare: expected editors and seeds, got none; e.g. --editors salem mend"
        )
    if len(set(editors)) < len(editors) or len(set(seeds)) < len(seeds):
        raise ConfigError("compare: expected each editor and each seed once")
    shared = configuration.load(target, overrides)
    folder = Path(shared.output) / f"{shared.name}-compare"
    cells = {
        (name, seed): _cell(target, name, seed, overrides, edits, seconds)
        for name in editors
        for seed in seeds
    }
    for config in cells.values():  # everything is refused before minutes are spent
        check_site(config.site)
        check_editor(config.editor)
    failed: dict[str, str] = {}
    table = _table(cells, failed, shared, ui.command)
    _write(folder, table)
    waiting: dict[Path, str] = {}
    for (name, seed), config in cells.items():
        if not _is_done(config):
            path = folder / "cells" / f"{config.name}.yaml"
            write_text(path, configuration.to_yaml(config))
            waiting[path] = f"{name}, seed {seed}"
    # Bars of several processes would write over each other: beside others, a cell is quiet.
    runner = runner or OwnProcess(ui.quiet or jobs > 1, max(1, torch.get_num_threads() // jobs))
    begin = (lambda path: ui.stage(waiting[path])) if jobs == 1 else None
    with ui.progress("cells", len(waiting)) if jobs > 1 else nullcontext() as bar:
        for done, (path, error) in enumerate(run_all([*waiting], runner, jobs, begin), start=1):
            if error is not None:
                failed[path.stem] = str(error)
                ui.stage(f"{waiting[path]} failed: {error}")
            if bar is not None:
                bar.update(done, waiting[path])
            table = _table(cells, failed, shared, ui.command)
            _write(folder, table)
    return table | {"folder": str(folder)}


def _cell(
    target: str, editor: str, seed: int, overrides: Sequence[str], edits: int, seconds: float
) -> RunConfig:
    preset = editor if editor.endswith((".yaml", ".yml")) else f"editors/{editor}"
    config = configuration.load(target, [*overrides, f"seed={seed}"], [preset])
    train = config.train
    if edits:
        steps = math.ceil(edits / train.edits(config.schedule.batch_size))
        epochs = min(train.epochs, steps)
        each = math.ceil(steps / epochs)
        train = replace(train, epochs=epochs, steps_per_epoch=each, patience=epochs)
    if seconds:
        train = replace(train, seconds=seconds, epochs=1_000_000, patience=1_000_000)
    name = f"{config.name}-{Path(editor).stem}-s{seed}"
    return replace(config, name=name, train=train, trainer=alone(config.trainer))


def _is_done(config: RunConfig) -> bool:
    left = (config.folder / "results.json", config.folder / EDITOR_WEIGHTS)
    return is_of(config.folder, config) and all(map(is_file, left))


def _table(
    cells: Mapping[tuple[str, int], RunConfig], failed: Mapping[str, str], shared: RunConfig,
    command: str,
) -> dict[str, Any]:  # fmt: skip
    """All that is known of the cells so far."""
    rows: list[dict[str, Any]] = []
    for (editor, seed), config in cells.items():
        row: dict[str, Any] = {"editor": editor, "seed": seed, "run": str(config.folder)}
        if config.name in failed:
            row["error"] = failed[config.name]
        elif _is_done(config):
            results = _read(config.folder / "results.json")
            row |= _facts(results, config.folder)
        rows.append(row)
    done = [row for row in rows if "metrics" in row]
    names = list(dict.fromkeys(editor for editor, _ in cells))
    seeds = list(dict.fromkeys(seed for _, seed in cells))
    return {
        "schema": 1,
        "config": shared.name,
        "task": shared.task.name,
        "command": command,
        "schedule": {"batch_size": shared.schedule.batch_size},
        "editors": [_summary(name, done, names[0], seeds) for name in names],
        "cells": rows,
    }


def _read(path: Path) -> dict[str, Any]:
    """The results of a cell.

    Raises:
        ArtifactError: they are broken, or of no test.
    """
    results: dict[str, Any] = read_json(path, "results", _RESULTS)
    counts = [results["per_edit"][name] for name in _COUNTS]
    if len(set(map(len, counts))) > 1 or not all(abs(n) < 2**53 for own in counts for n in own):
        raise ArtifactError(
            f"{path}: expected counts of the same edits in per_edit, got others; delete the file, "
            "and the cell is run again"
        )
    return results


def _facts(results: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    metrics = results["metrics"]
    return {
        "layer": results["layer"],
        "n_sites": len(results["sites"]),
        "metrics": metrics.get("generated", {})
        | {
            k: v
            for k, v in metrics.items()
            if k not in (*metrics.get("generated", {}), "generated")
        },
        "teacher_forced": {k: metrics.get(k) for k in SHARES} if "generated" in metrics else None,
        "per_edit": results["per_edit"],
        "timing": {name: results["timing"].get(name) for name in _FACTS},
        "peak_rss_mb": results["memory"]["peak_rss_mb"],
        "peak_device_mb": results["memory"].get("peak_device_mb"),
        "editor_mb": (folder / EDITOR_WEIGHTS).stat().st_size / 1e6,
    } | {name: results[name] for name in ("course", "collapse") if name in results}


def _summary(
    name: str, done: Sequence[Mapping[str, Any]], first: str, seeds: Sequence[int]
) -> dict[str, Any]:
    """One editor over the seeds that it has, and beside the first editor over those of both."""
    found = {row["seed"]: row for row in done if row["editor"] == name}
    out: dict[str, Any] = {"editor": name, "seeds": sorted(found)}
    if not found:
        return out
    out |= _intervals([found[s] for s in seeds if s in found])
    for key in (*_FACTS, "peak_rss_mb", "peak_device_mb", "editor_mb"):
        values = [row["timing"].get(key) if key in _FACTS else row[key] for row in found.values()]
        known = [value for value in values if value is not None]
        out[key] = sum(known) / len(known) if known else None
    out["locality_kl"] = _mean(row["metrics"].get("locality_kl") for row in found.values())
    base = {row["seed"]: row for row in done if row["editor"] == first}
    both = [s for s in seeds if s in found and s in base]
    if name != first and both and _same_edits([(found[s], base[s]) for s in both]):
        out["beside"] = {
            "editor": first,
            **_intervals([found[s] for s in both], [base[s] for s in both]),
        }
    return out


def _intervals(
    rows: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]] | None = None
) -> dict[str, Any]:
    """Bootstrap intervals of the shares, or of how far they lie above those of other editors."""
    edits = [row["per_edit"] for row in rows]
    drawn = Resampled([len(own["fail"]) for own in edits])
    out: dict[str, Any] = {}
    for share in SHARES:
        values = drawn.shares(edits, share)
        if others is not None:
            values = values - drawn.shares([row["per_edit"] for row in others], share)
        found: dict[str, float | None] = {**interval(values).as_json()}
        if found["mean"] != found["mean"]:  # of a task that counts no such thing, from the metrics
            own, other = (
                _mean(row["metrics"].get(share) for row in group) for group in (rows, others or ())
            )
            value = None if own is None else own - (other or 0.0)
            found = {"mean": value, "low": None, "high": None}
        out[share] = found
    return out


def _same_edits(pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> bool:
    keys = ("fail_of", "adapt_of", "lost_of")
    return all(a["per_edit"][k] == b["per_edit"][k] for a, b in pairs for k in keys)


def _mean(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _write(folder: Path, table: Mapping[str, Any]) -> None:
    write_json(folder / "compare.json", table)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        [
            "editor",
            "seed",
            "layer",
            *SHARES,
            "locality_kl",
            *_FACTS,
            "peak_rss_mb",
            "peak_device_mb",
            "editor_mb",
            "error",
        ]
    )
    for row in table["cells"]:
        metrics, timing = row.get("metrics", {}), row.get("timing", {})
        writer.writerow(
            [row["editor"], row["seed"], row.get("layer"), *(metrics.get(k) for k in SHARES),
             metrics.get("locality_kl"), *(timing.get(k) for k in _FACTS), row.get("peak_rss_mb"),
             row.get("peak_device_mb"),
             row.get("editor_mb"), row.get("error")]
        )  # fmt: skip
    write_text(folder / "compare.csv", out.getvalue())
    write_plot(comparison_figure(table), folder / "compare.png")
    courses = courses_of(table["cells"])
    if courses:
        write_plot(courses_figure(courses), folder / "course.png")
