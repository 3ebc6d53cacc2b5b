"""The world's samples: determinism, separate splits, pixels and tags."""

from __future__ import annotations

import numpy as np
import pytest

from clic import shapes
from clic.errors import ConfigError
from clic.shapes.language import LEXICON, tag
from clic.shapes.render import BACKGROUND, render_scene
from clic.shapes.scenes import COLOURS, SHAPES, Scene, Thing


@pytest.mark.parametrize("objects", [1, 2])
def test_a_sample_is_a_function_of_its_arguments(objects: int) -> None:
    first = shapes.sample("train", 7, objects, seed=3)
    shapes.sample("train", 8, objects, seed=3)
    again = shapes.sample("train", 7, objects, seed=3)
    assert first.captions == again.captions and first.tags == again.tags
    np.testing.assert_array_equal(first.image, again.image)


def test_samples_are_what_they_were() -> None:
    # A change here changes every number that was ever reported on the world.
    lone, pair = (shapes.sample("test", 0, objects) for objects in (1, 2))
    assert lone.captions == (
        "a yellow star",
        "there is a yellow thing",
        "a picture of a yellow star",
        "the yellow star is small",
    )
    assert pair.captions[0] == "a white diamond and a yellow cross"
    for sample, total in ((lone, 1613826), (pair, 1609138)):
        assert isinstance(sample.image, np.ndarray)
        # Another platform's logarithm may move a few pixels by one.
        assert abs(int(sample.image.sum(dtype=np.int64)) - total) < 50


def test_arguments_never_share_random_numbers() -> None:
    samples = [
        shapes.sample(split, index, objects, seed)
        for split in shapes.SPLITS
        for index in (0, 1)
        for objects in (1, 2)
        for seed in (0, 1)
    ]
    assert len({s.key for s in samples}) == len(samples)
    assert len({s.image.tobytes() for s in samples}) == len(samples)


@pytest.mark.parametrize("objects", [1, 2])
def test_sample_form(objects: int) -> None:
    sample = shapes.sample("train", 0, objects)
    assert isinstance(sample.image, np.ndarray)
    assert sample.image.shape == (64, 64, 3) and sample.image.dtype == np.uint8
    assert len(sample.captions) == len(set(sample.captions)) == 4
    assert sample.tags is not None
    for caption, tokens in zip(sample.captions, sample.tags, strict=True):
        assert caption == caption.lower() == " ".join(token.text for token in tokens)
        assert all(caption[t.start : t.end] == t.text for t in tokens)
        assert all((t.pos, t.lemma) == LEXICON[t.text] for t in tokens)


@pytest.mark.parametrize(
    ("split", "objects", "wrong"), [("tran", 1, "tran"), ("train", 3, "objects")]
)
def test_wrong_arguments_are_named(split: str, objects: int, wrong: str) -> None:
    with pytest.raises(ConfigError, match=wrong):
        shapes.sample(split, 0, objects)


def test_tags_of_a_sentence_with_a_period() -> None:
    tokens = tag("the circle is red.")
    assert [t.pos for t in tokens] == ["DET", "NOUN", "AUX", "ADJ", "PUNCT"]
    assert tokens[2].lemma == "be" and tokens[4] == (".", 17, 18, "PUNCT", ".")
    with pytest.raises(KeyError):
        tag("a hexagon")


def test_article_is_right_for_every_word() -> None:
    assert not [word for word in (*SHAPES, *COLOURS) if word[0] in "aeiou"]


@pytest.mark.parametrize("shape", SHAPES)
def test_pixels_show_the_thing_where_it_is(shape: str) -> None:
    scene = Scene((Thing(shape, "white", "large", 20.0, 44.5, 11.0),))
    image = render_scene(scene, np.random.default_rng(0)).astype(float).mean(axis=2)
    rows, columns = np.nonzero(image > BACKGROUND + 70)
    assert columns.min() >= 8.5 and columns.max() <= 31
    assert rows.min() >= 33 and rows.max() <= 56
    assert 60 < len(rows) < 400
    assert abs((columns.min() + columns.max() + 1) / 2 - 20) < 4
    assert abs((rows.min() + rows.max() + 1) / 2 - 44.5) < 2.5


def test_shapes_are_far_apart() -> None:
    def draw(shape: str) -> np.ndarray:
        scene = Scene((Thing(shape, "black", "small", 32.0, 32.0, 7.0),))
        return render_scene(scene, np.random.default_rng(0)).astype(float)

    images = [draw(shape) for shape in SHAPES]
    for i, first in enumerate(images):
        for second in images[:i]:
            assert (abs(first - second).mean(axis=2) > 50).sum() >= 20


def test_unknown_shape_is_a_bug() -> None:
    with pytest.raises(ValueError, match="hexagon"):
        render_scene(
            Scene((Thing("hexagon", "red", "small", 32.0, 32.0, 7.0),)), np.random.default_rng(0)
        )


def test_images_of_a_benchmark_are_lazy_and_alike() -> None:
    images = shapes.triplets("validation", per_category=3).images
    assert len(images) == 18
    np.testing.assert_array_equal(images[5], images[3:7][2])
    np.testing.assert_array_equal(images[-1], images[17])
    assert images[0].dtype == np.uint8
    with pytest.raises(IndexError):
        images[18]


def test_benchmarks_are_functions_of_their_arguments() -> None:
    assert shapes.triplets("test", 5).rows == shapes.triplets("test", 5).rows
    assert shapes.triplets("test", 5).rows != shapes.triplets("test", 5, seed=1).rows
    assert shapes.triplets("test", 5).rows != shapes.triplets("validation", 5).rows
    assert shapes.retrieval("test", 20) == shapes.retrieval("test", 20)
    assert shapes.zero_shot("test", 20)["pair"] == shapes.zero_shot("test", 20)["pair"]
