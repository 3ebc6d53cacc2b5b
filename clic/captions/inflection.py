"""Forms of English verbs that the rules of captions need."""

from __future__ import annotations

from clic.captions.word_lists import word_set

# Verbs of one syllable, or stressed on the last, that double their consonant.
_DOUBLED = word_set(
    "run sit swim get hit put set cut dig hug pet skip slip stop step tap grab drag drop flip "
    "jog wrap trot spin win shop chop clap clip dip drip plan rip rub ship snap strap strum swap "
    "trim trip tug wag whip nap lap lug mop pat pin pop nod beg bat hop hum knit plug scrub skim"
)
_DIE = {"lie": "lying", "die": "dying", "tie": "tying"}

# What acts on an object, with its participle where adding "ed" does not make it. A verb outside
# these lists is not turned into the passive: "a man jumps a fence", "a dog runs a race".
_REGULAR = word_set(
    "chase carry push pull watch kick touch lick follow hug pet paint climb cross approach "
    "examine inspect clean wash brush observe grab drag lift pick toss serve cook "
    "photograph surround block cover tackle attack guard greet kiss help load repair "
    "open close sniff use tow balance juggle roll "
    "stir retrieve sweep display embrace ignore prepare"
)
_IRREGULAR = {
    "hold": "held", "wear": "worn", "throw": "thrown", "catch": "caught", "ride": "ridden",
    "bite": "bitten", "eat": "eaten", "hit": "hit", "feed": "fed", "lead": "led",
    "drive": "driven", "read": "read", "cut": "cut", "shake": "shaken", "fly": "flown",
    "draw": "drawn", "take": "taken", "sell": "sold", "build": "built",
    "teach": "taught", "blow": "blown", "shoot": "shot", "drink": "drunk",
}  # fmt: skip


def third_person(verb: str) -> str:
    """Return the form of a regular verb after "it"."""
    if verb.endswith(("s", "x", "z", "ch", "sh", "o")):
        return verb + "es"
    if verb.endswith("y") and not verb.endswith(("ay", "ey", "oy", "uy")):
        return verb[:-1] + "ies"
    return verb + "s"


def gerund(verb: str) -> str:
    """Return the form in -ing."""
    if verb in _DIE:
        return _DIE[verb]
    if verb in _DOUBLED:
        return verb + verb[-1] + "ing"
    if verb.endswith("e") and not verb.endswith(("ee", "ye", "oe")):
        return verb[:-1] + "ing"
    return verb + "ing"


def past_participle(verb: str) -> str | None:
    """Return the past participle of a verb that takes an object, or None for any other."""
    if verb in _IRREGULAR:
        return _IRREGULAR[verb]
    if verb not in _REGULAR:
        return None
    if verb.endswith("e"):
        return verb + "d"
    if verb.endswith("y") and not verb.endswith(("ay", "ey", "oy")):
        return verb[:-1] + "ied"
    return verb + verb[-1] + "ed" if verb in _DOUBLED else verb + "ed"
