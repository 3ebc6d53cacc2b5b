"""Captions in the spellings of the web are read as their ASCII spelling, and edited in place."""

from __future__ import annotations

import warnings
from itertools import pairwise

import pytest

from clic.captions import cross_swap, hard_negatives, make_tagger
from clic.captions.phrases import noun_phrases
from clic.captions.text import apply_edits, end_sentence, fold, fold_tokens, is_foreign, normalized
from clic.seeding import generator

TAG = make_tagger("hanta")
PLAIN = "the man's red hat isn't on the woman's blue bag"
APOSTROPHES = ["\u2019", "\u2018", "\u02bc", "\u2032", "\uff07", "`", "\u00b4", "&#39;", "&#x27;",
               "&apos;", "&rsquo;", "&amp;#39;", "&amp;amp;#39;"]  # fmt: skip


@pytest.mark.parametrize("apostrophe", APOSTROPHES)
def test_every_apostrophe_is_read_as_one(apostrophe: str) -> None:
    caption = PLAIN.replace("'", apostrophe)
    found = [(t.pos, t.lemma) for t in TAG(caption)]
    assert found == [(t.pos, t.lemma) for t in TAG(PLAIN)]
    expected = [made.text.replace("'", apostrophe) for made in hard_negatives(PLAIN, n=12)]
    assert [made.text for made in hard_negatives(caption, n=12)] == expected
    assert noun_phrases(fold_tokens(TAG(caption))) == noun_phrases(TAG(PLAIN))


@pytest.mark.parametrize(
    ("caption", "plain"),
    [
        ("a \u201cred\u201d dog and a \u00abblue\u00bb cat", 'a "red" dog and a "blue" cat'),
        ("a red\u00a0dog\u202fon&nbsp;a\u2009blue mat", "a red dog on a blue mat"),
        ("a dog\u2011friendly bar", "a dog-friendly bar"),
        ("\ufeffa re\u00add do\u200bg on a \u2060blue mat\u200e", "a red dog on a blue mat"),
        (
            "\uff41 \uff52\uff45\uff44 \U0001d41d\U0001d428\U0001d420\uff0c a cat",
            "a red dog, a cat",
        ),
        ("a cafe\u0301, a nai\u0308ve do\u0304g", "a caf\u00e9, a na\u00efve d\u014dg"),
        ("a caf&eacute; &amp; a \ufb01sh", "a caf\u00e9 & a fish"),
        ("a <b>red</b> <i class='x'>dog</i><br>a &lt;em&gt;c&lt;/em&gt;at", "a red dog a cat"),
        ("<b>r</b>ed &quot;dogs&quot;", 'red "dogs"'),
        (
            "the man\u00e2\u20ac\u2122s \u00e2\u20ac\u0153red\u00e2\u20ac\x9d hat\u00e2\u20ac",
            'the man\'s "red" hat"',
        ),
        ("a dog\u201acat", "a dog\u201acat"),
        ("3\ufe0f\u20e3 dogs \u2764\ufe0f", "3 dogs \u2764"),
    ],
)
def test_spellings_of_the_web(caption: str, plain: str) -> None:
    assert fold(caption).text == plain
    tokens = TAG(caption)
    assert [token.text for token in fold_tokens(tokens)] == [token.text for token in TAG(plain)]
    assert [token.pos for token in tokens] == [token.pos for token in TAG(plain)]
    assert all(caption[token.start : token.end] == token.text for token in tokens)


@pytest.mark.parametrize(
    "text",
    ["AT&T and R&D", "a < b", "<3 dogs", "rock & roll;", "&unknown; dog", "dogs&cats", "<PERSON>",
     "`red`", "a \u2014 b \u2013 c\u2026", "fish\u00bd", "&ampersand"],
)  # fmt: skip
def test_what_is_no_entity_or_markup_stays(text: str) -> None:
    assert fold(text).text == text


def test_an_entity_is_no_word_and_stays_where_it_is() -> None:
    caption = "a dog &amp; a cat&#39;s <b>red</b> bowl near a &quot;blue&quot; car"
    for made in hard_negatives(caption, n=20):
        assert apply_edits(caption, made.edits) == made.text
        assert all(part in made.text for part in ("&amp;", "&#39;s <b>", "</b>", " &quot;"))
    pair = (caption, "a man\u2019s green hat &amp; two birds")
    for slot in range(30):
        false = cross_swap(pair, (TAG(pair[0]), TAG(pair[1])), generator(0, "x", slot=slot))
        assert false is not None and false.text.count("&amp;") == 2
        assert {edit.old for edit in false.edits}.isdisjoint(("amp", "39", "s", "b", "\u2019s"))


