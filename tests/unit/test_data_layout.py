"""From a plan to pixels and captions that tell where the pixels lie, and how much of it fits."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clic import images, models, shapes
from clic.captions.composites import TokenBudget
from clic.config.checks import validate
from clic.config.train_settings import CaptionsConfig, Config
from clic.data import BatchBuilder, make_builder
from clic.data.batches.captioner import Captioner
from clic.data.sampling.sample_sources import SampleSource
from clic.errors import ConfigError
from clic.models import ClipModel
from clic.seeding import generator
from clic.shapes.scenes import COLOURS
from clic.training import train
from clic.training.metrics_log import read
from clic.types import Sample

BESIDE, STACKED = [(0, 0), (0, 32)], [(0, 0), (32, 0)]
GRID = [(0, 0), (0, 32), (32, 0), (32, 32)]


@pytest.fixture(scope="module")
def clip(tiny: Path) -> ClipModel:
    return models.create(str(tiny))


class Plains(SampleSource):
    """Images of one colour each, whose caption names it, landscape and portrait in turn."""

    colours = tuple(COLOURS)

    def __len__(self) -> int:
        return 2 * len(self.colours)

    def sizes(self) -> np.ndarray:
        return np.array([(48, 32) if i % 2 else (32, 48) for i in range(len(self))])

    def read(self, index: int) -> Sample:
        name = self.colours[index // 2]
        width, height = self.sizes()[index]
        image = np.full((height, width, 3), COLOURS[name], dtype=np.uint8)
        caption = f"a {name} thing"
        return Sample(str(index), image, (caption, caption), (shapes.tag(caption),) * 2)


def colour_at(pixels: np.ndarray, top: int, left: int) -> str:
    """Return the name of the colour that fills a cell of 8 pixels."""
    cell = pixels[top + 8, left + 8].astype(int)
    return min(COLOURS, key=lambda name: int(np.abs(cell - COLOURS[name]).sum()))


AXES = {"left": (1, -1), "right": (1, 1)}
VERTICAL = {"above": -1, "over": -1, "below": 1, "under": 1, "beneath": 1}


@pytest.mark.parametrize("layout", ["pair", "grid4"])
def test_captions_tell_where_the_pixels_lie(
    settings: Callable[..., Config], clip: ClipModel, layout: str
) -> None:
    config = settings(
        "sampling.kinds=composite", "sampling.square=landscape", "data.samples=20",
        "captions.layout_share=1", f"compose.layout={layout}",
    )  # fmt: skip
    source = Plains()
    builder = make_builder(config, {"composite": source, "single": source}, clip)
    seen: Counter[str] = Counter()
    for step in range(20):
        for pixels, captions in builder.preview(step, 4):
            side = len(pixels) // 2
            for sentence in captions.positives[0].rstrip(".").split(". "):
                words = sentence.split()
                first, second = words[1], words[-2]
                phrase = words[3:-3]
                (word,) = set(phrase) & (set(AXES) | set(VERTICAL))
                axis, sign = AXES.get(word) or (0, VERTICAL[word])
                places = [(t, l) for t in (0, side) for l in (0, side)]  # noqa: E741
                for one in (p for p in places if colour_at(pixels, *p) == first):
                    for two in (p for p in places if colour_at(pixels, *p) == second):
                        # Of a pair, each half has two of these places.
                        if one[1 - axis] == two[1 - axis]:
                            assert np.sign(one[axis] - two[axis]) == sign, (sentence, step)
                            seen[word] += 1
    assert set(seen) == set(AXES) | set(VERTICAL)


# --- shares and slots ----------------------------------------------------------------------------


def rows(
    places: list[Any], room: TokenBudget | None = None, n: int = 200, **settings: Any
) -> list[Any]:
    config = CaptionsConfig(tagger="stored", **settings)
    maker = Captioner(config, room)
    samples = [shapes.sample("train", i, 1) for i in range(len(places))]
    return [maker.make("composite", samples, generator(0, "t", i), places) for i in range(n)]


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_the_share_of_composites_that_tell_their_layout(share: float) -> None:
    made = rows(BESIDE, n=400, layout_share=share)
    told = sum(" of " in row.positives[0] for row in made) / len(made)
    assert abs(told - share) < 0.07
    assert {len(row.negatives) for row in made} == {2 if share else 1}
    for row in made:
        if share:
            assert (row.negatives[1] is not None) == (" of " in row.positives[0])


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_share_of_told_captions_that_end_with_a_period(share: float) -> None:
    made = rows(BESIDE, layout_share=1.0, layout_period=share, composite_positives=2)
    ends = [
        {text.endswith(".") for text in (*row.positives, *(n.text for n in row.negatives if n))}
        for row in made
    ]
    assert all(len(found) == 1 for found in ends)
    assert abs(sum(True in found for found in ends) / len(ends) - share) < 0.1


@pytest.mark.parametrize(
    ("changes", "kinds"),
    [
        ({}, ("cross_swap",)),
        ({"layout_share": 0.5}, ("cross_swap", "layout")),
        ({"layout_share": 0.5, "layout_negative": False}, ("cross_swap",)),
        ({"layout_share": 0.5, "composite_negative": "none"}, ("layout",)),
        (
            {"layout_share": 1.0, "layout_negative": False, "composite_negative": "none"},
            (),
        ),
    ],
)
def test_each_kind_of_negative_can_be_switched(
    changes: dict[str, Any], kinds: tuple[str, ...]
) -> None:
    assert CaptionsConfig(**changes).negative_kinds("composite") == kinds
    made = rows(STACKED, n=40, **changes)
    for number, kind in enumerate(kinds):
        found = [row.negatives[number] for row in made]
        assert {negative.kind for negative in found if negative} == {kind}
    assert {len(row.negatives) for row in made} == {len(kinds)}


def test_layout_negatives_alone_need_no_tags() -> None:
    maker = Captioner(CaptionsConfig(layout_share=1.0, composite_negative="none", tagger="stored"))
    bare = [
        Sample(str(i), np.zeros((4, 4, 3), np.uint8), (c,)) for i, c in enumerate(("dog", "cat"))
    ]

    class Bare(Plains):
        def read(self, index: int) -> Sample:
            return bare[index % 2]

    maker.check("composite", Bare())
    row = maker.make("composite", bare, generator(0, "t"), BESIDE)
    assert row.negatives[0] is not None and row.retagged == 0


def test_further_positives_tell_no_layout() -> None:
    for row in rows(BESIDE, n=30, layout_share=1.0, composite_positives=4):
        assert " of " in row.positives[0] and " of " in row.positives[1]
        assert all(text.count(". ") == 1 for text in row.positives[2:])


# --- room ----------------------------------------------------------------------------------------


def test_what_has_no_room_is_left_out_and_counted() -> None:
    room = TokenBudget(lambda text: len(text.split()) + 2, 12)  # three captions of three words
    for row in rows(GRID, room, n=30, composite_positives=2):
        assert row.shortened == 2
        assert all(text.count(".") == 3 and room.fits(text) for text in row.positives)
        assert row.negatives[0] is not None and room.fits(row.negatives[0].text)
    assert all(not row.shortened for row in rows(GRID, n=10))


def test_batches_count_what_was_shortened(
    settings: Callable[..., Config], build_tiny: Callable[..., Any], tmp_path: Path
) -> None:
    text = {"context_length": 14, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    short = build_tiny(tmp_path / "short", text_cfg=text)
    config = settings("compose.layout=grid4", "captions.composite_positives=2")
    source = Plains()

    def tally(clip: ClipModel) -> Any:
        return make_builder(config, {"composite": source, "single": source}, clip).build(0).tally

    found = tally(short)  # "a red thing." has four tokens: three fit between start and end
    assert found.shortened == 8 and found.cut == 0
    assert tally(models.create(config.model.name)).shortened == 0


def test_a_grid_takes_four_images_a_row(settings: Callable[..., Config], clip: ClipModel) -> None:
    config = settings("compose.layout=grid4", "captions.layout_share=0.5")
    source = Plains()
    builder: BatchBuilder = make_builder(config, {"composite": source, "single": source}, clip)
    batch = builder.build(0)
    assert [len(set(keys)) for keys in batch.keys] == [4] * 4
    assert batch.negative_kinds == ("cross_swap", "layout")
    assert batch.negatives is not None and batch.negatives.shape[:2] == (4, 2)
    again = builder.build(0)
    assert torch.equal(batch.images, again.images)
    assert torch.equal(batch.positives, again.positives)


@pytest.mark.parametrize("layout", ["pair", "grid4"])
def test_a_builder_can_be_sent_to_a_worker_that_is_spawned(
    settings: Callable[..., Config], clip: ClipModel, layout: str
) -> None:
    config = settings(f"compose.layout={layout}", "captions.layout_share=0.5")
    source = Plains()
    builder = make_builder(config, {"composite": source, "single": source}, clip)
    sent = pickle.loads(pickle.dumps(builder))
    assert torch.equal(sent.build(0).positives, builder.build(0).positives)


def test_what_the_context_leaves_of_a_false_caption_is_not_false(
    settings: Callable[..., Config], build_tiny: Callable[..., Any], tmp_path: Path
) -> None:
    class Long(Plains):
        def read(self, index: int) -> Sample:
            sample = super().read(index)
            caption = "thing " * 40 + sample.captions[0]
            return Sample(sample.key, sample.image, (caption,), (shapes.tag(caption),))

    config = settings("captions.layout_share=1", "captions.composite_positives=2")
    text = {"context_length": 14, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    short = build_tiny(tmp_path / "short", text_cfg=text)
    batch = make_builder(config, {"composite": Long(), "single": Long()}, short).build(0)
    assert batch.negative_mask is not None and not batch.negative_mask.any()
    assert batch.tally.no_negative == 4
    assert 0 < batch.tally.cut <= batch.tally.captions


def test_cells_of_a_grid() -> None:
    assert images.images_of("pair") == 2 and images.images_of("grid4") == 4
    for orientation in ("landscape", "portrait"):
        assert images.cells("grid4", orientation, 5) == [  # type: ignore[arg-type]
            (0, 0, 2, 2), (0, 2, 2, 3), (2, 0, 3, 2), (2, 2, 3, 3),
        ]  # fmt: skip


# --- a run ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["pair", "grid4"])
def test_a_run_reports_each_kind(settings: Callable[..., Config], layout: str) -> None:
    config = settings(
        "+experiment=shapes_layout", "train.epochs=1", "train.max_steps=3", "data.samples=64",
        f"compose.layout={layout}", "loss.negative_weights={cross_swap: 1, layout: 2}",
    )  # fmt: skip
    run = train(config)
    first = read(run / "metrics.jsonl")[0]
    for name in ("hard_negative", "no_negative"):
        for kind in ("cross_swap", "layout"):
            assert f"composite/{name}/{kind}" in first
    assert first["data/shortened_captions"] == 0


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["captions.layout_share=1.5"], ["captions.layout_share=1.5", "0 to 1"]),
        (["captions.layout_share=-0.1"], ["captions.layout_share=-0.1", "0 or more"]),
        (["captions.layout_share=1", "captions.layout_period=2"], ["captions.layout_period=2.0"]),
        (["captions.layout_period=1"], ["captions.layout_period=1.0 has no effect"]),
        (["captions.layout_negative=false"], ["captions.layout_negative=false has no effect"]),
        (["captions.layout_held_out=[over]"], ["captions.layout_held_out=['over'] has no effect"]),
        (["compose.layout=grid9"], ["compose.layout='grid9'", "grid4"]),
        (
            ["captions.layout_share=0.5", "sampling.kinds=single"],
            ["captions.layout_share=0.5 has no effect with sampling.kinds=single"],
        ),
        (
            ["compose.layout=grid4", "sampling.kinds=single"],
            ["compose.layout=grid4 has no effect with sampling.kinds=single"],
        ),
        (
            ["captions.repair_negatives=false", "captions.layout_share=0.5"],
            ["captions.repair_negatives=false", "captions.layout_share"],
        ),
        (
            ["captions.repair_negatives=false", "compose.layout=grid4"],
            ["captions.repair_negatives=false", "any compose.layout but pair"],
        ),
        (
            ["loss.composite=clip", "captions.composite_negative=none", "captions.layout_share=1"],
            ["captions.layout_negative=true has no effect", "captions.layout_negative=false"],
        ),
        (
            ["loss.composite=softmax_negatives", "loss.unimodal_weight=2"],
            ["loss.unimodal_weight=2.0 has no effect", "leave it at 1.0"],
        ),
        (
            ["loss.negative_weights={layout: 2}"],
            ["loss.negative_weights.layout", "made: cross_swap"],
        ),
        (
            ["loss.negative_weights={cross_swap: 2}"],
            ["loss.negative_weights={'cross_swap': 2.0} has no effect", "one kind"],
        ),
        (
            ["captions.layout_share=1", "loss.negative_weights={layuot: 2}"],
            ["did you mean 'layout'"],
        ),
        (
            ["captions.layout_share=1", "loss.negative_weights={layout: 0}"],
            ["loss.negative_weights.layout=0.0 must be a number above 0"],
        ),
    ],
)
def test_settings_that_do_not_go_together(
    settings: Callable[..., Config], words: list[str], parts: list[str]
) -> None:
    with pytest.raises(ConfigError) as error:
        validate(settings(*words))
    for part in parts:
        assert part in str(error.value)


def test_layout_captions_go_with_plain_clip_where_no_negative_is_made(
    settings: Callable[..., Config],
) -> None:
    validate(
        settings(
            "loss.composite=clip",
            "captions.composite_negative=none",
            "captions.layout_share=1",
            "captions.layout_negative=false",
        )
    )
