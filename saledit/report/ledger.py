"""A ledger, and what was taken back, for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from saledit.report.look import Look, clean, count, drawdown, heading, line, number, of_text


def log_tables(result: Mapping[str, Any], look: Look) -> Iterator[RenderableType]:
    """What ``run.log`` returns."""
    rows = result["entries"]
    fixes = [row for row in rows if row["action"] == "fix"]
    in_force = sum(row["in_force"] for row in fixes)
    yield line(
        heading(f"{in_force:,} of {count(len(fixes), 'fix', 'fixes')} in force"),
        f" on {clean(result['base_model']['name'])}, layer {result['layer']}, as "
        f"{result['format']}",
        f", norm {number(result['norm'])}" if result["norm"] is not None else "",
    )
    if rows:
        table = look.table("id", "when (UTC)", "what", "fixed", "drawdown", "state", left=(1, 2, 5))
        for row in rows:
            metrics = row.get("metrics", {})
            fix = row["action"] == "fix"
            what = f"fix by {row['editor']['name']}" if fix else f"undo of {row['of']}"
            state = "in force" if row["in_force"] else f"undone by {row['undone_by']}"
            table.add_row(
                str(row["id"]),
                row["time"].replace("T", " ").removesuffix("+00:00"),
                clean(what),
                f"{metrics['n_fixed']:,} of {metrics['n_wrong_before']:,}" if fix else "",
                drawdown(metrics["drawdown"], of_text(metrics)) if "drawdown" in metrics else "",
                Text(state if fix else "", style="green" if row["in_force"] else "dim"),
            )
        yield table
    yield line("The chain of entries holds, and their files are those that were written.")
    if result["changed"]:
        yield line(
            Text("Files beside the ledger were changed since", style="red"),
            "; the next fix or undo writes them anew.",
        )


def undo_tables(result: Mapping[str, Any], look: Look) -> Iterator[RenderableType]:
    """What ``run.undo`` returns."""
    del look
    left = result["in_force"]
    yield line(
        heading(f"Fix {result['undone']} was taken back"),
        f"; in force: {', '.join(map(str, left))}." if left else "; nothing is in force.",
    )
    yield line(f"The {result['format']}: ", Text(clean(result["out"]), style="bold"))
