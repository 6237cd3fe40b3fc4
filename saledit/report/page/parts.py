"""Parts that several pages share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from saledit.report.bootstrap import SHARES, Resampled, interval, of_outcome
from saledit.report.look import clean, drawdown, number, of_text, percent
from saledit.report.page.model import Section, Table, Tile

_LABELS = {
    "edit_accuracy": "edit accuracy",
    "fail_accuracy": "failures fixed",
    "adapt_accuracy": "rewordings right",
    "drawdown": "drawdown",
}


def share_tiles(results: Mapping[str, Any]) -> list[Tile]:
    """Edit accuracy, its parts, and drawdown, each with a 95% interval.

    Bootstrap over the edits where each was judged on its own, beside the same pass samples; where
    they piled up, or there is one, that of one outcome.
    """
    metrics, bare = results["metrics"], results.get("unedited", {})
    judged = metrics.get("generated", metrics)
    before = bare.get("generated", bare)
    per_edit = results.get("per_edit") or {}
    n = len(per_edit.get("fail", ()))
    drawn = Resampled([n]) if n > 1 else None  # resamples of one edit are all that edit
    out = []
    for name, label in _LABELS.items():
        if judged.get(name) is None or (name == "drawdown" and of_text(metrics)):
            continue
        between = _between(name, judged[name], per_edit, drawn, results.get("counts", {}))
        notes = [] if between is None else [f"95%: {_span(*between, name)}"]
        if name in before and name != "drawdown":
            notes.append(f"unedited {percent(before[name])}")
        share = judged[name]
        shown = drawdown(share, text=False) if name == "drawdown" else percent(share)
        out.append(Tile(label, shown, "; ".join(notes)))
    if of_text(metrics):
        pair = " to ".join(
            number(metrics.get(f"perplexity_{when}")) for when in ("before", "after")
        )
        shown = drawdown(metrics.get("drawdown"), text=True)
        out.append(Tile("drawdown", shown, f"perplexity of pass texts {pair}"))
    return out


def _between(
    name: str, share: float, per_edit: Mapping[str, Sequence[float]], drawn: Resampled | None,
    counts: Mapping[str, Any],
) -> tuple[float, float] | None:  # fmt: skip
    if drawn is not None and name in SHARES:
        found = interval(drawn.shares([per_edit], name))
        if found.mean == found.mean:
            return found.low, found.high
    return of_outcome(name, share, counts)


def _span(low: float, high: float, name: str) -> str:
    unit = " pt" if name == "drawdown" else "%"
    return f"{100 * low:.1f} to {100 * high:.1f}{unit}"


def metrics_table(results: Mapping[str, Any]) -> Table:
    """All numbers that a test counted, under teacher forcing and generation where both are."""
    metrics, bare = results["metrics"], results.get("unedited", {})
    rows = []
    for prefix, edited, unedited in (
        ("", metrics, bare),
        ("generated: ", metrics.get("generated") or {}, bare.get("generated") or {}),
        ("against the rival: ", metrics.get("preference") or {}, bare.get("preference") or {}),
    ):
        for name, value in edited.items():
            if isinstance(value, Mapping) or value is None:
                continue
            before = unedited.get(name)
            rows.append([prefix + name.replace("_", " "), _plain(before), _plain(value)])
    return Table(("measure", "unedited", "edited"), rows)


def _plain(value: Any) -> str:
    return number(value) if isinstance(value, int | float) else "" if value is None else str(value)


def environment_section(results: Mapping[str, Any], config: str = "") -> Section:
    """Versions, machine, seed, and the configuration."""
    facts = {**results.get("versions", {}), **results.get("environment", {})}
    facts.pop("command", None)
    if "seed" in results:
        facts["seed"] = results["seed"]
    base = results.get("base_model")
    if base:
        facts["base model"] = base["name"]
        facts["fingerprint"] = base["fingerprint"]
    timing, memory = results.get("timing", {}), results.get("memory", {})
    costs = {**timing, **memory}
    rows = [[clean(name.replace("_", " ")), clean(value)] for name, value in facts.items()]
    rows += [[clean(k.replace("_", " ")), number(v)] for k, v in costs.items() if v is not None]
    return Section("Environment", [Table(("what", "value"), rows, frozenset({0, 1}))], config)


def command_of(results: Mapping[str, Any]) -> str:
    """What was typed for a result; "" where nothing is known."""
    return str(results.get("environment", {}).get("command", ""))
