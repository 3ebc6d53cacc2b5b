"""Whatever happens to shards while batches are loaded: no hang, counts right, errors clear."""

from __future__ import annotations

import io
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from PIL import Image

from clic import models
from clic.config.train_settings import Config
from clic.data import make_builder, make_loader, make_sources
from clic.errors import DataError, UnavailableError
from clic.models import ClipModel
from clic.types import Batch

T = TypeVar("T")


def within(seconds: float, body: Callable[[], T]) -> T:
    """Return what `body` returns; fail if that takes too long."""
    found: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            found.append(body())
        except BaseException as error:  # noqa: BLE001, raised again below
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), "it hangs"
    if errors:
        raise errors[0]
    return found[0]


@pytest.fixture(scope="module")
def clip(tiny: Path) -> ClipModel:
    return models.create(str(tiny))


def write(folder: Path, counts: dict[str, int]) -> Path:
    """Write shards of tiny JPEGs; the keys begin with the shard's name."""
    folder.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 30, 40)).save(buffer, "JPEG")
    for name, count in counts.items():
        with tarfile.open(folder / f"{name}.tar", "w") as file:
            for i in range(count):
                for ending, data in (("jpg", buffer.getvalue()), ("txt", b"a dog. a cat.")):
                    info = tarfile.TarInfo(f"{name}-{i:04d}.{ending}")
                    info.size = len(data)
                    file.addfile(info, io.BytesIO(data))
    return folder


@pytest.fixture
def load(
    settings: Callable[..., Config], clip: ClipModel, tmp_path: Path
) -> Callable[..., Callable[..., list[Batch]]]:
    """Return what opens shards and gives what loads the batches of some steps."""

    def make(shards: object, *words: str, rank: int = 0, ranks: int = 1) -> Any:
        names = [f"data.shards={shards}", "data.samples=null", "data.split=null"]
        fixed = ["data.source=shards", f"data.cache_dir={tmp_path / 'cache'}"]
        config = settings(*names, *fixed, "sampling.kinds=single", *words)
        builder = make_builder(config, make_sources(config), clip, rank, ranks)

        def steps(first: int, last: int, workers: int = 2) -> list[Batch]:
            return within(600, lambda: list(make_loader(builder, first, last, workers, False)))

        steps.epoch = builder.sampler.steps_per_epoch()  # type: ignore[attr-defined]
        return steps

    return make


WORDS = ("+experiment=shapes_clip", "train.batch_size=63")


def keys(batches: list[Batch]) -> list[str]:
    return [key for batch in batches for row in batch.keys for key in row]


def broken(batches: list[Batch]) -> int:
    return sum(batch.tally.broken for batch in batches)


def test_unequal_and_empty_shards_on_two_ranks(load: Callable[..., Any], tmp_path: Path) -> None:
    folder = write(tmp_path / "s", {"a": 0, "b": 1, "c": 7, "d": 1000, "e": 0})
    ranks = [load(folder, *WORDS, rank=rank, ranks=2) for rank in range(2)]
    assert [steps.epoch for steps in ranks] == [8, 8]  # floor(1008 / (2 * 63))
    seen = [keys(steps(0, 8)) for steps in ranks]
    assert [len(own) for own in seen] == [504, 504]
    assert len(set(seen[0]) | set(seen[1])) == 1008
    assert {key[0] for key in (*seen[0], *seen[1])} == {"b", "c", "d"}


def test_a_shard_that_vanishes_between_epochs(load: Callable[..., Any], tmp_path: Path) -> None:
    folder = write(tmp_path / "s", {"a": 63, "b": 63, "c": 63})
    steps = load(folder, *WORDS)
    assert steps.epoch == 3
    assert broken(steps(0, 3)) == 0
    (folder / "b.tar").unlink()
    batches = steps(3, 6)
    assert broken(batches) >= 63 and len(keys(batches)) == 189
    assert not any(key.startswith("b") for key in keys(batches))
    assert "b.tar is no longer there" in str([b.faults for b in batches])
    (folder / "a.tar").unlink()
    (folder / "c.tar").unlink()
    with pytest.raises(DataError, match="samples in a row are broken"):
        steps(6, 7)
    with pytest.raises(DataError, match=r"no \.tar files in"):
        load(folder, *WORDS)


@pytest.mark.parametrize("change", ["cut", "overwritten"])
def test_a_tar_that_changes_while_it_is_read(
    load: Callable[..., Any], tmp_path: Path, change: str
) -> None:
    folder = write(tmp_path / "s", {"a": 63, "b": 63})
    steps = load(folder, *WORDS)
    shard = folder / "b.tar"
    data = shard.read_bytes()
    shard.write_bytes(data[:20_000] if change == "cut" else data[:20_000] + bytes(len(data)))
    batches = steps(0, 2)
    # The samples of b that lie behind the change are replaced, and some of their substitutes too.
    lost = {key for key in (f"b-{i:04d}" for i in range(63)) if key not in keys(batches)}
    assert 20 < len(lost) < 63 and broken(batches) >= len(lost)
    with pytest.raises(DataError, match=r"b\.tar has changed since it was indexed; .*--force"):
        load(folder, *WORDS)


def test_a_truncated_tar_is_refused_at_the_start(load: Callable[..., Any], tmp_path: Path) -> None:
    folder = write(tmp_path / "s", {"a": 63, "b": 63})
    shard = folder / "b.tar"
    shard.write_bytes(shard.read_bytes()[:20_000])
    with pytest.raises(DataError, match=r"b\.tar (ends before|cannot be read|is broken)"):
        load(folder, *WORDS)


def test_a_server_that_drops_in_the_middle_of_shards(
    load: Callable[..., Any], tmp_path: Path, site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clic.io.download.BACKOFF", 0.001)
    folder = write(tmp_path / "s", {"a": 63, "b": 63, "c": 63})
    for path in folder.iterdir():
        site.files[f"/{path.name}"] = path.read_bytes()
    site.drops = [10_000, 30_000, 5, 70_000, 1]
    steps = load(f"'{site.url}/{{a,b,c}}.tar'", *WORDS)
    local = load(folder, *WORDS)
    for path in (tmp_path / "cache" / "shards").glob("*.tar"):
        path.unlink()  # the workers fetch them again
    site.drops = [10_000, 20_000, 5, 70_000, 1, 9]
    batches = steps(0, 3)
    assert keys(batches) == keys(local(0, 3)) and broken(batches) == 0
    assert site.drops == []


@pytest.mark.parametrize("workers", [0, 1])
def test_no_sample_stands_in_for_one_that_cannot_be_fetched(
    load: Callable[..., Any],
    tmp_path: Path,
    site: Any,
    monkeypatch: pytest.MonkeyPatch,
    workers: int,
) -> None:
    monkeypatch.setattr("clic.io.download.BACKOFF", 0.001)
    folder = write(tmp_path / "s", {"a": 63, "b": 63})
    for path in folder.iterdir():
        site.files[f"/{path.name}"] = path.read_bytes()
    steps = load(f"'{site.url}/{{a,b}}.tar'", *WORDS)
    whole = keys(steps(0, 2))
    next((tmp_path / "cache" / "shards").glob("*b.tar")).unlink()
    site.answers = [(503, {})] * 6
    with pytest.raises(UnavailableError, match=r"b\.tar cannot be fetched .*503"):
        steps(0, 2, workers)
    assert keys(steps(0, 2, workers)) == whole  # when the server is back
