"""``metrics.csv``: what was logged while an editor was trained."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from saledit.errors import ArtifactError
from saledit.files import read_text, reason

METRICS = "metrics.csv"
_STEP = "step"


def read_metrics(path: Path) -> list[dict[str, str]]:
    """Rows of a ``metrics.csv``; none where there is no file.

    Raises:
        ArtifactError: it is broken.
    """
    try:
        rows = list(csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True))
    except FileNotFoundError:
        return []
    except (OSError, ValueError, csv.Error) as error:
        raise ArtifactError(_broken(path, reason(error))) from error
    for number, row in enumerate(rows, start=1):
        if None in row or None in row.values():
            raise ArtifactError(_broken(path, f"other columns in row {number}"))
        if not (row.get(_STEP, "").isascii() and row.get(_STEP, "").isdecimal()):
            raise ArtifactError(_broken(path, f"no '{_STEP}' in row {number}"))
        if any(set(text) & set(',"\r\n') for pair in row.items() for text in pair):
            raise ArtifactError(_broken(path, f"a quoted text in row {number}"))
    return rows


def _broken(path: Path, fault: str) -> str:
    return (
        f"{path}: expected the metrics of a run, got a broken file ({fault:.200}); delete it, or "
        "start anew without --resume"
    )
