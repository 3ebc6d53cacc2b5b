"""Batches from a stream: their kinds, partners and counts, settings, and how a run goes on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from clic import data, models, runs
from clic.config.checks import validate
from clic.config.train_settings import Config
from clic.data.streaming import stream_builder
from clic.data.streaming.stream_builder import StreamBuilder, StreamSampler
from clic.errors import ConfigError, DataError
from clic.training import train
from clic.training.metrics_log import read
from clic.types import Tally

WIDE, HIGH = (40, 30), (30, 40)


@pytest.fixture
def shards(tmp_path: Path, tar_of: Callable[..., bytes]) -> Path:
    """Return a folder of four shards; every third image is portrait, every tenth broken."""
    folder = tmp_path / "shards"
    folder.mkdir()
    number = 0
    for shard in range(4):
        samples: list[Any] = []
        for _ in range(10 + 5 * shard):
            shape = HIGH if number % 3 == 0 else WIDE
            record = {"top_caption": f"a red dog number {number}", "all_captions": ["two cats"]}
            samples.append((f"{number:03d}", record, None if number % 10 == 9 else shape))
            number += 1
        (folder / f"{shard:02d}.tar").write_bytes(tar_of(samples))
    return folder


def words(shards: Path, *more: str) -> list[str]:
    return [
        "data=stream", f"data.shards={shards}", "data.samples=64", "data.buffer=12",
        "data.caption_key=[top_caption,all_captions]", "data.max_broken=0.5", "data.workers=0",
        *more,
    ]  # fmt: skip


@pytest.fixture
def builder(
    shards: Path, settings: Callable[..., Config], tiny: Path
) -> Callable[..., StreamBuilder]:
    def make(*more: str, rank: int = 0, ranks: int = 1) -> StreamBuilder:
        config = settings(*words(shards, *more))
        validate(config)
        clip = models.create(f"local-dir:{tiny}", "included")
        made = data.make_builder(config, data.make_sources(config), clip, rank, ranks)
        assert isinstance(made, StreamBuilder)
        return made

    return make


def test_an_image_alone_has_no_partner(builder: Callable[..., StreamBuilder]) -> None:
    made = builder(
        "compose.layout=alone", "captions.composite_negative=swap", "loss.unimodal_weight=0",
        "captions.tagger=hanta",
    )  # fmt: skip
    composite, single = made.build(0), made.build(1)
    assert composite.kind == "composite" and composite.negative_kinds == ("swap",)
    assert [len(row) for row in composite.keys + single.keys] == [1] * (2 * len(single.keys))
    # So nobody holds the buffer's samples a second time.
    pool = made._samples().pool
    assert pool.count(landscape=True) == pool.count(landscape=False) == 0
    joined = builder("captions.tagger=hanta")
    joined.build(0)
    assert joined._samples().pool.count(landscape=True) > 0


def orientation(key: str) -> str:
    return "portrait" if int(key) % 3 == 0 else "landscape"


def test_partners_have_the_orientation_of_the_first_image(
    builder: Callable[..., StreamBuilder],
) -> None:
    made = builder("captions.tagger=hanta")
    batches = [made.build(step) for step in range(40)]
    assert [batch.kind for batch in batches[:4]] == ["composite", "single"] * 2
    pairs = [row for batch in batches[::2] for row in batch.keys]
    assert all(len(row) == 2 and row[0] != row[1] for row in pairs)
    assert all(orientation(a) == orientation(b) for a, b in pairs)
    assert {orientation(a) for a, _ in pairs} == {"portrait", "landscape"}
    assert len({b for _, b in pairs}) > 20
    # First images and single ones follow the stream: each shard's samples once a pass.
    firsts = [row[0] for batch in batches for row in batch.keys]
    times = Counter(firsts)
    assert max(times.values()) - min(times.values()) <= 2 and len(times) >= 60
    assert batches[0].images.shape == (4, 32, 32, 3) and batches[0].images.dtype == torch.uint8


def test_four_images_on_a_canvas(builder: Callable[..., StreamBuilder]) -> None:
    made = builder("compose.layout=grid4", "captions.tagger=hanta")
    for row in made.build(0).keys:
        assert len(set(row)) == 4 and len({orientation(key) for key in row}) == 1


def test_no_image_is_joined_with_itself(
    builder: Callable[..., StreamBuilder], tmp_path: Path, tar_of: Callable[..., bytes]
) -> None:
    """Though the buffer holds the three images of each orientation from many passes."""
    folder = tmp_path / "few"
    folder.mkdir()
    few = [(f"{n}", {"top_caption": f"a dog {n}"}, HIGH if n % 2 else WIDE) for n in range(6)]
    (folder / "0.tar").write_bytes(tar_of(few))
    made = builder(f"data.shards={folder}", "data.buffer=100", "captions.tagger=hanta")
    pairs = [row for step in range(0, 40, 2) for row in made.build(step).keys]
    assert len(pairs) == 80 and all(a != b for a, b in pairs)
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "0.tar").write_bytes(tar_of(few[:2]))
    made = builder(f"data.shards={alone}", "data.buffer=5", "captions.tagger=hanta")
    with pytest.raises(DataError, match=r"too few different \w+ images to join"):
        made.build(0)


def test_the_store_is_listed_once(
    shards: Path, settings: Callable[..., Config], tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed: list[Any] = []
    locate = stream_builder.locate_shards
    monkeypatch.setattr(
        stream_builder, "locate_shards", lambda *words: listed.append(words) or locate(*words)
    )
    config = settings(*words(shards, "captions.tagger=hanta"))
    sources, clip = data.make_sources(config), models.create(f"local-dir:{tiny}", "included")
    sampler = data.make_sampler(config, sources, 0, 1)
    made = data.make_builder(config, sources, clip, 0, 1, sampler)
    assert len(listed) == 1 and "4 shards" in sampler.summary()
    assert len(made.stream.order.shards) == 4


def test_what_is_broken_is_counted(builder: Callable[..., StreamBuilder]) -> None:
    made = builder("sampling.kinds=single", "captions.tagger=hanta", "data.buffer=1")
    total, faults = Tally(), []
    while total.shards < 4:
        batch = made.build(0)
        total += batch.tally
        faults += batch.faults
    # Seven of 70 images are broken; the last batch may hold some of the next pass.
    assert total.broken_shards == 0 and 7 <= total.broken <= 8
    assert 70 <= total.samples <= 70 + 5 and total.broken == len(faults)


def test_too_few_of_an_orientation(
    builder: Callable[..., StreamBuilder], tmp_path: Path, tar_of: Callable[..., bytes]
) -> None:
    folder = tmp_path / "alone"
    folder.mkdir()
    wide: list[Any] = [(f"{n}", {"top_caption": "a dog"}, WIDE) for n in range(40)]
    (folder / "0.tar").write_bytes(tar_of([("high", {"top_caption": "a cat"}, HIGH), *wide]))
    made = builder(
        f"data.shards={folder}", "data.buffer=2", "train.batch_size=8", "captions.tagger=hanta"
    )
    with pytest.raises(DataError, match=r"data\.buffer=2 samples has too few different portrait"):
        for step in range(0, 20, 2):
            made.build(step)


# --- settings ---


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["data.samples=null"], r"data\.source=stream needs data\.samples"),
        (["data.shards=null"], r"data\.shards is not set"),
        (["data.timeout=0"], r"data\.timeout=0\.0 must be a number above 0"),
        (["data.caption_key=[]"], r"data\.caption_key=\[\] must be a key"),
        (["data.caption_key=3"], r"data\.caption_key=3 must be a key"),
        (["data.cache_gb=3"], r"data\.cache_gb=3\.0 has no effect with data=stream"),
        (["sampling.partner_self=true"], r"sampling\.partner_self=true has no effect with data=st"),
        (["data.split=test"], r"data\.split=test has no effect with data=stream"),
        (["data=shapes", "data.shards=null", "data.split=train", "data.max_broken=0.01"],
         r"data\.buffer=12 has no effect with data=shapes"),
        (["sampling.kinds=single", "sampling.hard_images=/x", "captions.composite_negative=none"],
         r"sampling\.hard_images=/x belongs to the shards"),
    ],
)  # fmt: skip
def test_settings_that_cannot_work(
    settings: Callable[..., Config], more: list[str], message: str
) -> None:
    given = {word.split("=", 1)[0]: word for word in words(Path("/data"), *more)}
    config = settings(*given.values())
    with pytest.raises(ConfigError, match=message):
        validate(config)


def test_an_epoch_is_what_the_settings_say() -> None:
    ranks = [StreamSampler("single", 4, 30, ("a.tar",) * 9, rank, 2) for rank in (0, 1)]
    assert [one.steps_per_epoch() for one in ranks] == [3, 3]
    assert ranks[0].total() == 30 and "9 shards, epochs of 30 samples" in ranks[0].summary()
    assert [row.slot for row in ranks[1].plan(7).rows] == [4, 5, 6, 7]
    with pytest.raises(DataError, match=r"data\.samples=7 are fewer than one batch of 8"):
        StreamSampler("single", 4, 7, ("a.tar",) * 9, 0, 2)


# --- a run ---


def test_a_preview(
    shards: Path, tiny_words: list[str], clic_data: Callable[..., tuple[int, str, str]]
) -> None:
    own = [word for word in tiny_words if not word.startswith("data")]
    code, out, error = clic_data(
        "preview", *own, *words(shards, "captions.tagger=hanta"), "--rows", 2
    )
    assert code == 0, error
    assert "2 composite rows of step 0, 2 single rows of step 1" in out


def test_a_run_trains_on_a_stream_and_goes_on_at_a_shard(
    shards: Path,
    settings: Callable[..., Config],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = settings(*words(shards, "train.save_every=4", "train.run_name=one",
                             "captions.tagger=hanta", "data.workers=2"))  # fmt: skip
    saved = 0

    def stop(*words: Any, **named: Any) -> Path:
        nonlocal saved
        saved += 1
        kept = save(*words, **named)
        if saved == 2:
            raise MemoryError("killed")
        return kept

    from clic.training import checkpoint

    save = checkpoint.save
    monkeypatch.setattr(checkpoint, "save", stop)
    with pytest.raises(MemoryError):
        train(config)
    assert "data: a stream of 4 shards, epochs of 64 samples" in capsys.readouterr().out
    monkeypatch.undo()
    run = train(config)
    out = capsys.readouterr().out
    assert "resuming" in out and "from step 8" in out
    assert "the stream goes on at shard" in out and "which is not exact" in out
    records = read(run / runs.METRICS_FILE)
    assert [record["step"] for record in records] == list(range(1, 17))
    counts = [record["data/shards"] for record in records if "data/shards" in record]
    assert counts == sorted(counts) and counts[-1] >= 2
    assert runs.is_finished(run)
