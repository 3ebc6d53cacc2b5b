"""Stores tags with the captions of existing shards: one task per shard, locally or on Ray."""

from __future__ import annotations

import io
import json
import os
import socket
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, BinaryIO

from clic.captions.tagging import Tagger, make_tagger
from clic.captions.text import is_foreign
from clic.data.shards.index import index_path, is_indexed, write_index
from clic.data.shards.records import annotate, captions_of, parse_record, stored_tokens
from clic.data.shards.tar import IMAGE_TYPES, NOTHING, read_span, walk
from clic.errors import ClicError, ConfigError, DataError
from clic.io.locks import Lock, take_lock
from clic.io.processes import Ticker, run_tasks
from clic.io.terminal import say

_RETRIES = 5  # of a task on Ray whose worker died
_PATIENCE = 10.0  # seconds within which a cluster must answer
_make_tagger = lru_cache(maxsize=1)(make_tagger)


@dataclass(frozen=True)
class Annotated:
    """Result of annotating a shard; the numbers count samples."""

    shard: str  # its path
    tagged: int = 0
    kept: int = 0  # that already had the tagger's tags
    broken: int = 0  # left as they are, since their JSON or captions are unreadable
    problem: str | None = None  # why the whole shard was left as it is
    foreign: int = 0  # tagged ones whose first caption is not in Latin script


def annotate_shards(
    shards: Sequence[Path],
    tagger: str,
    workers: int,
    progress: Callable[[int], None],
    force: bool = False,
) -> Iterator[Annotated]:
    """Store tags in shards, with processes on this machine; yield their results as they finish.

    Args:
        shards: The tars; each is replaced as a whole, together with its index.
        tagger: Name of the tagger.
        workers: Number of processes.
        progress: Called with the bytes processed since the last call.
        force: Also tag captions that already have this tagger's tags.

    Raises:
        ConfigError: There is no such tagger, or it is not installed.
        DataError: A worker was killed.
    """
    make_tagger(tagger)
    yield from run_tasks(partial(annotate_shard, tagger, force), shards, workers, progress)


def annotate_on_ray(
    shards: Sequence[Path], tagger: str, address: str, force: bool = False
) -> Iterator[Annotated]:
    """Store tags in shards, with the workers of a Ray cluster that can read the same files.

    A task whose worker dies is run again.

    Args:
        shards: The tars, by paths that are valid on every machine.
        tagger: Name of the tagger, which must be installed there.
        address: Address of the cluster; ``auto`` finds this machine's, ``local`` starts one.
        force: As in `annotate_shards`.

    Raises:
        ConfigError: Ray is not installed, or no cluster answers at that address.
        DataError: The workers of a task died repeatedly.
    """
    yield from on_ray(_annotate_remote, (tagger, force), shards, address)


def on_ray(
    work: Callable[..., Any],
    arguments: tuple[Any, ...],
    shards: Sequence[Path],
    address: str,
    device: str = "cpu",
) -> Iterator[Any]:
    """Call `work(*arguments, shard)` for each shard on a Ray cluster; yield the results.

    Args:
        work: A module-level function that every machine can import.
        arguments: Its arguments before the shard's absolute path, a string.
        shards: The tars, by paths that are valid on every machine.
        address: See `annotate_on_ray`.
        device: `cpu`, `auto` (a GPU for each task if the cluster has any) or another, with which
            each task waits for a GPU.

    Raises:
        ConfigError: Ray is not installed, no cluster answers at that address, or one that was
            started here has no GPU for a `device` that needs one.
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
            "ray start --head, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN if it asks for a token, "
            "or use --ray local"
        ) from error
    try:
        gpus = int(device != "cpu" and _gives_gpus(ray.cluster_resources(), address, device))
        # max_calls=0 keeps a worker with a GPU, and its model, for the next shard.
        task = ray.remote(num_cpus=1, num_gpus=gpus, max_calls=0, max_retries=_RETRIES)(work)
        pending = [task.remote(*arguments, str(shard.resolve())) for shard in shards]
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


def _gives_gpus(resources: Mapping[str, float], address: str, device: str) -> bool:
    """Return whether tasks should request a GPU; without one, Ray would let them wait for ever."""
    if resources.get("GPU", 0) >= 1:
        return True
    if device == "auto":
        say(f"--ray {address}: no machine has a GPU, so CPUs work (--device cuda waits for GPUs)")
    elif address == "local":
        raise ConfigError(f"--device {device}: Ray finds no GPU on this machine; use --device cpu")
    return device != "auto"


def _check_answers(address: str) -> None:
    """Raise `OSError` if nothing listens at HOST:PORT, since Ray would retry for a long time."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit() and "/" not in host:
        socket.create_connection((host, int(port)), timeout=_PATIENCE).close()


def _annotate_remote(tagger: str, force: bool, shard: str) -> Annotated:
    return annotate_shard(tagger, force, Path(shard), Ticker(lambda samples: None))


def annotate_shard(tagger: str, force: bool, shard: Path, tick: Ticker) -> Annotated:
    """Store tags in one shard, and index it; a shard that has both is not changed.

    Arguments are as in `annotate_shards`; `tick` is called with the number of bytes processed.
    """
    try:
        with claimed(shard) as temporary, open(shard, "rb") as file:
            changed, counts = _read(file, shard, _make_tagger(tagger), force, tick)
            if changed:
                rewrite(file, temporary, changed)
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


def _read(
    file: BinaryIO, shard: Path, tagger: Tagger, force: bool, tick: Ticker
) -> tuple[dict[int, tuple[str, bytes]], Counter[str]]:
    """Return the names and data of the new JSONs, and the counts for `Annotated`.

    A JSON's key is the offset of the member that it replaces, in which case its name is empty, or
    the offset of the `.txt` that it follows.
    """
    changed: dict[int, tuple[str, bytes]] = {}
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
            at, name = (meta, "") if meta.length else (text, f"{key}.json")
            changed[at.offset] = (name, data)
    return changed, counts


def _has_tags(record: dict[str, Any], captions: Sequence[str], tagger: Tagger) -> bool:
    same = record.get("tagger") == {"name": tagger.name, "version": tagger.version}
    return same and stored_tokens(record, captions) is not None


def rewrite(file: BinaryIO, target: Path, changed: dict[int, tuple[str, bytes]]) -> None:
    """Copy a tar with some members changed; the copy is synced to the disk."""
    file.seek(0)
    with tarfile.open(fileobj=file, mode="r:") as old, open(target, "r+b") as out:
        with tarfile.open(fileobj=out, mode="w:", format=tarfile.GNU_FORMAT) as new:
            for info in old:
                place = info.offset_data if info.isfile() else -1
                name, data = changed.get(place, ("", b""))
                if name or not data:
                    new.addfile(info, old.extractfile(info) if info.isfile() else None)
                if data:
                    member = tarfile.TarInfo(name or info.name)
                    member.size, member.mtime, member.mode = len(data), info.mtime, info.mode
                    new.addfile(member, io.BytesIO(data))
        out.flush()
        os.fsync(out.fileno())


@contextmanager
def claimed(shard: Path) -> Iterator[Path]:
    """Yield the shard's temporary file, locked against other processes; remove it afterwards."""
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
