"""What a comparison says, in tables of texts: laid out once, for the terminal and for the page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from saledit.report.look import (
    PREFERENCES,
    count,
    drawdown,
    duration,
    hundredfold,
    not_made,
    number,
    of_text,
    percent,
    points,
)

_INTERVALS = (
    "Intervals: 95%, of these trained editors, by a bootstrap over the edits; where edits pile up, "
    "or there is one, Wilson's over the failures, of the drawdown over the pass samples."
)
_DISAGREE = " *"
#: Titles that a place has something of its own for.
EDITORS, COURSES, NOT_MADE, FAILED = "Editors", "At the end of the sequence", "Not made", "Failed"


@dataclass(frozen=True, slots=True)
class Listing:
    """One table of a comparison.

    Attributes:
        title: what it is about.
        columns: their names.
        rows: texts, of unknown origin where they are names or errors; "-" where there is nothing.
        note: what to know about it.
        words: columns that are words, not numbers.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    words: frozenset[int] = frozenset({0})

    def without_empty(self) -> Listing:
        """Without the columns that tell nothing: they take room from those that do."""
        said = [i for i in range(len(self.columns)) if any(row[i] != "-" for row in self.rows)]
        return Listing(
            self.title,
            [self.columns[i] for i in said],
            [[row[i] for i in said] for row in self.rows],
            self.note,
            frozenset(said.index(i) for i in self.words if i in said),
        )


def listings(result: Mapping[str, Any]) -> Iterator[Listing]:
    """All tables of a comparison that have rows.

    Args:
        result: what ``run.compare`` returns, also of an older version.
    """
    known, cells = [row for row in result["editors"] if row["seeds"]], result["cells"]
    text = any(of_text(cell.get("metrics", {})) for cell in cells)
    yield _shares(result, known, text)
    costs = _costs(known, result.get("notes", ()))
    for listing in (
        _seeds(known, text), _preferences(known), costs, _beside(known, text),
        _courses(cells), _not_made(cells), _failed(cells),
    ):  # fmt: skip
        if listing.rows:
            yield listing


def schedules_of(result: Mapping[str, Any]) -> tuple[str, bool]:
    """How failures were grouped into edits.

    Args:
        result: what ``run.compare`` returns, also of an older version.

    Returns:
        The schedule in words, those of several editors apart; and whether their k differ, so that
        each one's is to be told.
    """
    if result.get("schedules"):  # they stand beside the editors' names
        return f"schedules {', '.join(map(str, result['schedules']))}", False
    asked = result["schedule"]
    known = {row["editor"]: row["schedule"] for row in result["editors"] if row.get("schedule")}
    sizes = {schedule["batch_size"] for schedule in known.values()} or {asked["batch_size"]}
    words = count(next(iter(sizes)), "failure") if len(sizes) == 1 else "k failures"
    modes: dict[str, list[str]] = {}
    for editor, schedule in known.items():
        modes.setdefault(str(schedule["mode"]), []).append(str(editor))
    if not modes and asked.get("cumulative"):
        modes["edits pile up"] = []
    told = [f"{mode}: {', '.join(own)}" for mode, own in modes.items()]
    if len(modes) < 2:
        told = [mode for mode in modes if mode != "batch"]
    return "; ".join([f"{words} an edit", *told]), len(sizes) > 1


def _shares(result: Mapping[str, Any], known: Sequence[Mapping[str, Any]], text: bool) -> Listing:
    """What editors mend and break."""
    _, differ = schedules_of(result)
    rows = [
        [
            row["editor"],
            str((row.get("schedule") or {}).get("batch_size", "-")) if differ else "-",
            str(len(row["seeds"])),
            *(percent(row[name]["mean"]) for name in ("fail_accuracy", "adapt_accuracy")),
            percent(row["edit_accuracy"]["mean"]),
            _interval(row["edit_accuracy"]),
            drawdown(row["drawdown"]["mean"], text),
            _interval(row["drawdown"]),
        ]
        for row in known
    ]
    columns = (
        "editor", "k", "seeds", "fail", "adapt", "edit", "(95%)", "drawdown", "(95%)"
    )  # fmt: skip
    told = ("edit_accuracy", "drawdown")
    has_intervals = any(row[name]["low"] is not None for row in known for name in told)
    return Listing(EDITORS, columns, rows, _INTERVALS if has_intervals else "")


def _seeds(known: Sequence[Mapping[str, Any]], text: bool) -> Listing:
    """How far the seeds of an editor lie apart, where it has several."""
    rows = [
        [row["editor"], *_apart(row["edit_accuracy"]), *_apart(row["drawdown"])]
        for row in known
        if "std" in row["edit_accuracy"]
    ]
    columns = ("editor", "edit, %", "std", f"drawdown, {'% more' if text else 'pt'}", "std")
    return Listing("Over seeds", columns, rows, "Least and most of the seeds.")


def _apart(found: Mapping[str, Any]) -> tuple[str, str]:
    """Least and most of the seeds, and their standard deviation."""
    if "std" not in found:
        return "-", "-"
    return _between(found["min"], found["max"]), hundredfold(found["std"])


