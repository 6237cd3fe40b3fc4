"""Word lists of the rule-based rewriter.

The tables are curated, not learned: an entry is here only when the two sides are near-exact
synonyms in plain English, so that swapping them cannot change an entailment label. Hypernyms,
hyponyms, quantifiers and numbers are left out on purpose, and so is every word that is ambiguous
in a way the simple neighbour checks in ``words`` cannot see.

Notation of the pair tables: ``a <> b`` works in both directions, ``a > b`` only left to right, and
the inflected forms of one word are separated by ``|``.
"""

from __future__ import annotations

from typing import Final

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
    "repair|repairs|repaired|repaired|repairing > fix|fixes|fixed|fixed|fixing",
    (
        "try to|tries to|tried to|tried to|trying to <> "
        "attempt to|attempts to|attempted to|attempted to|attempting to"
    ),
    (
        "talk to|talks to|talked to|talked to|talking to <> "
        "speak to|speaks to|spoke to|spoken to|speaking to"
    ),
    (
        "talk with|talks with|talked with|talked with|talking with <> "
        "speak with|speaks with|spoke with|spoken with|speaking with"
    ),
    "obtain|obtains|obtained|obtained|obtaining > get|gets|got|gotten|getting",
    "receive|receives|received|received|receiving > get|gets|got|gotten|getting",
    "allow|allows|allowed|allowed|allowing <> permit|permits|permitted|permitted|permitting",
    "occur|occurs|occurred|occurred|occurring > happen|happens|happened|happened|happening",
    "choose|chooses|chose|chosen|choosing <> select|selects|selected|selected|selecting",
    "utilize|utilizes|utilized|utilized|utilizing > use|uses|used|used|using",
    (
        "construct|constructs|constructed|constructed|constructing <> "
        "build|builds|built|built|building"
    ),
    "portray|portrays|portrayed|portrayed|portraying > play|plays|played|played|playing",
    "assist|assists|assisted|assisted|assisting > help|helps|helped|helped|helping",
    "require|requires|required|required|requiring > need|needs|needed|needed|needing",
    "need to|needs to|needed to|needed to|needing to > have to|has to|had to|had to|having to",
    (
        "want to|wants to|wanted to|wanted to|wanting to > "
        "wish to|wishes to|wished to|wished to|wishing to"
    ),
    (
        "collaborate with|collaborates with|collaborated with|collaborated with|"
        "collaborating with > "
        "work with|works with|worked with|worked with|working with"
    ),
    (
        "reside in|resides in|resided in|resided in|residing in <> "
        "live in|lives in|lived in|lived in|living in"
    ),
)

