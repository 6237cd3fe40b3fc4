"""What a ledger has to tell, and where it may lie: nothing in it leads out of its folder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from saledit.errors import ArtifactError
from saledit.files import misfit
from saledit.ledger.chain import BEGIN, FIX, UNDO, Entry
from saledit.site import IN_A_FILE, LARGEST, are_possible

_TASK = {
    "name": str, "fields?": {str: str}, "subjects?": [str], "max_length?": int, "template?": str,
    "chat?": bool, "stop?": str, "max_new_tokens?": int,
}  # fmt: skip
_MODEL = {"kind": str, "name?": str, "dtype?": str, "stack?": str, "blocks?": str}
_FILES = {"files?": {str: str}}
#: What every entry of a kind tells, at least.
_SHAPES: dict[str, dict[str, Any]] = {
    BEGIN: {
        "base_model": {"name": str, "fingerprint": str, "beside?": str},
        "model": _MODEL, "task": _TASK,
        "layer": int, "sites": [IN_A_FILE], "format": str, "rank?": int, **_FILES,
    },
    FIX: {
        "editor": {"name": str},
        "metrics": {"n_fixed": int, "n_wrong_before": int, "drawdown?": float}, **_FILES,
    },
    UNDO: {"of": int},
}  # fmt: skip


def check_entries(path: Path, entries: Sequence[Entry]) -> None:
    """Refuse entries that tell too little, or something impossible, though their chain holds.

    Raises:
        ArtifactError: one does.
    """
    fixes: set[int] = set()
    for entry in entries:
        if fault := _fault(entry, fixes):
            raise ArtifactError(
                f"{path}:{entry.id + 1}: expected an entry that saledit wrote, got {fault}; take "
                "the file from a backup"
            )
        fixes |= {entry.id} if entry.action == FIX else set()
        fixes -= {entry.facts["of"]} if entry.action == UNDO else set()


def _fault(entry: Entry, fixes: set[int]) -> str:
    """What is wrong with an entry, given the fixes in force before it; "" where nothing is."""
    facts = entry.facts
    if (entry.action == BEGIN) != (entry.id == 0):
        return "a beginning in the middle" if entry.id else f"a {entry.action} without a beginning"
    if fault := misfit(facts, _SHAPES[entry.action]):
        return fault
    for name in facts.get("files", {}):
        if not is_plain(name):
            return f"the name {name[:60]!r} of a file"
    if entry.action == UNDO and facts["of"] not in fixes:
        return f"an undo of entry {facts['of']}, which is no fix in force"
    if entry.action == BEGIN:
        if not are_possible(facts["sites"]):
            return "sites of no possible size"
        if len({site["name"] for site in facts["sites"]}) < len(facts["sites"]):
            return "a site that comes twice"
        if not 0 <= facts.get("rank", 0) < LARGEST:
            return f"a rank of {facts['rank']}"
    return ""


def is_plain(name: str) -> bool:
    """Whether a name is one of a file in a folder, and no way out of it."""
    return name not in ("", ".", "..") and name.isprintable() and not set(name) & set("/\\")


def check_links(paths: Iterable[Path]) -> None:
    """Refuse links where files are written: what stands behind one lies elsewhere.

    Raises:
        ArtifactError: one of the paths is a link.
    """
    for path in paths:
        if _is_link(path):
            raise ArtifactError(
                f"{path}: expected a file or folder of its own, got a link; put what it leads to "
                "there"
            )


def _is_link(path: Path) -> bool:
    try:
        return path.is_symlink()
    except (OSError, ValueError):  # a name that no file has
        return False
