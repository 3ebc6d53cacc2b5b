"""Sources as the settings name them: mixtures, replacement, hard images, and their mistakes."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from clic import shapes
from clic.cli import data as command
from clic.config.checks import validate
from clic.config.train_settings import Config
from clic.data import ShardSource, make_sampler, make_sources, pack
from clic.data.shards.index import index_path
from clic.data.tools.nearest import (
    FeatureFile,
    encode_source,
    nearest,
    read_neighbours,
    write_neighbours,
)
from clic.errors import ConfigError, DataError

WORDS = ("data.samples=null", "data.split=null", "data.source=shards")
SINGLE = ("+experiment=shapes_clip", *WORDS)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return folders with 8 and 24 samples."""
    root = tmp_path_factory.mktemp("mix")
    for name, first, count in (("a", 0, 8), ("b", 8, 24)):
        pack([shapes.sample("train", first + i, 1) for i in range(count)], root / name, 10)
    return root / "a", root / "b"


# --- mixtures ------------------------------------------------------------------------------------


def test_a_mixture_from_the_settings(
    folders: tuple[Path, Path], settings: Callable[..., Config]
) -> None:
    a, b = folders
    mix = f"data.mix=[{{shards: {a}, weight: 3}}, {{shards: {b}}}]"
    config = settings(*SINGLE, mix, "data.shards=null")
    validate(config)
    sources = make_sources(config)
    source = sources["single"]
    assert len(source) == 32 and source.sizes().shape == (32, 2)
    keys = [shapes.sample("train", i, 1).key for i in range(32)]
    assert [source.read(i).key for i in range(32)] == keys
    sampler = make_sampler(config, sources, 0, 1)
    assert sampler.steps_per_epoch() == 8
    drawn = Counter(row.indices[0] for step in range(8) for row in sampler.plan(step).rows)
    assert {drawn[i] for i in range(8)} == {3}  # 24 of 32
    assert sum(drawn[i] for i in range(8, 32)) == 8


def test_an_epoch_of_another_length(
    folders: tuple[Path, Path], settings: Callable[..., Config]
) -> None:
    a, b = folders
    words = [*SINGLE, f"data.shards=[{a},{b}]", "sampling.replacement=true", "data.samples=400"]
    words.remove("data.samples=null")
    config = settings(*words)
    validate(config)
    sampler = make_sampler(config, make_sources(config), 0, 1)
    assert sampler.steps_per_epoch() == 100


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data.mix=[{shards: a}, {shards: b}]", "data.shards=c"], "data.shards=c and data.mix ex"),
        (["data.mix=[{shards: a}]"], "must be a list of two sources or more, as in data.mix="),
        (["data.mix=a"], "data.mix=a must be a list"),
        (["data.mix=[{shards: a}, {weight: 2}]"], r"data.mix\[1\]=.* names no shards"),
        (["data.mix=[{shards: a}, b]"], r"data.mix\[1\]=b names no shards"),
        (
            ["data.mix=[{shards: a}, {shards: b, wieght: 2}]"],
            r"data.mix\[1\].wieght is not known; did you mean 'weight'",
        ),
        (["data.mix=[{shards: a, weight: 0}, {shards: b}]"], r"data.mix\[0\].weight=0 must be a n"),
        (["data.mix=[{shards: a, weight: x}, {shards: b}]"], r"data.mix\[0\].weight=x must be"),
        (["data.shards=a", "data.samples=5"], "data.samples=5 has no effect .*replacement=true"),
        (["data.shards=a", "data.cache_gb=-1"], "data.cache_gb=-1.0 is too small"),
        (["data.shards=a", "sampling.hard_images=x", "train.batch_size=5"], "make it even"),
        (
            ["data.shards=a", "sampling.hard_images=x", "sampling.kinds=alternate"],
            "sampling.hard_images=x has no effect with sampling.kinds=alternate",
        ),
        (
            ["data.mix=[{shards: a}, {shards: b}]", "sampling.hard_images=x"],
            "sampling.hard_images=x belongs to the shards that data.shards names",
        ),
        (
            ["data.source=shapes", "data.samples=5", "data.split=train", "data.mix=[]"],
            "data.mix=.* has no effect with data=shapes",
        ),
        (
            ["data.source=shapes", "data.samples=5", "data.split=train", "data.cache_dir=x"],
            "data.cache_dir=x has no effect with data=shapes",
        ),
    ],
)
def test_mistakes(settings: Callable[..., Config], words: list[str], message: str) -> None:
    given = {word.split("=", 1)[0] for word in words}
    fixed = [word for word in SINGLE if word.split("=", 1)[0] not in given]
    with pytest.raises(ConfigError, match=message):
        validate(settings(*fixed, *words))


# --- neighbours ----------------------------------------------------------------------------------


