"""``saledit fix``: a trained editor against a file of new failures."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from saledit.artifact import failures_as_json, load_editor, save_edits
from saledit.bank import BankSpec
from saledit.cache import memory_bank
from saledit.data.sources import load_records
from saledit.delta import Edits
from saledit.errors import DataError, JobError, UserError
from saledit.models import TaskModel, load_classifier
from saledit.records import Sample
from saledit.report import Ui
from saledit.session import bank_logits
from saledit.site import Layer
from saledit.tasks.base import Task


def fix(run_dir: str, failures: str, out: str, check: str | None, ui: Ui) -> dict[str, Any]:
    """Turn failures into an edit of the run's model, checked before and after.

    Failures that the model already answers right are reported and left alone.

    Args:
        run_dir: the run of a trained editor.
        failures: data file with the failures and their right answers.
        out: folder for the edits.
        check: data file of samples that must stay right; None for those kept by ``fit``.
        ui: where progress is shown.

    Returns:
        Every failure before and after, and what else changed on the check set.

    Raises:
        UserError: a wrong file, or no failure among the records.
        JobError: the edit gave NaN, or the disk is full.
    """
    began = time.perf_counter()
    folder = Path(out)
    if folder.exists() and not (folder / "edits.json").exists() and any(folder.iterdir()):
        raise UserError(
            f"--out {out}: expected a new folder, got one with other files; name another"
        )
    trained = load_editor(run_dir)
    task, layer = trained.task, trained.layer
    samples = [record.sample for record in load_records(task, failures)]
    held = [r.sample for r in load_records(task, check or str(trained.folder / "check.jsonl"))]
    ui.stage(f"loading {trained.base_name}")
    base = load_classifier(trained.base_name)
    trained.check(base)
    before = _Answers(base, task, layer, samples)
    wrong = [sample for sample, ok in zip(samples, before.right(), strict=True) if not ok]
    if not wrong:
        raise DataError(
            f"{failures}: expected samples that the model answers wrongly, got none among "
            f"{len(samples)}: the model makes no mistake here"
        )
    k = trained.config.schedule.batch_size
    session = trained.session(base)
    with ui.progress(f"editing {len(wrong)} failures", len(wrong)) as bar:
        for start in range(0, len(wrong), k):
            session.step(wrong[start : start + k])
            bar.update(min(start + k, len(wrong)))
    edits = session.edits.compress(trained.config.editor.gradient_rank * max(1, len(wrong)))
    ui.stage("checking before and after")
    rows = before.rows(edits)
    checked = _check(_Answers(base, task, layer, held), edits)
    result = {
        "out": out,
        "run": run_dir,
        "layer": layer.index,
        "n_failures": len(samples),
        "n_wrong_before": len(wrong),
        "n_fixed": sum(row["fixed"] for row in rows),
        "rows": rows,
        "check": checked,
        "seconds": time.perf_counter() - began,
    }
    facts = {
        "base_model": {"name": base.name, "fingerprint": base.fingerprint},
        "editor": {"name": trained.config.editor.name, "run": run_dir},
        "layer": layer.index,
        "failures": failures_as_json(wrong),
        "metrics": {name: result[name] for name in ("n_failures", "n_wrong_before", "n_fixed")}
        | {name: value for name, value in checked.items() if name != "changed"},
    }
    save_edits(folder, edits, facts)
    return result


class _Answers:
    """What a model answers to samples, with and without edits."""

    def __init__(
        self, base: TaskModel, task: Task, layer: Layer, samples: Sequence[Sample]
    ) -> None:
        self.base, self.task, self.samples = base, task, samples
        with torch.no_grad():
            self.bank = memory_bank(base, task, samples, BankSpec(layer))
        self.before = task.answer(base, self.bank.logits)

    def right(self) -> list[bool]:
        """Whether the unedited model is right."""
        found: list[bool] = self.task.correct(self.bank.logits, self.bank.targets).tolist()
        return found

    def rows(self, edits: Edits) -> list[dict[str, Any]]:
        """Each sample's answers before and after."""
        logits = bank_logits(self.base, self.bank, edits)
        if not torch.isfinite(logits).all():
            raise JobError(
                "the edit gave NaN and was not written; fewer failures at a time may work"
            )
        after = self.task.answer(self.base, logits)
        now = self.task.correct(logits, self.bank.targets).tolist()
        return [
            {
                "id": sample.id,
                "inputs": list(sample.inputs),
                "target": sample.target,
                "before": old,
                "after": new,
                "fixed": bool(ok and not was),
            }
            for sample, old, new, was, ok in zip(
                self.samples, self.before, after, self.right(), now, strict=True
            )
        ]


def _check(held: _Answers, edits: Edits) -> dict[str, Any]:
    rows = held.rows(edits)
    n = len(rows)
    was = sum(held.right())
    now = sum(row["after"] == row["target"] for row in rows)
    changed = [row for row in rows if row["before"] != row["after"]]
    return {
        "n": n,
        "accuracy_before": was / n,
        "accuracy_after": now / n,
        "drawdown": (was - now) / n,
        "changed": [{k: v for k, v in row.items() if k != "fixed"} for row in changed],
    }
