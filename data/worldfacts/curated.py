"""Hand-kept lists: which subjects are left out, and which names are changed.

They only take facts away or make a name plainer; no fact comes from here.
"""

from __future__ import annotations


def words(text: str) -> frozenset[str]:
    """Split a text at white space."""
    return frozenset(text.split())


TERRITORIES = words(
    """
    AI AN AQ AS AW AX BL BM BQ BV CC CK CS CW CX EH FK FO GF GG GI GL GP GS GU HK HM IM IO JE
    KY MF MO MP MQ MS NC NF NU PF PM PN PR PS RE SH SJ SX TC TF TK TW UM VA VG VI WF XK YT
    """
)
"""Not a member state of the United Nations, or gone: no claims about them."""

NAMES = {
    "CV": "Cape Verde",
    "KN": "Saint Kitts and Nevis",
    "NL": "Netherlands",
    "TL": "East Timor",
    "MM": "Myanmar",
}
"""Common names where those of the package differ."""

ARTICLES = words("AE BS CD CF CG DO GB GM KM MH MV NL PH SB US")
"""Countries with "the" before the name."""

CAPITAL_NAMES = {
    "BR": "Brasília",
    "CM": "Yaoundé",
    "CO": "Bogotá",
    "CR": "San José",
    "MM": "Naypyidaw",
    "MV": "Malé",
    "PY": "Asunción",
    "TG": "Lomé",
    "US": "Washington, D.C.",
}
"""Capitals whose names the package writes without accents or in another form."""

NO_CAPITAL = words("BI BJ BO CI GQ ID IL KI KZ LK NR PW ST SZ YE ZA")
"""Several capitals, a new or disputed one, or an unclear name."""

NO_CONTINENT = words("AM AZ CY EG GE ID KZ RU TR TT")
"""In two continents, or counted to one or the other."""

NO_CURRENCY = words("BG BT LS NA PA SV SZ ZW")
"""Two currencies, or a recent change."""

CURRENCY_NAMES = {
    "AZ": "manat",
    "BY": "ruble",
    "CN": "yuan",
    "KH": "riel",
    "QA": "riyal",
    "SA": "riyal",
    "VE": "bolivar",
}
"""Currency names in one word."""

LIKE_CURRENCIES = (
    {"krona", "krone", "koruna"},
    {"leu", "lev"},
    {"rial", "riyal", "real"},
    {"rupee", "rupiah", "rufiyaa"},
    {"dinar", "denar"},
    {"pound", "lira"},
    {"som", "somoni"},
    {"bolivar", "boliviano"},
)
"""Names so near to each other that a wrong claim with one may count as right."""

LANGUAGE_NAMES = {"Haitian": "Haitian Creole", "Kirghiz": "Kyrgyz", "Divehi": "Dhivehi"}
"""Language names as English texts write them."""

NO_LANGUAGE = words(
    """
    AF BF BI BJ BW BY BZ CD CF CG CI CM DJ ER ET FJ FM GA GH GM GN GQ GW IL IN KE KI KM KZ LR
    LS LU ME MG MH ML MR MT MU MW MZ CV NA NE NG NR PG PH PK PW RW SB SC SG SL SN SS SZ TD TG
    TL TO TV TZ UG VU WS ZA ZM ZW AO ST DM LC GD
    """
)
"""The first language of the list is not clearly the main one."""

LIKE_LANGUAGES = (
    {"Bosnian", "Serbian", "Croatian", "Montenegrin"},
    {"Malay", "Indonesian"},
    {"Persian", "Tajik"},
)
"""Languages that may count as one."""

OTHER_LARGEST = words("AU BR BZ CA CH CN MA MM NG NZ PK TR US VN")
"""Countries whose most populous city is beyond doubt not the capital."""

CITY_NAMES = {
    "Brugge": "Bruges",
    "Frankfurt am Main": "Frankfurt",
    "Gent": "Ghent",
    "Gonder": "Gondar",
    "Hargeysa": "Hargeisa",
    "Homyel'": "Homyel",
    "Iaşi": "Iași",
    "Köln": "Cologne",
    "Kryvyy Rih": "Kryvyi Rih",
    "León de los Aldama": "León",
    "Makkah": "Mecca",
    "Madinah": "Medina",
    "Nay Pyi Taw": "Naypyidaw",
    "Nizhniy Novgorod": "Nizhny Novgorod",
    "Santiago de Querétaro": "Querétaro",
    "Sevilla": "Seville",
    "Ulan Bator": "Ulaanbaatar",
    "Zaporizhzhya": "Zaporizhzhia",
    "Århus": "Aarhus",
}
"""City names as English texts write them."""

NO_CITIES = {"IL"}
"""Countries without claims about cities."""

SAME_GROUND = ({"GB", "IE"}, {"IN", "PK"}, {"CD", "CG"}, {"SD", "SS"}, {"KP", "KR"}, {"UA", "RU"})
"""Pairs of countries never used as right and wrong for a place (claims on land, like names)."""

NOT_CITIES = words(
    """
    Puxi Pudong Wuzhong Brooklyn Queens Manhattan Bronx Sevastopol Simferopol Donetsk Luhansk
    Enterprise Paradise Metairie Maryvale Cypress Hollywood Meads Chinatown Harlem Koreatown
    Kerch Makiyivka Jamaica Astoria Latkrabang Budta Winejok Mohammadpur Atsiaman Katabi Njeru
    Bimbo Yawnghwe Calumbo Tiraspol Hargeisa Borama Berbera Ramiros Shibganj Esna Evaton Mwala
    Warder Esenyurt Natore
    """
) | {
    "The Bronx",
    "Staten Island",
    "Spring Valley",
    "Sunrise Manor",
    "East Los Angeles",
    "South Boston",
    "Van Nuys",
    "Universal City",
    "Deer Valley",
    "South Fulton",
    "Borough Park",
    "East Flatbush",
    "East Harlem",
    "East New York",
    "Sunset Park",
    "Upper West Side",
    "Washington Heights",
    "Sheepshead Bay",
    "Tri-Cities",
    "East Hampton",
    "Lexington-Fayette",
    "Marne La Vallée",
    "New South Memphis",
    "Pravyi Bereh",
    "Kota Kuala Muda",
    "El Dibir",
    "Jebel Ali",
}
"""Parts of cities that the package lists as cities, and places on disputed land."""

NO_STATES = {"GA", "DC"}
"""Georgia shares its name with a country; the District of Columbia is not a state."""

REGION_COUNTRIES = words(
    """
    AO AR AT AU BO BR CA CH CL CO CR CU DE EC ES ET GH GT HN IN IT JP KE MG MX MY MZ NG NI
    NP NZ PE PK PL PT PY RO SV SE TR US UY VE ZA ZM ZW BD BG CD DZ PH TH TZ
    SN ML NE
    """
)
"""Countries whose first-level divisions have names that read well in English."""

NOT_REGIONS = words(
    """
    Rivers Delta Plateau Plateaux Plains Lakes Mara Coast Central Centre Eastern Western
    Northern Southern Centrale Azad Maritime Savanes Jammu
    """
)
"""Region names that read like plain words."""

NO_CATEGORY = {30, 34, 48, 71, 80, 83, 84, 85, 103, *range(104, 119)}
"""Their categories are debated or unknown."""
