"""Killed, stopped, continued: the shards are those of one unbroken run, and never half there."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clic.data.packing import Options, Request, open_source, pack_source, packer, shard_writer
from clic.errors import ConfigError, DataError
from clic.io.files import write_whole

Put = Callable[..., Path]
Pack = Callable[..., Any]

SMALL = Options(shard_size=4)
HANG = 1800
"""Seconds after which workers count as left behind; nothing else is measured by them."""


@pytest.fixture
def source(put: Put, image: Callable[..., bytes]) -> Path:
    """Return a CSV of 18 images, of which one is missing and one broken: five parts of 4."""
    for number in range(18):
        if number != 5:
            put(f"i/{number}.jpg", image(400 + number, 300) if number != 9 else b"broken")
    return put("t.csv", "".join(f"i/{n}.jpg,A dog {n},It runs {n}\n" for n in range(18)))


def digests(out: Path) -> dict[str, str]:
    """Return the sha256 of every file."""
    files = sorted(path for path in out.rglob("*") if path.is_file())
    return {str(p.relative_to(out)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def pack(source: Path, out: Path, options: Options = SMALL, workers: int = 1) -> Any:
    return pack_source(open_source(str(source), Request()), out, options, workers)


class Killed(BaseException):
    """Stands for a kill -9: nothing catches it."""


def break_at(monkeypatch: pytest.MonkeyPatch, step: str, count: int) -> None:
    """Break the `count`-th call of a function while parts are packed."""
    module = shard_writer if step == "fetch" else packer
    # The plan is written first, before any part's results.
    original, calls = getattr(module, step), iter(range(-(step == "write_whole"), 1000))

    def breaking(*args: Any, **settings: Any) -> Any:
        if next(calls) == count:
            raise Killed
        return original(*args, **settings)

    monkeypatch.setattr(module, step, breaking)


@pytest.mark.parametrize(
    ("step", "count"),
    [("fetch", 6), ("write_index", 2), ("write_whole", 1), ("write_whole", 4)],
)
def test_a_break_anywhere_leaves_no_trace(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, count: int
) -> None:
    pack(source, tmp_path / "whole")
    with monkeypatch.context() as patch:
        break_at(patch, step, count)
        with pytest.raises(Killed):
            pack(source, tmp_path / "broken")
    between = {path.name for path in (tmp_path / "broken").glob("*.tar")}
    assert all((tmp_path / "broken" / f"{name}.index").is_file() for name in between)
    outcome = pack(source, tmp_path / "broken")
    assert outcome.continued == (count if step != "fetch" else 1)
    assert digests(tmp_path / "broken") == digests(tmp_path / "whole")


def test_a_finished_shard_is_not_done_again(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        break_at(patch, "write_whole", 3)
        with pytest.raises(Killed):
            pack(source, tmp_path / "out")
    before = (tmp_path / "out" / "00001.tar").stat()
    for number in range(12):  # what is done needs its images no more
        (tmp_path / f"i/{number}.jpg").unlink(missing_ok=True)
    outcome = pack(source, tmp_path / "out")
    after = (tmp_path / "out" / "00001.tar").stat()
    assert (outcome.continued, outcome.samples) == (3, 16)
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_a_plan_that_was_cut_is_made_anew(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "out" / ".packing"
    work.mkdir(parents=True)
    (work / "items.jsonl").write_text('["half')
    assert pack(source, tmp_path / "out").samples == 16


def test_the_number_of_workers_changes_nothing(source: Path, tmp_path: Path) -> None:
    pack(source, tmp_path / "one", workers=1)
    pack(source, tmp_path / "two", workers=2)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


def test_kill_9_of_real_processes(source: Path, tmp_path: Path) -> None:
    """The workers die with the process that was killed, and the next run finishes the work."""
    pack(source, tmp_path / "whole")
    out = tmp_path / "broken"
    code = (
        "import sys, time; from pathlib import Path\n"
        "from clic.data import packing\n"
        "from clic.data.packing import packer\n"
        "if __name__ == '__main__':\n"
        f"    reader = packing.open_source({str(source)!r}, packing.Request())\n"
        f"    options = packing.Options(shard_size=4)\n"
        f"    packing.pack_source(reader, Path({str(out)!r}), options, workers=2)\n"
    )
    script = tmp_path / "script.py"
    script.write_text(code)
    process = subprocess.Popen([sys.executable, str(script)], start_new_session=True)
    while not list(out.glob("*.tar")):  # the first shard is there, however long that takes
        assert process.poll() is None, "it ended before its first shard"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + HANG
    while _alive(process.pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _alive(process.pid), "workers outlived the process that was killed"
    assert pack(source, out).samples == 16
    assert digests(out) == digests(tmp_path / "whole")


def _alive(group: int) -> list[str]:
    """Return the processes of a group that still run."""
    found = []
    for entry in Path("/proc").iterdir() if Path("/proc/self").exists() else ():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[2]) == group and fields[0] != "Z":
                found.append(entry.name)
    return found


def test_a_full_disk_stops_and_is_continued(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, text: str, *, sync: bool) -> None:
        if path.name != packer.PLAN:
            raise OSError(28, "No space left on device", str(path))
        write_whole(path, text, sync=sync)

    with monkeypatch.context() as patch:
        patch.setattr(packer, "write_whole", full)
        with pytest.raises(DataError, match=r"out cannot be written to \(No space left"):
            pack(source, tmp_path / "out")
    assert pack(source, tmp_path / "out").samples == 16


# --- what is refused -----------------------------------------------------------------------------


def begun(source: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        break_at(patch, "write_whole", 1)
        with pytest.raises(Killed):
            pack(source, out)


def test_other_options_are_refused(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun(source, tmp_path / "out", monkeypatch)
    with pytest.raises(ConfigError, match=r"begun with quality 90, not 80; give the same again"):
        pack(source, tmp_path / "out", Options(shard_size=4, quality=80))
    assert pack(source, tmp_path / "out").samples == 16
    with pytest.raises(ConfigError, match=r"begun with shard-size 4, not 5"):
        pack(source, tmp_path / "out", Options(shard_size=5))


def test_a_source_that_changed_is_refused(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun(source, tmp_path / "out", monkeypatch)
    source.write_text(source.read_text() + "i/0.jpg,More\n")
    with pytest.raises(ConfigError, match=r"t\.csv has changed since packing into .*out began"):
        pack(source, tmp_path / "out")


def test_another_source_is_refused(source: Path, tmp_path: Path, put: Put) -> None:
    pack(source, tmp_path / "out")
    with pytest.raises(ConfigError, match=r"begun with source .*t\.csv, not .*other\.csv"):
        pack(put("other.csv", "i/0.jpg,A dog\n"), tmp_path / "out")


def test_a_second_packing_at_once_is_refused(source: Path, tmp_path: Path) -> None:
    import fcntl

    work = tmp_path / "out" / ".packing"
    work.mkdir(parents=True)
    with open(work / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="another process is packing into"):
            pack(source, tmp_path / "out")


def test_foreign_shards_are_left_alone(source: Path, tmp_path: Path, put: Put) -> None:
    put("out/00000.tar", b"mine")
    with pytest.raises(DataError, match="already holds shards"):
        pack(source, tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["00000.tar"]


def test_what_is_done_is_not_done_again(source: Path, tmp_path: Path) -> None:
    first = pack(source, tmp_path / "out")
    before = digests(tmp_path / "out")
    again = pack(source, tmp_path / "out")
    assert (again.samples, again.continued) == (first.samples, 5)
    assert digests(tmp_path / "out") == before
    (tmp_path / "out" / "00001.tar").unlink()
    with pytest.raises(DataError, match="holds 4 of the 5 shards"):
        pack(source, tmp_path / "out")


# --- the size of shards --------------------------------------------------------------------------


def test_a_part_that_is_too_large_goes_on_in_further_shards(
    put: Put, packed: Pack, image: Callable[..., bytes]
) -> None:
    import numpy as np
    from PIL import Image

    noise = np.random.default_rng(0).integers(0, 255, (700, 700, 3), dtype=np.uint8)
    for number in range(5):  # noise cannot be compressed: about 1.5 MB
        Image.fromarray(noise).save(put(f"{number}.png", b""), compress_level=1)
    source = put("t.csv", "".join(f"{number}.png,A dog\n" for number in range(5)))
    result = packed(source, shard_size=3, shard_mb=4, resize_short=None, quality=None)
    names = sorted(p.name for p in result.out.glob("*.tar"))
    assert names == ["00000.tar", "00000_1.tar", "00001.tar"]
    assert result.names[::3] == [f"00000000{i}.json" for i in range(5)]
    assert result.outcome.shards == 3
    assert all(p.stat().st_size < 4 << 20 for p in result.out.glob("*.tar"))


def test_parts_of_nothing_but_rejected_items_give_no_shard(put: Put, packed: Pack) -> None:
    put("a.jpg"), put("b.jpg")
    rows = ["a.jpg,A dog", "gone.jpg,A cat", "lost.jpg,A cow", "b.jpg,A fox"]
    result = packed(put("t.csv", "\n".join(rows)), shard_size=1)
    assert sorted(p.name for p in result.out.glob("*.tar")) == ["00000.tar", "00003.tar"]
    assert [line["row"] for line in result.rejected] == ["t.csv:2", "t.csv:3"]


def test_no_time_or_user_is_in_a_shard(source: Path, tmp_path: Path) -> None:
    import tarfile

    pack(source, tmp_path / "out")
    with tarfile.open(tmp_path / "out" / "00000.tar") as tar:
        for info in tar:
            assert (info.mtime, info.uname, info.uid) == (0, "bigdata", 0)
