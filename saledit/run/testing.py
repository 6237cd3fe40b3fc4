"""``saledit test``: edit accuracy, drawdown and locality on the test split."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from saledit import distributed
from saledit.artifact import (
    REVISION,
    TrainedEditor,
    environment,
    load_editor,
    sites_as_json,
    versions,
)
from saledit.config.schedules import mode_of
from saledit.data.datamodule import TestEpisodes
from saledit.data.part_banks import PartBanks
from saledit.editors.looks import edits_for
from saledit.errors import JobError, NoNumbersError
from saledit.files import read_json, write_jsonl
from saledit.judging.judged import in_numbers, judged
from saledit.metrics import numbers_of
from saledit.report import Ui, course_figure, write_plot, write_results
from saledit.requests import hold, request_for
from saledit.run.measures.course import Course
from saledit.run.measures.preferences import PAIRS, Preferences, pairs_of
from saledit.run.measures.said import Said
from saledit.run.measures.tally import Tally
from saledit.run.sequence import Kept, course_of, pile_up
from saledit.run.setup.caching import banks_of, opener
from saledit.run.setup.launching import check_strategy, launch
from saledit.run.setup.origins import origins
from saledit.run.setup.prepare import Prepared, prepare
from saledit.run.setup.reading import TEST
from saledit.run.tested import run_folder, slug, tuned
from saledit.run.unfinished import SlowEdits, Unfinished
from saledit.tasks.base import in_words


def test(target: str, overrides: Sequence[str], ui: Ui) -> dict[str, Any]:
    """Measure a trained editor on the test split, by the schedule.

    Args:
        target: a run folder, or the configuration of a run.
        overrides: ``key=value``; e.g. ``schedule.batch_size=1``, or another ``data.test``.
        ui: where progress is shown.

    Returns:
        What ``results.json`` holds.

    Raises:
        UserError: no such run, or wrong data.
        JobError: an edit made NaN.
    """
    folder = run_folder(Path(target), overrides)
    trained = tuned(load_editor(folder), overrides)
    config = trained.config
    check_strategy(config.trainer)
    launch(config.trainer, ui)
    found = origins(config)  # first: what changes meanwhile is not what is measured
    prepared = prepare(config, ui, [TEST])
    trained.check(prepared.base)
    measured = measure(prepared, trained)
    measured.results["origins"] = found
    # Results of another schedule or data set stand beside those of the run's own.
    return write_measured(folder, measured, f"-{slug(overrides)}" if overrides else "")


def write_measured(folder: Path, measured: Measured, suffix: str = "") -> dict[str, Any]:
    """Put ``results.json`` and ``answers.jsonl`` into a run's folder.

    Args:
        folder: the run's.
        measured: what a test found.
        suffix: of the names, before their endings.

    Returns:
        What ``results.json`` holds.

    Raises:
        JobError: the disk is full.
    """
    results = measured.results
    if not distributed.is_main():
        return results
    results["timing"] |= training_times(folder)
    write_jsonl(folder / f"answers{suffix}.jsonl", measured.answers)
    if "course" in results:
        write_plot(course_figure(results), folder / f"results{suffix}.png")
    write_results(folder, results, f"results{suffix}.json")  # the last: a run that has it is done
    measured.kept.remove()
    return results


@dataclass(frozen=True, slots=True)
class Measured:
    """What a test found.

    Attributes:
        results: what ``results.json`` holds.
        answers: rows for ``answers.jsonl`` (``saledit.run.measures.said``).
        kept: what lies on disk until the results do.
    """

    results: dict[str, Any]
    answers: Sequence[Mapping[str, Any]]
    kept: Unfinished


def measure(prepared: Prepared, trained: TrainedEditor) -> Measured:
    """Edit the test failures and count what was mended and what broke."""
    config, part, task = prepared.config, prepared.test, prepared.task
    banks = banks_of(prepared, part, trained.layer, trained.editor)
    prepared.peaks.begin()  # what is kept is made, for this test and others
    trained.editor.to(prepared.base.device)
    schedule = config.schedule
    prepared.ui.stage(f"editing {len(part.fail)} failures, {schedule.batch_size} at a time")
    said = Said(prepared.base, task, part, config.cache)
    began = time.perf_counter()
    compared = None
    if in_words(task):
        opened = opener(prepared, trained.layer, PAIRS)
        compared = Preferences(prepared.base, task, pairs_of(part), opened)
    tally = Tally(prepared.base, task, part, banks, said, config.test.fluency, compared)
    course: Course | None = None
    kept: Unfinished
    if schedule.cumulative:
        course, kept = course_of(prepared, trained, banks), (sequence := Kept(prepared, trained))
        n_edits, stopped = pile_up(prepared, trained, tally, course, sequence)
    else:
        kept = _one_by_one(prepared, trained, banks, tally)
        n_edits, stopped = tally.n_edits, None
    seconds = time.perf_counter() - began + kept.seconds_before
    metrics = tally.metrics()
    if schedule.cumulative:
        metrics = numbers_of(metrics)  # to break a model is what sequences are for
    elif tally.n_refused == n_edits:
        raise JobError(f"{trained.folder}: every edit gave NaN; train again with a lower rate")
    elif any(value != value for value in metrics.values() if isinstance(value, float)):
        raise JobError(f"{trained.folder}: an edit gave NaN; train again with a lower rate")
    seconds_a_fix = 0.0
    if (
        distributed.is_main() or prepared.base.weights.is_divided
    ):  # beside others it would take longer
        seconds_a_fix = _fix_seconds(prepared, trained)
    distributed.barrier()
    results = {
        "schema": 1,
        "revision": REVISION,
        "task": task.name,
        "editor": config.editor.name,
        "base_model": {"name": prepared.base.name, "fingerprint": prepared.base.fingerprint},
        "layer": trained.layer.index,
        "sites": sites_as_json(trained.layer.sites),
        "schedule": {"mode": mode_of(schedule), "batch_size": schedule.batch_size},
        "data": {"train": config.data.train, "test": config.data.test},
        "n_edits": n_edits,
        "n_refused": tally.n_refused,
        "metrics": metrics,
        "unedited": tally.unedited(),
        "adapt_by_kind": tally.by_kind(),
        "per_edit": tally.per_edit(),
        **({} if course is None else {"course": course.points, "collapse": course.collapse}),
        **({} if stopped is None else {"stopped": stopped}),
        "counts": part.counts(),
        "timing": {
            "test_seconds": seconds,
            "fix_seconds_per_edit": seconds_a_fix,
        },
        "memory": prepared.peaks.as_json(),
        "cache": prepared.room.as_json(),
        "processes": distributed.world_size(),
        "weights": prepared.base.weights.where,
        "versions": versions(),
        "environment": environment(prepared.base.device, prepared.ui.command),
        "seed": config.seed,
    }
    return Measured(results, tally.answers(), kept)


@torch.no_grad()
def _one_by_one(
    prepared: Prepared, trained: TrainedEditor, banks: PartBanks, tally: Tally
) -> SlowEdits:
    """Schedule "batch": each edit is judged on the base, many edits side by side.

    Of several processes each judges its share of the batches; in step, all of them.

    Returns:
        The edits that are on disk.
    """
    config, base, task = prepared.config, prepared.base, prepared.task
    entry, held = banks.fail.entry, hold(base, task, trained.held, trained.layer)
    k, passes = config.schedule.batch_size, config.test.passes_per_edit
    beside = min(passes or len(banks.passing), len(banks.passing))
    at_once = banks.edits_at_once(config.test.edits_per_batch, k, beside, base.positions_at_once)
    episodes = TestEpisodes(
        banks, k, at_once, passes, config.editor.gradient_rank, config.seed,
    )  # fmt: skip
    slow, resident = SlowEdits(prepared, trained, at_once), trained.editor.resident.detach()
    n = len(episodes)
    own = (
        range(n)
        if base.weights.is_divided
        else range(distributed.rank(), n, distributed.world_size())
    )
    with prepared.ui.progress("editing", n) as bar:
        for i in own:
            batch = episodes[i]
            request = request_for(base, task, entry, batch, held, config.cache)
            edits = slow.get(i, partial(edits_for, trained.editor, request, trained.search))
            see = partial(judged, base, task, entry, batch=batch)
            edits, seen, made = in_numbers(edits, resident, see, request.broadcast)
            tally.count_batch(batch, seen, edits, made)
            bar.update(i + 1)
    if not base.weights.is_divided:
        tally.gather(n)
    return slow


def _fix_seconds(prepared: Prepared, trained: TrainedEditor, edits: int = 5) -> float:
    """Time from one failure's text to its edit, uncached; the median of a few."""
    times = []
    for sample in prepared.test.fail[:edits]:
        session = trained.session(prepared.base)
        began = time.perf_counter()
        with suppress(NoNumbersError):  # refused, which takes as long
            session.step([sample])
        times.append(time.perf_counter() - began)
    return sorted(times)[len(times) // 2]


def training_times(folder: Path) -> dict[str, float]:
    """Times that ``fit`` left; a run whose fit was killed at its very end has none."""
    path = folder / "fit.json"
    if not path.exists():
        return {}
    shape = {"train_seconds": float, "edits_per_second": float}
    fitted = read_json(path, "a record of training", shape)
    return {name: fitted[name] for name in ("train_seconds", "edits_per_second")}
