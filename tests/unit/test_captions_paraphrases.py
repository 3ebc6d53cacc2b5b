"""Paraphrases against captions worked by hand: what each rule gives, and what it keeps off."""

from __future__ import annotations

import pytest

from clic.captions import paraphrases
from clic.captions.inflection import gerund, past_participle, third_person
from clic.captions.lexicon import default_lexicon
from clic.captions.paraphrases import MAX_TOKENS, nearest_caption, paraphrase
from clic.captions.phrases import noun_phrases
from clic.captions.tagging import make_tagger
from clic.captions.text import fold_tokens, normalized
from clic.seeding import generator

TAG = make_tagger("hanta")


def ruled(rule: str, caption: str) -> set[str]:
    """Return every text that one rule makes of a caption."""
    words = [paraphrases._plain(t.text.lower(), t.pos, t.lemma) for t in fold_tokens(TAG(caption))]
    known = paraphrases._Caption(
        words, noun_phrases(words), default_lexicon(), generator(0, "paraphrase")
    )
    return {paraphrases._text(made) for made in getattr(paraphrases, rule)(known)}


@pytest.mark.parametrize(
    ("rule", "caption", "expected"),
    [
        ("_conjuncts", "A woman and a dog stand there.", {"a dog and a woman stand there."}),
        # Nobody may come to stand "in a woman": the two are of different kinds.
        ("_conjuncts", "A man in a hat and a woman in a coat.", set()),
        # Without its article a phrase cannot go to the front.
        ("_conjuncts", "A man and woman sit.", set()),
        ("_listed_adjectives", "A black and white dog.", {"a white and black dog."}),
        (
            "_clauses",
            "A man holds a bat while a boy watches.",
            {"while a boy watches, a man holds a bat."},
        ),
        ("_clauses", "A man wears shorts and a blue shirt hangs.", set()),
        ("_fronted", "A dog runs in the snow.", {"in the snow, a dog runs."}),
        ("_fronted", "A dog runs and jumps in the snow.", set()),
        ("_other_side", "A dog next to a cat.", {"a cat next to a dog."}),
        (
            "_other_side",
            "A dog is standing in front of two cats.",
            {"two cats are behind a dog."},
        ),
        # A place has no side from which a dog could be told.
        ("_other_side", "A dog near a beach.", set()),
        ("_passive", "A dog chases two cats.", {"two cats are chased by a dog."}),
        ("_passive", "A dog chasing a cat.", {"a cat being chased by a dog."}),
        ("_passive", "A dog is chasing a cat.", {"a cat is being chased by a dog."}),
        # The man would be left with the smile, or the cup without its coffee.
        ("_passive", "A man holds a dog and smiles.", set()),
        ("_passive", "A man holds a cup of coffee.", set()),
        ("_passive", "A man jumps a fence.", set()),
        ("_relative", "A dog with a red ball.", {"a dog with a ball that is red."}),
        ("_relative", "A red cup of tea.", set()),
        (
            "_tense",
            "A dog runs on sand.",
            {"a dog is running on sand.", "there is a dog running on sand."},
        ),
        ("_tense", "The dog runs on sand.", {"the dog is running on sand."}),
        ("_clothes", "A man in a red hat.", {"a man wearing a red hat."}),
        ("_clothes", "A man in a boat.", set()),
    ],
)
def test_what_a_rule_makes(rule: str, caption: str, expected: set[str]) -> None:
    assert ruled(rule, caption) == expected


def test_articles_follow_the_words() -> None:
    assert ruled("_relative", "An old car.") == {"a car that is old."}


def test_a_colour_is_never_reworded() -> None:
    made = {paraphrase("a white dog.", TAG("a white dog."), generator(n, "x")) for n in range(40)}
    assert all(text is None or "white" in text for text in made)


def test_equal_draws_give_equal_texts_and_never_the_caption_itself() -> None:
    caption = "Two dogs chase a ball in the park while a man watches."
    tokens = TAG(caption)
    made = [paraphrase(caption, tokens, generator(n, "x")) for n in range(40)]
    assert made == [paraphrase(caption, tokens, generator(n, "x")) for n in range(40)]
    assert len(set(made)) > 10
    assert all(text and normalized(text) != normalized(caption) for text in made)


def test_what_has_no_rule_has_no_paraphrase() -> None:
    assert paraphrase("hello", TAG("hello"), generator(0, "x")) is None
    assert paraphrase("", (), generator(0, "x")) is None
    long = "a dog runs. " * MAX_TOKENS
    assert paraphrase(long, TAG(long), generator(0, "x")) is None


@pytest.mark.parametrize(
    ("verb", "third", "ing", "participle"),
    [
        ("chase", "chases", "chasing", "chased"),
        ("carry", "carries", "carrying", "carried"),
        ("hug", "hugs", "hugging", "hugged"),
        ("throw", "throws", "throwing", "thrown"),
        ("run", "runs", "running", None),
        ("lie", "lies", "lying", None),
        ("watch", "watches", "watching", "watched"),
    ],
)
def test_forms_of_verbs(verb: str, third: str, ing: str, participle: str | None) -> None:
    assert (third_person(verb), gerund(verb), past_participle(verb)) == (third, ing, participle)


def test_the_nearest_caption_shares_most_words() -> None:
    others = ["two cats sleep", "a black dog runs", "the black dog runs fast", "A black dog runs."]
    assert nearest_caption("a black dog runs", others) == "the black dog runs fast"
    assert nearest_caption("a black dog runs", ["two cats sleep"]) is None
    assert nearest_caption("a black dog runs", ["The black dog runs!"]) is None
    # Two of five words are shared: 0.4.
    assert nearest_caption("red dogs run", ["red dogs sit still"], least=0.4) is not None
    assert nearest_caption("red dogs run", ["red dogs sit still"], least=0.41) is None
