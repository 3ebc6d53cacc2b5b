"""Any text in gives a negative or nothing; what changed is reported; nothing depends on hashes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import unicodedata
from itertools import pairwise, permutations
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from clic.captions import (
    composite_positives,
    cross_swap,
    join,
    make_tagger,
    replace,
    single_negative,
    swap,
)
from clic.captions.composites import bag_of_words, sentence_composite
from clic.captions.phrases import noun_phrases
from clic.captions.text import apply_edits
from clic.seeding import generator
from clic.types import HardNegative, Token

TAG = make_tagger("hanta")
WORDS = re.findall(
    r"\S+",
    "a an the A An The red blue orange old young small circle square arrow dog cats man woman hat "
    "apple is are above below left right of to next and , . ! ' \" ( ) [ * \\ two three riding "
    "sitting quickly with in on 8 11 é 猫 😀 \0 n't aren't man's t-shirt hour university",
)
SCRIPTS = "ащ чёрныйكلبأبيض犬が走るकुत्ताสุนัขσκύλος"
META = "\\.*+?[](){}|^$\"'`´’“”«»-_/&%#@~\0\t\n\u200b\ufeff"
CAPTIONS = st.lists(st.sampled_from(WORDS), max_size=25).map(" ".join)
ODD = st.one_of(st.text(SCRIPTS + " .,"), st.text(META + " ab"), st.text("a .'-😀İ\0"))
# Captions with something odd inside, as tokenizers rarely see them.
MIXED = st.tuples(CAPTIONS, ODD, CAPTIONS).map(" ".join)
# One word in the spellings of the web, and what stands between words there.
SPELLINGS = re.findall(
    r"[^ ]+",
    "man\u2019s man\u02bcs man\uff07s man`s man&#39;s man&rsquo;s man&amp;#39;s isn\u2019t "
    "isn&#39;t dogs\u2019 o\u2019clock caf\xe9 cafe\u0301 caf&eacute; re\u0301d do\u0301g "
    "bl\xfce red\xad wo\xadman do\u200bg \ufeffcat \uff52\uff45\uff44 \uff44\uff4f\uff47 "
    "\U0001d41d\U0001d428\U0001d420 \ufb01sh \u201cred\u201d \xabcat\xbb dog\u2014cat dog\u2013 "
    "dog\u2011friendly red\u2026 &amp; &amp;amp; &nbsp; &quot;cat&quot; <b>red</b> <b>r</b>ed "
    "<br/> &lt;i&gt; dog&nbsp;and \u2764\ufe0f 3\ufe0f\u20e3 \U0001f468\u200d\U0001f469 DOG "
    "Isn't can't http://dog.com/cat www.red.org rock'n'roll ",
)
SPACES = st.sampled_from([" ", "  ", "\u00a0", "\u200b ", "\u2009", " \u00ad", "\t", ", ", ". "])
SPELLED = st.lists(
    st.tuples(st.one_of(st.sampled_from(SPELLINGS), st.sampled_from(WORDS)), SPACES), max_size=25
).map(lambda pairs: "".join(word + space for word, space in pairs))
TEXTS = st.one_of(CAPTIONS, MIXED, SPELLED, ODD, st.text(max_size=200))
TAGS = ("ADJ", "ADP", "ADV", "AUX", "CCONJ", "DET", "NOUN", "NUM", "PART", "PRON", "PROPN", "PUNCT",
        "SCONJ", "VERB", "X")  # fmt: skip
LONG = [
    "red dog " * 1_250,
    "x" * 10_000,
    "." * 10_000,
    "".join(chr(97 + i * i % 26) + " " * (i % 3 == 0) for i in range(9_000)),
    "😀" * 5_000,
    "and a big red " * 700 + "dog",
]


NOT = re.compile(r"n(?:'|\u2019|\u02bc|\uff07|&(?:amp;)?(?:#39|rsquo);)t\b", re.IGNORECASE)


def torn(caption: str, position: int) -> bool:
    """Return whether a word or an entity goes on at a position; "is" of "isn't" ends a word."""
    if NOT.match(caption, position):
        return False
    if any(m.start() < position < m.end() for m in re.finditer(r"&#?\w+;", caption)):
        return True
    before, after = visible(caption[:position]), visible(caption[position:])
    return goes_on(before[-1:]) and goes_on(after[:1])


def visible(text: str) -> str:
    return "".join(c for c in text if unicodedata.category(c) != "Cf")


def goes_on(character: str) -> bool:
    category = unicodedata.category(character or " ")
    letter = character.isalnum() and category != "Lm"  # some of which are apostrophes
    return letter or category in ("Mn", "Me")


def rebuilt(caption: str, made: HardNegative, index: int = 0) -> str:
    """Return the caption with the reported spans replaced; nothing else may have changed."""
    edits = [edit for edit in made.edits if edit.caption == index]
    assert edits == sorted(edits, key=lambda edit: edit.span)
    assert all(a.span[1] <= b.span[0] for a, b in pairwise(edits))
    text = caption
    for edit in reversed(edits):
        start, end = edit.span
        assert caption[start:end] == edit.old
        assert not torn(caption, start) and not torn(caption, end), edit
        text = text[:start] + edit.new + text[end:]
    assert text == apply_edits(caption, edits)
    return text


def check_one(caption: str, seed: int, tokens: tuple[Token, ...] | None = None) -> None:
    tokens = TAG(caption) if tokens is None else tokens
    for make in (swap, replace):
        made = make(caption, tokens, generator(seed, "test"))
        if made is not None:
            assert made.kind == make.__name__
            assert made.edits and rebuilt(caption, made) == made.text
            assert made.text.lower() != caption.lower()


def check_two(captions: tuple[str, str], seed: int) -> None:
    tokens = tuple(TAG(caption) for caption in captions)
    made = cross_swap(captions, tokens, generator(seed, "test"))
    if made is None:
        return
    texts = [rebuilt(caption, made, i) for i, caption in enumerate(captions)]
    assert made.text in {join(order) for order in permutations(texts)}
    true = {
        text.lower()
        for text in composite_positives(
            sentence_composite([[c] for c in captions]), 2, generator(0, "")
        ).texts
    }
    assert made.text.lower() not in true


@settings(max_examples=150)
@given(TEXTS, st.integers(0, 3))
def test_one_caption(caption: str, seed: int) -> None:
    check_one(caption, seed)


@settings(max_examples=150)
@example("a", "0", 0)  # an article that is all there is of a caption
@given(TEXTS, TEXTS, st.integers(0, 3))
def test_two_captions(first: str, second: str, seed: int) -> None:
    check_two((first, second), seed)


@given(CAPTIONS, st.lists(st.sampled_from(TAGS), min_size=80, max_size=80), st.integers(0, 3))
def test_any_tags(caption: str, tags: list[str], seed: int) -> None:
    """Whatever a tagger may say, and whatever lemmas it gives."""
    tokens = tuple(
        token._replace(pos=pos, lemma=token.lemma[: len(pos)])
        for token, pos in zip(TAG(caption), tags, strict=False)
    )
    check_one(caption, seed, tokens)
    made = cross_swap((caption, "a dog"), (tokens, TAG("a dog")), generator(seed, "test"))
    assert made is None or made.text != join([caption, "a dog"])
    noun_phrases(tokens)


@given(TEXTS)
def test_noun_phrases_are_made_of_the_text(text: str) -> None:
    tokens = TAG(text)
    found = noun_phrases(tokens)
    assert all(a.last <= b.first for a, b in pairwise(found))
    assert all(0 <= p.first <= p.head == p.last - 1 < len(tokens) for p in found)


@given(TEXTS, TEXTS, st.integers(0, 3))
def test_a_mixture_avoids_the_other_captions(caption: str, other: str, seed: int) -> None:
    tokens, weights = TAG(caption), {"swap": 1.0, "replace": 2.0}
    first = single_negative(caption, tokens, generator(seed, "test"), weights, [other])
    if first is None:
        return
    assert first.text.strip(" .").lower() != other.strip(" .").lower()
    again = single_negative(caption, tokens, generator(seed, "test"), weights, [first.text])
    assert again is None or again.text != first.text


@pytest.mark.parametrize("number", range(len(LONG)))
def test_long_texts(number: int) -> None:
    check_one(LONG[number], 0)
    check_two((LONG[number], LONG[number - 1]), 0)


@given(TEXTS)
def test_tokens_lie_in_order(text: str) -> None:
    tokens = TAG(text)
    assert all(text[t.start : t.end] == t.text and t.pos for t in tokens)
    assert all(a.end <= b.start for a, b in pairwise(tokens))
    # Nothing that can be seen lies outside of the tokens.
    outside, position = "", 0
    for token in tokens:
        outside += text[position : token.start]
        position = token.end
    outside = re.sub(r"</?[a-z]+/?>|&lt;i&gt;|&nbsp;", "", outside + text[position:], flags=re.I)
    seen = (c for c in outside if unicodedata.category(c) not in ("Cf", "Mn", "Me", "Mc"))
    assert not "".join(seen).strip()


@given(st.lists(TEXTS, max_size=4))
def test_join_is_stable(sentences: list[str]) -> None:
    joined = join(sentences)
    assert join([joined]) == joined
    assert joined == "" or joined[-1] in ".!?"


SCRIPT = """
import json, sys
from clic.captions import cross_swap, hard_negatives, make_tagger, single_negative
from clic.data.shards.records import annotate
from clic.captions.phrases import noun_phrases
from clic.seeding import generator
tag = make_tagger("hanta")
captions = json.loads(sys.argv[1])
out = [[h.text for h in hard_negatives(c, n=6)] for c in captions]
for a, b in zip(captions, captions[1:]):
    out.append(repr(cross_swap((a, b), (tag(a), tag(b)), generator(0, "x"))))
