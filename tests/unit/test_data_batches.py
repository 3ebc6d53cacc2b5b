"""Batches: pixels, statistics, tokens, masks; the same whoever builds them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from clic import images, models, shapes
from clic.config.train_settings import Config
from clic.data import BatchBuilder, ShapesSource, make_builder, make_loader, make_sources, pack
from clic.data.batches.loader import IMAGENET_MEAN, IMAGENET_STD
from clic.data.shards.index import index_path
from clic.data.shards.shard_source import ShardSource
from clic.data.tools.contact_sheet import Section, draw_sheet
from clic.errors import DataError
from clic.models import ClipModel
from clic.types import Batch, Sample


@pytest.fixture(scope="module")
def clip(tiny: Path) -> ClipModel:
    return models.create(str(tiny))


@pytest.fixture
def builder(settings: Callable[..., Config], clip: ClipModel) -> Callable[..., BatchBuilder]:
    def make(*words: str) -> BatchBuilder:
        config = settings(*words)
        return make_builder(config, make_sources(config), clip)

    return make


def assert_same(first: Batch, second: Batch) -> None:
    assert (first.kind, first.step, first.keys) == (second.kind, second.step, second.keys)
    assert first.tensors().keys() == second.tensors().keys()
    for name, value in first.tensors().items():
        assert torch.equal(value, second.tensors()[name]), name


def test_shapes_of_a_composite_batch(builder: Callable[..., BatchBuilder]) -> None:
    batch = builder("captions.composite_positives=3").build(0)
    assert batch.kind == "composite"
    assert batch.images.shape == (4, 32, 32, 3) and batch.images.dtype == torch.uint8
    assert batch.positives.shape == (4, 3, 34) and batch.positives.dtype == torch.int64
    assert batch.negatives is not None and batch.negatives.shape == (4, 1, 34)
    assert batch.negative_mask is not None and batch.negative_mask.dtype == torch.bool
    assert [len(keys) for keys in batch.keys] == [2] * 4


def test_shapes_of_a_single_batch(builder: Callable[..., BatchBuilder]) -> None:
    batch = builder().build(1)
    assert batch.kind == "single"
    assert batch.positives.shape == (4, 1, 34)
    assert batch.negatives is None and batch.negative_mask is None
    assert [len(keys) for keys in batch.keys] == [1] * 4


@pytest.mark.parametrize("statistics", ["model", "imagenet"])
@pytest.mark.parametrize("fit", ["squash", "crop"])
def test_composite_pixels(
    builder: Callable[..., BatchBuilder], clip: ClipModel, statistics: str, fit: str
) -> None:
    words = (f"compose.statistics={statistics}", f"compose.fit={fit}", "seed=3")
    build = builder(*words, "data.decode=exact")
    batch, plan = build.build(0), build.sampler.plan(0)
    assert (batch.mean, batch.std) == (
        (IMAGENET_MEAN, IMAGENET_STD)
        if statistics == "imagenet"
        else (clip.preprocess.mean, clip.preprocess.std)
    )
    orders = set()
    for pixels, row in zip(batch.images.numpy(), plan.rows, strict=True):
        first, second = (shapes.sample("train", i, 1, seed=3).image for i in row.indices)
        expected = [
            images.compose(pair, "pair", row.orientation, 32, fit)  # type: ignore[arg-type]
            for pair in ((first, second), (second, first))
        ]
        matches = [np.array_equal(pixels, e) for e in expected]
        assert sum(matches) == 1
        orders.add(matches.index(True))
    assert {row.orientation for row in plan.rows} == {"landscape", "portrait"}
    assert orders == {0, 1}


def test_single_pixels_use_the_models_statistics(
    builder: Callable[..., BatchBuilder], clip: ClipModel
) -> None:
    build = builder("compose.statistics=imagenet", "data.decode=exact")
    batch, plan = build.build(1), build.sampler.plan(1)
    assert (batch.mean, batch.std) == (clip.preprocess.mean, clip.preprocess.std)
    for found, row in zip(batch.images.numpy(), plan.rows, strict=True):
        image = shapes.sample("train", row.indices[0], 2).image
        np.testing.assert_array_equal(found, images.single(image, 32))  # type: ignore[arg-type]


def test_tokens_are_the_tokenizers(builder: Callable[..., BatchBuilder], clip: ClipModel) -> None:
    build = builder()
    for step in range(2):
        batch = build.build(step)
        for i, (_, captions) in enumerate(build.preview(step, 4)):
            assert torch.equal(batch.positives[i], clip.tokenizer(list(captions.positives)))
            if batch.negatives is not None and captions.negatives[0] is not None:
                expected = clip.tokenizer([captions.negatives[0].text])
                assert torch.equal(batch.negatives[i], expected)


def test_a_missing_negative_is_masked(
    builder: Callable[..., BatchBuilder], monkeypatch: pytest.MonkeyPatch
) -> None:
    build = builder()
    make, calls = build.captioner.make, []

    def without_every_other(*arguments: Any) -> Any:
        row = make(*arguments)
        calls.append(row)
        return row if len(calls) % 2 else type(row)(row.positives, (None,))

    monkeypatch.setattr(build.captioner, "make", without_every_other)
    batch = build.build(0)
    assert batch.negative_mask is not None and batch.negatives is not None
    assert batch.negative_mask.tolist() == [[True], [False], [True], [False]]
    assert batch.tally.no_negative == 2 and batch.tally.captions == 4 * 2 + 2
    assert torch.equal(batch.negatives[1], build.tokens.tokenizer([""]))


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_do_not_depend_on_the_workers(
    builder: Callable[..., BatchBuilder], workers: int
) -> None:
    build = builder()
    alone = list(make_loader(build, 3, 8, 0, pin_memory=False))
    several = list(make_loader(build, 3, 8, workers, pin_memory=False))
    assert [batch.step for batch in alone] == [3, 4, 5, 6, 7]
    for first, second in zip(alone, several, strict=True):
        assert_same(first, second)


def test_a_batch_does_not_depend_on_those_before(builder: Callable[..., BatchBuilder]) -> None:
    used = builder()
    for step in (5, 0, 5):
        assert_same(used.build(step), builder().build(step))


def test_the_seed_decides(builder: Callable[..., BatchBuilder]) -> None:
    assert not torch.equal(builder("seed=1").build(0).images, builder("seed=2").build(0).images)


def test_automatic_workers(
    builder: Callable[..., BatchBuilder], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr("clic.data.batches.loader.DataLoader", lambda *a, **k: seen.append(k) or [])
    for cores, ranks in ((1, 1), (2, 1), (64, 1), (16, 8)):
        monkeypatch.setattr("os.sched_getaffinity", lambda pid, n=cores: range(n), raising=False)
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(ranks))
        list(make_loader(builder(), 0, 1, None, pin_memory=False))
    assert [settings["num_workers"] for settings in seen] == [0, 1, 4, 1]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_sample_ends_in_one_line(
    builder: Callable[..., BatchBuilder], workers: int
) -> None:
    class Broken(ShapesSource):
        def read(self, index: int) -> Sample:
            sample = super().read(index)
            return Sample("the-key", b"no image", sample.captions, sample.tags)

    build = builder()
    build.sources = dict.fromkeys(build.sources, Broken("train", 1, 64))
    with pytest.raises(DataError, match="sample 'the-key': 8 bytes") as error:
        list(make_loader(build, 0, 2, workers, pin_memory=False))
    assert "\n" not in str(error.value)


# --- the world from shards -----------------------------------------------------------------------


def test_the_world_from_shards_gives_the_same_batches(
    settings: Callable[..., Config], clip: ClipModel, tmp_path: Path
) -> None:
    direct = settings("data.samples=24")
    for objects in (1, 2):
        source = ShapesSource("train", objects, 24)
        pack((source.read(i) for i in range(24)), tmp_path / str(objects), shard_size=10)
    packed = settings(
        f"data.shards={tmp_path}/1",
        f"data.single_shards={tmp_path}/2",
        "data.source=shards",
        "data.samples=null",
        "data.split=null",
    )
    builders = [make_builder(c, make_sources(c), clip) for c in (direct, packed)]
    for step in range(8):
        assert_same(builders[0].build(step), builders[1].build(step))


def test_shards_serve_both_kinds(settings: Callable[..., Config], tmp_path: Path) -> None:
    pack((shapes.sample("train", i, 1) for i in range(8)), tmp_path / "w")
    config = settings(
        f"data.shards={tmp_path}/w", "data.source=shards", "data.samples=null", "data.split=null"
    )
    sources = make_sources(config)
    assert sources["composite"] is sources["single"]
    assert isinstance(sources["single"], ShardSource)
    assert index_path(sources["single"].paths[0]).is_file()


# --- the contact sheet ---------------------------------------------------------------------------


def test_preview_shows_what_the_model_is_shown(builder: Callable[..., BatchBuilder]) -> None:
    build = builder()
    rows = build.preview(0, 3)
    assert len(rows) == 3
    whole = build.preview(0, 99)
    assert len(whole) == 4
    for (pixels, captions), (others, same) in zip(rows, whole[:3], strict=True):
        np.testing.assert_array_equal(pixels, others)
        assert captions == same
    sheet = draw_sheet([Section("step 0", whole)])
    assert sheet.mode == "RGB" and sheet.width > 2 * 160
    assert (np.asarray(sheet) == (200, 20, 20)).all(axis=-1).any()  # the false words are red


def test_preview_of_rows_without_negatives(builder: Callable[..., BatchBuilder]) -> None:
    sheet = draw_sheet([Section("step 1", builder().preview(1, 3))], columns=1)
    assert isinstance(sheet, Image.Image)
    assert sheet.height >= 3 * 160
