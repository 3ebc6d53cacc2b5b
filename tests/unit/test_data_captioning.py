"""Captions of a row: lower case, stored and inline tags, positives and negatives as set."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from clic import shapes
from clic.captions.tagging import _load
from clic.config.train_settings import CaptionsConfig
from clic.data import SampleSource
from clic.data.batches.captioner import Captioner, check_captions
from clic.data.sampling.sample_sources import MixedSource
from clic.errors import ConfigError, DataError
from clic.types import Sample, Token

RNG = np.random.default_rng
IMAGE = np.zeros((4, 4, 3), dtype=np.uint8)


def token(text: str, start: int, pos: str) -> Token:
    return Token(text, start, start + len(text), pos, text.lower())


DOG = Sample(
    "dog",
    IMAGE,
    ("A Brown dog", "It barks"),
    ((token("A", 0, "DET"), token("Brown", 2, "ADJ"), token("dog", 8, "NOUN")), ()),
)
CAT = Sample(
    "cat",
    IMAGE,
    ("A Black cat.", "It sleeps"),
    ((token("A", 0, "DET"), token("Black", 2, "ADJ"), token("cat", 8, "NOUN")), ()),
)


def captioner(**settings: object) -> Captioner:
    return Captioner(CaptionsConfig(**{"tagger": "stored", **settings}))  # type: ignore[arg-type]


def test_composite_captions_in_lower_case() -> None:
    row = captioner().make("composite", [DOG, CAT], RNG(0))
    assert row.positives[:2] == ("a brown dog. a black cat.", "a black cat. a brown dog.")
    assert row.negatives[0] is not None
    text = row.negatives[0].text
    assert text == text.lower()
    assert "a black dog." in text or "a brown cat." in text


def test_a_true_cross_swap_is_kept_only_where_repair_is_off() -> None:
    row = captioner().make("composite", [DOG, DOG], RNG(0))
    assert row.negatives[0] is None
    tags = (token("a", 0, "DET"), token("black", 2, "ADJ"), token("dog", 8, "NOUN"))
    black = Sample("black", IMAGE, ("a black dog",), (tags,))
    assert captioner().make("composite", [DOG, black], RNG(0)).negatives[0] is None
    published = captioner(repair_negatives=False).make("composite", [DOG, black], RNG(0))
    assert published.negatives[0] is not None


def test_case_is_kept_where_that_is_asked() -> None:
    row = captioner(lowercase=False).make("composite", [DOG, CAT], RNG(0))
    assert row.positives[:2] == ("A Brown dog. A Black cat.", "A Black cat. A Brown dog.")
    assert row.negatives[0] is not None and "A " in row.negatives[0].text


def test_further_positives_join_other_sentences() -> None:
    row = captioner().make("composite", [DOG, CAT], RNG(0))
    assert len(row.positives) == 4
    for text in row.positives[2:]:
        assert sorted(text.rstrip(".").split(". ")) == ["it barks", "it sleeps"]


def test_single_rows_have_the_first_caption_as_it_stands() -> None:
    row = captioner().make("single", [CAT], RNG(0))
    assert row.positives == ("a black cat.",) and row.negatives == ()


@pytest.mark.parametrize("kind", ["swap", "replace"])
def test_single_negatives(kind: str) -> None:
    sample = shapes.sample("train", 0, objects=2)
    maker = captioner(single_negative=kind)
    assert maker.negative_kinds["single"] == (kind,)
    row = maker.make("single", [sample], RNG(1))
    assert row.negatives[0] is not None
    assert row.negatives[0].text != row.positives[0]
    assert row.negatives[0].kind == kind


def test_number_of_negatives() -> None:
    assert captioner().negative_kinds["composite"] == ("cross_swap",)
    assert captioner().negative_kinds["single"] == ()
    assert captioner(composite_negative="none").negative_kinds["composite"] == ()


def test_no_negative_is_made_where_none_is_asked() -> None:
    untagged = Sample("x", IMAGE, ("a dog",))
    row = captioner(composite_negative="none").make("composite", [untagged, untagged], RNG(0))
    assert row.negatives == ()


def test_hanta_tags_need_no_stored_ones() -> None:
    bare = [Sample(s.key, s.image, s.captions) for s in (DOG, CAT)]
    row = captioner(tagger="hanta").make("composite", bare, RNG(0))
    assert row.negatives[0] is not None and row.negatives[0].text != row.positives[0]


def test_equal_generators_give_equal_captions() -> None:
    maker = captioner()
    first, second = (maker.make("composite", [DOG, CAT], RNG(7)) for _ in range(2))
    assert first == second
    assert len({maker.make("composite", [DOG, CAT], RNG(i)).negatives[0] for i in range(20)}) > 1


@pytest.mark.parametrize("captions", [(), ("",), (" . ",), ("..", "a dog"), ("?!",)])
def test_a_sample_without_caption_is_named(captions: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match="'x' has no caption"):
        check_captions(Sample("x", IMAGE, captions))


def test_a_caption_that_is_no_text_is_named() -> None:
    with pytest.raises(DataError, match="'x': a caption holds half a character"):
        check_captions(Sample("x", IMAGE, ("a dog", "half \ud83d")))


def test_a_word_that_would_take_minutes_to_encode_is_named() -> None:
    blob = "qX7" * 20_000
    with pytest.raises(DataError, match="'x': a caption holds a word of 60000 characters"):
        check_captions(Sample("x", IMAGE, ("a dog", f"its data: {blob}")))
    check_captions(Sample("x", IMAGE, ("a dog " * 400, "qX7" * 300, " " * 2000)))


class Listed(SampleSource):
    def __init__(self, samples: list[Sample | None]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def sizes(self) -> np.ndarray:
        return np.full((len(self), 2), 4, dtype=np.int32)

    def read(self, index: int) -> Sample:
        found = self.samples[index]
        if found is None:
            raise DataError("broken")
        return found


def test_a_setting_that_wants_tags_where_there_are_none_is_named() -> None:
    bare = Sample("x", IMAGE, ("a dog",))
    for samples in ([bare, bare], [None], [bare] * 16 + [DOG]):
        with pytest.raises(ConfigError, match=r"carry no tags.*captions\.tagger=hanta"):
            captioner().check("composite", Listed(samples))
        captioner(tagger="hanta").check("composite", Listed(samples))
        captioner().check("single", Listed(samples))  # which have no false captions
    captioner().check("composite", Listed([None, bare, DOG]))
    captioner().check("composite", Listed([Sample("x", IMAGE, ("a dog",), ())]))


def test_each_source_of_a_mix_is_looked_at() -> None:
    bare = Sample("x", IMAGE, ("a dog",))
    tagged, untagged = Listed([DOG] * 20), Listed([bare] * 20)
    for sources in ([tagged, untagged], [untagged, tagged]):
        captioner().check("composite", MixedSource(sources, [1.0, 1.0]))
    with pytest.raises(ConfigError, match="carry no tags"):
        captioner().check("composite", MixedSource([untagged, untagged], [1.0, 1.0]))


def test_a_tagger_that_is_not_installed_is_told_before_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "spacy", None)
    _load.cache_clear()
    with pytest.raises(ConfigError, match=r"captions\.tagger=spacy needs spaCy"):
        captioner(tagger="spacy").check("composite", Listed([DOG]))


@pytest.mark.parametrize(
    ("caption", "tags"),
    [("a dog", DOG.tags), ("The brown dog", DOG.tags), ("a dog", ()), ("a dog", None)],
    ids=["too short", "other words", "known to be of another", "none"],
)
def test_missing_tags_and_those_of_another_caption_are_made_and_counted(
    caption: str, tags: Any
) -> None:
    sample = Sample("x", IMAGE, (caption,), tags)
    row = captioner().make("composite", [sample, CAT], RNG(0))
    assert row.retagged == 1 and row.negatives[0] is not None
    assert captioner().make("composite", [sample, sample], RNG(0)).retagged == 2
    bare = [Sample(s.key, s.image, s.captions) for s in (sample, CAT)]
    assert captioner(tagger="hanta").make("composite", bare, RNG(0)).retagged == 0


def test_lower_case_leaves_every_character_in_its_place() -> None:
    caption = "İ dog"  # str.lower makes two characters of the first
    tags = ((token("İ", 0, "NOUN"), token("dog", 2, "NOUN")),)
    sample = Sample("x", IMAGE, (caption,), tags)
    assert captioner().make("composite", [sample, CAT], RNG(0)).retagged == 0


PARK = Sample("park", IMAGE, ("A black dog chases a white cat.", "Two animals run.", "A dog."))


def single(**settings: object) -> Captioner:
    return captioner(**{"tagger": "hanta", "single_negative": "swap", **settings})


def test_a_random_caption_of_a_single_image_is_trained_on() -> None:
    made = {single(single_caption="random").make("single", [PARK], RNG(n)) for n in range(40)}
    assert {row.positives for row in made} == {(c.lower(),) for c in PARK.captions}
    first = {single().make("single", [PARK], RNG(n)).positives for n in range(40)}
    assert first == {(PARK.captions[0].lower(),)}


def test_a_drawn_caption_without_words_gives_way_to_the_first() -> None:
    sample = Sample("dots", IMAGE, ("a dog", "...", "!"))
    made = {single(single_caption="random").make("single", [sample], RNG(n)) for n in range(20)}
    assert {row.positives for row in made} == {("a dog",)}


def test_stored_tags_of_the_drawn_caption_are_used() -> None:
    tags = (token("It", 0, "PRON"), token("barks", 3, "VERB"))
    sample = Sample("dog", IMAGE, DOG.captions, (DOG.tags[0], tags))  # type: ignore[index]
    rows = [
        captioner(single_negative="replace", single_caption="random").make(
            "single", [sample], RNG(n)
        )
        for n in range(20)
    ]
    assert {row.positives[0] for row in rows} == {"a brown dog", "it barks"}
    assert sum(row.retagged for row in rows) == 0


def test_a_paraphrase_is_the_second_true_caption_and_has_a_false_one_of_its_own() -> None:
    made = single(paraphrase="rules")
    assert made.negative_kinds["single"] == ("swap", "swap_of_paraphrase")
    for n in range(20):
        row = made.make("single", [PARK], RNG(n))
        caption, reworded = row.positives
        assert caption == PARK.captions[0].lower()
        assert reworded != caption
        own, other = row.negatives
        assert own is not None and other is not None
        assert {own.text, other.text}.isdisjoint({caption, reworded})


def test_what_no_rule_rewords_is_its_own_paraphrase() -> None:
    sample = Sample("word", IMAGE, ("hello",))
    row = single(paraphrase="rules").make("single", [sample], RNG(0))
    assert row.positives == ("hello", "hello")


def test_every_second_paraphrase_is_another_caption_that_is_near() -> None:
    near = "a dark dog chases a white cat outside"
    sample = Sample("near", IMAGE, ("A dark dog chases a white cat.", near, "Animals."))
    made = [single(paraphrase="captions").make("single", [sample], RNG(n)) for n in range(60)]
    taken = [row.positives[1] for row in made]
    assert 5 <= taken.count(near) <= 25  # a quarter: half of them, and half of those reworded
    assert all("outside" not in row.positives[0] for row in made)
    far = Sample("far", IMAGE, ("A dark dog chases a white cat.", "Animals."))
    rows = [single(paraphrase="captions").make("single", [far], RNG(n)) for n in range(20)]
    assert all("animals" not in row.positives[1] for row in rows)