def test_nearest_against_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clic.data.tools.nearest.QUERIES", 7)
    monkeypatch.setattr("clic.data.tools.nearest.KEYS", 5)
    features = np.random.default_rng(0).standard_normal((23, 6)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    features[[4, 17]] = 0
    found = nearest(features, 9, torch.device("cpu"))
    scores = features @ features.T
    np.fill_diagonal(scores, -np.inf)
    scores[:, [4, 17]] = -np.inf
    whole = [i for i in range(23) if i not in (4, 17)]
    np.testing.assert_array_equal(found[whole], np.argsort(-scores, axis=1)[whole, :9])
    assert not np.isin(found, [4, 17]).any()


def test_features_are_continued_and_broken_images_are_zero(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    source = ShardSource(str(folders[1]))
    seen: list[int] = []

    def encode(pixels: list[np.ndarray]) -> np.ndarray:
        seen.append(len(pixels))
        if len(seen) == 3:
            raise KeyboardInterrupt
        return np.array([[image.mean(), 1.0] for image in pixels], dtype=np.float32)

    def features(identity: object = "model") -> FeatureFile:
        return FeatureFile(tmp_path / "f", (24, 2), identity)

    with pytest.raises(KeyboardInterrupt):
        encode_source(source, features(), encode, 5, 1, lambda done: None)
    again = features()
    assert again.done == 10
    encode_source(source, again, encode, 5, 2, lambda done: None)
    assert seen == [5, 5, 5, 5, 5, 4] and again.done == 24
    assert (again.rows[:, 1] == 1).all()
    assert features("another model").done == 0
    source.paths[0].rename(tmp_path / "away")  # ten images
    try:
        other = features("with broken ones")
        encode_source(source, other, encode, 5, 1, lambda done: None)
    finally:
        (tmp_path / "away").rename(source.paths[0])
    assert (other.rows[:10] == 0).all() and (other.rows[10:, 1] == 1).all()
    other.remove()
    assert list(tmp_path.iterdir()) == []


def test_neighbours_of_other_shards_are_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    a, b = (ShardSource(str(folder)) for folder in folders)
    near = np.arange(48, dtype=np.uint32).reshape(24, 2) % 24
    write_neighbours(tmp_path / "n", b, near, {"name": "x"})
    np.testing.assert_array_equal(read_neighbours(tmp_path / "n", b), near)
    with pytest.raises(DataError, match=r"sampling\.hard_images=.* is of other shards than data"):
        read_neighbours(tmp_path / "n", a)
    for wrong in (tmp_path / "none", tmp_path, index_path(a.paths[0])):
        with pytest.raises(DataError, match=r"sampling\.hard_images=.*make it with clic-data n"):
            read_neighbours(wrong, b)


# --- clic-data -----------------------------------------------------------------------------------


@pytest.fixture
def clic_data(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["clic-data", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            command.main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run


def test_neighbours_from_the_command_line_to_the_batch(
    folders: tuple[Path, Path],
    tiny: Path,
    tmp_path: Path,
    settings: Callable[..., Config],
    clic_data: Callable[..., tuple[int, str, str]],
) -> None:
    out = tmp_path / "near"
    words = ("--model", tiny, "--k", 2, "--out", out, "--device", "cpu", "--batch-size", 10)
    code, said, errors = clic_data("neighbours", folders[1], *words)
    assert code == 0, errors
    assert said.startswith(f"{out}: 2 neighbours of each of 24 images\n")
    assert [path.name for path in tmp_path.iterdir()] == ["near"]
    config = settings(*SINGLE, f"data.shards={folders[1]}", f"sampling.hard_images={out}")
    validate(config)
    sources = make_sources(config)
    near = read_neighbours(out, sources["single"])
    sampler = make_sampler(config, sources, 0, 1)
    assert sampler.steps_per_epoch() == 12  # two primary images and their neighbours a step
    for step in range(12):
        first, hard, second, other = (row.indices[0] for row in sampler.plan(step).rows)
        assert hard in near[first] and other in near[second]
    code, _, errors = clic_data("neighbours", folders[0], *words, "--k", 8)
    assert code == 2 and "8 images are too few for --k 8" in errors


def test_index_keeps_what_fits(
    folders: tuple[Path, Path], tmp_path: Path, clic_data: Callable[..., tuple[int, str, str]]
) -> None:
    for path in folders[1].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    first, second, third = sorted(tmp_path.glob("*.tar"))
    index_path(first).unlink()
    index_path(second).write_bytes(index_path(second).read_bytes()[:-1])
    before = index_path(third).stat().st_mtime_ns
    code, out, _ = clic_data("index", tmp_path, "--workers", 2)
    assert (code, out) == (0, "2 shards indexed, 1 kept: 24 samples, 0 of them broken\n")
    assert index_path(third).stat().st_mtime_ns == before
    code, out, _ = clic_data("index", "--force", tmp_path, "--workers", 1)
    assert (code, out) == (0, "3 shards indexed: 24 samples, 0 of them broken\n")
    assert index_path(third).stat().st_mtime_ns > before
    first.write_bytes(first.read_bytes()[:-2000])
    third.write_bytes(b"no tar")
    code, out, errors = clic_data("index", tmp_path, "--workers", 1)
    assert code == 2 and "2 of 3 shards: " in errors and "(and 1 more)" in errors
