"""Word lists of the rule-based rewriter.

The tables are curated, not learned: an entry is here only when the two sides are near-exact synonyms
in plain English, so that swapping them cannot change an entailment label. Hypernyms, hyponyms,
quantifiers and numbers are left out on purpose, and so is every word that is ambiguous in a way the
simple neighbour checks in ``rewrite_words`` cannot see.

Notation of the pair tables: ``a <> b`` works in both directions, ``a > b`` only left to right, and
the inflected forms of one word are separated by ``|``.
"""

from __future__ import annotations

from typing import Final


def _words(text: str) -> frozenset[str]:
    """Splits a block of words; ``_`` stands for a blank inside a multi-word entry."""
    return frozenset(word.replace("_", " ") for word in text.split())


# singular|plural
NOUN_PAIRS: Final = (
    "child|children <> kid|kids",
    "sofa|sofas <> couch|couches",
    "bicycle|bicycles > bike|bikes",
    "bicyclist|bicyclists <> cyclist|cyclists",
    "photo|photos <> photograph|photographs",
    "movie|movies <> film|films",
    "motorcycle|motorcycles <> motorbike|motorbikes",
    "automobile|automobiles <> car|cars",
    "airplane|airplanes <> plane|planes",
    "lady|ladies <> woman|women",
    "guy|guys <> man|men",
    "infant|infants <> baby|babies",
    "mom|moms <> mother|mothers",
    "dad|dads <> father|fathers",
    "grandma|grandmas <> grandmother|grandmothers",
    "grandpa|grandpas <> grandfather|grandfathers",
    "individual|individuals > person|people",
    "person|persons > individual|individuals",
    "cop|cops <> police officer|police officers",
    "cellphone|cellphones <> cell phone|cell phones",
    "mobile phone|mobile phones <> cell phone|cell phones",
    "telephone|telephones <> phone|phones",
    "refrigerator|refrigerators <> fridge|fridges",
    "physician|physicians > doctor|doctors",
    "attorney|attorneys <> lawyer|lawyers",
    "apartment|apartments <> flat|flats",
    "rabbit|rabbits <> bunny|bunnies",
    "movie theater|movie theaters <> cinema|cinemas",
    "store|stores <> shop|shops",
    "television|televisions <> TV|TVs",
    "journey|journeys <> trip|trips",
    "error|errors <> mistake|mistakes",
    "aim|aims > goal|goals",
    "screenwriter|screenwriters <> scriptwriter|scriptwriters",
    "vocalist|vocalists <> singer|singers",
    "co-worker|co-workers <> colleague|colleagues",
)

# base|third person|past|participle|-ing
VERB_PAIRS: Final = (
    "begin|begins|began|begun|beginning <> start|starts|started|started|starting",
    "buy|buys|bought|bought|buying <> purchase|purchases|purchased|purchased|purchasing",
    "leap|leaps|leapt|leapt|leaping > jump|jumps|jumped|jumped|jumping",
    "hug|hugs|hugged|hugged|hugging > embrace|embraces|embraced|embraced|embracing",
    "yell|yells|yelled|yelled|yelling <> shout|shouts|shouted|shouted|shouting",
    "fix|fixes|fixed|fixed|fixing <> repair|repairs|repaired|repaired|repairing",
    "try to|tries to|tried to|tried to|trying to <> "
    "attempt to|attempts to|attempted to|attempted to|attempting to",
    "talk to|talks to|talked to|talked to|talking to <> "
    "speak to|speaks to|spoke to|spoken to|speaking to",
    "talk with|talks with|talked with|talked with|talking with <> "
    "speak with|speaks with|spoke with|spoken with|speaking with",
    "obtain|obtains|obtained|obtained|obtaining > get|gets|got|gotten|getting",
    "receive|receives|received|received|receiving > get|gets|got|gotten|getting",
    "allow|allows|allowed|allowed|allowing <> permit|permits|permitted|permitted|permitting",
    "occur|occurs|occurred|occurred|occurring > happen|happens|happened|happened|happening",
    "choose|chooses|chose|chosen|choosing <> select|selects|selected|selected|selecting",
    "utilize|utilizes|utilized|utilized|utilizing > use|uses|used|used|using",
    "construct|constructs|constructed|constructed|constructing <> build|builds|built|built|building",
    "portray|portrays|portrayed|portrayed|portraying > play|plays|played|played|playing",
    "assist|assists|assisted|assisted|assisting > help|helps|helped|helped|helping",
    "require|requires|required|required|requiring > need|needs|needed|needed|needing",
    "need to|needs to|needed to|needed to|needing to > "
    "have to|has to|had to|had to|having to",
    "want to|wants to|wanted to|wanted to|wanting to > "
    "wish to|wishes to|wished to|wished to|wishing to",
    "collaborate with|collaborates with|collaborated with|collaborated with|collaborating with > "
    "work with|works with|worked with|worked with|working with",
    "reside in|resides in|resided in|resided in|residing in <> "
    "live in|lives in|lived in|lived in|living in",
)

