"""``saledit fix``: a trained editor against a file of new failures."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any

from torch import Tensor

import saledit
from saledit.artifact import TrainedEditor, environment, load_editor
from saledit.building import load_model
from saledit.data.matters import other_matters
from saledit.data.sources import load_records
from saledit.delta import Edits
from saledit.errors import DataError
from saledit.export import settle
from saledit.ledger import EditFolder
from saledit.models import TaskModel
from saledit.records import TEXT, Sample
from saledit.report import Ui
from saledit.run.fixes.fitting import begun_by, check_form, check_place
from saledit.run.fixes.guarding import Part, largest_part
from saledit.run.fixes.head import load_merged
from saledit.run.fixes.making import Making, steps_in_force
from saledit.run.fixes.merging import check_drawdown, check_merged
from saledit.run.fixes.options import FixOptions
from saledit.run.fixes.trying import Trial
from saledit.run.setup.kept import kept_check
from saledit.run.setup.launching import alone
from saledit.run.setup.placing import place
from saledit.run.setup.reading import check_subjects
from saledit.run.setup.suiting import check_labels
from saledit.run.tested import check_made, tuned


def fix(
    run_dir: str, failures: str, out: str, options: FixOptions | None, ui: Ui
) -> dict[str, Any]:
    """Turn failures into an edit of the run's model, checked before and after.

    Failures that the model already answers right are reported and left alone. In a folder that
    holds fixes the new one comes on top of those in force.

    Args:
        run_dir: the run of a trained editor.
        failures: data file with the failures and their right answers.
        out: folder for the edits.
        options: how; None for the defaults.
        ui: where progress is shown.

    Returns:
        Every failure before and after, and what else changed on the check set. Where the edit does
        not keep its bounds: ``refused``, by how much and what part would; nothing was written.

    Raises:
        UserError: a wrong file or option, or no failure among the records.
        JobError: the edit gave NaN, the merged model is not what it should be, another process
            writes there, or the disk is full.
    """
    options = options or FixOptions()
    options.verify()
    check_made(options.settings)
    began = time.perf_counter()
    with EditFolder.opened(Path(out)) as folder:
        job = _opened(folder, run_dir, failures, options, ui)
        begun, steps = job.making.session.state, job.making.steps(ui)
        ui.stage("checking after")
        made = _bounded(job, steps)
        result = {
            "out": str(folder.path),
            "run": run_dir,
            "layer": job.trained.layer.index,
            "format": job.folder.head["format"],
            "n_failures": len(job.samples),
            "n_wrong_before": len(job.making.failures),
            "step": made.part.step,
            **made.found,
        }
        if made.refused:
            result["refused"] = made.refused
        else:
            result |= _written(job, made, job.making.memory(begun, made.part.kept))
    return {**result, "seconds": time.perf_counter() - began}


@dataclass(frozen=True, slots=True)
class _Job:
    """What a fix is made with.

    Attributes:
        folder: the fixes in force, with a beginning.
        trained: the editor.
        base: the model.
        samples: failures, and what was right among them.
        held: samples that should stay as they are.
        making: makes the steps.
        trial: says what steps do.
        options: how.
        ui: where progress is shown.
    """

    folder: EditFolder
    trained: TrainedEditor
    base: TaskModel
    samples: Sequence[Sample]
    held: Sequence[Sample]
    making: Making
    trial: Trial
    options: FixOptions
    ui: Ui


@dataclass(frozen=True, slots=True)
class _Made:
    """Steps that are to be written, or were refused.

    Attributes:
        part: the steps.
        found: what they do, see ``Trial.outcome``.
        refused: by how much they miss which bounds, and what part of them would not; empty where
            they keep all.
    """

    part: Part
    found: dict[str, Any]
    refused: dict[str, Any]


def _opened(folder: EditFolder, run_dir: str, failures: str, options: FixOptions, ui: Ui) -> _Job:
    """Read everything, the quick first, and ask the model what it answers wrongly."""
    check_place(folder, options)
    trained = tuned(load_editor(run_dir), options.settings)
    model = replace(trained.config.model, name=trained.base_name)
    model = replace(model, stream=model.stream or options.stream)
    check_form(folder, trained, options, model.stream)
    task, layer = trained.task, trained.layer
    samples = [record.sample for record in load_records(task, failures)]
    if passage := next((sample for sample in samples if sample.kind == TEXT), None):
        raise DataError(
            f"{failures}: expected prompts with their right answers, got a passage "
            f"({passage.id}); give each failure a prompt and an answer"
        )
    check_subjects(trained.config.editor, samples, failures)
    held = other_matters(task, load_records(task, options.check or kept_check(trained.folder)))
    ui.stage(f"loading {trained.base_name}")
    base = load_model(task, model, trained.config.cache)
    trained.check(base)
    check_labels(base, task, samples, failures)
    place(base, alone(trained.config.trainer))  # wherever, and beside how many, it was trained
    now = begun_by(folder, trained, base, options)
    session = trained.session(base)
    memory = now.memory(trained.config.editor.name)
    session.go_on(
        steps_in_force(now).map(lambda tensor: tensor.to(base.device)),
        {name: tensor.to(base.device) for name, tensor in memory.items()},
    )
    ui.stage("checking before")
    trial = Trial(base, task, layer, samples, held, now)
    wrong = [s for s, answer in zip(samples, trial.before, strict=True) if not answer.right]
    if not wrong:
        raise DataError(
            f"{failures}: expected samples that the model answers wrongly, got none among "
            f"{len(samples)}: the model makes no mistake here"
        )
    # The same matrices, in no more terms than they can have rank.
    rank = max(min(site.d_in, site.d_out) for site in layer.sites)
    making = Making(session, wrong, trained.config.schedule.batch_size, rank)
    return _Job(now, trained, base, samples, held, making, trial, options, ui)


def _bounded(job: _Job, steps: Sequence[Edits]) -> _Made:
    """All steps where they keep the bounds, the largest part that does where that is wanted."""
    bounds, n_wrong = job.options.bounds, len(job.making.failures)

    def judged(chosen: Edits, step: float, kept: Sequence[int]) -> tuple[Part, dict[str, Any]]:
        found = job.trial.outcome(chosen, full=True)
        return Part(chosen, step, kept, found["n_fixed"], found["check"]["drawdown"]), found

    def misses(part: Part) -> dict[str, float]:
        return bounds.misses(part.n_fixed / n_wrong, part.drawdown)

    whole, found = judged(reduce(Edits.__add__, steps), 1.0, range(len(steps)))
    missed = misses(whole)
    if not missed:
        return _Made(whole, found, {})
    offer = None
    if bounds.max_drawdown is not None:
        job.ui.stage("looking for a part that keeps the bounds")
        offer = largest_part(steps, job.trial.measure, bounds.max_drawdown)
    if job.options.part and offer is not None and not misses(offer):
        return _Made(*judged(offer.steps, offer.step, offer.kept), {})
    return _Made(whole, found, {**missed, "part": None if offer is None else offer.as_json()})


def _written(job: _Job, made: _Made, memory: Mapping[str, Tensor]) -> dict[str, Any]:
    """Write a fix and what is in force with it; what to tell of that."""
    trained, found, head = job.trained, made.found, job.folder.head
    n_wrong = len(job.making.failures)
    metrics = {
        "n_failures": len(job.samples), "n_wrong_before": n_wrong, "n_fixed": found["n_fixed"],
        **{name: value for name, value in found["check"].items() if name != "changed"},
    }  # fmt: skip
    editor: dict[str, Any] = {"name": trained.config.editor.name, "run": str(trained.folder)}
    editor |= {"version": saledit.__version__, "settings": list(job.options.settings)}
    told = {
        "editor": editor,
        "failures": [row for row in found["rows"] if not row["was_right"]],
        "changed": found["check"]["changed"],
        "metrics": metrics,
        "environment": environment(job.base.device, job.ui.command),
    }
    new = job.folder.fixed(
        made.part.steps, memory, {"editor": editor, "n_failures": n_wrong, "metrics": metrics},
        {"base_model": head["base_model"], "layer": trained.layer.index, **told},
    )  # fmt: skip
    job.ui.stage(f"writing {new.path}")
    apart: dict[str, float] = {}

    def check(part: Path) -> None:
        if head["format"] == "merged":
            apart["logits_apart"] = _check_merged(job, made, new, part)

    settle(new, job.base, check)
    return {**apart, "entry": new.entries[-1].id}


def _check_merged(job: _Job, made: _Made, new: EditFolder, part: Path) -> float:
    """How far a merged model that is about to be written is from the edited one.

    Raises:
        JobError: it does not answer as that does, or does not keep the bound.
    """
    job.ui.stage("checking the merged model")
    task, rows = job.trained.task, made.found["rows"]
    again = load_merged(new, part)
    place(again, alone(job.trained.config.trainer))
    right = [s for s, row in zip(job.samples, rows, strict=True) if row["is_right"]]
    apart = check_merged(
        again, part, job.base, task, job.trained.layer, new.edits, job.samples, right, job.held
    )
    check_drawdown(again, task, job.held, made.found["check"], job.options.bounds.max_drawdown)
    return apart
