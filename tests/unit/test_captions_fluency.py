"""Swaps chosen by counts of true captions: the equation, the table, the choice, what stays true."""

from __future__ import annotations

import io
import json
import sys
import tarfile
from collections.abc import Callable
from functools import partial
from math import log
from pathlib import Path

import numpy as np
import pytest

import clic
from clic.captions.doubtful_swaps import is_doubtful
from clic.captions.fluency import CaptionCounts, Fluency, Fluent, edited_tokens
from clic.captions.fluency_events import events
from clic.captions.lexicon import default_lexicon
from clic.captions.negatives import distinct_negatives, single_negative
from clic.captions.swap import swap
from clic.captions.tagging import make_tagger
from clic.cli.data import main
from clic.cli.train import compose
from clic.config.checks import validate
from clic.data.shards.records import annotate
from clic.errors import ConfigError, DataError
from clic.seeding import generator
from clic.types import HardNegative

TAG = make_tagger("hanta")
LEXICON = default_lexicon()
USUAL = ["a boy watches a girl", "a girl watches a boy", "a boy with a ball", "a girl with a ball"]


def counted(captions: list[str]) -> np.ndarray:
    counts = CaptionCounts()
    for caption in captions:
        counts.add(TAG(caption))
    return counts.table()


def swaps(caption: str) -> list[HardNegative]:
    make = partial(swap, caption, TAG(caption), generator(0, "fluency"))
    return distinct_negatives(make, 40)


def test_events_of_a_caption() -> None:
    found = list(events(TAG("a dog chases two red balls"), LEXICON))
    words = [(event.contexts[-1], event.word) for event in found if event.kind == "words"]
    assert words[0] == (("words", "<s>", "<s>"), "a")
    assert words[-1] == (("words", "red", "balls"), "</s>")
    gist = [event.word for event in found if event.kind == "gist"]
    assert gist[:2] == ["animals", "chase"] and gist[-1] == "</s>"
    pairs = {(*event.contexts[-1][1:], event.word) for event in found if event.kind == "pairs"}
    assert pairs == {
        ("subject", "chase", "dog"), ("object", "chase", "ball"),
        ("modifier", "two", "ball"), ("modifier", "red", "ball"),
    }  # fmt: skip


def test_the_score_by_hand() -> None:
    """One caption is counted twice, so that each count is 2 and each context has one word."""
    model = Fluency(counted(["red ball", "red ball"]))
    assert model.captions == 2
    tokens = TAG("red ball")
    assert model.scores(tokens, [HardNegative("red ball", "swap", ())]) == [0.0]
    # Each word's p alone is p0 = (2 + 3/4) / (6 + 3). After "<s>", and after "<s> <s>", "ball" was
    # never found in 2 times, and 1 other word was: p = p0 / 3, then p0 / 9.
    other = edited("red ball", "ball", "red")
    made = edited_tokens(tokens, other)
    assert [token.text for token in made] == ["ball", "red"]
    fresh = set(events(made, LEXICON)) - set(events(tokens, LEXICON))
    assert {event.kind for event in fresh} == {"words"}
    assert model.scores(tokens, [other])[0] == pytest.approx(2 * log(1 / 3))


def edited(caption: str, first: str, second: str) -> HardNegative:
    """Return the caption with its two words exchanged, as `swap` would edit it."""
    from clic.types import Edit

    old = caption.split()
    cut = len(old[0])
    edits = (Edit(0, (0, cut), old[0], first), Edit(0, (cut + 1, len(caption)), old[1], second))
    return HardNegative(f"{first} {second}", "swap", edits)


def test_what_reads_well_is_taken() -> None:
    caption = "a boy watches a girl with a ball"
    fluent = Fluent(Fluency(counted(USUAL * 20)), candidates=30, least=-1000)
    made = fluent.best(TAG(caption), swaps_of(caption))
    assert made is not None and made.text == "a girl watches a boy with a ball"
    scores = fluent.model.scores(TAG(caption), swaps(caption))
    texts = dict(zip([made.text for made in swaps(caption)], scores, strict=True))
    assert texts["a ball watches a girl with a boy"] < texts[made.text] - 5
    strict = fluent._replace(least=1.0)
    assert strict.best(TAG(caption), swaps_of(caption)) is None


def swaps_of(caption: str) -> Callable[[], HardNegative | None]:
    return partial(swap, caption, TAG(caption), generator(0, "fluency"))


def test_another_generator_is_drawn_where_no_swap_reads_well() -> None:
    caption, strict = "a dog chases a cat", Fluent(Fluency(counted(USUAL)), least=1.0)
    made = single_negative(
        caption, TAG(caption), generator(0, "t"), {"swap": 9, "replace": 1}, (), strict
    )
    assert made is not None and made.kind == "replace"
    plain = single_negative(caption, TAG(caption), generator(0, "t"), {"swap": 1})
    assert plain is not None and plain.text == "a cat chases a dog"


