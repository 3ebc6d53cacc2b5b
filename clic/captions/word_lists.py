"""Small closed word lists that several generators need."""

from __future__ import annotations

from collections.abc import Iterable


def word_set(text: str) -> frozenset[str]:
    """Return the words of a text that spaces part."""
    return frozenset(text.split())


COLOUR_WORDS = word_set(
    "red green blue yellow orange purple pink brown black white grey gray cyan magenta beige tan "
    "gold golden silver turquoise teal violet maroon navy lime olive crimson cream ivory"
)
# Said of how many there are, though taggers call some of them determiners or adverbs.
QUANTITIES = word_set("several many few multiple numerous various")
# Forms in -ing that make a name with the noun behind them: a cutting board does not cut.
GERUNDS = word_set(
    "cutting dining living swimming washing parking frying shopping fishing sewing serving mixing "
    "rocking vending landing boxing drinking baking wrapping hiking wedding racing riding skiing "
    "surfing clothing"
)
# Nouns that taggers take for adjectives: a material, and the first half of a name.
MATERIALS = word_set("concrete plastic metal stone marble brick leather paper rubber steel chrome")
NAMES = frozenset(
    (
        ("high", "chair"), ("high", "chairs"), ("high", "school"), ("high", "heels"),
        ("hot", "dog"), ("hot", "dogs"), ("hot", "air"), ("french", "fries"), ("fast", "food"),
        ("polar", "bear"), ("polar", "bears"), ("bald", "eagle"), ("soft", "drink"),
    )
)  # fmt: skip
ARTICLES = frozenset(("a", "an", "the"))

# Nouns that name a place in the picture, a group or the picture itself: swapped with a thing they
# leave nonsense ("on surfboard of a top").
RELATIONAL_NOUNS = word_set(
    "top bottom front back rear side left right middle center centre edge corner end foreground "
    "background distance way view picture photo photograph image shot lot group bunch couple pair "
    "set row piece part kind type variety number"
)
PLURALS = word_set(
    "people men women children mice feet teeth geese oxen cattle policemen firemen snowmen "
    "jeans shorts skis pants scissors glasses sunglasses"
)

# Verbs that add no direction to a relation: "a cat sits next to a dog".
POSTURES = word_set(
    "sit stand lie lay park place position pose rest locate arrange hang walk run seat "
    "play talk wait sleep kneel perch live"
)

# What the scene graph knows of nouns: who acts, what is worn or a part of its bearer, what only
# introduces the thing that is meant, and what a quantity or a vessel of something is.
ANIMATE = word_set(
    "man woman person people boy girl child kid baby toddler guy lady gentleman male female adult "
    "player skier snowboarder surfer skateboarder skater rider biker cyclist batter pitcher "
    "catcher umpire chef cook worker waiter waitress police policeman officer soldier student "
    "teacher couple group crowd family team friend teen teenager bride groom mother father mom "
    "dad son daughter brother sister pedestrian passenger driver swimmer farmer doctor nurse "
    "clown artist firefighter mechanic runner dancer musician singer golfer sailor fisherman "
    "tourist shopper customer vendor hiker climber jogger diver rower kayaker boxer wrestler "
    "gymnast ballerina referee goalkeeper goalie plumber carpenter electrician gardener painter "
    "photographer barber tailor butcher baker barista bartender clerk cashier librarian dentist "
    "scientist astronaut guard lifeguard pilot captain cowboy shepherd guitarist drummer pianist "
    "violinist grandmother grandfather grandson granddaughter aunt uncle neighbor guest spectator "
    "audience commuter surf professor guide owner twin actor actress model monk nun priest jockey "
    "fireman policewoman princess king queen speaker sailor hunter builder welder janitor cleaner "
    "magician secretary reporter journalist lawyer judge bicyclist motorcyclist shopkeeper toddler "
    "dog puppy cat kitten horse pony cow bull calf sheep lamb goat elephant giraffe zebra bear "
    "lion tiger monkey bird duck goose chicken pigeon parrot owl seagull animal deer rabbit "
    "squirrel fish pig donkey camel penguin swan eagle turtle herd flock duckling hen rooster "
    "crow sparrow pelican flamingo heron wolf fox moose kangaroo panda whale dolphin seal frog "
    "snake butterfly bee hamster raccoon foal chick crab lizard ostrich llama ox"
)
WORN = word_set(
    "shirt t-shirt dress suit tie hat cap helmet jacket coat sweater uniform vest short shorts "
    "pants jeans skirt shoe boot glove scarf glasses sunglasses goggles mask costume outfit "
    "clothes clothing gear attire wetsuit bikini swimsuit apron robe gown hoodie sandal sock belt "
    "beanie collar beard mustache hair hand arm leg face head eye ear mouth nose tail paw wing "
    "trunk horn neck foot shoulder knee finger elbow"
)
HELD_IN = word_set("hand arm mouth lap beak air")
PICTURE_NOUNS = word_set("picture photo photograph image shot view close-up painting drawing")
MEASURES = word_set(
    "group lot bunch couple pair number variety crowd herd flock row line set team pile stack "
    "bowl plate cup glass mug box basket slice piece tray bottle bag bucket jar pot pan loaf "
    "cluster bouquet vase dish can jug crate"
)
TIMES = word_set(
    "day night morning afternoon evening dusk dawn noon sunset sunrise winter summer spring autumn "
    "weekend"
)
RIDDEN = word_set(
    "skateboard surfboard snowboard board ski skis bike bicycle motorcycle scooter rollerblades"
)
TOOLS = word_set(
    "knife fork spoon scissors chopsticks stick bat racket racquet brush toothbrush camera phone "
    "trunk beak hand remote controller pole paddle rope hammer tool wrench screwdriver saw shovel "
    "spatula ladle whisk tongs cloth towel rag sponge broom mop rake hose needle pen pencil crayon "
    "marker measure net leash rod drill comb blade razor roller straw binoculars "
    "telescope microphone axe"
)
# What carries or holds small things: what is taken from a plate was on the plate.
SURFACES = word_set(
    "table plate counter countertop desk shelf tray cake stove grill board wall hook napkin page "
    "paper screen cart bowl cup pan pot oven sink basket box bag vase glass jar frame cage bucket "
    "stroller crib crate wagon suitcase drawer cupboard refrigerator microwave skillet wok tub bin "
    "container"
)

