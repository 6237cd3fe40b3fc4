"""``saledit quickstart``: the whole story on the bundled default."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

from saledit import config as configuration
from saledit.artifact import load_editor
from saledit.errors import ConfigError, did_you_mean
from saledit.files import write_jsonl
from saledit.report import Ui
from saledit.run.fitting import train
from saledit.run.fixes.guarding import Bounds
from saledit.run.fixes.options import FixOptions
from saledit.run.fixing import fix
from saledit.run.setup.prepare import prepare
from saledit.run.testing import measure, write_measured

_CONFIGS = {"nli": "nli/quickstart", "qa": "qa/quickstart"}
_SHOWN = 10
_ANY = Bounds(min_fixed=0.0)  # the story has an end, whatever its last edit mends


def quickstart(out: str | None, task: str, ui: Ui) -> dict[str, Any]:
    """Find failures, pick the layer, train an editor, test it, fix ten failures.

    Args:
        out: folder for runs and caches; None for the configuration's.
        task: which story.
        ui: where progress is shown.

    Returns:
        The results of each step and what to try next.

    Raises:
        ConfigError: no such task.
    """
    began = time.perf_counter()
    if task not in _CONFIGS:
        raise ConfigError(f"--task: unknown name '{task}'; {did_you_mean(task, _CONFIGS)}")
    overrides = [f"output={out}"] if out else []
    config = configuration.load(_CONFIGS[task], overrides)
    folder = config.folder
    prepared = prepare(config, ui)
    fitted = train(prepared, False)
    results = write_measured(folder, measure(prepared, load_editor(folder)))
    part = prepared.test
    # One failure a subject makes better reading than three about one country.
    examples = list({sample.inputs[-1]: sample for sample in part.fail}.values())
    step = max(1, len(examples) // _SHOWN)
    failures = folder / "failures.jsonl"
    write_jsonl(failures, [prepared.task.row(s) for s in examples[::step][:_SHOWN]])
    shutil.rmtree(folder / "fixed", ignore_errors=True)  # of the story as it was told before
    fixed = fix(str(folder), str(failures), str(folder / "fixed"), FixOptions(bounds=_ANY), ui)
    name = Path(folder)
    return {
        "fit": fitted,
        "test": results,
        "fix": fixed,
        "seconds": time.perf_counter() - began,
        "next": [
            f"saledit fix {name} --failures YOUR_FAILURES.jsonl --out my-fix",
            f"saledit report {name}",
            f"saledit test {name} schedule.batch_size=1",
            f"saledit saliency {_CONFIGS[task]} site.select=gradient",
            f"saledit config {_CONFIGS[task]}",
        ],
    }
