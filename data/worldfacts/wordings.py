"""The wordings of every relation: ``{a}`` is the holder, ``{b}`` the value.

The wordings of one relation mean the same, for right and for wrong values alike. They differ in
structure (plain, possessive, inverted, cleft, passive), not only in single words.
"""

from __future__ import annotations

WORDINGS: dict[str, tuple[str, ...]] = {
    "capital": (
        "{b} is the capital of {a}.",
        "The capital city of {a} is {b}.",
        "It is {b} that serves as the capital of {a}.",
        "{a} has {b} as its capital.",
        "As its national capital, {a} has {b}.",
        "The capital of {a} is the city of {b}.",
    ),
    "largest_city": (
        "{b} is the largest city in {a}.",
        "The most populous city of {a} is {b}.",
        "It is {b} that is the biggest city in {a}.",
        "No city in {a} has more inhabitants than {b}.",
        "{a} has {b} as its most populous city.",
    ),
    "continent": (
        "{a} is a country in {b}.",
        "{a} lies on the continent of {b}.",
        "The continent on which {a} is found is {b}.",
        "It is in {b} that {a} is located.",
        "Among the countries of {b} is {a}.",
        "{b} is the continent to which {a} belongs.",
    ),
    "currency": (
        "The currency of {a} is the {b}.",
        "{a} uses the {b} as its currency.",
        "It is the {b} that people in {a} pay with.",
        "The {b} is the official money of {a}.",
        "In {a}, the currency is the {b}.",
        "The {b} is used as the currency of {a}.",
    ),
    "main_language": (
        "The main language of {a} is {b}.",
        "{b} is the main language spoken in {a}.",
        "It is {b} that is chiefly spoken in {a}.",
        "In {a}, the dominant language is {b}.",
        "{a} has {b} as its main language.",
        "Most widely spoken in {a} is {b}.",
    ),
    "internet_domain": (
        "The internet domain of {a} is {b}.",
        "{b} is the national internet domain of {a}.",
        "It is {b} that national web addresses of {a} end in.",
        "{a} has {b} as its top-level internet domain.",
        "The national top-level domain {b} belongs to {a}.",
    ),
    "city_country": (
        "{a} is a city in {b}.",
        "The city of {a} is located in {b}.",
        "The country in which {a} lies is {b}.",
        "It is in {b} that the city of {a} is found.",
        "One of the cities of {b} is {a}.",
        "{b} has a city called {a}.",
    ),
    "city_continent": (
        "{a} is a city in {b}.",
        "The city of {a} lies on the continent of {b}.",
        "The continent on which the city of {a} is found is {b}.",
        "It is in {b} that the city of {a} is located.",
        "Among the cities of {b} is {a}.",
        "{b} is the continent that has {a} among its cities.",
    ),
    "region_country": (
        "{a} is a region of {b}.",
        "The region of {a} belongs to {b}.",
        "The country that {a} is part of is {b}.",
        "It is in {b} that the region of {a} is found.",
        "One of the regions of {b} is {a}.",
        "{b} has a region called {a}.",
    ),
    "city_state": (
        "{a} is a city in the US state of {b}.",
        "The American city of {a} is located in the state of {b}.",
        "The US state in which {a} lies is {b}.",
        "It is in the US state of {b} that {a} is found.",
        "One of the cities of the US state of {b} is {a}.",
        "The US state of {b} has a city called {a}.",
    ),
    "postal_code": (
        "The postal abbreviation of the US state of {a} is {b}.",
        "{b} is the postal abbreviation of the US state of {a}.",
        "It is {b} that stands for the US state of {a} in postal addresses.",
        "The US state of {a} is abbreviated {b} in postal addresses.",
        "In postal addresses, {b} is short for the US state of {a}.",
    ),
    "symbol": (
        "The chemical symbol of {a} is {b}.",
        "{b} is the symbol for the element {a}.",
        "It is {b} that stands for {a} in the periodic table.",
        "In chemical formulas, {a} is written as {b}.",
        "The element {a} has {b} as its chemical symbol.",
        "{b} is short for {a} in chemistry.",
    ),
    "category": (
        "{a} is {b}.",
        "The element {a} belongs to the {c}.",
        "Among the {c} is the element {a}.",
        "It is to the {c} that {a} belongs.",
        "{a} is classified as {b}.",
        "The {c} include {a}.",
    ),
}
"""Relation to its wordings; ``{c}`` is the plural of the value (relation ``category``)."""


def fill(template: str, holder: str, value: str) -> str:
    """Put holder and value into a wording and start it with a capital letter.

    Args:
        template: A wording of :data:`WORDINGS`.
        holder: What the claim is about.
        value: What the claim says of it.

    Returns:
        The sentence.
    """
    kind = value.removeprefix("an ").removeprefix("a ")
    plural = kind + ("es" if kind.endswith("s") else "s")
    text = template.format(a=holder, b=value, c=plural)
    return text[:1].upper() + text[1:]
