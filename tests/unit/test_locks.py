"""Locks: one process at a time where the disk can lock, and a warning where it cannot."""

from __future__ import annotations

import errno
import fcntl
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from clic.config.train_settings import Config
from clic.data.packing import packer
from clic.data.shards import merged_index
from clic.evaluation.files import fetching
from clic.io import locks
from clic.io.download import partial_file
from clic.io.locks import Lock, open_lock, take_lock
from clic.training.run_folder import choose, claim, write_config

ROOT = Path(__file__).resolve().parents[2]
WITHOUT = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EBADF, errno.EINVAL)


@pytest.fixture(params=WITHOUT, ids=lambda code: errno.errorcode[code])
def no_locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Answer each request for a lock as a disk without locks does."""

    def refuse(*_: object) -> None:
        raise OSError(request.param, "no locks here")

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(locks, "_said", set())
    with pytest.warns(UserWarning, match="cannot lock files .no locks here.* not kept apart"):
        yield


def test_who_has_a_lock_keeps_others_out(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with open_lock(path) as first, open_lock(path) as second, open_lock(path) as third:
        assert take_lock(first, path, shared=True, wait=False) is Lock.TAKEN
        assert take_lock(second, path, shared=True, wait=False) is Lock.TAKEN
        assert take_lock(third, path, shared=False, wait=False) is Lock.HELD
        first.close()
        second.close()
        assert take_lock(third, path, shared=False, wait=True) is Lock.TAKEN


@pytest.mark.usefixtures("no_locks")
def test_a_disk_without_locks_is_told_once(tmp_path: Path) -> None:
    with open_lock(tmp_path / "a") as file:
        assert take_lock(file, tmp_path / "a", shared=True, wait=True) is Lock.UNSUPPORTED
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert take_lock(file, tmp_path / "a", shared=False, wait=False) is Lock.UNSUPPORTED


def test_a_lock_file_of_another_user_is_locked_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lock"
    path.touch()
    monkeypatch.setattr("builtins.open", read_only(open))
    with open_lock(path) as file:
        assert take_lock(file, path, shared=False, wait=False) is Lock.TAKEN


def read_only(opens: Callable[..., Any]) -> Callable[..., Any]:
    def guarded(path: Any, mode: str = "r", *words: Any, **named: Any) -> Any:
        if "r" not in mode:
            raise PermissionError(errno.EACCES, "not yours", str(path))
        return opens(path, mode, *words, **named)

    return guarded


@pytest.mark.usefixtures("no_locks")
def test_a_run_is_made_and_continued_on_a_disk_without_locks(
    settings: Callable[..., Config],
) -> None:
    config = settings("train.run_name=here")
    place = choose(config)
    claim(place, config).close()
    write_config(place.path, config)
    again = choose(config)
    assert again.continued and again.path == place.path
    claim(again, config).close()


@pytest.mark.usefixtures("no_locks")
def test_data_is_packed_indexed_and_fetched_on_a_disk_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with packer.claim(tmp_path / "out"), fetching.alone(tmp_path / "data", pytest.fail):
        pass
    shard = tmp_path / "a.tar"
    shard.touch()
    monkeypatch.setattr(merged_index, "write_index", lambda tar, index: index.touch())
    assert merged_index.ensure_index(shard, tmp_path / "a.index", wait=False)
    monkeypatch.setattr(merged_index, "IN_MEMORY", -1)
    assert not len(merged_index.merge([], tmp_path / "merged"))


@pytest.mark.usefixtures("no_locks")
def test_two_downloads_of_a_file_do_not_mix_on_a_disk_without_locks(tmp_path: Path) -> None:
    target = tmp_path / "a.tar"
    with partial_file(target) as one, partial_file(target) as other:
        assert one is not None and other is not None
        one.write(b"1" * 10)
        other.write(b"2" * 10)
        one.flush()
        other.finish()
        one.finish()
    assert target.read_bytes() == b"1" * 10
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar"]


def test_locks_are_asked_for_in_one_place() -> None:
    sources = [path for path in (ROOT / "clic").rglob("*.py") if path.name != "locks.py"]
    assert len(sources) > 100
    assert not [p for p in sources if re.search(r"\bfcntl\b", p.read_text(encoding="utf-8"))]
