"""Facts on the chemical elements, from the database file of mendeleev."""

from __future__ import annotations

import sqlite3
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import curated as cu
from facts import Fact

CATEGORIES = {
    "Nonmetals": "a nonmetal",
    "Noble gases": "a noble gas",
    "Alkali metals": "an alkali metal",
    "Alkaline earth metals": "an alkaline earth metal",
    "Metalloids": "a metalloid",
    "Halogens": "a halogen",
    "Poor metals": "a post-transition metal",
    "Transition metals": "a transition metal",
    "Lanthanides": "a lanthanide",
    "Actinides": "an actinide",
}
ALSO_TRUE = {
    "a halogen": {"a nonmetal"},
    "a noble gas": {"a nonmetal"},
    "a metalloid": {"a nonmetal", "a post-transition metal"},
    "a post-transition metal": {"a metalloid"},
    "a lanthanide": {"a transition metal"},
    "an actinide": {"a transition metal"},
}


def element_rows() -> list[dict[str, Any]]:
    """Read the elements from the database file of mendeleev (its import takes many seconds)."""
    spec = find_spec("mendeleev")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("mendeleev")
    path = Path(spec.origin).parent / "elements.db"
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as base:
        base.row_factory = sqlite3.Row
        rows = base.execute(
            "select e.atomic_number, e.symbol, e.name, e.period, s.name as series"
            " from elements e"
            " join series s on s.id = e.series_id order by e.atomic_number"
        ).fetchall()
    return [dict(row) for row in rows]


def element_facts() -> list[Fact]:
    """Make the facts on symbol and category of the elements."""
    facts: list[Fact] = []
    for row in element_rows():
        name = row["name"].lower()
        values = {"symbol": row["symbol"]}
        if row["atomic_number"] not in cu.NO_CATEGORY:
            values["category"] = CATEGORIES[row["series"]]
        for relation, value in values.items():
            taboo = frozenset({value} | ALSO_TRUE.get(value, set()))
            facts.append(Fact(relation, name, name, value, taboo=taboo))
    return facts