# (left side, right side, word the left neighbour must match, word the right neighbour must match);
# an empty pattern means "anything", "$" in a right pattern means the end of the clause.
_END = r"$|[.,!?;]"
_PEOPLE = r"boys?|girls?|child|children|kids?|dogs?"
_ELDER = r"man|men|woman|women|lady|ladies|person|people|couple|gentleman"
_PLACE_END = rf"{_END}|in|on|at|with|while|near|and|together|during|by"
_BE = r"is|are|was|were|be|been|isn't|aren't|wasn't|weren't|not"
_DATE = r"in|on"
# "big" and "large" differ in "a big decision", not for things one can measure.
_SIZED = (
    r"(?:dog|house|building|crowd|group|ball|tree|truck|car|boat|fish|hat|rock|city|room|bag|box|"
    r"picture|animal|field|table|pot|bowl|window|horse|bird|wave|pool|hill|mountain|screen|cat|"
    r"bus|sign|fire|tent|umbrella|rocks|red|blue|white|black|brown|green|yellow)s?"
)
PHRASES: Final = (
    ("next to", "beside", "", r"(?!each|last|impossible).*"),
    ("beside", "next to", "", ""),
    ("close to", "near", _BE + "|[a-z]+ing|[a-z]+s", r"an?|the|his|her|their|its|some|two"),
    ("near", "close to", "", r"an?|the|his|her|their|its|some|two"),
    ("on top of", "atop", r"(?!stay|get|keep|be).*", r"an?|the"),
    ("atop", "on top of", "", ""),
    ("outside", "outdoors", r"(?!the|an?|from|from the).*", _PLACE_END),
    ("outdoors", "outside", r"(?!the|great).*", _PLACE_END),
    ("inside", "indoors", r"(?!the|an?|from).*", r"$|[.!?]|together|during|while"),
    ("indoors", "inside", "", _END),
    ("big", "large", r"an?|the|some|two|three|very", _SIZED),
    ("large", "big", r"an?|the|some|two|three|very", _SIZED),
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
    ("hard", "difficult", r"is|was|are|were|be|very|it's", r"to|for"),
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
    ("someone", "somebody", "", ""),
    ("somebody", "someone", "", ""),
    ("each other", "one another", "", ""),
    ("one another", "each other", "", ""),
    ("toward", "towards", "", ""),
    ("towards", "toward", "", ""),
    ("among", "amongst", "", ""),
    ("appeared in", "made an appearance in", r"(?!first|who|that).*", ""),
    ("appeared on", "made an appearance on", "", ""),
    ("starred in", "had a starring role in", "", ""),
    ("participated in", "took part in", "", ""),
    ("took part in", "participated in", "", ""),
    ("had a role in", "played a role in", "", r"[A-Z].*|the|an?"),
    ("is home to", "is the home of", "", ""),
    ("is the home of", "is home to", "", ""),
    ("is part of", "forms part of", "", ""),
    ("was nominated for", "received a nomination for", "", r"an?|the|[A-Z].*"),
    ("was a victim of", "fell victim to", "", ""),
    ("was funded by", "was financed by", "", ""),
    ("is made out of", "is made of", "", ""),
    ("concluded", "ended", "", r"in|on|at|with"),
    ("worldwide", "around the world", r"(?!,|the|an?).*", r"$|[.!]"),
    ("the United States", "the US", "", r"$|[.,]|is|was|has|and|in"),
    ("has to", "must", r"(?!.*n't|not|also).*", r"(?!do).*"),
    ("have to", "must", r"we|they|people|you|i|children|students", r"(?!do).*"),
    ("entirely", "completely", "", ""),
    ("completely", "entirely", "", ""),
    ("totally", "completely", "", ""),
    ("immediately", "right away", r"(?!almost|,).*", r"$|[.!]"),
    ("right away", "immediately", "", r"$|[.!]"),
    ("currently", "at present", "", r"$|[.!]"),
    ("usually", "normally", "", ""),
    ("normally", "usually", "", ""),
    ("incorrect", "wrong", _BE, _END),
    ("huge", "enormous", "", ""),
    ("enormous", "huge", "", ""),
    ("essential", "crucial", _BE, ""),
    ("crucial", "essential", _BE, ""),
    ("annual", "yearly", r"an|the|its|their|our", r"[a-z]+"),
    ("terrible", "awful", "", ""),
    ("awful", "terrible", r"(?!an).*", r"(?!lot).*"),
    ("despite", "in spite of", "", ""),
    ("in spite of", "despite", "", ""),
    ("regarding", "about", "", r"an?|the|his|her|their|this|[a-z]+s"),
    ("for example", "for instance", "", ""),
    ("for instance", "for example", "", ""),
    ("kind of", "type of", r"an?|the|this|that|some|any|another|what|one|same", ""),
    ("type of", "kind of", r"an?|the|this|that|some|any|another|what|one|same", ""),
    ("is employed by", "works for", "", ""),
    ("until", "till", "", ""),
)

# The right neighbour a verb needs (by its base form) before it may be replaced.
VERB_RIGHT: Final = {
    "want to": r"(?!and|but|or|be)[a-z]+",
    "need to": r"(?!and|but|or)[a-z]+",
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
    "repair": r"an?|the|some|his|her|their",
    "hug": r"(?!the).*",
}
