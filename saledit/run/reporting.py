"""``saledit report``: what a run, a comparison or a folder of fixes holds, as one page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from saledit.artifact import EDITS_FACTS
from saledit.data.readers import file_rows
from saledit.errors import ArtifactError, UserError, did_you_mean
from saledit.files import read_json, read_text, reason, write_text
from saledit.ledger import ENTRIES, LEDGER
from saledit.report import Ui, write_plot
from saledit.report.page import (
    Answers,
    Page,
    RunFiles,
    compare_page,
    fixes_page,
    render_page,
    run_page,
)
from saledit.run.curves import METRICS, read_metrics
from saledit.run.ledgers import log
from saledit.saliency.base import TABLE

_NAME, _PLOTS = "report.html", "plots"


def report(target: str, out: str | None, ui: Ui) -> dict[str, Any]:
    """Lay a result out as one HTML page that needs no network and no other file.

    Args:
        target: the folder of a run, of a comparison, or of fixes.
        out: the page; None for ``report.html`` in the folder.
        ui: where progress is shown.

    Returns:
        Where the page is, its figures (PNG and SVG, in ``plots`` beside it), and its size.

    Raises:
        UserError: the folder holds none of these, or the page has another ending.
        ArtifactError, DataError: a file in it is broken.
        JobError: the page cannot be written.
    """
    folder = Path(target)
    path = Path(out) if out else folder / _NAME
    if path.suffix not in (".html", ".htm") or path.is_dir():
        raise UserError(f"--out {out}: expected the name of a page (.html), got another")
    plots_at = path.parent / (_PLOTS if path.name == _NAME else f"{path.stem}-{_PLOTS}")
    made = next((_KINDS[mark] for mark in _KINDS if (folder / mark).is_file()), None)
    if made is None:
        beside = [p.name for p in folder.parent.glob("*") if any((p / m).is_file() for m in _KINDS)]
        remedy = did_you_mean(folder.name, beside) if beside else "check the path"
        raise UserError(
            f"{target}: expected the folder of a run, of a comparison or of fixes, got none; "
            + remedy
        )
    ui.stage(f"reading {target}")
    try:
        page = made(folder, ui)
        html = render_page(page)
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
        raise ArtifactError(
            f"{target}: expected files as saledit writes them, got other ones "
            f"({type(error).__name__}: {error}); make them anew"
        ) from error
    ui.stage(f"writing {path}")
    plots = []
    for chart in page.charts:
        for kind in ("png", "svg"):
            plots.append(plots_at / f"{chart.name}.{kind}")
            write_plot(chart.figure, plots[-1])
    write_text(path, html)
    return {
        "page": str(path),
        "title": page.title,
        "plots": [str(plot) for plot in plots],
        "megabytes": path.stat().st_size / 1e6,
    }


def _run(folder: Path, ui: Ui) -> Page:
    del ui
    names = sorted(
        (path.name for path in folder.glob("results*.json")), key=lambda name: (len(name), name)
    )
    fitted = _json(folder / "fit.json", "a record of training")
    # The file may be of a later `saledit saliency` beside the run, with other settings.
    scores = fitted.get("saliency") or _json(folder / TABLE, "the scores of the layers")
    return run_page(
        RunFiles(
            folder.resolve().name,
            _text(folder / "config.yaml"),
            fitted,
            scores,
            read_metrics(folder / METRICS),
            {name: _json(folder / name, "results") for name in names},
            {name: _answers(path) for name in names if (path := folder / _told(name)).exists()},
        )
    )


def _told(results: str) -> str:
    """The file of the answers behind results."""
    return f"answers{results.removeprefix('results').removesuffix('.json')}.jsonl"


def _answers(path: Path) -> Answers:
    return Answers.of((row for _, row in file_rows(path, str(path))), path.name)


def _compare(folder: Path, ui: Ui) -> Page:
    del ui
    return compare_page(_json(folder / "compare.json", "a comparison"))


def _fixes(folder: Path, ui: Ui) -> Page:
    told = log(str(folder), ui)
    fixes = [row["id"] for row in told["entries"] if row["action"] == "fix"]
    about = {n: _json(folder / ENTRIES / str(n) / EDITS_FACTS, "a fix") for n in fixes}
    return fixes_page(folder.resolve().name, told, about)


#: By the file that only such a folder has.
_KINDS: Mapping[str, Callable[[Path, Ui], Page]] = {
    LEDGER: _fixes,
    "compare.json": _compare,
    "config.yaml": _run,
}


def _json(path: Path, what: str) -> dict[str, Any]:
    if not path.exists():
        return {}
    found = read_json(path, what)
    if not isinstance(found, dict):
        raise ArtifactError(f"{path}: expected {what}, got a {type(found).__name__}")
    return found


def _text(path: Path) -> str:
    try:
        return read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(
            f"{path}: expected text in UTF-8, got a file that cannot be read ({reason(error)}); "
            "make it anew"
        ) from error
