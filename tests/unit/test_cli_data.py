"""`clic-data`: preview, shapes and index, and their mistakes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from clic import shapes
from clic.cli import data as command
from clic.data import ShardSource
from clic.data.shards.index import index_path

Clic = Callable[..., tuple[int, str, str]]


def test_help_shows_examples(clic_data: Clic) -> None:
    code, page, _ = clic_data()
    assert code == 0
    assert "examples:" in page and "clic-data preview" in page
    assert all(name in page for name in ("preview", "shapes", "index"))


@pytest.mark.parametrize("name", ["preview", "shapes", "index"])
def test_each_command_has_help_of_its_own(clic_data: Clic, name: str) -> None:
    code, out, _ = clic_data(name, "--help")
    assert code == 0 and f"clic-data {name}" in out


# --- preview -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("step", "kind"), [(0, "composite"), (1, "single")])
def test_preview(clic_data: Clic, tmp_path: Path, step: int, kind: str) -> None:
    code, out, err = clic_data("preview", "--step", step, "--rows", 3, "--out", "new/sheet.png")
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == f"new/sheet.png: 3 {kind} rows of step {step} (shapes)"
    assert Image.open(tmp_path / "new" / "sheet.png").format == "PNG"


def test_preview_takes_the_words_of_clic_train(clic_data: Clic, tiny_words: list[str]) -> None:
    words = [w for w in tiny_words if not w.startswith(("train.log", "train.device"))]
    code, out, _ = clic_data("preview", "+experiment=shapes_clip", *words)
    assert code == 0
    assert out.startswith("preview.png: 4 single rows of step 0 (shapes_clip)")  # all of the batch


def test_preview_shows_the_runs_own_batch(
    clic_data: Clic, tmp_path: Path, tiny_words: list[str]
) -> None:
    """Fewer rows are the first rows of the batch, not a batch of that size."""
    few, all_rows = (
        clic_data("preview", *tiny_words, "--step", 2, "--rows", rows, "--out", f"{rows}.png")
        for rows in (2, 4)
    )
    assert few[0] == all_rows[0] == 0
    small, whole = (Image.open(tmp_path / f"{rows}.png") for rows in (2, 4))
    first = (0, 0, small.width // 2, small.height - 12)
    assert small.crop(first).tobytes() == whole.crop(first).tobytes()


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["preview", "--rows", "0"], ["--rows 0", "1 or more"]),
        (["preview", "--step", "-1"], ["--step", "-1", "0 or more"]),
        (["preview", "+experiment=shape"], ["did you mean 'shapes'"]),
        (["preview", "seed=1", "seed=2"], ["seed is given 2 times"]),
        (["preview", "--out", "/proc/x.png"], ["cannot read or write /proc/x.png: "]),
        (["preview", "model.nam=x"], ["did you mean 'model.name'"]),
        (["preview", "--ste", "1"], ["--ste"]),
        (["preview", "data=shards"], ["data.shards is not set"]),
        (["shapes"], ["OUT"]),
        (["shapes", "w", "--count", "0"], ["--count 0", "1 or more"]),
        (["shapes", "w", "--shard-size", "0"], ["--shard-size 0", "1 or more"]),
        (["shapes", "w", "--split", "tran"], ["split='tran'", "did you mean 'train'"]),
        (["shapes", "w", "--objects", "3"], ["--objects", "3"]),
        (["shapes", "w", "--seed", "-1"], ["--seed -1", "0 or more"]),
        (["shapes", "w", "count=3"], ["'count=3'", "clic-data shapes"]),
        (["index"], ["SHARDS"]),
        (["index", "nowhere"], ["nowhere"]),
        (["indx"], ["indx"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_is_one_line_and_exit_2(
    clic_data: Clic, tmp_path: Path, words: list[str], parts: list[str]
) -> None:
    code, out, err = clic_data(*words)
    assert code == 2 and out == ""
    assert err.count("\n") == 1 and ": error: " in err, err
    for part in parts:
        assert part in err
    assert list(tmp_path.iterdir()) == []


# --- shapes --------------------------------------------------------------------------------------


def test_shapes_writes_the_world(clic_data: Clic, tmp_path: Path) -> None:
    words = ("--objects", 2, "--count", 5, "--shard-size", 2, "--split", "test", "--seed", 3)
    code, out, _ = clic_data("shapes", "world", *words)
    assert (code, out) == (0, "world: 5 scenes in 3 shards\n")
    source = ShardSource(str(tmp_path / "world"))
    expected = [shapes.sample("test", index, 2, seed=3) for index in range(5)]
    assert [source.read(i).key for i in range(5)] == [sample.key for sample in expected]
    assert [source.read(i).captions for i in range(5)] == [s.captions for s in expected]


def test_shapes_does_not_write_over_shards(clic_data: Clic) -> None:
    clic_data("shapes", "world", "--count", 1)
    code, _, err = clic_data("shapes", "world", "--count", 1)
    assert code == 2 and "world already holds shards" in err


# --- index ---------------------------------------------------------------------------------------


def test_index(clic_data: Clic, tmp_path: Path) -> None:
    clic_data("shapes", "world", "--count", 3, "--shard-size", 1)
    shards = sorted((tmp_path / "world").glob("*.tar"))
    for shard in shards:
        index_path(shard).unlink()
    code, out, _ = clic_data("index", "world/{00000..00001}.tar", shards[2])
    assert (code, out) == (0, "3 shards indexed: 3 samples, 0 of them broken\n")
    assert all(index_path(shard).is_file() for shard in shards)


def test_index_makes_a_stale_index_anew(clic_data: Clic, tmp_path: Path) -> None:
    clic_data("shapes", "world", "--count", 1)
    (shard,) = (tmp_path / "world").glob("*.tar")
    index_path(shard).write_bytes(b"old")
    assert clic_data("index", "world")[0] == 0
    assert len(ShardSource(str(tmp_path / "world"))) == 1


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    from clic.errors import DataError

    monkeypatch.setattr(sys, "argv", ["clic-data", "index", "nowhere", "--debug"])
    with pytest.raises(DataError):
        command.main()
