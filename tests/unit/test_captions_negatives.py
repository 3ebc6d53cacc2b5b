"""Hard negatives against captions worked by hand: what each rule may give, and what never."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from clic.captions import (
    GENERATORS,
    cross_swap,
    hard_negatives,
    replace,
    swap,
    swap_attributes,
)
from clic.captions.lexicon import Lexicon
from clic.captions.phrases import noun_phrases
from clic.captions.tagging import make_tagger
from clic.captions.text import apply_edits, indefinite_article
from clic.errors import ConfigError
from clic.seeding import generator
from clic.types import Edit, HardNegative, Token

TAG = make_tagger("hanta")
KEPT = ("AUX", "DET", "INTJ", "PART", "PUNCT", "SYM", "X", "SCONJ", "CCONJ")
"""The tags whose words CLIC never swaps."""


def draws(make: Callable[..., HardNegative | None], *arguments: object, n: int = 60) -> set[str]:
    """Return the texts of many draws, nothing being the word None."""
    results = (make(*arguments, generator(0, "test", slot=i)) for i in range(n))
    return {result.text if result else "None" for result in results}


def crossed(first: str, second: str) -> set[str]:
    return draws(cross_swap, (first, second), (TAG(first), TAG(second)))


def swapped(caption: str) -> set[str]:
    return draws(swap, caption, TAG(caption))


def crossed_as_published(first: str, second: str) -> set[str]:
    def make(*arguments: Any) -> HardNegative | None:
        return cross_swap(*arguments, repair=False)

    return draws(make, (first, second), (TAG(first), TAG(second)))


class TestCrossSwap:
    def test_repair_can_be_left_out_as_in_the_published_code(self) -> None:
        articles = ("a red circle", "an orange circle")
        # The only difference is the colour, so each result is true: the captions exchanged.
        assert crossed(*articles) == {"None"}
        assert crossed_as_published(*articles) == {
            "a orange circle. an red circle.",
            "an red circle. a orange circle.",
        }

    def test_one_word_of_equal_tag_changes_places_in_random_order(self) -> None:
        assert crossed("a red circle", "a blue square") == {
            "a blue circle. a red square.",
            "a red square. a blue circle.",
        }

    def test_a_merely_exchanged_pair_is_no_negative(self) -> None:
        assert crossed("a red circle", "A red square.") == {"None"}
        assert crossed("a red circle", "the red square") == {"None"}
        assert crossed("a red circle", "a blue circle") == {"None"}
        assert crossed("a dog", "a cat") == {"None"}

    def test_others_are_drawn_where_one_pair_is_true(self) -> None:
        texts = crossed("a red circle", "a red square above a star")
        assert texts == {
            "a red star. a red square above a circle.",
            "a red square above a circle. a red star.",
            "a red square. a red circle above a star.",
            "a red circle above a star. a red square.",
        }

    def test_words_of_both_captions_never_swap(self) -> None:
        for text in crossed("a big dog sleeping", "a big cat eating a dog"):
            assert text.count("big") == 2 and text.count("dog") == 2

    def test_every_occurrence_is_replaced_and_only_whole_words(self) -> None:
        texts = crossed("a cat with a cat on a catwalk", "the moon")
        assert "a moon with a moon on a catwalk. the cat." in texts
        assert all("catwalk" in text and "moonwalk" not in text for text in texts)

    def test_articles_follow_and_are_reported(self) -> None:
        captions = ("an orange circle", "a red arrow")
        for seed in range(20):
            made = cross_swap(captions, (TAG(captions[0]), TAG(captions[1])), generator(seed, "t"))
            assert made is not None and made.kind == "cross_swap"
            assert made.text in {
                "a red circle. an orange arrow.",
                "an orange arrow. a red circle.",
            }
            if made.edits[1].old == "orange":
                assert made.edits == (
                    Edit(0, (0, 2), "an", "a"),
                    Edit(0, (3, 9), "orange", "red"),
                    Edit(1, (0, 1), "a", "an"),
                    Edit(1, (2, 5), "red", "orange"),
                )

    def test_without_a_common_tag_any_two_words_swap(self) -> None:
        first, second = (Token("run", 0, 3, "VERB", "run"),), (Token("dog", 0, 3, "NOUN", "dog"),)
        # One-word captions would merely be exchanged, so each has a word of an excluded tag more.
        first += (Token("it", 4, 6, "X", "it"),)
        made = cross_swap(("run it", "dog"), (first, second), generator(0, "test"))
        assert made is not None and made.text in {"dog it. run.", "run. dog it."}

    def test_excluded_tags_never_swap(self) -> None:
        for text in crossed("the dog is red", "a cat was blue"):
            assert text != "None"
            assert {"the", "is", "a", "was"} <= set(text.replace(".", "").split())

    @pytest.mark.parametrize("tag", ["ADJ", "ADP", "ADV", "NUM", "PRON", "PROPN", *KEPT])
    def test_which_tags_swap(self, tag: str) -> None:
        def tagged(*words: str) -> tuple[Token, ...]:
            return tuple(
                Token(word, 4 * i, 4 * i + 3, pos, word)
                for i, (word, pos) in enumerate(zip(words, ("NOUN", tag, "VERB"), strict=True))
            )

        tokens = tagged("cat", "foo", "ran"), tagged("dog", "bar", "sat")
        texts = draws(cross_swap, ("cat foo ran", "dog bar sat"), tokens)
        assert any("dog foo ran" in text for text in texts)
        assert any("cat bar ran" in text for text in texts) == (tag not in KEPT)

    def test_case_follows_the_place(self) -> None:
        texts = crossed("Dogs run on Main Street", "A man sees cats")
        assert "A man sees dogs. Cats run on Main Street." in texts

    @pytest.mark.parametrize("pair", [("", ""), ("", "a dog"), ("the", "a"), ("?!", "dog")])
    def test_nothing_to_swap(self, pair: tuple[str, str]) -> None:
        assert crossed(*pair) == {"None"}


class TestSwap:
    def test_words_and_phrases(self) -> None:
        assert swapped("a red circle is above a blue square.") == {
            "a blue circle is above a red square.",
            "a red square is above a blue circle.",
            "a blue square is above a red circle.",
        }

    def test_a_coordination_reordered_is_no_negative(self) -> None:
        assert swapped("a red circle and a blue square") == {
            "a blue circle and a red square",
            "a red square and a blue circle",
        }

    @pytest.mark.parametrize(
        "caption",
        [
            "a cat and a dog",
            "a cat, a dog and a horse",
            "a red circle and a blue circle",
            "a big red ball",
            "a red and white ball",
            "a cat next to a dog",
            "a man is standing beside a woman.",
            "two dogs running and jumping",
            "a dog",
            "a red circle and the red circle",
        ],
    )
    def test_no_result_where_every_swap_keeps_the_meaning(self, caption: str) -> None:
        assert swapped(caption) == {"None"}

    def test_directed_relations_swap(self) -> None:
        assert swapped("a dog chasing a cat") == {"a cat chasing a dog"}
        assert "a cat chasing two dogs" in swapped("two dogs chasing a cat")

    def test_case_and_article_follow(self) -> None:
        assert swapped("An apple on a table.") == {"A table on an apple."}

    def test_edits_are_reported(self) -> None:
        caption = "An old man above a dog"
        for seed in range(10):
            made = swap(caption, TAG(caption), generator(seed, "test"))
            assert made is not None and made.kind == "swap"
            assert apply_edits(caption, made.edits) == made.text
            assert all(caption[slice(*edit.span)] == edit.old for edit in made.edits)

    def test_nouns_of_place_and_measure_stay(self) -> None:
        for text in swapped("a bowl of fruit to the left of a cup with a spoon"):
            assert "bowl of" in text and "to the left of" in text


class TestReplace:
    def test_one_word_is_replaced(self) -> None:
        lexicon = Lexicon(["c ADJ: red, orange", "a NOUN: dog~dogs, cat~cats, owl~owls"])
        caption = "Red dogs and a cat"
        texts = {
            made.text
            for i in range(60)
            if (made := replace(caption, TAG(caption), generator(0, "t", slot=i), lexicon))
        }
        assert texts == {
            # Neither "Red cats and a cat" nor "Red dogs and a dog": the caption has both.
            "Orange dogs and a cat",
            "Red owls and a cat",
            "Red dogs and an owl",
        }

    def test_longer_entries_first(self) -> None:
        lexicon = Lexicon(["p ADP: to the left of, to the right of", "s NOUN: left, right"])
        caption = "a cup to the left of a dog"
        assert draws(lambda rng: replace(caption, TAG(caption), rng, lexicon)) == {
            "a cup to the right of a dog"
        }

    def test_words_the_caption_has_are_no_alternatives(self) -> None:
        lexicon = Lexicon(["c ADJ: red, blue, green"])
        caption = "a red ball and a blue box"
        assert draws(lambda rng: replace(caption, TAG(caption), rng, lexicon)) == {
            "a green ball and a blue box",
            "a red ball and a green box",
        }

    def test_the_shipped_lexicon_knows_the_world_of_shapes(self) -> None:
        caption = "a small red circle is to the left of a large blue square."
        olds = {
            edit.old
            for i in range(200)
            if (made := replace(caption, TAG(caption), generator(0, "t", slot=i)))
            for edit in made.edits
            if edit.old not in ("a", "an")
        }
        assert olds == {"small", "red", "circle", "to the left of", "large", "blue", "square"}

    def test_unknown_words_give_nothing(self) -> None:
        assert draws(replace, "zyx qwv", TAG("zyx qwv")) == {"None"}


class TestHardNegatives:
    def test_kinds_are_interleaved_and_texts_distinct(self) -> None:
        found = hard_negatives("a red circle is above a blue square", n=6)
        assert [h.kind for h in found] == ["swap", "replace"] * 3
        assert len({h.text for h in found}) == 6

    def test_a_kind_that_is_used_up_leaves_the_rest_to_the_others(self) -> None:
        found = hard_negatives("a dog chasing a cat", n=5)
        assert [h.kind for h in found] == ["swap"] + ["replace"] * 4
        assert hard_negatives("a dog", kinds=["swap"]) == []
        assert hard_negatives("") == []

    def test_the_seed_decides(self) -> None:
        caption = "a young man in a red hat holding a small dog"
        assert hard_negatives(caption, seed=1) == hard_negatives(caption, seed=1)
        assert hard_negatives(caption, seed=1) != hard_negatives(caption, seed=2)

    def test_mistakes_are_named(self) -> None:
        with pytest.raises(ConfigError, match="did you mean 'swap'"):
            hard_negatives("a dog", kinds=["swop"])
        for kinds in ((), "swap"):
            with pytest.raises(ConfigError, match="must be a list of names"):
                hard_negatives("a dog", kinds=kinds)
        with pytest.raises(ConfigError, match="n=0"):
            hard_negatives("a dog", n=0)
        assert set(GENERATORS) == {"swap", "swap_attributes", "replace"}


def test_noun_phrases() -> None:
    caption = "The man's two very big dogs and a black and white cat lie on its old bed"
    tokens = TAG(caption)
    assert [
        caption[tokens[p.first].start : tokens[p.last - 1].end] for p in noun_phrases(tokens)
    ] == [
        "The man's two very big dogs",
        "a black and white cat",
        "its old bed",
    ]


@pytest.mark.parametrize(
    ("word", "article"),
    [("apple", "an"), ("dog", "a"), ("Orange", "an"), ("unicorn", "a"), ("uninvited", "an"),
     ("hour", "an"), ("one-eyed", "a"), ("umbrella", "an"), ("8", "an"), ("80", "an"), ("9", "a"),
     ("used", "a"), ("european", "a"), ("x-ray", "an")],
)  # fmt: skip
def test_indefinite_article(word: str, article: str) -> None:
    assert indefinite_article(word) == article


class TestSwapAttributes:
    def test_only_attributes_change_places(self) -> None:
        caption = "a red dog chases a blue cat"
        made = draws(swap_attributes, caption, TAG(caption))
        assert made == {"a blue dog chases a red cat"}
        assert len(swapped(caption)) > 1

    def test_numbers_are_attributes(self) -> None:
        caption = "two dogs and three cats"
        assert draws(swap_attributes, caption, TAG(caption)) == {"three dogs and two cats"}

    def test_without_two_attributes_there_is_none(self) -> None:
        caption = "a dog chases a blue cat"
        assert draws(swap_attributes, caption, TAG(caption)) == {"None"}
