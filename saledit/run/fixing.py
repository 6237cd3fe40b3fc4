"""``saledit fix``: a trained editor against a file of new failures."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from pathlib import Path
from typing import Any

import torch

import saledit
from saledit.artifact import TrainedEditor, environment, load_editor, sites_as_json
from saledit.building import load_model
from saledit.data.matters import other_matters
from saledit.data.sources import load_records
from saledit.delta import Edits
from saledit.errors import DataError, UserError
from saledit.export import FORMATS, settle, state
from saledit.ledger import EditFolder
from saledit.models import TaskModel
from saledit.records import TEXT
from saledit.report import Ui
from saledit.run.fixes.guarding import Bounds, Part, largest_part
from saledit.run.fixes.making import Making, steps_in_force
from saledit.run.fixes.merging import check_drawdown, check_merged
from saledit.run.fixes.trying import Trial
from saledit.run.ledgers import beginning, load_merged
from saledit.run.setup.kept import kept_check
from saledit.run.setup.launching import alone
from saledit.run.setup.placing import place
from saledit.run.setup.reading import check_subjects
from saledit.run.tested import check_made, tuned


@dataclass(frozen=True, slots=True)
class FixOptions:
    """How ``fix`` goes about it.

    Attributes:
        check: data file of samples that must stay right; None for those kept by ``fit``.
        format: delta, merged or lora; None for that of the folder, delta where it is new.
        rank: of a LoRA adapter at most; 0 for as many terms as the edits have.
        bounds: what the edit has to keep.
        part: where it does not, write the largest part that does.
        stream: leave the model's weights on disk, whatever the run did.
        settings: ``key=value`` of how the edit is made, e.g. ``editor.looks=3``.
    """

    check: str | None = None
    format: str | None = None
    rank: int = 0
    bounds: Bounds = field(default_factory=Bounds)
    part: bool = False
    stream: bool = False
    settings: Sequence[str] = ()


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
    options.bounds.check()
    check_made(options.settings)
    with EditFolder.opened(Path(out)) as folder:
        return _fix(folder, run_dir, failures, options, ui)


def _fix(
    folder: EditFolder, run_dir: str, failures: str, options: FixOptions, ui: Ui
) -> dict[str, Any]:
    began = time.perf_counter()
    _check_place(folder, options)
    trained = tuned(load_editor(run_dir), options.settings)
    model = replace(trained.config.model, name=trained.base_name)
    model = replace(model, stream=model.stream or options.stream)
    _check_form(folder, trained, options, model.stream)
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
    trainer = alone(trained.config.trainer)  # wherever, and beside how many, it was trained
    place(base, trainer)
    now = _begun(folder, trained, base, options)
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
    begun, steps = session.state, making.steps(ui)
    kept: Sequence[int] = range(len(steps))
    ui.stage("checking after")
    chosen, step = reduce(Edits.__add__, steps), 1.0
    found = trial.outcome(chosen, full=True)
    refused: dict[str, Any] = {}

    def misses(n_fixed: int, drawdown: float) -> dict[str, float]:
        return options.bounds.misses(n_fixed / len(wrong), drawdown)

    if missed := misses(found["n_fixed"], found["check"]["drawdown"]):
        part = _offer(steps, trial, options.bounds, ui)
        refused = {**missed, "part": None if part is None else part.as_json()}
        if options.part and part is not None and not misses(part.n_fixed, part.drawdown):
            chosen, step, kept, refused = part.steps, part.step, part.kept, {}
            found = trial.outcome(chosen, full=True)
    result = {
        "out": str(folder.path),
        "run": run_dir,
        "layer": layer.index,
        "format": now.head["format"],
        "n_failures": len(samples),
        "n_wrong_before": len(wrong),
        "step": step,
        **found,
    }
    if refused:
        return {**result, "refused": refused, "seconds": time.perf_counter() - began}
    metrics = {name: result[name] for name in ("n_failures", "n_wrong_before", "n_fixed")} | {
        name: value for name, value in found["check"].items() if name != "changed"
    }
    editor: dict[str, Any] = {"name": trained.config.editor.name, "run": run_dir}
    editor |= {"version": saledit.__version__, "settings": list(options.settings)}
    told = {
        "editor": editor,
        "failures": [row for row in found["rows"] if not row["was_right"]],
        "changed": found["check"]["changed"],
        "metrics": metrics,
        "environment": environment(base.device, ui.command),
    }
    new = now.fixed(
        chosen, making.memory(begun, kept),
        {"editor": editor, "n_failures": len(wrong), "metrics": metrics},
        {"base_model": now.head["base_model"], "layer": layer.index, **told},
    )  # fmt: skip
    ui.stage(f"writing {new.path}")
    apart: dict[str, float] = {}

    def check(part: Path) -> None:
        if now.head["format"] == "merged":
            ui.stage("checking the merged model")
            again = load_merged(new, part)
            place(again, trainer)
            right = [s for s, row in zip(samples, found["rows"], strict=True) if row["is_right"]]
            apart["logits_apart"] = check_merged(
                again, part, base, task, layer, new.edits, samples, right, held
            )
            check_drawdown(again, task, held, found["check"], options.bounds.max_drawdown)

    settle(new, base, check)
    return {**result, **apart, "entry": new.entries[-1].id, "seconds": time.perf_counter() - began}


def _check_place(folder: EditFolder, options: FixOptions) -> None:
    """Refuse a folder of other things, or in another form.

    Raises:
        UserError: it is one.
        ArtifactError: its ledger has lost entries.
    """
    path = folder.path
    if folder.is_new:
        return
    if not folder.entries:
        raise UserError(
            f"--out {path}: expected a new folder, or one that saledit fix made, got one with "
            "other files; name another"
        )
    state(folder)
    held = folder.head["format"]
    if options.format not in (None, held):
        raise UserError(
            f"--format {options.format}: expected that of the fixes in {path} ({held}); leave it "
            "out, or name another --out"
        )
    if options.rank and options.rank != folder.head.get("rank", 0):
        raise UserError(
            f"--rank {options.rank}: expected that of the fixes in {path} "
            f"({folder.head.get('rank', 0)}); leave it out, or name another --out"
        )


def _check_form(
    folder: EditFolder, trained: TrainedEditor, options: FixOptions, is_on_disk: bool
) -> None:
    """Refuse an editor whose edits the folder's form cannot hold.

    Raises:
        UserError: its edits are routed, and the form takes matrices; or it takes a whole model,
            which is not loaded.
    """
    form = folder.head["format"] if folder.entries else options.format or "delta"
    if options.rank and form != "lora":
        raise UserError(f"--rank: only for --format lora, got {form}; leave it out")
    if form == "merged" and is_on_disk:
        raise UserError(
            "--format merged: expected a model that is loaded, got one that stays on disk "
            "(--stream, or model.stream in the run's config.yaml); use --format delta or lora, or "
            "load it"
        )
    if trained.editor.needs_anchor and not FORMATS[form].takes_routed:
        raise UserError(
            f"--format {form}: expected edits that are matrices, got routed ones (editor: "
            f"{trained.config.editor.name}); use --format delta, in a new folder"
        )


def _begun(
    folder: EditFolder, trained: TrainedEditor, base: TaskModel, options: FixOptions
) -> EditFolder:
    """The folder with a beginning that the editor's fixes belong to.

    Raises:
        UserError: its fixes are of another model or layer, or of another editor that changes the
            model before any edit.
    """
    ground = trained.editor.resident.detach().map(torch.Tensor.cpu)
    sites = sites_as_json(trained.layer.sites)
    if folder.entries:
        for what, same in (
            ("model", base.fingerprint == folder.head["base_model"]["fingerprint"]),
            ("layer", sites == folder.head["sites"]),
            ("editor", _same(ground, folder.ground)),
        ):
            if not same:
                raise UserError(
                    f"{folder.path}: expected an editor that its fixes go on with, got one of "
                    f"another {what}; name another --out"
                )
        return folder
    head = beginning(
        base, trained.config.model, trained.config.task, trained.layer, options.format or "delta",
        options.rank,
    )  # fmt: skip
    return folder.begun(head, ground)


def _same(one: Edits, other: Edits) -> bool:
    if one.keys() != other.keys():
        return False
    pairs = (zip(one[s].tensors(), other[s].tensors(), strict=True) for s in one)  # in any order
    return all(torch.equal(a, b) for own in pairs for a, b in own)


def _offer(steps: Sequence[Edits], trial: Trial, bounds: Bounds, ui: Ui) -> Part | None:
    if bounds.max_drawdown is None:
        return None
    ui.stage("looking for a part that keeps the bounds")
    return largest_part(steps, trial.measure, bounds.max_drawdown)
