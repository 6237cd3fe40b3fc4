"""The wordings of unfinished statements, by relation; they end where the answer begins.

``{a}`` is what is asked about, ``{own}`` its possessive, ``{protons}`` a number of protons.
The wordings of one relation have the same answer.
"""

from __future__ import annotations

COMPLETIONS: dict[str, tuple[str, ...]] = {
    "capital": (
        "The capital of {a} is",
        "{own} capital city is called",
        "The city that serves as the capital of {a} is",
        "The name of the national capital of {a} is",
        "As its capital, {a} has the city of",
    ),
    "capital_country": (
        "The country whose capital is {a} is",
        "{a} is the national capital of",
        "The country that has {a} as its capital is",
        "The city of {a} serves as the national capital of",
        "The name of the country with {a} as its capital is",
    ),
    "continent": (
        "{a} belongs to the continent of",
        "The continent that {a} is part of is",
        "The continent in which {a} is located is",
        "Geographers count {a} as part of the continent of",
        "The name of the continent to which {a} belongs is",
    ),
    "currency": (
        "The currency of {a} is the",
        "{own} official currency is the",
        "The money used in {a} is called the",
        "The currency that people in {a} pay with is the",
        "The name of the currency used in {a} is the",
    ),
    "official_language": (
        "The official language of {a} is",
        "{own} official language is",
        "The language with official status in {a} is",
        "The name of the official language of {a} is",
        "The language that is official throughout {a} is",
    ),
    "main_language": (
        "The main language of {a} is",
        "Most people in {a} speak",
        "The language most widely spoken in {a} is",
        "The dominant language in {a} is",
        "{own} main language is",
    ),
    "internet_domain": (
        "The internet domain of {a} is",
        "The country code top-level domain of {a} is",
        "Web addresses from {a} often end in",
        "{own} top-level internet domain is",
        "The top-level domain assigned to {a} is",
    ),
    "domain_country": (
        "The country with the internet domain {a} is",
        "The top-level internet domain {a} belongs to",
        "The country whose national websites use the domain {a} is",
        "The country code top-level domain {a} is assigned to",
        "The country that the internet domain {a} stands for is",
    ),
    "calling_code": (
        "The international calling code of {a} is",
        "The telephone country code of {a} is",
        "To call someone in {a} from abroad, the country code to dial is",
        "{own} international dialing code is",
        "The country code for phone calls to {a} is",
    ),
    "iso_code": (
        "The three-letter ISO country code of {a} is",
        "The ISO 3166 alpha-3 code of {a} is",
        "In the ISO 3166 standard, {a} has the three-letter code",
        "{own} three-letter ISO code is",
        "The three-letter code that ISO assigns to {a} is",
    ),
    "largest_city": (
        "The largest city in {a} is",
        "The most populous city of {a} is",
        "{own} largest city by population is",
        "The city with the most inhabitants in {a} is",
        "The name of the largest city in {a} is",
    ),
    "only_neighbor": (
        "The only country that borders {a} is",
        "The only country that has a land border with {a} is",
        "{own} only neighbor by land is",
        "The one country that shares a land border with {a} is",
    ),
    "city_country": (
        "The country in which {a} is located is",
        "The city of {a} lies within the national borders of",
        "The country that the city of {a} belongs to is",
        "The country where the city of {a} is found is",
        "The name of the country that is home to the city of {a} is",
    ),
    "city_state": (
        "The US state in which {a} is located is",
        "The American city of {a} is located in the state of",
        "{a} is a city in the US state of",
        "The US state that the city of {a} belongs to is",
        "The name of the US state where the city of {a} is found is",
    ),
    "state_largest_city": (
        "The largest city in the US state of {a} is",
        "The most populous city of the US state of {a} is",
        "The city with the most inhabitants in the US state of {a} is",
        "In the US state of {a}, the largest city is",
        "The name of the largest city in the US state of {a} is",
    ),
    "postal_code": (
        "The postal abbreviation of the US state of {a} is",
        "The two-letter postal abbreviation for the US state of {a} is",
        "In US mail addresses, the state of {a} is abbreviated as",
        "The US Postal Service abbreviates the state of {a} as",
        "The two letters that stand for the state of {a} in US mail addresses are",
    ),
    "code_state": (
        "The US state with the postal abbreviation {a} is",
        "In US mail addresses, {a} stands for the state of",
        "The postal abbreviation {a} belongs to the US state of",
        "The US Postal Service uses the abbreviation {a} for the state of",
        "The US state that is abbreviated as {a} in mail addresses is",
    ),
    "symbol": (
        "The chemical symbol for {a} is",
        "The symbol that chemists use for the element {a} is",
        "The element {a} has the chemical symbol",
        "The periodic table lists {a} under the symbol",
        "The chemical symbol of the element {a} is",
    ),
    "symbol_element": (
        "The chemical element with the symbol {a} is",
        "The chemical symbol {a} stands for the element",
        "The element that chemists write as {a} is",
        "The name of the element with the chemical symbol {a} is",
        "In the periodic table, the symbol {a} belongs to the element",
    ),
    "atomic_number": (
        "The atomic number of {a} is",
        "The element {a} has the atomic number",
        "The number of protons in an atom of {a} is",
        "In the periodic table, {a} is element number",
        "The atomic number of the element {a} is",
    ),
    "number_element": (
        "The element with atomic number {a} is",
        "The chemical element whose atomic number is {a} is",
        "The element whose atoms have exactly {protons} is",
        "The name of the element with atomic number {a} is",
        "In the periodic table, atomic number {a} belongs to the element",
    ),
    "period": (
        "In the periodic table, {a} is in period",
        "The element {a} belongs to period",
        "The periodic table lists {a} in period number",
        "The number of the period that contains {a} in the periodic table is",
        "The period of the periodic table in which {a} stands is number",
    ),
}
"""Relation to its unfinished statements."""
