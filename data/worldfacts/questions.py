"""The wordings of questions, by relation.

``{a}`` is what is asked about, ``{own}`` its possessive, ``{protons}`` a number of protons.
The wordings of one relation have the same answer.
"""

from __future__ import annotations

QUESTIONS: dict[str, tuple[str, ...]] = {
    "capital": (
        "What is the capital of {a}?",
        "Which city is the capital of {a}?",
        "What is {own} capital city called?",
        "What is the name of the national capital of {a}?",
        "Which city serves as the capital of {a}?",
    ),
    "capital_country": (
        "Which country has {a} as its capital?",
        "{a} is the capital of which country?",
        "Of which country is {a} the capital?",
        "What is the name of the country whose capital is {a}?",
        "What country has its national capital in {a}?",
    ),
    "continent": (
        "Which continent does {a} belong to?",
        "What continent is {a} part of?",
        "To which continent does {a} belong?",
        "In which continent is {a} located?",
        "What is the name of the continent that {a} belongs to?",
    ),
    "currency": (
        "What is the currency of {a}?",
        "Which currency is used in {a}?",
        "What currency do people in {a} pay with?",
        "What is {own} official currency called?",
        "What is the money used in {a} called?",
    ),
    "official_language": (
        "What is the official language of {a}?",
        "Which language is official in {a}?",
        "What language has official status in {a}?",
        "What is {own} official language?",
        "What is the name of the official language of {a}?",
    ),
    "main_language": (
        "What is the main language of {a}?",
        "Which language is most widely spoken in {a}?",
        "What language do most people in {a} speak?",
        "What is the dominant language in {a}?",
        "What is {own} main language?",
    ),
    "internet_domain": (
        "What is the internet domain of {a}?",
        "Which top-level internet domain belongs to {a}?",
        "What is the country code top-level domain of {a}?",
        "Which top-level domain is assigned to {a}?",
        "What is {own} top-level internet domain?",
    ),
    "domain_country": (
        "Which country has the internet domain {a}?",
        "To which country does the top-level domain {a} belong?",
        "What country is the top-level domain {a} assigned to?",
        "Which country's national websites use the domain {a}?",
        "What country does the internet domain {a} stand for?",
    ),
    "calling_code": (
        "What is the international calling code of {a}?",
        "What is the telephone country code of {a}?",
        "Which country code do you dial to call {a} from abroad?",
        "What is {own} international dialing code?",
        "What is the country code for phone calls to {a}?",
    ),
    "iso_code": (
        "What is the three-letter ISO country code of {a}?",
        "What is the ISO 3166 alpha-3 code of {a}?",
        "Which three-letter code does {a} have in the ISO 3166 standard?",
        "What is {own} three-letter ISO code?",
        "Which three-letter code does ISO assign to {a}?",
    ),
    "largest_city": (
        "What is the largest city in {a}?",
        "Which city is the most populous of {a}?",
        "What is {own} largest city by population?",
        "Which city in {a} has the most inhabitants?",
        "What is the name of the largest city in {a}?",
    ),
    "only_neighbor": (
        "Which country is the only one that borders {a}?",
        "What is the only country that has a land border with {a}?",
        "What is {own} only neighbor by land?",
        "Which one country shares a land border with {a}?",
    ),
    "city_country": (
        "In which country is the city of {a} located?",
        "What country is the city of {a} in?",
        "Which country does the city of {a} belong to?",
        "In what country would you find the city of {a}?",
        "What is the name of the country that is home to the city of {a}?",
    ),
    "city_state": (
        "In which US state is {a} located?",
        "What US state is the city of {a} in?",
        "Which US state does the city of {a} belong to?",
        "In what state of the USA would you find the city of {a}?",
        "What is the name of the US state that is home to the city of {a}?",
    ),
    "state_largest_city": (
        "What is the largest city in the US state of {a}?",
        "Which city is the most populous of the US state of {a}?",
        "Which city in the US state of {a} has the most inhabitants?",
        "In the US state of {a}, what is the largest city?",
        "What is the name of the largest city in the US state of {a}?",
    ),
    "postal_code": (
        "What is the postal abbreviation of the US state of {a}?",
        "What is the two-letter postal abbreviation for the US state of {a}?",
        "How is the state of {a} abbreviated in US mail addresses?",
        "Which abbreviation does the US Postal Service use for the state of {a}?",
        "Which two letters stand for the state of {a} in US mail addresses?",
    ),
    "code_state": (
        "Which US state has the postal abbreviation {a}?",
        "What state does {a} stand for in US mail addresses?",
        "To which US state does the postal abbreviation {a} belong?",
        "For which state does the US Postal Service use the abbreviation {a}?",
        "Which US state is abbreviated as {a} in mail addresses?",
    ),
    "symbol": (
        "What is the chemical symbol for {a}?",
        "What symbol do chemists use for the element {a}?",
        "Which chemical symbol does the element {a} have?",
        "Under which symbol does the periodic table list {a}?",
        "What is the chemical symbol of the element {a}?",
    ),
    "symbol_element": (
        "Which chemical element has the symbol {a}?",
        "What element does the chemical symbol {a} stand for?",
        "Which element do chemists write as {a}?",
        "What is the name of the element with the chemical symbol {a}?",
        "To which element does the symbol {a} in the periodic table belong?",
    ),
    "atomic_number": (
        "What is the atomic number of {a}?",
        "Which atomic number does the element {a} have?",
        "How many protons are there in an atom of {a}?",
        "What number does {a} have in the periodic table?",
        "What is the atomic number of the element {a}?",
    ),
    "number_element": (
        "Which element has atomic number {a}?",
        "What is the chemical element whose atomic number is {a}?",
        "Which element has atoms with exactly {protons}?",
        "What is the name of the element with atomic number {a}?",
        "To which element does atomic number {a} in the periodic table belong?",
    ),
    "period": (
        "Which period of the periodic table is {a} in?",
        "To which period of the periodic table does the element {a} belong?",
        "In which period does the periodic table list {a}?",
        "What is the number of the period that contains {a} in the periodic table?",
        "In what period of the periodic table does {a} stand?",
    ),
}
"""Relation to its questions."""
