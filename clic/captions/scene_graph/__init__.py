"""A light scene graph of a tagged caption: things, their modifiers, and relations between them.

In: the tokens of one caption. Out: a `SceneGraph`. Read `graph` first, then `phrase_reader`, which
relates noun phrases from left to right, and `attachment`, which places prepositions.
"""
