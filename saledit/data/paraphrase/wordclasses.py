"""Closed word classes the rules of the rewriter test their neighbours against."""

from __future__ import annotations

from typing import Final


def words(text: str) -> frozenset[str]:
    """Splits a block of words into a set.

    Args:
        text: The words, separated by blanks.

    Returns:
        The words.
    """
    return frozenset(text.split())


DETERMINERS: Final = words(
    "a an the this that these those his her its their my our your some any another "
    "each every no two three four five six seven eight nine ten several many one"
)
ADJECTIVES: Final = words(
    "big large small little young old older elderly new tall short red blue green yellow black "
    "white brown gray grey orange pink purple dark bright beautiful pretty happy sad asian male "
    "female first second last other local best great good bad famous busy crowded empty american "
    "british indian french german italian english animated popular different human blonde same "
    "colorful heavyset bald african chinese mexican middle-aged smiling silent horror comedy"
)
PREPOSITIONS: Final = words(
    "in on at by with from to of near under behind beside inside outside for into over through "
    "across along around about during after before between against without beneath above past"
)
BE_FORMS: Final = words("is are was were am be been being isn't aren't wasn't weren't 's 're 'm")
MODALS: Final = words(
    "to will would can could should may might must do does did can't couldn't won't wouldn't "
    "don't doesn't didn't shouldn't cannot not never i you we they who people children"
)
HAVE_FORMS: Final = words("have has had having haven't hasn't hadn't 've be been is was were are")
SUBJECT_PRONOUNS: Final = words("i you he she it we they who that which")
PERSON_NOUNS: Final = words(
    "man men woman women boy boys girl girls child children kid kids baby babies person people "
    "guy guys lady ladies dog dogs cat cats couple group crowd team player players worker workers "
    "infant infants toddler toddlers individual individuals mother father mom dad family friends "
    "friend band musician musicians runner runners skateboarder snowboarder surfer cyclist rider "
    "student students teacher doctor doctors cop cops chef singer dancer dancers artist officer "
    "soldier soldiers horse horses bird birds human humans adult adults teenager teenagers "
    "gentleman performer athlete athletes swimmer skier skiers biker bikers animal animals "
    "brother brothers sister sisters son daughter performer performers clown tourists tourist "
    "drummer guitarist pianist photographer sailor sailors shopper shoppers driver drivers "
    "male female customer farmer fisherman fireman firefighter businessman vendor actor actress"
)
PLURAL_PERSONS: Final = words(
    "men women boys girls children kids people guys ladies dogs cats players workers students "
    "friends musicians dancers soldiers adults athletes babies infants individuals moms dads cops"
)
CLOTHES: Final = words(
    "shirt shirts t-shirt t-shirts shorts pants jeans dress dresses hat hats jacket jackets coat "
    "coats suit suits uniform uniforms sweater hoodie vest skirt cap helmet helmets top costume "
    "costumes glasses sunglasses scarf robe robes outfit outfits bikini swimsuit apron tuxedo tie"
)
PLACES: Final = words(
    "park restaurant street streets beach field kitchen room store shop pool water road lake ocean "
    "river snow grass city house home yard garden backyard bed bench stage bar cafe school office "
    "building library gym church market mall desert mountain woods forest sidewalk hospital "
    "theater stadium airport classroom playground court mud sand sun rain "
    "couch sofa chair table floor ground roof boat train bus morning afternoon evening night desk"
)
# Intransitive activities whose final place phrase can only be about the whole event.
ACTIVITY_VERBS: Final = words(
    "sleeping sitting standing playing eating lying swimming dancing working waiting resting "
    "relaxing running walking talking singing reading cooking performing kneeling laughing "
    "smiling crying drinking fighting camping skating skiing surfing skateboarding shopping"
)
# third person|-ing|participle; the participle is "-" where no passive is made.
CAPTION_VERBS: Final = tuple(
    tuple(entry.split("|"))
    for entry in sorted(
        words(
            "plays|playing|played rides|riding|ridden holds|holding|held carries|carrying|carried "
            "throws|throwing|thrown kicks|kicking|kicked pushes|pushing|pushed "
            "pulls|pulling|pulled eats|eating|eaten reads|reading|read paints|painting|painted "
            "chases|chasing|chased watches|watching|watched catches|catching|caught "
            "cleans|cleaning|cleaned washes|washing|washed cooks|cooking|cooked cuts|cutting|cut "
            "sells|selling|sold drives|driving|driven feeds|feeding|fed hits|hitting|hit "
            "builds|building|built climbs|climbing|climbed repairs|repairing|repaired "
            "fixes|fixing|fixed sits|sitting|- stands|standing|- walks|walking|- runs|running|- "
            "jumps|jumping|- sleeps|sleeping|- swims|swimming|- dances|dancing|- sings|singing|- "
            "talks|talking|- looks|looking|- waits|waiting|- smiles|smiling|- laughs|laughing|- "
            "wears|wearing|- poses|posing|- performs|performing|performed drinks|drinking|- "
            "skis|skiing|- "
        )
    )
)
# past|participle of verbs that may change voice in claims, with the participle's past tense.
CLAIM_VERBS: Final = {
    entry.split("|")[0]: entry.split("|")[1]
    for entry in sorted(
        words(
            "directed|directed wrote|written produced|produced created|created founded|founded "
            "published|published won|won played|played portrayed|portrayed hosted|hosted "
            "voiced|voiced composed|composed recorded|recorded discovered|discovered "
            "invented|invented designed|designed painted|painted developed|developed owned|owned "
            "defeated|defeated killed|killed inspired|inspired influenced|influenced "
            "released|released built|built established|established acquired|acquired "
            "performed|performed edited|edited narrated|narrated co-wrote|co-written "
            "signed|signed nominated|nominated distributed|distributed murdered|murdered "
            "launched|launched "
        )
    )
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
PROFESSIONS: Final = words(
    "actor actress singer writer producer director screenwriter comedian musician rapper author "
    "journalist politician model songwriter novelist composer lawyer dancer farmer filmmaker"
)
WORKS: Final = words("film movie band drama sitcom comedy magazine newspaper thriller company")
# Relations that pick out one thing, so that "X is the R of Y" and "Y's R is X" say the same.
UNIQUE_RELATIONS: Final = words(
    "father mother wife husband capital director author creator founder president population "
    "birthplace nationality name owner composer producer leader king"
)
# Present-tense verbs that show a caption to be a whole clause already.
FINITE_VERBS: Final = words(
    "plays rides holds carries throws kicks pushes pulls eats reads paints chases watches "
    "catches cleans cooks cuts sells drives feeds hits builds climbs sits stands walks runs "
    "jumps sleeps swims dances sings talks looks waits smiles laughs poses performs drinks goes "
    "gets takes makes tries gives shows stops leans stares speaks rests lies lays leads enjoys "
    "prepares leaves comes turns moves falls follows works uses stays tries puts sit stand look "
    "walked sat stood ran"
)
STATIVES: Final = words(
    "is has was does knows likes loves wants needs seems appears thinks believes owns belongs sees "
    "hears hates contains means feels remains enjoys becomes decides begins starts gets plans hopes"
)
OPENERS: Final = words(
    "a an the this that these those his her its their my our your some any all most many several "
    "each every no one two three four five six seven eight nine ten there he she it we they you "
    "in on at by for from with during after before when while if because since although "
    "people men women boys girls children kids guys ladies someone somebody everyone everybody "
    "nobody nothing not only both few another people's dogs cats students workers players"
)
