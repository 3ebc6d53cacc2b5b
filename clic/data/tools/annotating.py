"""Tags for the captions of shards that exist: one task a shard, on this machine or on Ray."""

from __future__ import annotations

import io
import json
import os
import socket
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from clic.captions.tagging import Tagger, annotate, make_tagger, stored_tokens
from clic.captions.text import is_foreign
from clic.data.shards.index import index_path, is_indexed, write_index
from clic.data.shards.tar import (
    IMAGE_TYPES,
    NOTHING,
    Span,
    captions_of,
    parse_record,
    read_span,
    walk,
)
from clic.errors import ClicError, ConfigError, DataError
from clic.io.locks import Lock, take_lock
from clic.io.processes import Ticker, run_tasks

_RETRIES = 5  # of a task on Ray whose worker died
_PATIENCE = 10.0  # seconds for a cluster to answer


@dataclass(frozen=True)
class Annotated:
    """What became of a shard.

    Attributes:
        shard: Its path.
        tagged: Samples that were tagged.
        kept: Samples that had the tagger's tags already.
        broken: Samples left as they are, whose JSON or captions cannot be read.
        problem: Why the shard itself was left as it is, None where it was not.
        foreign: Samples among those tagged whose first caption is not in Latin script.
    """

    shard: str
    tagged: int = 0
    kept: int = 0
    broken: int = 0
    problem: str | None = None
    foreign: int = 0


def annotate_shards(
    shards: Sequence[Path],
    tagger: str,
    workers: int,
    progress: Callable[[int], None],
    force: bool = False,
) -> Iterator[Annotated]:
    """Store tags in shards, with some processes of this machine.

    Args:
        shards: The tars; each is replaced as a whole, and its index with it.
        tagger: Name of the tagger.
        workers: Number of processes.
        progress: Called with the bytes dealt with since the last call.
        force: Tag captions anew that have this tagger's tags already.

    Yields:
        What became of each shard, in the order in which they end.

    Raises:
        ConfigError: There is no such tagger, or it is not installed.
        DataError: A worker was killed.
    """
    make_tagger(tagger)
    yield from run_tasks(
        partial(annotate_shard, tagger, force), shards, workers, progress, __name__
    )


def annotate_on_ray(
    shards: Sequence[Path], tagger: str, address: str, force: bool = False
) -> Iterator[Annotated]:
    """Store tags in shards, with the workers of a Ray cluster that sees the same files.

    A task whose worker dies is run again.

    Args:
        shards: The tars, by paths that hold on every machine.
        tagger: Name of the tagger, which must be installed there.
        address: Of the cluster, ``auto`` for the one of this machine, ``local`` to start one.
        force: Tag captions anew that have this tagger's tags already.

    Yields:
        What became of each shard, in the order in which they end.

    Raises:
        ConfigError: Ray is not installed, or there is no cluster at that address.
        DataError: The workers of a task died again and again.
    """
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            f"--ray {address} needs Ray, which is not installed; run: pip install ray"
        ) from error
    dashboard = False if address == "local" else None
    try:
        _check_answers(address)
        ray.init(address=address, include_dashboard=dashboard, log_to_driver=False)
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"--ray {address}: no Ray cluster answers there ({error}); start one with "
            "ray start --head, or use --ray local"
        ) from error
    try:
        task = ray.remote(num_cpus=1, max_retries=_RETRIES)(_annotate_remote)
        pending = [task.remote(tagger, force, str(shard.resolve())) for shard in shards]
        while pending:
            done, pending = ray.wait(pending)
            for result in done:
                yield ray.get(result)
    except ray.exceptions.WorkerCrashedError as error:
        raise DataError(
            "a Ray worker died again and again, maybe for want of memory; the same command goes on "
            "from here"
        ) from error
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, ClicError):
            raise error.cause from None
        raise
    finally:
        ray.shutdown()