rng = generator(3, "state")
for c in captions * 20:
    made = single_negative(c, tag(c), rng, {"swap": 1.0, "replace": 1.0}, captions)
    out.append(repr((made, rng.bit_generator.random_raw())))
out.append(json.dumps([annotate(captions, tag), [noun_phrases(tag(c)) for c in captions]]))
print(json.dumps(out))
"""


def test_the_result_depends_on_no_hash_seed() -> None:
    captions = [
        "a young man in a red hat holding two small dogs next to an old car",
        "three birds quickly flying above a green field and a blue lake",
        "an orange circle is to the left of a purple star",
    ]
    root = Path(__file__).resolve().parents[2]
    outputs = set()
    for hash_seed in ("1", "2024"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(root)}
        command = [sys.executable, "-c", SCRIPT, json.dumps(captions)]
        run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        outputs.add(run.stdout)
    assert len(outputs) == 1 and len(json.loads(outputs.pop())) == 66


def test_yield_on_real_captions() -> None:
    folder = os.environ.get("CLIC_TEST_DATA")
    if not folder:
        pytest.skip("CLIC_TEST_DATA is unset: no real annotations")
    rows = json.loads((Path(folder) / "sugarcrepe_pp/replace_rel.json").read_text("utf-8"))
    captions = [row["caption"] for row in rows[:400]]
    for make, least in ((swap, 0.9), (replace, 0.98)):
        made = [make(c, TAG(c), generator(0, "test", slot=i)) for i, c in enumerate(captions)]
        assert sum(m is not None for m in made) >= least * len(captions)


FEW = st.lists(st.sampled_from(["a", "red", "Red,", "dog", "dogs", "DOG.", "&quot;red&quot;", "."]))
SENTENCES = st.lists(FEW.map(" ".join), min_size=1, max_size=3)


@given(st.lists(st.tuples(SENTENCES, FEW.map(" ".join)), min_size=2, max_size=3))
@example([(["a dog"], "the dog"), (["red"], "a Red dog")])
@example([(["a red dog", "dog"], "a red dog"), (["dog"], "red")])
def test_what_may_be_true_is_judged_by_whole_words(images: list[tuple[list[str], str]]) -> None:
    composite = sentence_composite([sentences for sentences, _ in images])
    bags = [list(map(bag_of_words, sentences)) for sentences, _ in images]
    expected = True
    for (own, *_), (_, caption) in zip(bags, images, strict=True):
        words = bag_of_words(caption)
        expected &= any(
            words <= true or (words == own and true <= words) for truths in bags for true in truths
        )
    captions = [caption for _, caption in images]
    assert composite.may_be_true(composite.parts, captions) == expected
