"""Write the claims of world facts: ``python data/worldfacts/generate.py --out data/worldfacts``.

Every fact gives one right and one wrong claim. The wrong values are the right ones of other facts
of the same part, exchanged, so every value is claimed rightly as often as wrongly.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import facts as source
from elements import element_facts
from facts import Fact
from places import city_facts, gazetteer, region_facts, state_facts
from wordings import WORDINGS, fill

CITIES_PER_COUNTRY = 11
CITIES_PER_STATE = 12
REGIONS_PER_COUNTRY = 4
TEST_SHARE = 0.15
SECOND_SHARE = 0.4
"""Share of the other subjects whose claims make the train file; the rest is for fine-tuning."""
FAR_SHARE = 2
"""Every second fact takes its wrong value from anywhere, the others from their own group."""


@dataclass(frozen=True)
class Claim:
    """A claim before it is put into words.

    Attributes:
        relation: The relation.
        subject: The entity that decides the split.
        holder: What the claim is about.
        value: What it says of it.
        right: Whether that is so.
    """

    relation: str
    subject: str
    holder: str
    value: str
    right: bool


def rank(*parts: object) -> str:
    """Give a fixed pseudo-random sort key."""
    return hashlib.sha256("\x1f".join(map(str, parts)).encode()).hexdigest()


def choose(subjects: dict[str, str], share: float, seed: str) -> set[str]:
    """Choose a share of the subjects.

    Args:
        subjects: Subject to its kind (continent, element, state); each kind gives its share.
        share: How much of each kind.
        seed: What the choice hangs on.

    Returns:
        The subjects.
    """
    kinds: dict[str, list[str]] = defaultdict(list)
    for subject, kind in subjects.items():
        kinds[kind].append(subject)
    chosen: set[str] = set()
    for kind, members in kinds.items():
        ordered = sorted(members, key=lambda s: rank(seed, kind, s))
        chosen.update(ordered[: max(2, round(share * len(ordered)))])
    return chosen


def exchange(facts: Sequence[Fact]) -> list[tuple[Fact, str]]:
    """Give each fact the value of another one, so that it becomes wrong.

    Args:
        facts: Facts of one relation.

    Returns:
        Pairs of a fact and a wrong value; facts for which none is left are dropped.
    """
    ordered = sorted(facts, key=lambda f: rank("exchange", f.relation, f.holder))
    values = [fact.value for fact in ordered]

    def wrong(i: int, j: int) -> bool:
        return values[j] not in ordered[i].taboo

    def swaps(i: int, places: Iterable[int]) -> bool:
        for j in places:
            if wrong(i, j) and wrong(j, i):
                values[i], values[j] = values[j], values[i]
                return True
        return False

    groups: dict[str, list[int]] = defaultdict(list)
    for i, fact in enumerate(ordered):
        groups[fact.group if i % FAR_SHARE else ""].append(i)
    for members in [*groups.values(), list(range(len(ordered)))]:
        for at, i in enumerate(members):
            if not wrong(i, i):
                swaps(i, members[at + 1 :] + members[:at])
    return [(fact, values[i]) for i, fact in enumerate(ordered) if wrong(i, i)]


def fact_claims(facts: Iterable[Fact]) -> list[Claim]:
    """Make a right and a wrong claim of each fact."""
    by_relation: dict[str, list[Fact]] = defaultdict(list)
    pairs: list[tuple[Fact, str]] = []
    for fact in facts:
        if fact.decoy:
            pairs.append((fact, fact.decoy))
        else:
            by_relation[fact.relation].append(fact)
    for members in by_relation.values():
        pairs += exchange(members)
    return [
        Claim(fact.relation, fact.subject, fact.holder, value, right)
        for fact, wrong in pairs
        for value, right in ((fact.value, True), (wrong, False))
    ]


def records(claims: Iterable[Claim], part: str) -> list[dict[str, Any]]:
    """Put claims into words; within a relation both labels get each wording equally often.

    Args:
        claims: The claims of one part.
        part: Its name, the start of the ids.

    Returns:
        The records, subject by subject, in a fixed mixed order.
    """
    heaps: dict[tuple[str, bool], list[Claim]] = defaultdict(list)
    for claim in claims:
        heaps[claim.relation, claim.right].append(claim)
    made: list[dict[str, Any]] = []
    for (relation, right), heap in heaps.items():
        forms = WORDINGS[relation]
        heap.sort(key=lambda c: rank("wording", relation, c.right, c.holder, c.value))
        for i, claim in enumerate(heap):
            seed = rank("others", relation, claim.right, claim.holder, claim.value)
            rest = sorted(set(range(len(forms))) - {i % len(forms)}, key=lambda k: rank(seed, k))
            texts = [fill(forms[k], claim.holder, claim.value) for k in [i % len(forms), *rest[:3]]]
            made.append(
                {
                    "id": "",
                    "hypothesis": texts[0],
                    "label": "supports" if right else "refutes",
                    "subject": claim.subject,
                    "relation": relation,
                    "paraphrases": [{"hypothesis": t, "kind": "wording"} for t in texts[1:]],
                }
            )
    made.sort(key=lambda r: (rank("order", r["subject"]), rank("order", r["hypothesis"])))
    return [{**record, "id": f"worldfacts-{part}-{i:05d}"} for i, record in enumerate(made)]


def build() -> dict[str, list[Claim]]:
    """Collect all facts, part them by subject and turn them into claims.

    Returns:
        The parts "finetune", "train" and "test". Wrong values never come from another part, so
        a value is right as often as wrong in each part.
    """
    nations = source.countries()
    atlas = gazetteer()
    elements = element_facts()
    states = state_facts(atlas, CITIES_PER_STATE)
    facts = [
        *source.country_facts(nations),
        *source.capital_or_largest(nations, atlas.cities),
        *city_facts(nations, atlas, CITIES_PER_COUNTRY),
        *region_facts(nations, atlas, REGIONS_PER_COUNTRY),
        *states,
        *elements,
    ]
    kinds = {fact.subject: "element" for fact in elements}
    kinds |= {fact.subject: "state" for fact in states}
    kinds |= {row["common"]: row["continentcode"] for row in nations.values()}
    test = choose(kinds, TEST_SHARE, "split")
    left = {subject: kind for subject, kind in kinds.items() if subject not in test}
    second = choose(left, SECOND_SHARE, "second")
    parts = {"finetune": left.keys() - second, "train": second, "test": test}
    return {part: fact_claims(f for f in facts if f.subject in own) for part, own in parts.items()}


def write(rows: Iterable[dict[str, Any]], path: Path) -> None:
    """Write records as JSON lines into a gzip file without a time stamp."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))


def main() -> None:
    """Write the three files."""
    parser = argparse.ArgumentParser(description="Write the claims of world facts.")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write into")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for part, claims in build().items():
        rows = records(claims, part)
        write(rows, out / f"{part}.jsonl.gz")
        print(f"{part}: {len(rows)} records")


if __name__ == "__main__":
    main()
