"""Forms of English verbs that the rules of captions need."""

from __future__ import annotations

from clic.captions.lexicon import WORDS

_DOUBLED, _REGULAR = WORDS["doubling_verbs"], WORDS["passive_verbs"]
_DIE = {"lie": "lying", "die": "dying", "tie": "tying"}

# Participles that are not formed with "ed". Verbs outside this table and the list of
# `passive_verbs` are not turned into the passive: "a man jumps a fence", "a dog runs a race".
_IRREGULAR = {
    "hold": "held", "wear": "worn", "throw": "thrown", "catch": "caught", "ride": "ridden",
    "bite": "bitten", "eat": "eaten", "hit": "hit", "feed": "fed", "lead": "led",
    "drive": "driven", "read": "read", "cut": "cut", "shake": "shaken", "fly": "flown",
    "draw": "drawn", "take": "taken", "sell": "sold", "build": "built",
    "teach": "taught", "blow": "blown", "shoot": "shot", "drink": "drunk",
}  # fmt: skip


def third_person(verb: str) -> str:
    """Return the third person singular of a regular verb."""
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
