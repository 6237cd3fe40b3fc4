"""What has to be known of a comparison beside its numbers, a line each."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

_WHOLE = (
    "Peaks of memory are of whole processes, with what is made once for all cells (fine-tuning, "
    "caches): on this system no peak begins anew."
)


def notes_of(done: Sequence[Mapping[str, Any]]) -> list[str]:
    """What tells cells from each other that should differ in their editors alone.

    Args:
        done: rows of all cells that have results (``saledit.run.cells.done``).
    """
    out, told = [], "; ".join(f"{cell} ({', '.join(own)})" for cell, own in _unlike(done).items())
    if told:
        out.append(f"Made otherwise than the other cells: {told}.")
    if any(row.get("setup_rss_mb") is None for row in done):
        out.append(_WHOLE)
    return out


def _unlike(done: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """The cells that were made with something else than most, and with what."""
    made = {
        f"{row['editor']}, seed {row['seed']}": {
            (part, name): value
            for part, own in row["made_with"].items()
            for name, value in own.items()
        }
        for row in done
        if "made_with" in row  # of older code it is not known
    }
    values: defaultdict[tuple[str, str], Counter[Any]] = defaultdict(Counter)
    for own in made.values():
        for key, value in own.items():
            values[key][value] += 1
    usual = {key: counted.most_common(1)[0][0] for key, counted in values.items()}
    unlike: defaultdict[str, dict[str, list[str]]] = defaultdict(dict)
    for cell, own in made.items():
        for (part, name), value in own.items():
            if value != usual[part, name]:
                unlike[cell].setdefault(f"{name} {value}", []).append(part)
    return {
        cell: [f"{what} in {' and '.join(parts)}" for what, parts in own.items()]
        for cell, own in unlike.items()
    }