# (left side, right side, word the left neighbour must match, word the right neighbour must match);
# an empty pattern means "anything", "$" in a right pattern means the end of the clause.
_END = r"$|[.,!?;]"
_PEOPLE = r"boys?|girls?|child|children|kids?|dogs?"
_ELDER = r"man|men|woman|women|lady|ladies|person|people|couple|gentleman"
_PLACE_END = rf"{_END}|in|on|at|with|while|near|and|together|during|by"
_BE = r"is|are|was|were|be|been|isn't|aren't|wasn't|weren't|not"
_DATE = r"in|on"
PHRASES: Final = (
    ("next to", "beside", "", r"(?!each|last|impossible).*"),
    ("beside", "next to", "", ""),
    ("close to", "near", _BE + "|[a-z]+ing|[a-z]+s", r"an?|the|his|her|their|its|some|two"),
    ("near", "close to", "", r"an?|the|his|her|their|its|some|two"),
    ("on top of", "atop", "", r"an?|the|his|her|their|its|some|two|each"),
    ("atop", "on top of", "", ""),
    ("outside", "outdoors", r"(?!the|an?|from|from the).*", _PLACE_END),
    ("outdoors", "outside", r"(?!the|great).*", _PLACE_END),
    ("inside", "indoors", r"(?!the|an?|from).*", r"$|[.!?]|together|during|while"),
    ("indoors", "inside", "", _END),
    ("big", "large", r"an?|the|some|his|her|two|three|very", r"(?!brother|sister|deal|game|time).*"),
    ("large", "big", r"an?|the|some|his|her|two|three|very", r"[a-z]+s?"),
    ("little", "young", r"(?!very).*", _PEOPLE),
    ("young", "little", r"an?|the|two|three|several|some", r"boys?|girls?"),
    ("elderly", "old", "", _ELDER),
    ("old", "elderly", r"an?|the|two|three|several|some", _ELDER),
    ("a picture", "a photo", r"take|takes|took|taken|taking", r"(?!frame|book).*"),
    ("pictures", "photos", r"take|takes|took|taken|taking", ""),
    ("jumping", "leaping", _BE, r"over|into|off|through|across"),
    ("a group of people", "a group of individuals", "", ""),
    ("asleep", "sleeping", _BE, _PLACE_END),
    ("sleeping", "asleep", _BE, _PLACE_END),
    ("sitting", "seated", r"is|are|was|were", r"on|in|at|next|beside|near"),
    ("seated", "sitting", r"is|are|was|were", r"on|in|at|next|beside|near|down"),
    ("laying", "lying", r"is|are|was|were|man|woman|dog|people", r"on|in|down|under|beside"),
    ("rapidly", "quickly", "", ""),
    ("quickly", "rapidly", "", ""),
    ("often", "frequently", r"(?!how|more|very|too|so|as).*", ""),
    ("frequently", "often", r"(?!how|more|very|too|so|as).*", ""),
    ("almost", "nearly", "", r"(?!no|never|none|any|certainly).*"),
    ("nearly", "almost", r"(?!not|very).*", ""),
    ("perhaps", "maybe", "", ""),
    ("maybe", "perhaps", "", ""),
    ("difficult", "hard", r"(?!an?|the).*", r"to|for|" + _END),
    ("hard", "difficult", r"(?!an?|the|work\w*|very).*", r"to|for"),
    ("entire", "whole", r"the|his|her|their|its|my|our|an", r"[a-z]+"),
    ("whole", "entire", r"the|his|her|their|its|my|our|a", r"[a-z]+(?<!lot)"),
    ("wealthy", "rich", "", ""),
    ("correct", "right", _BE, _END),
    ("odd", "strange", _BE + "|an|very", r"[a-z]+(?<!number)|" + _END),
    ("afraid of", "scared of", "", ""),
    ("scared of", "afraid of", _BE, ""),
    ("famous", "well-known", r"an?|the|is|was|are|were", ""),
    ("well-known", "famous", r"an?|the|is|was|are|were", ""),
    ("sufficient", "enough", _BE, _END + "|to|for"),
    ("because of", "due to", r"(?!only|not|just).*", ""),
    ("prior to", "before", "", ""),
    ("in order to", "to", r"(?!was|is|are|were).*", ""),
    ("although", "even though", "", ""),
    ("even though", "although", "", ""),
    ("approximately", "about", "", r"[0-9].*|[a-z]+"),
    ("about", "approximately", r"(?!is|was|were|are).*", r"\d.*(?:\d|percent)"),
    ("roughly", "approximately", "", r"\d.*"),
    ("percent", "per cent", r".*\d", ""),
    ("is able to", "can", "", r"(?!be).*"),
    ("are able to", "can", "", r"(?!be).*"),
    ("is located in", "is situated in", "", ""),
    ("are located in", "are situated in", "", ""),
    ("is situated in", "is located in", "", ""),
    ("was founded", "was established", "", r"in|on|by"),
    ("was established", "was founded", "", r"in|on|by"),
    ("was released", "came out", "", _DATE),
    ("were released", "came out", "", _DATE),
    ("died", "passed away", "", r"in|on|at|when|" + _END),
    ("passed away", "died", "", ""),
    ("is well-known for", "is famous for", "", ""),
    ("is also known as", "also goes by the name", "", r"[A-Z].*"),
    ("is also called", "is also known as", "", r"[A-Z].*"),
    ("TV show", "television show", "", ""),
    ("television show", "TV show", "", ""),
    ("TV series", "television series", "", ""),
    ("television series", "TV series", "", ""),
    ("in the United States", "in the USA", "", _END),
    ("in the US", "in the United States", "", _END),
    ("sci-fi", "science fiction", "", ""),
    ("is from", "comes from", "", r"[A-Z].*|the"),
    ("acted in", "performed in", "", ""),
    ("took place", "happened", "", _DATE),
    ("garbage", "trash", "", ""),
    ("trash", "garbage", "", ""),
    ("is wearing", "has on", "", r"an?|his|her|the"),
    ("are wearing", "have on", "", r"their|the"),
    ("everyone", "everybody", "", ""),
    ("everybody", "everyone", "", ""),
    ("someone", "somebody", "", ""),
    ("somebody", "someone", "", ""),
    ("anyone", "anybody", "", ""),
    ("anybody", "anyone", "", ""),
    ("each other", "one another", "", ""),
    ("one another", "each other", "", ""),
    ("toward", "towards", "", ""),
    ("towards", "toward", "", ""),
    ("among", "amongst", "", ""),
    ("until", "till", "", ""),
)