@pytest.mark.parametrize(
    ("caption", "text"),
    [
        ("two tan and white dogs and one tan dog", "two tan and tan dogs and one white dog"),
        ("two men , one wearing a green shirt , the other wearing red are skating .",
         "two men , one wearing red , the other wearing a green shirt are skating ."),
        ("a woman in a white shirt is wearing a cowboy hat",
         "a woman in a cowboy hat is wearing a white shirt"),
        ("a surfer rides a large wave on a blue board",
         "a surfer rides a blue board on a large wave"),
        ("a man does tricks on a dirt ramp on a green bike",
         "a man does tricks on a green bike on a dirt ramp"),
        ("a man in an orange kayak and a man in a blue kayak paddle on a lake",
         "a man in a blue kayak and a man in an orange kayak paddle on a lake"),
        ("a man in a pink shirt stands next to a man in orange",
         "a man in orange stands next to a man in a pink shirt"),
        ("some people are sitting and others are standing",
         "some people are standing and others are sitting"),
        ("three lambs : one white , one black", "three lambs : one black , one white"),
        ("a black and a white dog on the snow", "a white and a black dog on the snow"),
        ("a man with a grey hat and a silver chain", "a man with a silver hat and a grey chain"),
        ("a girl is comforting a small child", "a child is comforting a small girl"),
        ("a man leans towards another musician", "a musician leans towards another man"),
        ("the boy safely skates before descending again",
         "the boy again skates before descending safely"),
        ("a child slides down a blue slide with mother on top of the slide",
         "a child slides down the slide with mother on top of a blue slide"),
        ("a man and his dog on a mountain", "a dog and his man on a mountain"),
        ("a man plays frisbee with his dog", "a dog plays frisbee with his man"),
        ("a man affectionately kissing a woman", "a woman affectionately kissing a man"),
        ("a man in a yellow shirt wearing plastic jewelry",
         "a man in plastic jewelry wearing a yellow shirt"),
        ("six men stand in a circle playing instruments in a park",
         "six men stand in a park playing instruments in a circle"),
        ("a man sits in a booth at a restaurant", "a man sits in a restaurant at a booth"),
        ("a dog is drifting on a lake in a small boat",
         "a dog is drifting on a boat in a small lake"),
        ("two girls are walking by a tree in front of a brick building",
         "two girls are walking by a brick building in front of a tree"),
        ("a man jumping a ramp on a bike", "a man jumping a bike on a ramp"),
        ("hikers cross a bridge over a stream", "hikers cross a stream over a bridge"),
    ],
)  # fmt: skip
def test_what_may_still_be_true_is_not_taken(caption: str, text: str) -> None:
    found = {made.text: made for made in swaps(caption)}
    made = found[text]
    tokens = TAG(caption)
    assert is_doubtful(tokens, edited_tokens(tokens, made), made, LEXICON)


@pytest.mark.parametrize(
    ("caption", "text"),
    [
        ("a girl in a black hat wears a bikini", "a girl in a black bikini wears a hat"),
        ("a man in a red hat and a woman in a blue coat",
         "a man in a blue hat and a woman in a red coat"),
        ("a big dog bites a little dog", "a little dog bites a big dog"),
        ("a tan dog chases a white dog", "a white dog chases a tan dog"),
        ("a dog in a pink shirt chews a bone while a dog in a red shirt sleeps",
         "a dog in a red shirt chews a bone while a dog in a pink shirt sleeps"),
        ("a man wearing no shirt and a hat", "a man wearing no hat and a shirt"),
        ("a man holds a baby", "a baby holds a man"),
        ("a woman carries a girl", "a girl carries a woman"),
        ("men are standing near a small plane on a runway",
         "men are standing near a runway on a small plane"),
        ("a man looks at a woman and her dog", "a woman looks at a man and her dog"),
        ("a boy in a black hat stands on a rock and a girl in a red coat stands in a pool",
         "a boy in a red hat stands on a rock and a girl in a black coat stands in a pool"),
    ],
)  # fmt: skip
def test_what_is_false_may_be_taken(caption: str, text: str) -> None:
    made = {made.text: made for made in swaps(caption)}[text]
    tokens = TAG(caption)
    assert not is_doubtful(tokens, edited_tokens(tokens, made), made, LEXICON)


def test_the_file_is_read_by_python_and_mistakes_are_named(tmp_path: Path) -> None:
    path = tmp_path / "counts.npy"
    np.save(path, counted(USUAL * 20))
    caption = "a boy watches a girl with a ball"
    with_it = clic.hard_negatives(caption, ["swap"], 1, fluency=path)
    assert [made.kind for made in with_it] == ["swap"]
    assert clic.hard_negatives(caption, ["swap"], 1, fluency=Fluency.load(path)) == with_it
    with pytest.raises(ConfigError, match=r"none.npy cannot be used: No such file"):
        clic.hard_negatives(caption, fluency=tmp_path / "none.npy")
    np.save(path, np.zeros((2, 3), np.uint64))
    with pytest.raises(ConfigError, match=r"counts are none of captions.*clic-data count"):
        clic.hard_negatives(caption, fluency=path)
    with pytest.raises(DataError, match="no counts"):
        Fluency(np.zeros(3))


def test_settings_that_swap_nothing_are_refused() -> None:
    words = ["+experiment=photos_best", "data.shards=s", "model.name=m", "captions.fluency=f"]
    validate(compose(words))
    with pytest.raises(ConfigError, match=r"captions.fluency=f has no effect"):
        validate(compose([*words, "captions.mixture={replace: 1, swap: 0, swap_attributes: 0}"]))
    with pytest.raises(ConfigError, match=r"fluency_least=-3.0 has no effect"):
        validate(compose([*words[:3], "captions.fluency_least=-3"]))
    alone = ["+experiment=vitb32_single_image", *words[1:]]
    validate(compose(alone))
    with pytest.raises(ConfigError, match=r"captions.fluency=f has no effect"):
        validate(compose([*alone, "captions.composite_negative=none"]))


def test_the_command_counts_stored_and_other_tags_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for number, caption in enumerate(USUAL):
            record = {"captions": [caption]}
            if number % 2:
                record |= annotate([caption], TAG)
            for ending, data in (("jpg", b"image"), ("json", json.dumps(record).encode())):
                member = tarfile.TarInfo(f"{number}.{ending}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    out = tmp_path / "counts.npy"
    monkeypatch.setattr(sys, "argv", ["clic-data", "count", str(tmp_path), "--out", str(out)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert "counts of 4 captions" in capsys.readouterr().out
    assert np.array_equal(np.load(out), counted(USUAL))
