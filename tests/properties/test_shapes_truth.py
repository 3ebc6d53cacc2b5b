"""What the world says is true, and its negatives are false, judged by a reader of its own.

The reader knows nothing of how captions are made: it parses the words and looks at the scene.
"""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clic import shapes
from clic.shapes import language
from clic.shapes.scenes import COLOURS, SHAPES, Scene, Thing, sample_pair, sample_single
from clic.types import INVERSE, INVERSE_PHRASE

SIZES = {"small": "small", "little": "small", "large": "large", "big": "large"}
PLACES = {
    "left of": (-1, 0),
    "to the left of": (-1, 0),
    "on the left of": (-1, 0),
    "right of": (1, 0),
    "to the right of": (1, 0),
    "on the right of": (1, 0),
    "above": (0, -1),
    "over": (0, -1),
    "below": (0, 1),
    "under": (0, 1),
    "beneath": (0, 1),
}


def _one_of(words) -> str:
    return "|".join(sorted(words, key=len, reverse=True))


def _description(n: int) -> str:
    return (
        rf"(?:a|the) (?:(?P<size{n}>{_one_of(SIZES)}) )?(?:(?P<colour{n}>{_one_of(COLOURS)}) )?"
        rf"(?P<shape{n}>{_one_of(SHAPES)}|thing)"
        rf"(?: (?:that )?is (?P<said{n}>{_one_of([*COLOURS, *SIZES])}))?"
    )


SENTENCE = re.compile(
    r"(?:there is |this is |a picture of )?"
    + _description(1)
    + rf"(?: (?:and|next to|(?:is )?(?P<place>{_one_of(PLACES)})) "
    + _description(2)
    + r")?"
)


def read(caption: str) -> tuple[list[dict[str, str]], tuple[int, int] | None]:
    """Return what each mentioned thing must be, and where the first is from the second."""
    match = SENTENCE.fullmatch(caption)
    assert match, f"not a sentence of the world: {caption!r}"
    found = match.groupdict()
    wanted = []
    for n in (1, 2):
        if found[f"shape{n}"] is None:
            continue
        facts = {"shape": found[f"shape{n}"], "colour": found[f"colour{n}"]}
        if found[f"size{n}"]:
            facts["size"] = SIZES[found[f"size{n}"]]
        said = found[f"said{n}"]
        if said:
            facts["size" if said in SIZES else "colour"] = SIZES.get(said, said)
        wanted.append({k: v for k, v in facts.items() if v not in (None, "thing")})
    return wanted, PLACES[found["place"]] if found["place"] else None


def is_true(caption: str, scene: Scene) -> bool:
    """Return whether the things of a scene can be assigned to those of a caption."""
    wanted, place = read(caption)
    for things in itertools.permutations(scene.things, len(wanted)):
        fits = all(
            getattr(thing, name) == value
            for thing, facts in zip(things, wanted, strict=True)
            for name, value in facts.items()
        )
        if fits and (place is None or _lies(*things, place)):
            return True
    return False


def _lies(first: Thing, second: Thing, place: tuple[int, int]) -> bool:
    along = (first.x - second.x) * place[0] + (first.y - second.y) * place[1]
    across = (first.x - second.x) * place[1] + (first.y - second.y) * place[0]
    return along > abs(across)


seeds = st.integers(0, 2**32 - 1)