# The right neighbour a verb needs (by its base form) before it may be replaced.
VERB_RIGHT: Final = {
    "start": r"to|in|on|at|[a-z]{2,}ing|$|[.,;]",
    "build": r"an?|the|some|in|by|on|from",
    "construct": r"an?|the|some|in|by|from",
    "require": r"an?|the|some|more|any|[a-z]+ion",
    "allow": r"(?!for|in|of).*",
    "occur": r"(?!to).*",
    "assist": r"an?|the|him|her|them|me|us|you|his|their|in|with",
    "portray": r"[A-Z].*|an?|the",
    "receive": r"an?|the|some|his|her|their",
    "obtain": r"an?|the|some|his|her|their",
    "fix": r"an?|the|some|his|her|their",
    "repair": r"an?|the|some|his|her|their",
    "hug": r"(?!the).*",
}

DETERMINERS: Final = _words(
    "a an the this that these those his her its their my our your some any another "
    "each every no two three four five six seven eight nine ten several many one"
)
ADJECTIVES: Final = _words(
    "big large small little young old older elderly new tall short red blue green yellow black "
    "white brown gray grey orange pink purple dark bright beautiful pretty happy sad asian male "
    "female first second last other local best great good bad famous busy crowded empty american "
    "british indian french german italian english animated popular different human blonde same "
    "colorful heavyset bald african chinese mexican middle-aged smiling silent horror comedy"
)
PREPOSITIONS: Final = _words(
    "in on at by with from to of near under behind beside inside outside for into over through "
    "across along around about during after before between against without beneath above past"
)
BE_FORMS: Final = _words("is are was were am be been being isn't aren't wasn't weren't 's 're 'm")
MODALS: Final = _words(
    "to will would can could should may might must do does did can't couldn't won't wouldn't "
    "don't doesn't didn't shouldn't cannot not never i you we they who people children"
)
HAVE_FORMS: Final = _words("have has had having haven't hasn't hadn't 've be been is was were are")
SUBJECT_PRONOUNS: Final = _words("i you he she it we they who that which")
PERSON_NOUNS: Final = _words(
    "man men woman women boy boys girl girls child children kid kids baby babies person people "
    "guy guys lady ladies dog dogs cat cats couple group crowd team player players worker workers "
    "infant infants toddler toddlers individual individuals mother father mom dad family friends "
    "friend band musician musicians runner runners skateboarder snowboarder surfer cyclist rider "
    "student students teacher doctor doctors cop cops chef singer dancer dancers artist officer "
    "soldier soldiers horse horses bird birds human humans adult adults teenager teenagers "
    "gentleman performer athlete athletes swimmer skier skiers biker bikers animal animals "
    "male female customer farmer fisherman fireman firefighter businessman vendor actor actress"
)
PLURAL_PERSONS: Final = _words(
    "men women boys girls children kids people guys ladies dogs cats players workers students "
    "friends musicians dancers soldiers adults athletes babies infants individuals moms dads cops"
)
CLOTHES: Final = _words(
    "shirt shirts t-shirt t-shirts shorts pants jeans dress dresses hat hats jacket jackets coat "
    "coats suit suits uniform uniforms sweater hoodie vest skirt cap helmet helmets top costume "
    "costumes glasses sunglasses scarf robe robes outfit outfits bikini swimsuit apron tuxedo tie"
)
PLACES: Final = _words(
    "park restaurant street streets beach field kitchen room store shop pool water road lake ocean "
    "river snow grass city house home yard garden backyard bed bench stage bar cafe school office "
    "building library gym church market mall desert mountain woods forest sidewalk hospital "
    "theater stadium airport classroom playground parking_lot living_room court mud sand sun rain "
    "couch sofa chair table floor ground roof boat train bus morning afternoon evening night desk"
)
# Intransitive activities whose final place phrase can only be about the whole event.
ACTIVITY_VERBS: Final = _words(
    "sleeping sitting standing playing eating lying swimming dancing working waiting resting "
    "relaxing running walking talking singing reading cooking performing kneeling laughing "
    "smiling crying drinking fighting camping skating skiing surfing skateboarding shopping"
)
# third person|-ing|participle; the participle is "-" where no passive is made.
CAPTION_VERBS: Final = tuple(
    tuple(entry.split("|"))
    for entry in (
        "plays|playing|played rides|riding|ridden holds|holding|held carries|carrying|carried "
        "throws|throwing|thrown kicks|kicking|kicked pushes|pushing|pushed pulls|pulling|pulled "
        "eats|eating|eaten reads|reading|read paints|painting|painted chases|chasing|chased "
        "watches|watching|watched catches|catching|caught cleans|cleaning|cleaned "
        "washes|washing|washed cooks|cooking|cooked cuts|cutting|cut sells|selling|sold "
        "drives|driving|driven feeds|feeding|fed hits|hitting|hit builds|building|built "
        "climbs|climbing|climbed repairs|repairing|repaired fixes|fixing|fixed "
        "sits|sitting|- stands|standing|- walks|walking|- runs|running|- jumps|jumping|- "
        "sleeps|sleeping|- swims|swimming|- dances|dancing|- sings|singing|- talks|talking|- "
        "looks|looking|- waits|waiting|- smiles|smiling|- laughs|laughing|- wears|wearing|- "
        "poses|posing|- performs|performing|performed drinks|drinking|- skis|skiing|-"
    ).split()
)
# past|participle of verbs that may change voice in claims, with the participle's past tense.
CLAIM_VERBS: Final = {
    entry.split("|")[0]: entry.split("|")[1]
    for entry in (
        "directed|directed wrote|written produced|produced created|created founded|founded "
        "published|published won|won played|played portrayed|portrayed hosted|hosted voiced|voiced "
        "composed|composed recorded|recorded discovered|discovered invented|invented "
        "designed|designed painted|painted developed|developed owned|owned defeated|defeated "
        "killed|killed inspired|inspired influenced|influenced released|released built|built "
        "established|established acquired|acquired performed|performed edited|edited "
        "narrated|narrated co-wrote|co-written signed|signed nominated|nominated "
        "distributed|distributed murdered|murdered launched|launched"
    ).split()
}
DEMONYMS: Final = {
    "American": "the United States", "British": "the United Kingdom", "English": "England",
    "French": "France", "German": "Germany", "Italian": "Italy", "Spanish": "Spain",
    "Indian": "India", "Canadian": "Canada", "Australian": "Australia", "Japanese": "Japan",
    "Irish": "Ireland", "Scottish": "Scotland", "Swedish": "Sweden", "Mexican": "Mexico",
    "Chinese": "China", "Russian": "Russia", "Pakistani": "Pakistan", "Polish": "Poland",
    "Danish": "Denmark", "Belgian": "Belgium", "Brazilian": "Brazil", "Welsh": "Wales",
    "Asian": "", "African": "", "European": "", "Taoist": "", "Korean": "", "Dutch": "",
}  # fmt: skip
# Nouns after which "an American ..." and "a ... from the United States" mean the same.
PROFESSIONS: Final = _words(
    "actor actress singer writer producer director screenwriter comedian musician rapper author "
    "journalist politician model songwriter novelist composer lawyer dancer farmer filmmaker"
)
WORKS: Final = _words("film movie band drama sitcom comedy magazine newspaper thriller company")
# Relations that pick out one thing, so that "X is the R of Y" and "Y's R is X" say the same.
UNIQUE_RELATIONS: Final = _words(
    "father mother wife husband capital director author creator founder president population "
    "birthplace nationality name owner composer producer leader king"
)
OPENERS: Final = _words(
    "a an the this that these those his her its their my our your some any all most many several "
    "each every no one two three four five six seven eight nine ten there he she it we they you "
    "in on at by for from with during after before when while if because since although "
    "people men women boys girls children kids guys ladies someone somebody everyone everybody "
    "nobody nothing not only both few another people's dogs cats students workers players"
)