def _check_answers(address: str) -> None:
    """Raise `OSError` where nothing listens at HOST:PORT, which Ray would go on trying."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit() and "/" not in host:
        socket.create_connection((host, int(port)), timeout=_PATIENCE).close()


def _annotate_remote(tagger: str, force: bool, shard: str) -> Annotated:
    return annotate_shard(tagger, force, Path(shard), Ticker(lambda samples: None))


def annotate_shard(tagger: str, force: bool, shard: Path, tick: Ticker) -> Annotated:
    """Store tags in one shard, and index it; nothing is changed where all is there already.

    Args:
        tagger: Name of the tagger.
        force: Tag captions anew that have this tagger's tags already.
        shard: The tar.
        tick: Called with the bytes dealt with.
    """
    try:
        with _claimed(shard) as temporary, open(shard, "rb") as file:
            found = _read(file, shard, _tagger(tagger), force, tick)
            if found.changed:
                _rewrite(file, temporary, found.changed)
                new_index = write_index(temporary, temporary.with_suffix(".index"))
                os.chmod(temporary, shard.stat().st_mode)
                # A kill from here on leaves a tar without an index, never one with an older one's.
                index_path(shard).unlink(missing_ok=True)
                os.replace(temporary, shard)
                os.replace(new_index, index_path(shard))
            elif not is_indexed(shard):
                write_index(shard)
    except (DataError, OSError) as error:
        return Annotated(str(shard), problem=str(error))
    return Annotated(
        str(shard), len(found.changed), found.kept, found.broken, foreign=found.foreign
    )


class _Json(NamedTuple):
    """A sample's new JSON; `name` is None where it replaces one."""

    name: str | None
    data: bytes


@dataclass
class _Found:
    """What a pass over a shard found.

    Attributes:
        changed: The new JSONs, by the place of the `.json`, or else of the `.txt` they follow.
        kept: Samples with tags.
        broken: Samples that cannot be read.
        foreign: Samples to be tagged whose first caption is not in Latin script.
    """

    changed: dict[int, _Json]
    kept: int = 0
    broken: int = 0
    foreign: int = 0


def _read(file: BinaryIO, shard: Path, tagger: Tagger, force: bool, tick: Ticker) -> _Found:
    found = _Found({})
    for key, members in walk(file, shard):
        tick(sum(span.length for span in members.values()))
        meta, text = members.get(".json", NOTHING), members.get(".txt", NOTHING)
        if not any(kind in members for kind in IMAGE_TYPES) or not (meta.length or text.length):
            continue  # no sample: the index leaves it out too, and says so
        try:
            record = _record(file, shard, meta)
            caption = read_span(file, text, shard) if text.length else b""
            captions = captions_of(record, caption)
            has = not force and _has_tags(record, captions, tagger)
        except DataError:
            found.broken += 1
            continue
        if has:
            found.kept += 1
        elif captions:
            found.foreign += is_foreign(captions[0])
            data = json.dumps(record | annotate(captions, tagger)).encode()
            if meta.length:
                found.changed[meta.offset] = _Json(None, data)
            else:
                found.changed[text.offset] = _Json(f"{key}.json", data)
    return found


def _record(file: BinaryIO, shard: Path, span: Span) -> dict[str, Any]:
    return parse_record(read_span(file, span, shard)) if span.length else {}


def _has_tags(record: dict[str, Any], captions: Sequence[str], tagger: Tagger) -> bool:
    same = record.get("tagger") == {"name": tagger.name, "version": tagger.version}
    return same and stored_tokens(record, captions) is not None


def _rewrite(file: BinaryIO, target: Path, changed: dict[int, _Json]) -> None:
    """Copy a tar with some members changed, and be sure that it is on the disk."""
    file.seek(0)
    with tarfile.open(fileobj=file, mode="r:") as old, open(target, "r+b") as out:
        with tarfile.open(fileobj=out, mode="w:", format=tarfile.GNU_FORMAT) as new:
            for info in old:
                change = changed.get(info.offset_data) if info.isfile() else None
                if change is None or change.name is not None:
                    new.addfile(info, old.extractfile(info) if info.isfile() else None)
                if change is not None:
                    member = tarfile.TarInfo(change.name or info.name)
                    member.size, member.mtime, member.mode = len(change.data), info.mtime, info.mode
                    new.addfile(member, io.BytesIO(change.data))
        out.flush()
        os.fsync(out.fileno())


@contextmanager
def _claimed(shard: Path) -> Iterator[Path]:
    """Give the shard's temporary file, which no other process may hold, and remove it.

    Raises:
        DataError: Another process is annotating the shard.
    """
    temporary = shard.with_name(f".{shard.name}.annotating")
    with open(temporary, "ab") as file:
        if take_lock(file, shard, shared=False, wait=False) is Lock.HELD:
            raise DataError(f"{shard} is being annotated by another process")
        try:
            file.truncate(0)
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)
            temporary.with_suffix(".index").unlink(missing_ok=True)


@lru_cache(maxsize=1)
def _tagger(name: str) -> Tagger:
    return make_tagger(name)