# What it knows of prepositions: those of an act as a whole, those that say where an object goes or
# what belongs to it, and those after which two things share their place.
OF_THE_ACT = word_set("past through across along down up during after before until between")
GOALS = frozenset(("to", "onto", "into", "toward", "towards", "out of"))
INTO_OBJECT = GOALS | {"with", "for", "from", "over", "off", "against"}
NEIGHBOURS = frozenset(("next to", "near", "beside", "by", "close to"))
WORD_PREPOSITIONS = (
    "in front of", "on top of", "next to", "close to", "to the left of", "to the right of",
    "on the left of", "on the right of", "left of", "right of", "in the middle of",
    "in the center of", "in the centre of", "in back of", "adjacent to", "out of", "across from",
    "along with", "together with", "away from", "far from", "instead of", "up to", "inside of",
    "outside of",
)  # fmt: skip
# And of verbs: those that put their object somewhere, and "pick up", "take off".
PLACING = word_set(
    "put place lay set cut chop slice spread pour stack arrange hang paint draw spray "
    "sprinkle spill drip balance mount load drop install plant squeeze"
)
RIDING = word_set("ride drive fly sail steer paddle row")
WORKED_WITH = word_set(
    "cut slice chop tighten measure fix repair clean wipe wash brush scrub sweep dig hit strike "
    "stir mix scoop paint draw write spray water comb dry tie wrap carve trim sew poke"
)
KEEPING = word_set("have hold carry wear contain show feature")
AIMING = word_set("throw toss point aim shoot fire hurl swing direct")
# Verbs that an adjective behind them goes through to their subject: "the tea looks hot".
COPULAS = word_set("look seem appear remain stay feel sit stand lie")
# What only the living do, and what only things do that people see.
LIVELY = word_set("wait look watch eat drink talk smile use follow accompany")
LIFELESS = word_set("hang flow contain overlook show feature")
WATCHING = word_set("watch see view observe photograph")
SURROUNDING = word_set("surround cover shade line decorate face light illuminate overlook")
# Verbs in the plural, and such in the singular, that taggers take for nouns.
TAKEN_FOR_NOUNS = word_set(
    "stand sit lie dance drink walk swim run ride race rest sleep talk work fight jump climb dive "
    "hike surf ski skate fly chat lean hug smile pose march sail fish spray cook share watch look"
)
SINGULAR_TAKEN_FOR_NOUNS = word_set(
    "lies lands leans sits flies passes crosses leaps hops hangs rests runs waits looks stretches"
)
# Nouns that people in the plural stand in front of: a farmers market does not act.
OWNED = word_set(
    "market school room bathroom restroom team club league clothing wear section toy museum "
    "hat shirt suit shoe lap hand arm head face"
)
TAKEN_UP = word_set(
    "pick hold put take set lift blow cut pull throw drop carry turn push tear light clean fold "
    "roll pack give hand"
)
PARTICLES = word_set("up out off down away back on")
RELATIVE = word_set("that which who whom")


def prefix_table(entries: Iterable[str]) -> dict[str, list[tuple[str, ...]]]:
    """Return the entries' words by their first word, the longest entry first."""
    table: dict[str, list[tuple[str, ...]]] = {}
    for words in sorted((tuple(entry.split()) for entry in entries), key=len, reverse=True):
        table.setdefault(words[0], []).append(words)
    return table
