"""Which generator makes a false caption, by weight; and none that is a caption of the image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from clic.captions import make_tagger, single_negative, word_swap
from clic.captions.composites import sentence_composite
from clic.cli.train import compose
from clic.config.checks import validate
from clic.config.train_settings import CaptionsConfig, Config
from clic.data.batches.captioner import Captioner
from clic.errors import ConfigError
from clic.seeding import generator
from clic.types import Sample

TAG = make_tagger("hanta")
CAPTION = "a red circle is above a blue square"
TOKENS = TAG(CAPTION)


def kinds(weights: dict[str, float], n: int = 2000) -> Counter[str]:
    rng = generator(0, "mixture")
    made = (single_negative(CAPTION, TOKENS, rng, weights) for _ in range(n))
    return Counter(negative.kind for negative in made if negative is not None)


def test_generators_are_drawn_by_weight() -> None:
    assert kinds({"swap": 2}, 20) == {"swap": 20}
    assert kinds({"swap": 0, "replace": 0.1}, 20) == {"replace": 20}
    drawn = kinds({"swap": 3, "replace": 1})
    assert drawn.total() == 2000
    assert abs(drawn["swap"] - 1500) < 80  # four standard deviations


def test_another_is_drawn_where_one_yields_nothing() -> None:
    caption = "a dog"  # nothing to swap
    for seed in range(20):
        made = single_negative(
            caption, TAG(caption), generator(seed, "t"), {"swap": 9, "replace": 1}
        )
        assert made is not None and made.kind == "replace"
        assert single_negative(caption, TAG(caption), generator(seed, "t"), {"swap": 1}) is None


def test_no_other_caption_of_the_image_is_returned() -> None:
    caption = "a dog chasing a cat"
    tokens = TAG(caption)

    def made(*true: str) -> set[str | None]:
        draws = (
            single_negative(caption, tokens, generator(seed, "t"), {"swap": 1}, true)
            for seed in range(10)
        )
        return {negative.text if negative else None for negative in draws}

    assert made() == made("a cat chasing a mouse") == {"a cat chasing a dog"}
    assert made("A cat  chasing a dog.") == {None}


def test_no_true_caption_of_a_composite_is_returned() -> None:
    captions = ("a red circle", "a blue square")
    composite = sentence_composite([[c] for c in captions])
    tokens = [TAG(c) for c in captions]
    texts = {
        made.text
        for seed in range(40)
        if (made := word_swap(composite, tokens, generator(seed, "t")))
    }
    assert texts == {"a red square. a blue circle.", "a blue circle. a red square."}
    true = "A red square. A blue circle"
    for seed in range(40):
        made = word_swap(composite, tokens, generator(seed, "t"), [true])
        assert made is not None and made.text == "a blue circle. a red square."


def test_rows_of_a_batch() -> None:
    image = np.zeros((4, 4, 3), dtype=np.uint8)
    sample = Sample("x", image, ("A dog chasing a cat", "a cat chasing a dog."))
    config = CaptionsConfig(single_negative="mixture", mixture={"swap": 1.0, "replace": 1.0})
    for seed in range(20):
        row = Captioner(config).make("single", [sample], generator(seed, "t"))
        assert row.negatives[0] is not None and row.negatives[0].kind == "replace"


def test_the_shipped_mixture_composes() -> None:
    config = compose(["+experiment=shapes_negclip", "captions=mixed"])
    validate(config)
    assert config.captions.single_negative == "mixture"
    assert config.captions.mixture == {"swap": 0.5, "replace": 0.5}
    config = compose(
        ["+experiment=shapes_negclip", "captions=mixed", "captions.mixture={replace:2}"]
    )
    assert config.captions.mixture == {"swap": 0.5, "replace": 2.0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mixture": {"swop": 1.0, "replace": 1.0}}, "mixture.swop.*did you mean 'swap'"),
        ({"mixture": {"swap": -1.0, "replace": 1.0}}, r"mixture\.swap=-1\.0 must be a number"),
        ({"mixture": {"swap": float("nan")}}, r"mixture\.swap=nan must be a number"),
        ({"mixture": {}}, "fewer than two generators"),
        ({"mixture": {"swap": 1.0, "replace": 0.0}}, "name one as captions.single_negative"),
        ({"single_negative": "swap"}, "no effect with captions.single_negative=swap"),
    ],
)
def test_mistakes_are_named(change: dict[str, object], message: str) -> None:
    config: Config = compose(["+experiment=shapes_negclip", "captions=mixed"])
    for name, value in change.items():
        setattr(config.captions, name, value)
    with pytest.raises(ConfigError, match=message):
        validate(config)


def test_an_unknown_generator_is_named() -> None:
    make: Callable[..., object] = single_negative
    with pytest.raises(ConfigError, match="did you mean 'swap'"):
        make(CAPTION, TOKENS, generator(0, "t"), {"swop": 1.0})