@given(seeds)
def test_every_caption_is_true(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for scene in (sample_single(rng), sample_pair(rng)):
        sentences = language.captions(scene, rng, count=9)
        assert len(set(sentences)) == 9
        assert all(is_true(sentence, scene) for sentence in sentences)


@given(seeds)
def test_first_captions_name_everything_but_size_and_relation(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for scene in (sample_single(rng), sample_pair(rng)):
        wanted, place = read(language.captions(scene, rng, count=1)[0])
        assert place is None
        facts = [{"shape": t.shape, "colour": t.colour} for t in scene.things]
        assert sorted(map(str, wanted)) == sorted(map(str, facts))


@given(seeds)
def test_things_keep_to_their_half_and_apart(seed: int) -> None:
    rng = np.random.default_rng(seed)
    (lone,) = sample_single(rng).things
    for centre in (lone.x, lone.y):
        assert centre - lone.radius >= 16 and centre + lone.radius <= 48
    first, second = sample_pair(rng).things
    assert (first.shape, first.colour) != (second.shape, second.colour)
    gap = max(abs(first.x - second.x), abs(first.y - second.y))
    assert gap > first.radius + second.radius


def test_a_composite_of_middle_halves_is_laid_out_like_a_pair() -> None:
    rng = np.random.default_rng(0)
    lone = np.array(
        [(s.things[0].x, s.things[0].y) for s in (sample_single(rng) for _ in range(4000))]
    )
    pairs = [sample_pair(rng).things for _ in range(4000)]
    beside = np.array([(t.x, t.y) for t, other in pairs if t.x < other.x - 16])
    shifted = lone - (16, 0)
    np.testing.assert_allclose(beside.mean(0), shifted.mean(0), atol=0.2)
    np.testing.assert_allclose(beside.std(0), shifted.std(0), atol=0.2)


def _assert_exact(benchmark: shapes.WorldTriplets) -> None:
    for row in benchmark.rows:
        scene = benchmark.images.scenes[row.image]
        assert is_true(row.positive1, scene), row
        assert is_true(row.positive2, scene), row
        assert not is_true(row.negative, scene), row
        assert len({row.positive1, row.positive2, row.negative}) == 3


@pytest.mark.parametrize("split", shapes.SPLITS)
def test_positives_are_true_and_negatives_false(split: str) -> None:
    benchmark = shapes.triplets(split, per_category=200)
    assert len(benchmark.rows) == len(benchmark.images) == 200 * len(shapes.CATEGORIES)
    _assert_exact(benchmark)


@pytest.mark.parametrize("split", shapes.SPLITS)
def test_relations_apart_are_true_and_false(split: str) -> None:
    benchmark = shapes.relations(split, per_category=100)
    assert len(benchmark.rows) == len(benchmark.images) == 100 * 12
    _assert_exact(benchmark)


@given(seeds)
def test_relations_apart_of_any_seed_are_true_and_false(seed: int) -> None:
    benchmark = shapes.relations("test", per_category=2, seed=seed)
    _assert_exact(benchmark)
    for row in benchmark.rows:
        (_, one), (_, two), (_, false) = map(read, (row.positive1, row.positive2, row.negative))
        assert one and false and two == (-one[0], -one[1])
        assert false in (one, two)  # the phrases exchanged, or the relation replaced


def test_negatives_edit_what_their_category_says() -> None:
    for row in shapes.triplets("test", per_category=100).rows:
        old, new = row.positive1.split(), row.negative.split()
        changed = [(a, b) for a, b in zip(old, new, strict=True) if a != b]
        if row.category.startswith("swap"):
            assert sorted(old) == sorted(new)
            kinds = {"swap_att": set(COLOURS), "swap_noun": set(SHAPES)}
            if row.category in kinds:
                assert {w for pair in changed for w in pair} <= kinds[row.category]
        else:
            (change,) = changed
            relations = {word for phrase in PLACES for word in phrase.split()}
            kinds = {
                "replace_att": set(COLOURS),
                "replace_obj": set(SHAPES),
                "replace_rel": relations,
            }
            assert set(change) <= kinds[row.category]


def test_benchmarks_hold_scenes_with_a_shared_colour_or_noun() -> None:
    benchmark = shapes.triplets("test", per_category=200)
    shared = {"colour": 0, "shape": 0}
    for scene in benchmark.images.scenes[400:]:
        for name in shared:
            shared[name] += len({getattr(thing, name) for thing in scene.things}) == 1
    assert min(shared.values()) > 20


@given(st.sampled_from(sorted(PLACES)))
def test_inverse_phrases(phrase: str) -> None:
    place, inverse = PLACES[phrase], PLACES[INVERSE_PHRASE[phrase]]
    assert inverse == (-place[0], -place[1])


def test_inverse_relations() -> None:
    assert all(INVERSE[INVERSE[name]] == name for name in INVERSE)


def test_gallery_has_no_two_alike() -> None:
    gallery = shapes.retrieval("test")
    bags = {tuple(sorted(caption.replace(" and", "").split())) for caption in gallery.captions}
    assert len(bags) == len(gallery.captions) == len(gallery.images) == 500
    for caption, owner in zip(gallery.captions, gallery.owner, strict=True):
        assert is_true(caption, gallery.images.scenes[owner])


def test_exactly_one_class_of_each_task_is_true() -> None:
    for task in shapes.zero_shot("test", size=100).values():
        for scene, target in zip(task.images.scenes, task.targets, strict=True):
            fitting = [
                c for c, prompts in enumerate(task.class_prompts) if is_true(prompts[0], scene)
            ]
            assert fitting == [target]
            assert all(is_true(prompt, scene) for prompt in task.class_prompts[target])
