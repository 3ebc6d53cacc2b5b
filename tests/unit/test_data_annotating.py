"""Tags are stored in existing shards: whole or not at all, once, and for any worker that dies."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from clic import data
from clic.captions.tagging import make_tagger
from clic.cli.data import main
from clic.data.shards.index import index_path, load_index
from clic.data.shards.records import stored_tokens
from clic.data.tools.annotating import Annotated, annotate_on_ray, annotate_shards

TAG = make_tagger("hanta")
CAPTIONS = ["Two dogs sit.", "A cat's ball"]


def picture() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), (9, 9, 9)).save(buffer, format="PNG")
    return buffer.getvalue()


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(content), 77
            tar.addfile(info, io.BytesIO(content))
    return path


def read_tar(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return {info.name: tar.extractfile(info).read() for info in tar}  # type: ignore[union-attr]


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    """Return a tar made elsewhere: with JSON, with text alone, broken, and without a caption."""
    meta = {"captions": CAPTIONS, "url": "x", "tokens": "of another program"}
    return write_tar(
        tmp_path / "00000.tar",
        {
            "a.png": picture(), "a.json": json.dumps(meta).encode(), "a.txt": b"other",
            "sub/b.png": picture(), "sub/b.txt": b"a red ball",
            "c.png": picture(), "c.json": b"{", "c.txt": b"a dog",
            "d.png": picture(), "d.json": b"{}",
            "readme.md": b"hello",
        },
    )  # fmt: skip


def annotated(*shards: Path, **settings: Any) -> list[Annotated]:
    arguments = {"tagger": "hanta", "workers": 1, "progress": lambda n: None, **settings}
    return list(annotate_shards(shards, **arguments))


def test_tags_are_added_and_nothing_else_changes(shard: Path) -> None:
    before = read_tar(shard)
    assert annotated(shard) == [Annotated(str(shard), tagged=2, kept=0, broken=1)]
    after = read_tar(shard)
    assert list(after) == [*list(before)[:5], "sub/b.json", *list(before)[5:]]
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"a.json"}
    stored = json.loads(after["a.json"])
    assert (stored["url"], stored["captions"]) == ("x", CAPTIONS)
    assert stored["tagger"] == {"name": "hanta", "version": TAG.version}
    assert stored_tokens(stored, CAPTIONS) == tuple(map(TAG, CAPTIONS))
    assert stored_tokens(json.loads(after["sub/b.json"]), ["a red ball"]) == (TAG("a red ball"),)
    # Only the tar and its index lie there, and the index is that of the new tar.
    assert sorted(p.name for p in shard.parent.iterdir()) == ["00000.tar", "00000.tar.index"]
    assert load_index(index_path(shard)).shard_bytes == shard.stat().st_size


def test_the_samples_carry_their_tags(shard: Path) -> None:
    annotated(shard)
    source = data.ShardSource(str(shard))
    sample = source.read(0)
    assert sample.captions == tuple(CAPTIONS) and sample.tags == tuple(map(TAG, CAPTIONS))


def test_samples_of_another_script_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = [
        "\u4e00\u53ea\u7ea2\u8272\u7684\u72d7",
        "\u0431\u0435\u043b\u044b\u0439 \u043f\u0451\u0441",
        "a dog",
        "a caf\u00e9",
    ]
    members = {}
    for number, text in enumerate(texts):
        members |= {f"{number}.png": picture(), f"{number}.txt": text.encode()}
    shard = write_tar(tmp_path / "00000.tar", members)
    monkeypatch.setattr(sys, "argv", ["clic-data", "annotate", str(shard), "--workers", "1"])
    for expected in ("2 of these (50%) give few or no false captions: they are not", ""):
        with pytest.raises(SystemExit):
            main()
        out = capsys.readouterr().out
        assert expected in " ".join(out.split()) and ("Latin" in out) == bool(expected)


def test_what_is_there_is_kept_unless_forced(shard: Path) -> None:
    annotated(shard)
    first = shard.read_bytes()
    assert annotated(shard) == [Annotated(str(shard), tagged=0, kept=2, broken=1)]
    assert shard.read_bytes() == first
    assert annotated(shard, force=True)[0].tagged == 2
    assert shard.read_bytes() == first


def test_a_stale_index_is_mended(shard: Path) -> None:
    """As after a kill between the two replacements."""
    annotated(shard)
    wanted = index_path(shard).read_bytes()
    write_tar(shard.with_name("old.tar"), {"x.png": picture(), "x.txt": b"x"})
    data.write_index(shard.with_name("old.tar"), index_path(shard))
    assert annotated(shard)[0].kept == 2
    assert index_path(shard).read_bytes() == wanted


def test_tags_of_other_captions_are_made_anew(shard: Path) -> None:
    annotated(shard)
    members = read_tar(shard)
    meta = json.loads(members["a.json"]) | {"captions": ["Three dogs sit."]}
    write_tar(shard, members | {"a.json": json.dumps(meta).encode()})
    assert annotated(shard) == [Annotated(str(shard), tagged=1, kept=1, broken=1)]
    stored = json.loads(read_tar(shard)["a.json"])
    assert stored_tokens(stored, ["Three dogs sit."]) == (TAG("Three dogs sit."),)


def test_a_broken_tar_is_told_and_the_others_are_done(shard: Path, tmp_path: Path) -> None:
    cut = tmp_path / "00001.tar"
    cut.write_bytes(shard.read_bytes()[:700])
    parts = {part.shard: part for part in annotated(shard, cut)}
    assert parts[str(shard)].tagged == 2
    assert "00001.tar" in str(parts[str(cut)].problem)
    assert cut.stat().st_size == 700
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_two_at_once_are_refused(shard: Path) -> None:
    import fcntl

    with open(shard.with_name(".00000.tar.annotating"), "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert "by another process" in str(annotated(shard)[0].problem)
    assert annotated(shard)[0].tagged == 2  # what a killed process left is no hindrance


def test_an_interrupt_leaves_the_shard_as_it_was(
    shard: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = shard.read_bytes()

    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, interrupted)
            with pytest.raises(KeyboardInterrupt):
                annotated(shard)
        assert shard.read_bytes() == before
        assert [path.name for path in shard.parent.iterdir()] == [shard.name]
    assert annotated(shard)[0].tagged == 2


def test_a_kill_between_tar_and_index_leaves_no_older_index(
    shard: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data.write_index(shard)
    move = os.replace

    def killed(source: Path, target: Path) -> None:
        move(source, target)
        if target == shard:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", killed)
        annotated(shard)
    assert [path.name for path in shard.parent.iterdir()] == [shard.name]
    assert data.ShardSource(str(shard)).read(0).tags == tuple(map(TAG, CAPTIONS))


def is_dying(group: int) -> bool:
    """Return whether Linux still has a process of a group that is more than a zombie."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, its_group, *_ = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        if int(its_group) == group and state not in "ZX":
            return True
    return False


