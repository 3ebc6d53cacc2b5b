"""Features on disk: found again, never wrong, shared by processes, bounded."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from clic.config.eval_settings import EvalConfig, check
from clic.config.patch_settings import PatchConfig
from clic.errors import ConfigError
from clic.evaluation.encode import encoding
from clic.evaluation.encode.distributed_encoding import Encoded, EncodingOptions
from clic.evaluation.encode.feature_cache import FeatureCache, image_bytes, text_bytes
from clic.evaluation.encode.image_sources import Crop
from clic.models.encoder import Encoder

KEYS = [text_bytes([n]) for n in range(5)]


def rows(count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 4, generator=generator)


def blocks(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def keep(folder: Path, keys: list[bytes], features: Tensor, tower: str = "tower") -> None:
    with FeatureCache(folder).tower(tower) as store:
        store.add(keys, features)


def test_features_come_back_bit_for_bit_in_the_order_asked(tmp_path: Path) -> None:
    features = rows(5)
    keep(tmp_path, KEYS[:3], features[:3])
    keep(tmp_path, KEYS[3:], features[3:])
    store = FeatureCache(tmp_path).tower("tower")
    order = [4, 0, 3, 1]
    found, kept = store.read([KEYS[i] for i in order] + [text_bytes([9]), None])
    assert found.tolist() == [True] * 4 + [False] * 2
    assert torch.equal(kept, features[order])
    found, kept = FeatureCache(tmp_path).tower("another").read(KEYS)
    assert not found.any() and not len(kept)


def test_a_key_that_occurs_twice_is_kept_once(tmp_path: Path) -> None:
    keep(tmp_path, [KEYS[0], KEYS[0], KEYS[1]], rows(3))
    found, kept = FeatureCache(tmp_path).tower("tower").read(KEYS[:2])
    assert found.all() and len(kept) == 2


def test_equal_blocks_are_one_file(tmp_path: Path) -> None:
    for _ in range(2):
        keep(tmp_path, KEYS, rows(5))
    assert len(blocks(tmp_path)) == 1


@pytest.mark.parametrize("where", ["keys", "features", "header", "short", "empty"])
def test_a_broken_block_is_said_and_goes(tmp_path: Path, where: str) -> None:
    keep(tmp_path, KEYS, rows(5))
    path = blocks(tmp_path)[0]
    data = bytearray(path.read_bytes())
    names = path.stem.split("-")
    spot = {"header": 10, "keys": data.find(KEYS[2]), "features": len(data) - 3}.get(where)
    if spot is not None:
        data[spot] ^= 1
    path.write_bytes(b"" if where == "empty" else data[:-5] if where == "short" else data)
    with pytest.warns(UserWarning, match=f"{names[0]}.* broken .* encoded again"):
        found, _ = FeatureCache(tmp_path).tower("tower").read(KEYS)
    assert not found.any() and not blocks(tmp_path)


def test_a_block_that_goes_while_it_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(tmp_path, KEYS, rows(5))
    listed = blocks(tmp_path)
    monkeypatch.setattr(Path, "glob", lambda *_: iter(listed))
    listed[0].unlink()
    found, _ = FeatureCache(tmp_path).tower("tower").read(KEYS)
    assert not found.any()


def test_what_was_used_least_recently_goes_first(tmp_path: Path) -> None:
    for number, key in enumerate(KEYS[:3]):
        keep(tmp_path, [key], rows(1, number))
        os.utime(max(blocks(tmp_path), key=lambda p: p.stat().st_mtime), (number, number))
    FeatureCache(tmp_path).tower("tower").read(KEYS[:1])  # uses the oldest
    size = blocks(tmp_path)[0].stat().st_size
    FeatureCache(tmp_path, limit_gb=2.5 * size / 1e9).evict()
    found, _ = FeatureCache(tmp_path).tower("tower").read(KEYS[:3])
    assert found.tolist() == [True, False, True]


def test_the_limit_holds_while_features_come_in(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, limit_gb=5e-6)
    for number in range(40):
        with cache.tower("tower") as store:
            store.add([text_bytes([number])], torch.randn(1, 300))
        assert sum(path.stat().st_size for path in blocks(tmp_path)) <= 5000
    assert len(blocks(tmp_path)) == 3
    found, _ = cache.tower("tower").read([text_bytes([number]) for number in range(40)])
    assert found.tolist() == [False] * 37 + [True] * 3


def test_part_files_of_the_dead_are_removed(tmp_path: Path) -> None:
    old, new = tmp_path / "old.part", tmp_path / "new.part"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    FeatureCache(tmp_path).evict()
    assert not old.exists() and new.exists()


def test_blocks_are_written_as_they_fill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clic.evaluation.encode.feature_cache.BLOCK_ROWS", 2)
    store = FeatureCache(tmp_path).tower("tower")
    store.add(KEYS[:1], rows(1))
    assert not blocks(tmp_path)
    store.add(KEYS[1:3], rows(2))
    assert len(blocks(tmp_path)) == 1
    monkeypatch.setattr("clic.evaluation.encode.feature_cache.BLOCK_SECONDS", 0.0)
    store.add(KEYS[3:4], rows(1))
    assert len(blocks(tmp_path)) == 2


def test_what_was_encoded_before_a_failure_is_kept(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), FeatureCache(tmp_path).tower("tower") as store:
        store.add(KEYS, rows(5))
        raise ZeroDivisionError
    assert FeatureCache(tmp_path).tower("tower").read(KEYS)[0].all()


def test_a_disk_that_refuses_costs_the_cache_alone(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.warns(UserWarning, match="not kept") as warned:
        for key in KEYS[:2]:
            with cache.tower("tower") as store:
                store.add([key], rows(1))
                store.flush()
    assert len(warned) == 2


def test_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIC_CACHE", str(tmp_path / "env"))
    cache = FeatureCache.of(EvalConfig())
    assert cache is not None and cache.folder == tmp_path / "env" / "features"
    assert FeatureCache.of(EvalConfig(cache=False)) is None
    cache = FeatureCache.of(EvalConfig(cache_dir=str(tmp_path / "own"), cache_gb=2))
    assert cache is not None and cache.folder == tmp_path / "own" and cache.limit == 2e9
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="--cache-dir"):
        FeatureCache(tmp_path / "file" / "below")
    with pytest.raises(ConfigError, match="cache_gb=0"):
        FeatureCache(tmp_path, limit_gb=0)
    monkeypatch.delenv("CLIC_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="--no-cache"):
        assert FeatureCache.of(EvalConfig()) is None


def test_an_image_is_its_path_size_time_and_box(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (8, 8)).save(path)
    os.utime(path, ns=(1, 1))
    first = image_bytes(path)
    assert first == image_bytes(path) != image_bytes(Crop(path, (0, 0, 4, 4)))
    assert image_bytes(Crop(path, (0, 0, 4, 4))) != image_bytes(Crop(path, (0, 0, 4, 5)))
    os.utime(path, ns=(1, 2))
    assert image_bytes(path) != first
    assert image_bytes(tmp_path / "nowhere.png") is None
    assert image_bytes(np.zeros((2, 2, 3), np.uint8)) != image_bytes(np.ones((2, 2, 3), np.uint8))


# Through the engine.


class Counting:
    """Counts what it is given."""

    image_tower_key = "counting"

    def __init__(self) -> None:
        self.images = 0

    def encode_image(self, images: list[Image.Image]) -> np.ndarray:
        self.images += len(images)
        return np.stack([1 + np.asarray(image.resize((2, 2))).ravel() for image in images])


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{n}.png" for n in range(6)]
    for n, path in enumerate(paths):
        Image.new("RGB", (8, 8), (n, 2 * n, 40)).save(path)
    return paths


def encoded(model: Any, files: list[Path], cache: FeatureCache | None) -> Encoded:
    options = EncodingOptions(4, cache=cache)
    return encoding.encode_images(model, files, options, allow_broken=True)


def test_images_are_encoded_once_over_all_runs(tmp_path: Path, files: list[Path]) -> None:
    cache = FeatureCache(tmp_path / "cache")
    first, second = Counting(), Counting()
    cold = encoded(first, files[:4], cache)
    warm = encoded(second, files, cache)
    assert (first.images, second.images) == (4, 2)
    assert (cold.cached, warm.cached) == (0, 4)
    assert torch.equal(warm.features, encoded(Counting(), files, None).features)


def test_a_file_that_changed_is_encoded_again(tmp_path: Path, files: list[Path]) -> None:
    cache = FeatureCache(tmp_path / "cache")
    encoded(Counting(), files, cache)
    Image.new("RGB", (8, 8), (200, 0, 0)).save(files[2])
    os.utime(files[2], ns=(5, 5))
    again = Counting()
    assert torch.equal(
        encoded(again, files, cache).features, encoded(Counting(), files, None).features
    )
    assert again.images == 1


def test_broken_images_are_not_kept(tmp_path: Path, files: list[Path]) -> None:
    cache = FeatureCache(tmp_path / "cache")
    files[1].write_bytes(b"no image")
    for _ in range(2):
        done = encoded(Counting(), files, cache)
        assert list(done.broken) == [1] and not done.features[1].any()
    assert done.cached == 5


def test_a_tower_that_says_nothing_of_itself_is_not_kept(tmp_path: Path, files: list[Path]) -> None:
    class Silent(Counting):
        image_tower_key = None

    for _ in range(2):
        model = Silent()
        encoded(model, files, FeatureCache(tmp_path / "cache"))
        assert model.images == 6
    assert not blocks(tmp_path / "cache")


def test_only_the_tower_that_changed_is_encoded_again(
    tmp_path: Path, files: list[Path], build_tiny: Callable[..., Any]
) -> None:
    cache = FeatureCache(tmp_path / "cache")
    texts = encoding.Unique(["a", "b"], [], [1, 1], [(1, 9), (2, 9)])

    def kept(clip: Any, precision: str = "fp32") -> tuple[bool, bool]:
        model = Encoder(clip, precision=precision)
        done = encoding.encode_texts(model, texts, EncodingOptions(4, cache=cache))
        return encoded(model, files, cache).cached == len(files), done.cached == 2

    clip = build_tiny(tmp_path / "cfg")
    assert kept(clip) == (False, False)
    assert kept(clip) == (True, True)
    assert kept(clip, "bf16") == (False, False)
    for changed, expected in (
        (clip.model.logit_scale, (True, True)),
        (clip.model.ln_final.weight, (True, False)),
        (clip.model.visual.conv1.weight, (False, True)),
    ):
        with torch.no_grad():
            changed.add_(0.5)
        assert kept(clip) == expected


def write_numbers(folder: Path, first: int, count: int) -> None:
    """Keep a feature of 64 times n for each number n."""
    torch.set_num_threads(1)
    with FeatureCache(folder).tower("tower") as store:
        for n in range(first, first + count):
            store.add([text_bytes([n])], torch.full((1, 64), float(n)))


def test_two_writers_at_once_and_one_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the dead one wrote whole is found, and nothing that is found is wrong."""
    monkeypatch.setattr("clic.evaluation.encode.feature_cache.BLOCK_ROWS", 8)
    fork = multiprocessing.get_context("fork")  # starts at once
    endless = fork.Process(target=write_numbers, args=(tmp_path, 0, 10**6))
    other = fork.Process(target=write_numbers, args=(tmp_path, 50, 200))
    endless.start()
    other.start()
    while len(blocks(tmp_path)) < 40 and endless.is_alive():
        time.sleep(0.005)
    endless.kill()
    for process in (endless, other):
        process.join()
    assert (endless.exitcode, other.exitcode) == (-signal.SIGKILL, 0)
    found, kept = FeatureCache(tmp_path).tower("tower").read([text_bytes([n]) for n in range(400)])
    assert found[50:250].all()
    numbers = torch.from_numpy(np.flatnonzero(found)).float()
    assert torch.equal(kept, numbers[:, None].expand(-1, 64))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cache_gb": 0.0}, "cache_gb=0.0 must be above 0"),
        ({"cache_gb": float("nan")}, "cache_gb=nan must be above 0"),
        ({"cache": False, "cache_gb": 3.0}, r"cache_gb=3.0 has no effect with cache=false"),
        ({"cache": False, "cache_dir": "x"}, r"cache_dir=x has no effect with cache=false"),
        ({"workers": 0}, "workers=0 must be at least 1"),
        ({"precision": "fp8"}, r"precision='fp8' is not known .*auto, fp32, bf16, fp16"),
    ],
)
def test_settings_that_cannot_work(settings: dict[str, Any], message: str) -> None:
    for kind in (EvalConfig, PatchConfig):
        check(kind())
        with pytest.raises(ConfigError, match=message):
            check(kind(**settings))