def _costs(known: Sequence[Mapping[str, Any]], notes: Sequence[str]) -> Listing:
    rows = [
        [
            row["editor"],
            number(row["locality_kl"]),
            # One that has nothing to learn has nothing to say here.
            _time(row["train_seconds"] if row["edits_per_second"] else None),
            _time(row.get("picking_seconds")),
            number(round(row["edits_per_second"], 1) if row["edits_per_second"] else None),
            _time(row["fix_seconds_per_edit"]),
            number(round(row["peak_rss_mb"])),
            number(round(row["editor_mb"], 2)),
        ]
        for row in known
    ]
    columns = ("editor", "KL", "train", "picked in", "edits/s", "a fix", "peak MB", "editor MB")
    picked = any(row.get("picking_seconds") is not None for row in known)
    said = ["The layer is picked before the training, beside any budget of it."] if picked else []
    return Listing("Locality and costs", columns, rows, " ".join([*said, *notes]))


def _preferences(known: Sequence[Mapping[str, Any]]) -> Listing:
    """The field's measures, as far as there are any."""
    names = [
        name for name in PREFERENCES if any(name in row.get("preference", {}) for row in known)
    ]
    rows = [
        [row["editor"], *(percent(row["preference"].get(name)) for name in names)]
        for row in known
        if row.get("preference")
    ]
    columns = ("editor", *(PREFERENCES[name] for name in names))
    return Listing("Answers that are likelier than their rivals", columns, rows)


def _beside(known: Sequence[Mapping[str, Any]], text: bool) -> Listing:
    """How far editors lie above the first one; of text, how much more perplexity they leave."""
    rows = {row["editor"]: row["beside"] for row in known if row.get("beside")}
    first = next(iter(rows.values()))["editor"] if rows else ""
    shown: dict[str, Callable[[float | None], str]] = {
        "edit_accuracy": points, "drawdown": partial(drawdown, text=text)
    }  # fmt: skip
    told = [
        [
            editor,
            *(
                said
                for name, show in shown.items()
                for said in (show(own[name]["mean"]) + _mark(own[name]), _interval(own[name]))
            ),
        ]
        for editor, own in rows.items()
    ]
    columns = ("editor", "edit accuracy", "(95%)", "drawdown", "(95%)")
    marked = any(cell.endswith(_DISAGREE) for row in told for cell in row)
    note = f"{_DISAGREE.strip()} some seeds say more, others less." if marked else ""
    return Listing(f"Beside {first}, on the same edits", columns, told, note)


def _mark(found: Mapping[str, Any]) -> str:
    """A mark where seeds differ in the sign of a difference."""
    return _DISAGREE if found.get("min", 0) < 0 < found.get("max", 0) else ""


def _courses(cells: Sequence[Mapping[str, Any]]) -> Listing:
    """Where sequences ended."""
    rows = [row for row in cells if row.get("course")]
    several = len({row["seed"] for row in rows}) > 1
    told = []
    for row in rows:
        last = row["course"][-1]
        kinds = last.get("abilities")
        told.append(
            [
                row["editor"],
                str(row["seed"]) if several else "-",
                str(last["n_failures"]),
                *(percent(last.get(name)) for name in ("current", "earlier", "pass_accuracy")),
                number(last.get("perplexity")),
                percent(sum(kinds.values()) / len(kinds) if kinds else None),
                _end(row),
            ]
        )
    columns = (
        "editor", "seed", "failures", "current", "earlier", "pass", "perplexity", "others",
        "collapsed",
    )  # fmt: skip
    return Listing(COURSES, columns, told, words=frozenset({0, 8}))


def _end(row: Mapping[str, Any]) -> str:
    """Whether a sequence's model collapsed, and where it could not be edited any more."""
    told = "no" if row["collapse"] is None else f"after {row['collapse']}"
    stopped = row.get("stopped")
    return told if stopped is None else f"{told}; ended after {stopped}"


def _not_made(cells: Sequence[Mapping[str, Any]]) -> Listing:
    """Edits that were not made: they break nothing, so such an editor looks the safer for it."""
    rows = [
        [f"{row['editor']}, seed {row['seed']}", said]
        for row in cells
        if "counts" in row and (said := not_made(row))
    ]
    return Listing(NOT_MADE, ("cell", "what was not made"), rows, words=frozenset({0, 1}))


def _failed(cells: Sequence[Mapping[str, Any]]) -> Listing:
    rows = [
        [f"{row['editor']}, seed {row['seed']}", str(row["error"])]
        for row in cells
        if row.get("error")
    ]
    return Listing(FAILED, ("cell", "error"), rows, words=frozenset({0, 1}))


def _time(seconds: float | None) -> str:
    return "-" if seconds is None else duration(seconds)


def _interval(found: Mapping[str, float | None]) -> str:
    low, high = found["low"], found["high"]
    return "-" if low is None or high is None else _between(low, high)


def _between(low: float, high: float) -> str:
    return f"{hundredfold(low)} to {hundredfold(high)}"
