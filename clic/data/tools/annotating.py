"""Stores tags with the captions of existing shards: one task per shard, here or on Ray."""

from __future__ import annotations

import io
import json
import os
import socket
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from clic.captions.tagging import Tagger, annotate, make_tagger, stored_tokens
from clic.captions.text import is_foreign
from clic.data.shards.index import index_path, is_indexed, write_index
from clic.data.shards.tar import IMAGE_TYPES, NOTHING, captions_of, parse_record, read_span, walk
from clic.errors import ClicError, ConfigError, DataError
from clic.io.locks import Lock, take_lock
from clic.io.processes import Ticker, run_tasks

_RETRIES = 5  # of a task on Ray whose worker died
_PATIENCE = 10.0  # seconds that a cluster has to answer
_make_tagger = lru_cache(maxsize=1)(make_tagger)


@dataclass(frozen=True)
class Annotated:
    """Result of annotating a shard.

    Attributes:
        shard: Its path.
        tagged: Samples that were tagged.
        kept: Samples that already had the tagger's tags.
        broken: Samples that were left as they are, since their JSON or captions are unreadable.
        problem: Why the whole shard was left as it is; None where it was not.
        foreign: Tagged samples whose first caption is not in Latin script.
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
    """Store tags in shards, with processes on this machine.

    Args:
        shards: The tars; each is replaced as a whole, together with its index.
        tagger: Name of the tagger.
        workers: Number of processes.
        progress: Called with the bytes processed since the last call.
        force: Also tag captions that already have this tagger's tags.

    Yields:
        The result of each shard, in the order in which they finish.

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
        shards: The tars, by paths that are valid on every machine.
        tagger: Name of the tagger, which must be installed there.
        address: The cluster's; ``auto`` for that of this machine, ``local`` to start one.
        force: As in `annotate_shards`, which yields the same results.

    Raises:
        ConfigError: Ray is not installed, or no cluster answers at that address.
        DataError: The workers of a task died repeatedly.
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
            "a Ray worker died repeatedly, perhaps for lack of memory; the same command continues "
            "from here"
        ) from error
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, ClicError):
            raise error.cause from None
        raise
    finally:
        ray.shutdown()


def _check_answers(address: str) -> None:
    """Raise `OSError` where nothing listens at HOST:PORT, where Ray would retry for long."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit() and "/" not in host:
        socket.create_connection((host, int(port)), timeout=_PATIENCE).close()


def _annotate_remote(tagger: str, force: bool, shard: str) -> Annotated:
    return annotate_shard(tagger, force, Path(shard), Ticker(lambda samples: None))


def annotate_shard(tagger: str, force: bool, shard: Path, tick: Ticker) -> Annotated:
    """Store tags in one shard, and index it; nothing changes where everything is there already.

    Arguments are as in `annotate_shards`; `tick` is called with the number of bytes processed.
    """
    try:
        with _claimed(shard) as temporary, open(shard, "rb") as file:
            changed, counts = _read(file, shard, _make_tagger(tagger), force, tick)
            if changed:
                _rewrite(file, temporary, changed)
                new_index = write_index(temporary, temporary.with_suffix(".index"))
                os.chmod(temporary, shard.stat().st_mode)
                # A kill from here on leaves a tar without an index, never with an outdated one.
                index_path(shard).unlink(missing_ok=True)
                os.replace(temporary, shard)
                os.replace(new_index, index_path(shard))
            elif not is_indexed(shard):
                write_index(shard)
    except (DataError, OSError) as error:
        return Annotated(str(shard), problem=str(error))
    return Annotated(
        str(shard), len(changed), counts["kept"], counts["broken"], foreign=counts["foreign"]
    )


class _NewJson(NamedTuple):
    """A sample's new JSON; `name` is None where it replaces an old one."""

    name: str | None
    data: bytes


def _read(
    file: BinaryIO, shard: Path, tagger: Tagger, force: bool, tick: Ticker
) -> tuple[dict[int, _NewJson], Counter[str]]:
    """Return the new JSONs by offset of the `.json`, or else of the `.txt` that they follow.

    The counter has the samples that are kept, broken or foreign; see `Annotated`.
    """
    changed: dict[int, _NewJson] = {}
    counts: Counter[str] = Counter()
    for key, members in walk(file, shard):
        tick(sum(span.length for span in members.values()))
        meta, text = members.get(".json", NOTHING), members.get(".txt", NOTHING)
        if not any(kind in members for kind in IMAGE_TYPES) or not (meta.length or text.length):
            continue  # not a sample: the index leaves it out too, and reports it
        try:
            record = parse_record(read_span(file, meta, shard)) if meta.length else {}
            captions = captions_of(record, read_span(file, text, shard) if text.length else b"")
            tagged = not force and _has_tags(record, captions, tagger)
        except DataError:
            counts["broken"] += 1
            continue
        if tagged:
            counts["kept"] += 1
        elif captions:
            counts["foreign"] += is_foreign(captions[0])
            data = json.dumps(record | annotate(captions, tagger)).encode()
            if meta.length:
                changed[meta.offset] = _NewJson(None, data)
            else:
                changed[text.offset] = _NewJson(f"{key}.json", data)
    return changed, counts


def _has_tags(record: dict[str, Any], captions: Sequence[str], tagger: Tagger) -> bool:
    same = record.get("tagger") == {"name": tagger.name, "version": tagger.version}
    return same and stored_tokens(record, captions) is not None


def _rewrite(file: BinaryIO, target: Path, changed: dict[int, _NewJson]) -> None:
    """Copy a tar with some members changed; it is on the disk when this returns."""
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
    """Yield the shard's temporary file, held against other processes, and remove it afterwards."""
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
