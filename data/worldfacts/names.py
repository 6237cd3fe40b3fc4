"""Hand-kept lists for completions and questions: other accepted names, and what is not asked.

Like those of ``curated.py``, they only leave facts out or spell a name in other ways.
"""

from __future__ import annotations

from curated import words


def _table(text: str) -> dict[str, tuple[str, ...]]:
    """Read lines like ``key: name; other name``."""
    rows = (line.split(":", 1) for line in text.strip().splitlines())
    return {key.strip(): tuple(n.strip() for n in names.split(";")) for key, names in rows}


HOLDERS = {"FM": "the Federated States of Micronesia", "GE": "the country of Georgia"}
"""Countries whose common name alone would be unclear in a question."""

NOT_AN_ANSWER = words("CG VC")
"""Countries without a clear name of at most four words."""

SHORT_COUNTRIES = {"CD": "DR Congo"}
"""Countries whose name is too long for an answer."""

COUNTRIES = _table(
    """
    AE: the UAE; UAE
    AG: Antigua
    BA: Bosnia; Bosnia-Herzegovina
    BN: Brunei Darussalam
    CD: the DRC; DRC; Democratic Republic of the Congo; Congo-Kinshasa
    CI: Côte d'Ivoire; Cote d'Ivoire
    CN: People's Republic of China
    CV: Cabo Verde
    CZ: Czech Republic; the Czech Republic
    FM: Federated States of Micronesia
    GB: the UK; UK; Great Britain; Britain
    IE: Republic of Ireland
    KN: St. Kitts and Nevis
    LC: St. Lucia
    MK: Macedonia
    MM: Burma
    NL: Holland
    RU: Russian Federation
    ST: São Tomé and Príncipe
    SZ: Swaziland
    TL: Timor-Leste; Timor Leste
    TR: Türkiye; Turkiye
    TT: Trinidad
    US: the USA; USA; the US; US; United States of America; America
    VN: Viet Nam
    """
)
"""Other names of countries by code; forms with and without "the" come by themselves."""

CITIES = _table(
    """
    Andijon: Andijan
    Birgañj: Birgunj
    Awasa: Hawassa
    Bengaluru: Bengaluru; Bangalore
    Bern: Bern; Berne
    Braşov: Brașov
    Chattogram: Chittagong; Chattogram
    Chisinau: Chisinau; Chișinău
    Cần Thơ: Can Tho
    Constanţa: Constanța
    Daşoguz: Dashoguz
    Fes: Fez
    Hamhŭng: Hamhung
    Homyel: Gomel
    Homyel': Gomel
    Hrodna: Grodno
    Huế: Hue
    İzmir: Izmir
    Kaesŏng: Kaesong
    Kraków: Kraków; Cracow; Krakow
    Kyiv: Kyiv; Kiev
    Kŭlob: Kulob
    Mek'ele: Mekelle
    Montréal: Montreal
    N'Djamena: N'Djamena; Ndjamena
    Naypyidaw: Naypyidaw; Nay Pyi Taw
    Nay Pyi Taw: Naypyidaw; Nay Pyi Taw
    New York City: New York City; New York
    Nuku'alofa: Nuku'alofa; Nukualofa
    Reykjavík: Reykjavik; Reykjavík
    Saint Petersburg: Saint Petersburg; St. Petersburg
    Sanaa: Sanaa; Sana'a
    St. George's: St. George's; Saint George's
    St. John's: St. John's; Saint John's
    Thessaloníki: Thessaloniki
    Türkmenabat: Turkmenabat
    Ulaanbaatar: Ulaanbaatar; Ulan Bator
    Ulan Bator: Ulaanbaatar; Ulan Bator
    Ho Chi Minh City: Ho Chi Minh City; Saigon
    Wŏnsan: Wonsan
    Washington, D.C.: Washington; Washington, D.C.; Washington D.C.; Washington DC
    Zürich: Zurich; Zürich
    """
)
"""Names of cities, best first; forms without accents come by themselves."""

NO_CONTINENT = words("AU TL")
"""Its own continent, or counted to another one than GeoNames does."""

NOT_UNIQUE_CAPITALS = words("AG SC")
"""Capitals that share their name with another well-known capital (St. John's, Victoria)."""

NOT_LARGEST = words("BE IL KW OM PH")
"""Which city is the largest hangs on where its limits are drawn."""

NOT_ASKED = words(
    """
    Birmingham Bo Cuenca Constantine Córdoba Danlí Dessalines Isfara Istaravshan Jijiga Kakamega
    Konibodom Manéah Marka Ruiru Seeb Takeo Tete Touba Trujillo Yei Zliten
    Edison Jonesboro Waldorf
    """
) | {"Ecatepec de Morelos", "Puente Alto", "Toms River", "Rock Hill", "Al Khums"}
"""Cities that are little known, parts of others, or share their name with a known place."""

MAIN_LANGUAGES = words("AU CA CH CY DZ EC FI GB HT IE IQ KG LK MA MK MX NZ PE SO US VE")
"""Not just one official language by law, but one that most people speak."""

