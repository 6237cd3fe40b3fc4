"""The page of a folder of fixes: what each one mended and broke, and which are in force."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from saledit.report.bootstrap import wilson
from saledit.report.look import drawdown, number, of_text, percent
from saledit.report.page.model import Answers, Page, Section, Table, Tile
from saledit.report.page.parts import command_of, environment_section


def fixes_page(name: str, log: Mapping[str, Any], told: Mapping[int, Mapping[str, Any]]) -> Page:
    """Lay out a ledger.

    Args:
        name: of the folder.
        log: what ``run.log`` returns.
        told: for each fix what its ``edits.json`` holds.
    """
    fixes = [row for row in log["entries"] if row["action"] == "fix"]
    in_force = [row for row in fixes if row["in_force"]]
    wrong = sum(row["metrics"]["n_wrong_before"] for row in in_force)
    mended = sum(row["metrics"]["n_fixed"] for row in in_force)
    tiles = [Tile("fixes in force", f"{len(in_force):,} of {len(fixes):,}")]
    if wrong:
        low, high = wilson(mended / wrong, wrong)
        note = f"{mended:,} of {wrong:,}; 95%: {100 * low:.1f} to {100 * high:.1f}%"
        tiles.append(Tile("failures fixed", percent(mended / wrong), note))
    last = in_force[-1]["metrics"] if in_force else {}
    if "drawdown" in last:
        note = f"of {number(last.get('n'))} in the check set, by the last fix"
        tiles.append(Tile("drawdown", drawdown(last["drawdown"], of_text(last)), note))
    said_by = {fix["id"]: _answers(fix["id"], told[fix["id"]]) for fix in fixes}
    answers = [row for rows in said_by.values() for row in rows]
    newest = told[fixes[-1]["id"]] if fixes else {}
    said = (
        "Each fix was asked about its own failures and the check set when it was made, with the "
        "fixes before it in force."
    )
    silent = [str(n) for n, rows in said_by.items() if not rows]
    if silent:  # of an older version
        said += f" Of {', '.join(silent)} no answers were kept."
    listed = [Answers.of(answers, "entries/*/edits.json")] if answers else []
    sections = [
        Section("Before and after", [said, *listed]),
        Section("Ledger", [_ledger(log["entries"])]),
        environment_section({**newest, "base_model": log["base_model"]}),
    ]
    commands = [command_of(told[fix["id"]]) for fix in fixes]
    subtitle = f"layer {log['layer']} of {log['base_model']['name']}, as {log['format']}"
    return Page(name, subtitle, tiles, sections, [command for command in commands if command])


def _answers(number: int, told: Mapping[str, Any]) -> list[dict[str, Any]]:
    parts: Sequence[tuple[str, Sequence[Mapping[str, Any]]]] = (
        ("fail", told.get("failures", ())),
        ("pass", told.get("changed", ())),
    )
    return [
        {**row, "part": part, "edit": number}
        for part, rows in parts
        for row in rows
        if "is_right" in row and (part == "fail" or (row["was_right"] and not row["is_right"]))
    ]


def _ledger(entries: Sequence[Mapping[str, Any]]) -> Table:
    rows = []
    for entry in entries:
        fix, metrics = entry["action"] == "fix", entry.get("metrics", {})
        state = "in force" if entry["in_force"] else f"undone by {entry['undone_by']}"
        fixed = f"{metrics['n_fixed']:,} of {metrics['n_wrong_before']:,}" if fix else ""
        rows.append(
            [
                str(entry["id"]),
                entry["time"].replace("T", " ").removesuffix("+00:00"),
                f"fix by {entry['editor']['name']}" if fix else f"undo of {entry['of']}",
                fixed,
                drawdown(metrics["drawdown"], of_text(metrics)) if "drawdown" in metrics else "",
                state if fix else "",
            ]
        )
    columns = ("id", "when (UTC)", "what", "fixed", "drawdown", "state")
    return Table(columns, rows, frozenset({0, 1, 2, 5}))
