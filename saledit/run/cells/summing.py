"""The cells of a comparison summed up: each editor over its seeds, and beside the first one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import stdev
from typing import Any

from saledit.report.bootstrap import SHARES, Resampled, interval, of_outcome
from saledit.report.look import PREFERENCES, of_text

#: Times of a cell, as ``results.json`` names them.
TIMES = ("train_seconds", "edits_per_second", "fix_seconds_per_edit")
#: What picking the layer took, which no budget counts; none where it is fixed.
PICKING = ("picking_seconds", "picking_forward_passes", "picking_backward_passes")
#: Peaks of memory: of training and test, and of what is made once for all cells.
PEAKS = ("peak_rss_mb", "peak_device_mb", "setup_rss_mb", "setup_device_mb")
_COSTS = (*TIMES, *PICKING, *PEAKS, "editor_mb")
_KINDS = ("fail", "adapt", "pass")  # of the samples of a test
_NO_PERPLEXITY = -1 + 1e-6  # a rise to next to nothing of it, which no text has


def summary(
    name: str, done: Sequence[Mapping[str, Any]], first: str, seeds: Sequence[int]
) -> dict[str, Any]:
    """One editor over the seeds that it has, and beside the first editor over those of both.

    Args:
        name: the editor.
        done: rows of all cells that have results (``saledit.run.cells.done``).
        first: the editor that the others stand beside.
        seeds: all seeds, in order.
    """
    found = {row["seed"]: row for row in done if row["editor"] == name}
    out: dict[str, Any] = {"editor": name, "seeds": sorted(found)}
    if not found:
        return out
    out["schedule"] = next(iter(found.values())).get("schedule")
    out["n_failures"] = max(row.get("counts", {}).get("fail", 0) for row in found.values())
    out |= _intervals([found[s] for s in seeds if s in found])
    for key in _COSTS:
        cost = ((row["timing"] if key in TIMES else row).get(key) for row in found.values())
        out[key] = _mean(cost)
    out["locality_kl"] = _mean_of("locality_kl", [*found.values()])
    compared = [row["metrics"].get("preference", {}) for row in found.values()]
    means = {key: _mean(some.get(key) for some in compared) for key in PREFERENCES}
    if any(compared):
        out["preference"] = {key: value for key, value in means.items() if value is not None}
    base = {row["seed"]: row for row in done if row["editor"] == first}
    both = [s for s in seeds if s in found and s in base]
    if name != first and both and _same_edits([(found[s], base[s]) for s in both]):
        out["beside"] = {
            "editor": first,
            **_intervals([found[s] for s in both], [base[s] for s in both]),
        }
    return out


def _intervals(
    rows: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]] | None = None
) -> dict[str, Any]:
    """The shares, or how far they lie above those of other editors: intervals, and by seed."""
    edits = [row["per_edit"] for row in rows]
    counts = [len(own["fail"]) for own in edits]
    drawn = Resampled(counts, _about(rows))
    beside: Sequence[Mapping[str, Any] | None] = [None] * len(rows) if others is None else others
    out: dict[str, Any] = {}
    for share in SHARES:
        values = drawn.shares(edits, share)
        if others is not None:
            values = values - drawn.shares([row["per_edit"] for row in others], share)
        each = [_of_seed(share, *pair) for pair in zip(rows, beside, strict=True)]
        found: dict[str, float | None] = {**interval(values).as_json()}
        if found["mean"] != found["mean"]:  # of a task that counts no such thing
            found = {"mean": _mean(each), "low": None, "high": None}
        elif max(counts) < 2:  # one edit drawn again and again says nothing of others
            found |= {"low": None, "high": None}
        if found["low"] is None and others is None:
            found |= _of_outcome(share, found["mean"], rows)
        out[share] = found | _over_seeds(
            {row["seed"]: own for row, own in zip(rows, each, strict=True)}
        )
    return out


def _over_seeds(each: Mapping[int, float | None]) -> dict[str, Any]:
    """What each seed has, and where there are several how far they lie apart."""
    out: dict[str, Any] = {"by_seed": {str(seed): value for seed, value in each.items()}}
    known = [value for value in each.values() if value is not None]
    if len(known) > 1:
        out |= {"std": stdev(known), "min": min(known), "max": max(known)}
    return out


def _of_seed(name: str, row: Mapping[str, Any], other: Mapping[str, Any] | None) -> float | None:
    """A share of one seed, or how far it lies above that of another editor."""
    value = _share(name, row)
    if other is None or value is None:
        return value
    base = _share(name, other)
    if base is None:
        return None
    if name == "drawdown" and of_text(row["metrics"]):
        # Both are rises from the perplexity without edits: how much more one leaves than the other.
        return (1 + value) / (1 + base) - 1 if base > _NO_PERPLEXITY else None
    return value - base


def _share(name: str, row: Mapping[str, Any]) -> float | None:
    """A share of a cell as its edits count it, or else as its metrics have it."""
    right, of = (
        sum(sum(row["per_edit"][key]) for key in keys) for keys in zip(*SHARES[name], strict=True)
    )
    found: float | None = right / of if of else row["metrics"].get(name)
    return found


def _of_outcome(
    name: str, share: float | None, rows: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """The interval of edits that have one outcome a seed; {} where there is none."""
    if share is None or (name == "drawdown" and of_text(rows[0]["metrics"])):
        return {}
    # Seeds of the same failures are no further ones.
    told = {
        of or n: row.get("counts", {})
        for n, (of, row) in enumerate(zip(_about(rows), rows, strict=True))
    }
    sizes = {kind: sum(own.get(kind, 0) for own in told.values()) for kind in _KINDS}
    between = of_outcome(name, share, sizes)
    return {} if between is None else dict(zip(("low", "high"), between, strict=True))


def _about(rows: Sequence[Mapping[str, Any]]) -> list[str | None]:
    """What tells seeds whose edits are of the same failures: which these are.

    Where the answers of one are lost, the file of the test, which all seeds take in one order; None
    where the seed has drawn the test.
    """
    failures = [row.get("failures") for row in rows]
    return [row.get("test") or None for row in rows] if None in failures else failures


def _same_edits(pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> bool:
    keys = ("fail_of", "adapt_of", "lost_of")
    same = all(a["per_edit"][k] == b["per_edit"][k] for a, b in pairs for k in keys)
    told = ([row.get("failures") for row in pair] for pair in pairs)
    return same and all(a == b or None in (a, b) for a, b in told)


def _mean_of(name: str, rows: Sequence[Mapping[str, Any]]) -> float | None:
    return _mean(row["metrics"].get(name) for row in rows)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
