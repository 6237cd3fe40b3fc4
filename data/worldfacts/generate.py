"""Write the files of world facts: ``python data/worldfacts/generate.py --out data/worldfacts``.

Every fact gives one right and one wrong claim. The wrong values are the right ones of other facts
of the same part, exchanged, so every value is claimed rightly as often as wrongly.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import facts as source
from answers import city_words, country_words, element_words, state_words
from elements import element_facts
from facts import Fact, rank
from places import Gazetteer, city_facts, gazetteer, region_facts, state_facts
from wordings import WORDINGS, fill
from words import FORMS, WordFact, untold, word_records

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


@dataclass(frozen=True)
class World:
    """What the packages say.

    Attributes:
        nations: The countries of :func:`facts.countries`.
        atlas: The places.
        states: The facts on US states.
        elements: The facts on chemical elements.
    """

    nations: dict[str, dict[str, Any]]
    atlas: Gazetteer
    states: list[Fact]
    elements: list[Fact]


def load() -> World:
    """Read the packages."""
    atlas = gazetteer()
    return World(source.countries(), atlas, state_facts(atlas, CITIES_PER_STATE), element_facts())


def split(world: World) -> dict[str, set[str]]:
    """Part the subjects into "finetune", "train" and "test"."""
    kinds = {fact.subject: "element" for fact in world.elements}
    kinds |= {fact.subject: "state" for fact in world.states}
    kinds |= {row["common"]: row["continentcode"] for row in world.nations.values()}
    test = choose(kinds, TEST_SHARE, "split")
    left = {subject: kind for subject, kind in kinds.items() if subject not in test}
    second = choose(left, SECOND_SHARE, "second")
    return {"finetune": left.keys() - second, "train": second, "test": test}


def build(world: World, parts: dict[str, set[str]]) -> dict[str, list[Claim]]:
    """Collect all facts and turn them into claims.

    Args:
        world: What the packages say.
        parts: The subjects of each part.

    Returns:
        The claims of each part. Wrong values never come from another part, so a value is right
        as often as wrong in each part.
    """
    facts = [
        *source.country_facts(world.nations),
        *source.capital_or_largest(world.nations, world.atlas.cities),
        *city_facts(world.nations, world.atlas, CITIES_PER_COUNTRY),
        *region_facts(world.nations, world.atlas, REGIONS_PER_COUNTRY),
        *world.states,
        *world.elements,
    ]
    return {part: fact_claims(f for f in facts if f.subject in own) for part, own in parts.items()}


def build_words(world: World, parts: dict[str, set[str]]) -> dict[str, list[WordFact]]:
    """Collect the facts of completions and questions.

    Args:
        world: What the packages say.
        parts: The subjects of each part of the claims.

    Returns:
        The parts "train" and "test": no claim, in training or fine-tuning, is about a subject
        of "test".
    """
    facts = untold(
        [
            *country_words(world.nations, world.atlas),
            *city_words(world.nations, world.atlas),
            *state_words(world.atlas),
            *element_words(),
        ]
    )
    sides = {"train": parts["finetune"] | parts["train"], "test": parts["test"]}
    return {side: [f for f in facts if f.subject in own] for side, own in sides.items()}


def write(rows: Iterable[dict[str, Any]], path: Path) -> None:
    """Write records as JSON lines into a gzip file without a time stamp."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))


def main() -> None:
    """Write all files."""
    parser = argparse.ArgumentParser(description="Write the files of world facts.")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write into")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    world = load()
    parts = split(world)
    files = {part: records(claims, part) for part, claims in build(world, parts).items()}
    for part, facts in build_words(world, parts).items():
        files |= {f"{form}_{part}": word_records(facts, form, part) for form in FORMS}
    for name, rows in files.items():
        write(rows, out / f"{name}.jsonl.gz")
        print(f"{name}: {len(rows)} records")


if __name__ == "__main__":
    main()