def test_an_accent_goes_with_its_letter() -> None:
    caption = "a cafe\u0301 with a red chair and a blue table"
    made = [negative.text for negative in hard_negatives(caption, ["swap"], n=20)]
    assert "a chair with a red cafe\u0301 and a blue table" in made
    assert all("e\u0301" in text and "r\u0301" not in text for text in made)


@pytest.mark.parametrize(
    "word",
    [
        "o'clock",
        "o\u2019clock",
        "rock'n'roll",
        "http://dog.com/cat.jpg",
        "www.dog.com",
        "red_dog-2.jpg",
        "blue@dog.com",
    ],
)
def test_a_word_with_marks_inside_is_one(word: str) -> None:
    assert word in [token.text for token in TAG(f"a red dog {word} near a blue cat")]


@pytest.mark.parametrize("caption", ["it isn't", "they can\u2019t", "don&#39;t", "it's"])
def test_half_a_contraction_never_swaps(caption: str) -> None:
    other = "the dog ran"
    for slot in range(20):
        false = cross_swap(
            (caption, other), (TAG(caption), TAG(other)), generator(0, "x", slot=slot)
        )
        for edit in false.edits if false else ():
            assert edit.old.lower() not in ("is", "ca", "do", "s") and "'" not in edit.old


def test_capitals_stay_capitals() -> None:
    for made in hard_negatives("A MAN IN A RED HAT NEXT TO A BLUE CAR AND AN OX!", n=20):
        assert made.text.isupper()


@pytest.mark.parametrize("mark", ["'", "\u2019", "&#39;"])
def test_the_apostrophe_of_a_plural_stays_with_its_owner(mark: str) -> None:
    caption = f"the dogs{mark} owner is next to the girls{mark} red bag"
    assert [phrase.head for phrase in noun_phrases(fold_tokens(TAG(caption)))] == [3, 11]
    made = [negative.text for negative in hard_negatives(caption, n=30)]
    assert made and all(text.count(f"s{mark} ") == 2 for text in made)


def test_a_final_mark_of_another_keyboard_gets_no_second_one() -> None:
    assert end_sentence("a dog\u2026") == end_sentence("a dog\u3002") == "a dog."
    assert end_sentence("a dog\u00a0.\u200b") == "a dog."
    assert end_sentence("a dog\uff01") == "a dog\uff01"


def test_captions_that_differ_in_spelling_alone_are_the_same() -> None:
    assert (
        normalized("The man\u2019s hat")
        == normalized("the man's  hat.")
        == normalized("the man&#39;s hat")
    )


@pytest.mark.parametrize(
    ("caption", "foreign"),
    [
        ("\u0441\u043e\u0431\u0430\u043a\u0430 \u0438 \u043a\u043e\u0442", True),
        ("\u4e00\u53ea\u7ea2\u8272\u7684\u72d7", True),
        ("\u0643\u0644\u0628 \u0623\u0628\u064a\u0636", True),
        ("a dog on \u6771\u4eac street", False),
        ("\uff41 \uff52\uff45\uff44 \uff44\uff4f\uff47", False),
        ("ein gr\u00fcner K\u00e4fer", False),
        ("\U0001f436\U0001f431", False),
        ("", False),
    ],
)
def test_another_script_is_told(caption: str, foreign: bool) -> None:
    assert is_foreign(caption) == foreign
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        hard_negatives(caption)
    assert [("not in Latin script" in str(w.message)) for w in caught] == [True] * foreign


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("&A0\xa0", ["&", "A0"]),  # no entity, though it looks like one
        ("&fjlig;ord", ["&fjlig;ord"]),  # one entity, two characters
        ("a &lt;3 b", ["a", "&lt;", "3", "b"]),
    ],
)
def test_tokens_of_what_looks_like_an_entity_do_not_overlap(caption: str, words: list[str]) -> None:
    tokens = make_tagger("hanta")(caption)
    assert all(t.text == caption[t.start : t.end] and t.text for t in tokens)
    assert all(a.end <= b.start for a, b in pairwise(tokens))
    assert [token.text for token in tokens] == words
