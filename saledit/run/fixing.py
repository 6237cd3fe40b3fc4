"""``saledit fix``: a trained editor against a file of new failures."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from saledit.answering import answers
from saledit.artifact import failures_as_json, load_editor, load_model, save_edits
from saledit.bank import BankSpec
from saledit.cache import memory_bank
from saledit.data.sources import load_records
from saledit.data.splits import other_matters
from saledit.delta import Edits
from saledit.errors import DataError, JobError, UserError
from saledit.models import TaskModel
from saledit.records import Answer, Sample
from saledit.report import Ui
from saledit.run.placing import place
from saledit.session import EditMetrics, bank_batches
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
    held = other_matters(task, load_records(task, check or str(trained.folder / "check.jsonl")))
    ui.stage(f"loading {trained.base_name}")
    model = replace(trained.config.model, name=trained.base_name)
    base = load_model(task, model, trained.config.cache)
    trained.check(base)
    place(base, trained.config.trainer)
    ui.stage("checking before")
    before = answers(base, task, samples)
    wrong = [sample for sample, answer in zip(samples, before, strict=True) if not answer.right]
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
    c = trained.config.editor
    terms = c.gradient_rank or c.sample_rank * k
    edits = session.edits.compress(terms * max(1, len(wrong)))
    ui.stage("checking after")
    _check_finite(base, task, layer, samples, edits)
    rows = _rows(samples, before, answers(base, task, samples, edits))
    checked = _check(base, task, layer, held, edits)
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


def _check_finite(
    base: TaskModel, task: Task, layer: Layer, samples: Sequence[Sample], edits: Edits
) -> None:
    """Refuse an edit that gives NaN: greedy decoding would take it for an answer."""
    bank = memory_bank(base, task, samples, BankSpec(layer))
    for _, logits in bank_batches(base, task, bank, edits):
        if not torch.isfinite(logits).all():
            raise JobError(
                "the edit gave NaN and was not written; fewer failures at a time may work"
            )


def _rows(
    samples: Sequence[Sample], before: Sequence[Answer], after: Sequence[Answer]
) -> list[dict[str, Any]]:
    """Each sample's answers before and after."""
    return [
        {
            "id": sample.id,
            "inputs": list(sample.inputs),
            "target": sample.target,
            "before": old.text,
            "after": new.text,
            "was_right": old.right,
            "is_right": new.right,
            "fixed": new.right and not old.right,
        }
        for sample, old, new in zip(samples, before, after, strict=True)
    ]


def _check(
    base: TaskModel, task: Task, layer: Layer, held: Sequence[Sample], edits: Edits
) -> dict[str, Any]:
    """What else an edit changed on samples that it should leave alone."""
    if task.by_perplexity:
        return _check_texts(base, task, layer, held, edits)
    before, after = answers(base, task, held), answers(base, task, held, edits)
    rows = _rows(held, before, after)
    n, was, now = len(rows), sum(a.right for a in before), sum(a.right for a in after)
    changed = [row for row in rows if row["before"] != row["after"]]
    return {
        "n": n,
        "accuracy_before": was / n,
        "accuracy_after": now / n,
        "drawdown": (was - now) / n,
        "changed": [{k: v for k, v in row.items() if k != "fixed"} for row in changed],
    }


def _check_texts(
    base: TaskModel, task: Task, layer: Layer, held: Sequence[Sample], edits: Edits
) -> dict[str, Any]:
    """The perplexity of texts before and after."""
    bank, counted = memory_bank(base, task, held, BankSpec(layer)), EditMetrics()
    pairs = (bank_batches(base, task, bank, given) for given in (None, edits))
    for (index, before), (_, after) in zip(*pairs, strict=True):
        counted.count_texts(base, task, (before, after), bank.targets_of(index))
    return {"n": len(held), "changed": [], **counted.compute_texts()}
