"""``metrics.csv``: what was logged while an editor was trained."""

from __future__ import annotations

import csv
import io
import sys
from pathlib import Path

from saledit.errors import ArtifactError
from saledit.files import read_text, reason, write_text

METRICS, EARLIER = "metrics.csv", "metrics.earlier.csv"
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


def set_metrics_aside(folder: Path) -> None:
    """Keep the rows of a run on disk: Lightning's CSV logger deletes an old file before it writes.

    Raises:
        ArtifactError: they are broken.
    """
    if rows := _all(folder):
        _write(folder / EARLIER, rows)


def join_metrics(folder: Path) -> None:
    """Put the rows that were set aside before those since then.

    Raises:
        ArtifactError: they are broken.
    """
    _write(folder / METRICS, _all(folder))
    (folder / EARLIER).unlink(missing_ok=True)


def _all(folder: Path) -> list[dict[str, str]]:
    """The rows set aside, up to where the rows since then begin, and these."""
    now = read_metrics(folder / METRICS)
    first = min((int(row[_STEP]) for row in now), default=sys.maxsize)
    return [row for row in read_metrics(folder / EARLIER) if int(row[_STEP]) < first] + now


def _write(path: Path, rows: list[dict[str, str]]) -> None:
    names = sorted({name for row in rows for name in row})
    lines = [",".join(names), *(",".join(row.get(name, "") for name in names) for row in rows)]
    write_text(path, "\n".join(lines) + "\n")


def _broken(path: Path, fault: str) -> str:
    return (
        f"{path}: expected the metrics of a run, got a broken file ({fault:.200}); delete it, or "
        "start anew without --resume"
    )
