"""Small closed word lists that several generators need."""

from __future__ import annotations


def word_set(text: str) -> frozenset[str]:
    """Return the words of a text that spaces part."""
    return frozenset(text.split())


COLOUR_WORDS = word_set(
    "red green blue yellow orange purple pink brown black white grey gray cyan magenta beige tan "
    "gold golden silver turquoise teal violet maroon navy lime olive crimson cream ivory"
)
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

# "x LINK y" and "y LINK x" say the same: lists, and relations without direction.
LIST_LINKS = frozenset((("and",), ("or",), ("&",), (",",), (",", "and"), (",", "or")))
SYMMETRIC_LINKS = frozenset(
    tuple(link.split())
    for link in (
        "next to", "near", "nearby", "beside", "alongside", "close to", "adjacent to", "opposite",
        "across from", "with", "along with", "together with", "as well as", "while",
        "meet", "kiss", "hug", "touch", "face", "talk to", "talk with", "play with",
    )
)  # fmt: skip
# Verbs that add no direction to such a relation: "a cat sits next to a dog".
POSTURES = word_set(
    "sit stand lie lay park place position pose rest locate arrange hang walk run seat "
    "play talk wait sleep kneel perch live"
)