OFFICIAL_LANGUAGES = words(
    """
    AD AE AG AL AM AO AR AT AZ BB BD BG BH BJ BN BR BS BT CG CI CL CN CO CR CU CV CZ DE DK DM DO
    EE EG ES FR GA GD GE GH GM GN GR GT GW GY HN HR HU ID IR IS IT JM JO JP KH KN KP KR KW LA LB
    LC LI LR LT LV LY MC MD MN MM MR MV MY MZ NA NG NI NL NP OM PA PL PT QA RO RS RU SA SE SI SK
    SL SM SN SR ST SV SY TG TH TJ TM TN TR TT UA UY UZ VC VN YE ZM
    """
)
"""One official language for the whole country, the first that GeoNames lists."""

LANGUAGES = _table(
    """
    Azerbaijani: Azeri
    Bengali: Bangla
    Burmese: Myanmar
    Chinese: Mandarin; Mandarin Chinese; Standard Chinese
    Dhivehi: Divehi; Maldivian
    Haitian Creole: Creole; Haitian
    Indonesian: Bahasa Indonesia
    Khmer: Cambodian
    Kyrgyz: Kirghiz
    Lao: Laotian
    Malay: Bahasa Melayu; Bahasa Malaysia
    Persian: Farsi
    Sinhala: Sinhalese
    Slovenian: Slovene
    Spanish: Castilian
    Tajik: Tajiki
    """
)
"""Other names of languages."""

CURRENCIES = _table(
    """
    AED: UAE dirham; Emirati dirham; dirham
    BAM: convertible mark; Bosnian convertible mark; Bosnia and Herzegovina convertible mark; marka
    CNY: yuan; renminbi; Chinese yuan; yuan renminbi
    CRC: colon; colón; Costa Rican colón; Costa Rican colon
    GBP: pound sterling; British pound; pound; sterling
    GTQ: quetzal; Guatemalan quetzal
    ILS: shekel; new shekel; Israeli shekel; Israeli new shekel
    ISK: Icelandic krona; Icelandic króna; krona; króna
    NIO: cordoba; córdoba; Nicaraguan córdoba; Nicaraguan cordoba
    PLN: zloty; złoty; Polish zloty; Polish złoty
    PYG: guarani; guaraní; Paraguayan guaraní; Paraguayan guarani
    TMT: Turkmenistan manat; Turkmenistani manat; Turkmen manat; manat
    USD: US dollar; U.S. dollar; United States dollar; American dollar; dollar
    UZS: Uzbekistani som; Uzbek som; som; sum
    VES: bolivar; bolívar; Venezuelan bolívar; Venezuelan bolivar
    XAF: CFA franc; Central African CFA franc; franc
    XCD: East Caribbean dollar; dollar
    XOF: CFA franc; West African CFA franc; franc
    """
)
"""Names of currencies by code, best first, where the general rule does not do."""

ADJECTIVES = _table(
    """
    AFN: Afghan
    ALL: Albanian
    AOA: Angolan
    AZN: Azerbaijani; Azerbaijan
    BBD: Barbadian; Barbados
    BDT: Bangladeshi
    BIF: Burundian; Burundi
    BOB: Bolivian
    BWP: Botswana
    CVE: Cape Verdean; Cabo Verde
    DJF: Djiboutian; Djibouti
    ERN: Eritrean
    FJD: Fijian; Fiji
    GEL: Georgian
    GHS: Ghanaian; Ghana
    GMD: Gambian
    GYD: Guyanese; Guyana
    HNL: Honduran
    HTG: Haitian
    HUF: Hungarian
    IDR: Indonesian
    JPY: Japanese
    KGS: Kyrgyzstani; Kyrgyz
    KHR: Cambodian
    KMF: Comorian; Comoran
    KRW: South Korean; Korean
    KZT: Kazakhstani; Kazakh
    LKR: Sri Lankan; Sri Lanka
    MKD: Macedonian
    MMK: Burmese; Myanmar
    MNT: Mongolian
    MRU: Mauritanian
    MUR: Mauritian; Mauritius
    MVR: Maldivian
    MWK: Malawian; Malawi
    MZN: Mozambican; Mozambique
    NGN: Nigerian
    NPR: Nepalese; Nepali
    OMR: Omani
    PEN: Peruvian
    PGK: Papua New Guinean
    PKR: Pakistani; Pakistan
    QAR: Qatari
    RWF: Rwandan; Rwanda
    SCR: Seychellois; Seychelles
    SRD: Surinamese; Suriname
    STN: São Tomé and Príncipe
    THB: Thai
    TJS: Tajikistani; Tajik
    TOP: Tongan
    UAH: Ukrainian
    UGX: Ugandan; Uganda
    UYU: Uruguayan
    VND: Vietnamese
    VUV: Vanuatu
    WST: Samoan
    ZAR: South African
    ZMW: Zambian
    """
)
"""What stands before the name of a currency, by code, best first."""

ELEMENTS = _table(
    """
    aluminum: aluminium
    cesium: caesium
    sulfur: sulphur
    tungsten: wolfram
    """
)
"""Other names of elements."""

ONLY_NEIGHBORS = words("BN DO GM HT IE KR LS MC PG PT QA SM TL")
"""Countries that border on one country only, with no overseas part that borders on another."""