@pytest.mark.parametrize("code", [errno.EPERM, errno.EACCES, errno.EROFS])
def test_a_block_that_may_not_be_touched_is_used_and_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder, code: int
) -> None:
    keep(tmp_path, KEYS, rows(5))
    refuse(monkeypatch, "os.utime", OSError(code, "not yours"))
    found, kept = FeatureCache(tmp_path).tower("tower").read(KEYS)
    assert found.all() and torch.equal(kept, rows(5)) and len(blocks(tmp_path)) == 1
    assert not recwarn


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.ESTALE])
def test_a_block_that_cannot_be_read_is_not_called_broken_and_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    keep(tmp_path, KEYS, rows(5))
    refuse(
        monkeypatch, "clic.evaluation.encode.feature_cache.safe_open", OSError(code, "not for you")
    )
    with pytest.warns(UserWarning, match="cannot be read .*not for you"):
        found, _ = FeatureCache(tmp_path).tower("tower").read(KEYS)
    assert not found.any() and len(blocks(tmp_path)) == 1


def test_blocks_that_may_not_be_removed_stay_and_the_others_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, key in enumerate(KEYS[:2]):
        keep(tmp_path, [key], rows(1, number))
        os.utime(max(blocks(tmp_path), key=lambda p: p.stat().st_mtime), (number, number))
    foreign = min(blocks(tmp_path), key=lambda path: path.stat().st_mtime)
    unlink = Path.unlink

    def guarded(path: Path, missing_ok: bool = False) -> None:
        if path == foreign:
            raise PermissionError(errno.EPERM, "not yours")
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", guarded)
    FeatureCache(tmp_path, limit_gb=1e-9).evict()
    assert blocks(tmp_path) == [foreign]
    foreign.write_bytes(b"broken")
    with pytest.warns(UserWarning, match="broken"):
        found, _ = FeatureCache(tmp_path).tower("tower").read(KEYS)
    assert not found.any() and blocks(tmp_path) == [foreign]


def refuse(monkeypatch: pytest.MonkeyPatch, name: str, error: OSError) -> None:
    def raises(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(name, raises)