@pytest.mark.slow
def test_a_kill_leaves_the_shards_whole(tmp_path: Path) -> None:
    captions = [f"a {word} dog number {i} near a cat" for i in range(40) for word in ("red", "big")]
    for number in range(6):
        meta = json.dumps({"captions": captions}).encode()
        members = {f"{i}.{kind}": picture() if kind == "png" else meta
                   for i in range(40) for kind in ("png", "json")}  # fmt: skip
        write_tar(tmp_path / f"{number}.tar", members)
    code = "from clic.cli.data import main; main()"
    command = [sys.executable, "-c", code, "annotate", str(tmp_path)]
    run = subprocess.Popen([*command, "--workers", "2"], start_new_session=True)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.tar")}
    while before == {p.name: p.stat().st_mtime_ns for p in tmp_path.glob("*.tar")}:
        assert run.poll() is None, "it ended before its first tar"
        time.sleep(0.005)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    while is_dying(run.pid):  # a worker that still does so holds its tar's lock
        time.sleep(0.01)
    done = [read_tar(path) for path in sorted(tmp_path.glob("*.tar"))]
    assert all(len(members) == 80 for members in done)
    parts = annotated(*sorted(tmp_path.glob("*.tar")))
    assert sum(part.tagged + part.kept for part in parts) == 240
    assert sum(part.kept for part in parts) >= 40
    assert all(part.problem is None for part in parts)
    assert len(list(tmp_path.iterdir())) == 12  # six tars and their indexes


def run_main(*words: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["clic-data", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_the_command(
    shard: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("annotate", str(shard), "--workers", "1")
    assert run_main(*words, monkeypatch=monkeypatch) == 0
    out = capsys.readouterr().out
    assert "1 tar: 2 samples tagged, 0 were tagged already\n" in out
    assert "1 samples cannot be read" in out
    shard.write_bytes(b"x" * 700)
    assert run_main(*words, monkeypatch=monkeypatch) == 1
    assert "left as it was" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--tagger", "hant"], ["--tagger='hant'", "did you mean 'hanta'"]),
        (["--workers", "0"], ["--workers 0"]),
        (["--workers", "2", "--ray", "auto"], ["no effect with --ray auto"]),
    ],
)
def test_mistakes_of_the_command(
    words: list[str],
    parts: list[str],
    shard: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_main("annotate", str(shard), *words, monkeypatch=monkeypatch) == 2
    error = capsys.readouterr().err
    assert all(part in error for part in parts) and error.count("\n") == 1


def test_missing_ray_is_named_with_its_command(
    shard: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert run_main("annotate", str(shard), "--ray", "local", monkeypatch=monkeypatch) == 2
    assert "pip install ray" in capsys.readouterr().err


def test_a_cluster_that_does_not_answer_is_named(
    shard: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ray", reason="the extra clic[ray] is not installed")
    code = run_main("annotate", str(shard), "--ray", "127.0.0.1:9", monkeypatch=monkeypatch)
    assert code == 2
    assert "no Ray cluster answers there" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds Ray's workers in /proc")
def test_on_ray_with_a_worker_killed(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="the extra clic[ray] is not installed")
    meta = json.dumps({"captions": [f"a dog number {i} near a cat" for i in range(100)]}).encode()
    members = {f"{i}.{kind}": picture() if kind == "png" else meta
               for i in range(50) for kind in ("png", "json")}  # fmt: skip
    shards = [write_tar(tmp_path / f"{number}.tar", members) for number in range(3)]
    killed: list[int] = []
    done = threading.Event()
    killer = threading.Thread(target=kill_one_worker, args=(killed, done), daemon=True)
    killer.start()
    try:
        parts = list(annotate_on_ray(shards, "hanta", "local"))
    finally:
        done.set()
    killer.join()
    assert killed, "no worker was at work when it was to be killed"
    assert sorted(part.shard for part in parts) == [str(shard) for shard in shards]
    assert all(part.problem is None and part.tagged + part.kept == 50 for part in parts)
    assert sum(part.kept for part in annotated(*shards)) == 150
    assert len(list(tmp_path.iterdir())) == 6


def kill_one_worker(killed: list[int], done: threading.Event) -> None:
    """Kill the first process that runs a task of ours on Ray."""
    while not done.is_set() and not killed:
        for entry in Path("/proc").iterdir():
            try:
                command = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
            except OSError:
                continue  # it has just ended
            if command.startswith(b"ray::_annotate_remote"):
                os.kill(int(entry.name), signal.SIGKILL)
                killed.append(int(entry.name))
                return
        time.sleep(0.02)
