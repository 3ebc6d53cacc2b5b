"""Whatever stands in a shard, building a batch ends in a batch or in one line of the user's.

JSON, captions, stored tags and image bytes are made up, written to real tars, indexed, and read by
the builder that trains. Only `ClicError` may come out of it.
"""

from __future__ import annotations

import io
import json
import signal
import tarfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from clic import images, models
from clic.captions.tagging import make_tagger
from clic.config.train_settings import Config
from clic.data import ShardSource, make_builder
from clic.data.shards.records import annotate
from clic.errors import ClicError, DataError

SECONDS = 60
SIZES = [(12, 9), (9, 12), (1, 40), (33, 33)]
QUICK = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(autouse=True)
def watchdog() -> Iterator[None]:
    """Fail instead of hanging."""

    def bark(number: int, frame: object) -> None:
        pytest.fail(f"nothing came of it in {SECONDS} s")  # no OSError, which is a broken sample

    before = signal.signal(signal.SIGALRM, bark)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def picture(kind: str, mode: str, size: tuple[int, int]) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(size).integers(0, 256, (size[1], size[0], 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 1 + sum(size) % 8
    Image.fromarray(pixels).convert(mode).save(buffer, kind, exif=exif)
    return buffer.getvalue()


PICTURES = [
    picture(kind, mode, size)
    for kind, mode in (("JPEG", "RGB"), ("JPEG", "L"), ("JPEG", "CMYK"), ("PNG", "RGBA"))
    for size in SIZES
]
PICTURES += [picture("GIF", "P", SIZES[0]), picture("PNG", "1", SIZES[1])]


@st.composite
def pixels(draw: st.DrawFn) -> bytes:
    """Draw the bytes of an image: whole, cut, with some bytes changed, or none."""
    data = draw(st.sampled_from(PICTURES))
    damage = draw(st.sampled_from(["none", "none", "cut", "changed", "noise", "doubled"]))
    if damage == "cut":
        return data[: draw(st.integers(0, len(data)))]
    if damage == "changed":
        wrong = bytearray(data)
        for _ in range(draw(st.integers(1, 6))):
            wrong[draw(st.integers(0, len(wrong) - 1))] = draw(st.integers(0, 255))
        return bytes(wrong)
    if damage == "noise":
        return data[: draw(st.integers(0, 24))] + draw(st.binary(max_size=80))
    return data + data if damage == "doubled" else data


VOCABULARY = [
    *("a", "the", "red", "dog", "cat's", "two", "and", "left", "of", "don't", "x-ray"),
    *("İ", "ŉ", "ﬁ", "\u200d", "犬", ".", ",", "!"),
]
WORDS = st.lists(st.sampled_from(VOCABULARY), max_size=12).map(" ".join)
CAPTION = st.one_of(
    WORDS, WORDS, st.text(max_size=30), st.sampled_from(["", " ", ".", "x" * 500, "犬7" * 9000])
)
ANYTHING: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@st.composite
def records(draw: st.DrawFn) -> bytes:
    """Draw the bytes of a sample's JSON: as packing writes it, or with parts that do not fit."""
    captions = draw(st.lists(CAPTION, max_size=4))
    record: dict[str, Any] = {"key": "k", "captions": captions}
    if captions:
        record |= {"caption": captions[0], **annotate(captions, make_tagger("hanta"))}
    for key in draw(st.lists(st.sampled_from([*record, "tokens", "caption"]), max_size=2)):
        record[key] = draw(ANYTHING)
    data = json.dumps(record).encode()
    damage = draw(st.sampled_from(["none"] * 5 + ["cut", "deep", "bytes", "surrogate"]))
    if damage == "cut":
        return data[: draw(st.integers(0, len(data)))]
    if damage == "deep":
        return b"[" * 100_000
    if damage == "surrogate":
        return b'{"captions": ["half \\ud83d of it"]}'
    return draw(st.binary(max_size=30)) if damage == "bytes" else data


SAMPLES = st.lists(
    st.tuples(pixels(), records(), st.one_of(st.none(), st.binary(max_size=20))), max_size=5
)


def write(path: Path, samples: list[tuple[bytes, bytes, bytes | None]]) -> None:
    captions = ["a red dog sits", "two cats"]
    tags = annotate(captions, make_tagger("hanta"))
    whole = json.dumps({"captions": captions, **tags}).encode()
    samples = [*samples, *((PICTURES[i], whole, None) for i in (0, 0, 1, 1))]
    with tarfile.open(path, "w") as tar:
        for number, parts in enumerate(samples):
            for ending, data in zip(("jpg", "json", "txt"), parts, strict=True):
                if data is not None:
                    info = tarfile.TarInfo(f"{number:04d}.{ending}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))


@pytest.fixture(scope="module")
def clip(tiny: Path) -> Any:
    return models.create(str(tiny))


@QUICK
@given(samples=SAMPLES, tagger=st.sampled_from(["hanta", "stored"]), seed=st.integers(0, 99))
def test_any_sample(
    samples: list[tuple[bytes, bytes, bytes | None]],
    tagger: str,
    seed: int,
    clip: Any,
    compose_settings: Callable[..., Config],
    tmp_path: Path,
) -> None:
    for old in tmp_path.glob("*.tar*"):
        old.unlink()
    write(tmp_path / "00000.tar", samples)
    config = compose_settings(tagger, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PIL's, of broken EXIF
        try:
            source = ShardSource(str(tmp_path))
            builder = make_builder(config, dict.fromkeys(("composite", "single"), source), clip)
            batches = [builder.build(step) for step in range(2)]
        except ClicError as error:
            assert "\n" not in str(error) and len(str(error)) < 4000
            return
    for batch in batches:
        assert batch.images.shape == (4, 32, 32, 3)
        assert batch.tally.broken == len(batch.faults) <= batch.tally.samples
        for fault in batch.faults:
            assert "\n" not in fault.reason


@pytest.fixture
def compose_settings(settings: Callable[..., Config]) -> Callable[[str, int], Config]:
    """Return the settings of CLIC's captions, composed once."""
    made = {
        tagger: settings("captions=clic", "sampling.partner_self=true", f"captions.tagger={tagger}")
        for tagger in ("hanta", "stored")
    }

    def change(tagger: str, seed: int) -> Config:
        made[tagger].seed = seed
        return made[tagger]

    return change


@QUICK
@given(pixels(), st.sampled_from(["exact", "fast", "scaled"]), st.sampled_from(["squash", "crop"]))
def test_any_image(data: bytes, method: str, fit: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            decoded = images.decode(data, method, (16, 32))
            single = images.single(decoded, 32, method=method)
        except DataError as error:
            assert "bytes" in str(error) or "pixels" in str(error)
            return
    assert decoded.dtype == np.uint8 and decoded.ndim == 3 and decoded.shape[2] == 3
    assert single.shape == (32, 32, 3)
    canvas = images.compose([decoded, decoded], "pair", "landscape", 32, fit, method)
    assert canvas.shape == (32, 32, 3)
