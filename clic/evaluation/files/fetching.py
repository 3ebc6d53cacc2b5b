"""Gets a benchmark's files: downloads, checks and unpacks them, and never overwrites any.

Only one process at a time works on a data root, and each download must fit on the disk. The
checksum of each download is recorded in `fetched.json`, in the benchmark's folder.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
import shlex
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from clic.errors import ClicError, ConfigError, DataError
from clic.evaluation.benchmarks.benchmark import Benchmark
from clic.evaluation.evaluation_plan import missing_images
from clic.evaluation.files.file_sources import (
    Archive,
    ByHand,
    File,
    HubFolder,
    ImageList,
    Source,
    Torchvision,
    present,
)
from clic.evaluation.files.unpacking import check_room, unpack
from clic.io.download import download
from clic.io.files import file_sha256, write_whole
from clic.io.locks import Lock, take_lock

HUB = "https://huggingface.co"
CONNECTIONS = 8
"""Images of a list that are downloaded in parallel."""
UNPACKED = 2.1
"""Disk space for an archive and its contents, in archive sizes; images hardly compress."""
LISTED = 10  # missing images that are named
MANIFEST = "fetched.json"
Say = Callable[[str], None]
Progress = Callable[[str], Callable[[int, int | None], None]]


@dataclass
class Fetched:
    """The result of fetching a benchmark.

    Attributes:
        by_hand: Sources that the user must get.
        lost: Images that could not be downloaded, with the reasons.
    """

    by_hand: list[ByHand] = field(default_factory=list)
    lost: dict[str, str] = field(default_factory=dict)


def fetch(
    benchmark: Benchmark,
    data_root: Path,
    say: Say,
    progress: Progress,
    mirror: str | None = None,
) -> Fetched:
    """Get a benchmark's missing files: first the annotations, then the images.

    Args:
        benchmark: The benchmark.
        data_root: Folder of the benchmarks' files.
        say: Called with a line for each source.
        progress: Takes a title, and returns a callable that takes the bytes so far and the total.
        mirror: URL that replaces the scheme and host of every download, e.g. ``http://host:8000``.

    Raises:
        ConfigError: `mirror` has no effect, or a package is missing.
        DataError: A file cannot be downloaded or is not the published one, or the disk is full.
    """
    places = [data_root]
    for source in (*benchmark.annotations, *benchmark.images):
        if isinstance(source, Torchvision):
            places.append(_beside(data_root, source))
        else:
            places += [data_root / source.gives, data_root / getattr(source, "into", "")]
    with no_empty_folders(places), alone(data_root, say):
        return _fetch(benchmark, data_root, _Site(data_root, say, progress, mirror))


def _fetch(benchmark: Benchmark, data_root: Path, site: _Site) -> Fetched:
    found = Fetched()
    for source in benchmark.annotations:
        site.get(source, found)
    complete = all(present(source, data_root) for source in benchmark.annotations)
    lost = _missing_files(benchmark, data_root) if complete and benchmark.images else set()
    for source in benchmark.images:
        if isinstance(source, ImageList) and not complete:
            continue  # the missing annotations contain its URLs
        below = data_root / source.gives
        site.get(source, found, again=any(below in file.parents for file in lost))
    return found


def _missing_files(benchmark: Benchmark, data_root: Path) -> set[Path]:
    """Return the missing image files that the annotations name."""
    return set(missing_images(benchmark.load(data_root, "test", 0)).values())


@dataclass(frozen=True)
class _Site:
    """Gets sources into a data root."""

    root: Path
    say: Say
    progress: Progress
    mirror: str | None

    def get(self, source: Source, found: Fetched, again: bool = False) -> None:
        """Get a source unless it exists; `again` gets it anyway, because images are missing."""
        there = present(source, self.root)
        if isinstance(source, ImageList):
            found.lost.update(self._images(source))
        elif isinstance(source, HubFolder):
            self._hub(source)
        elif there and not again:
            if isinstance(source, File):
                verify(self.root, source.path, source.checksum)
            self.say(f"{source.gives}: exists, left unchanged")
        elif isinstance(source, ByHand):
            found.by_hand.append(source)
        elif isinstance(source, Torchvision):
            self._torchvision(source)
        elif isinstance(source, Archive):
            self._archive(source)
        else:
            self._file(source.url, source.path, source.checksum, source.size)

    def _file(self, url: str, path: str, checksum: str | None, size: int | None) -> Path:
        """Download a file under a temporary name, check it, and rename it."""
        target = self.root / path
        known = recorded(self.root, path)
        check_room(size or 0, target)
        kind, _, value = (checksum or known or ":").partition(":")
        unchecked = target.with_name(f"{target.name}.unchecked")
        download(
            self._address(url),
            unchecked,
            sha256=value if kind == "sha256" else None,
            size=size,
            progress=self.progress(path),
            name=path,
        )
        if kind == "md5":
            try:
                check_md5(unchecked, value, url)
            except DataError:
                unchecked.unlink()
                raise
        digest = record(self.root, path, unchecked, url)
        os.replace(unchecked, target)
        trust = "as published" if checksum else "as before" if known else "none is published"
        self.say(f"{path}: {target.stat().st_size:,} bytes, SHA-256 {digest[:16]}... ({trust})")
        return target

    def _archive(self, source: Archive) -> None:
        check_room(int((source.size or 0) * UNPACKED), self.root / source.into)
        archive = self.root / source.name
        if archive.exists():
            verify(self.root, source.name, source.checksum)
        else:
            self._file(source.url, source.name, source.checksum, source.size)
        self.say(f"{source.name}: unpacking")
        into = self.root / source.into
        count = unpack(archive, into, source.only, source.rename)
        if not present(source, self.root):
            raise DataError(
                f"{source.url} holds no {source.gives}; the archive is kept at {archive}: unpack "
                "it by hand"
            )
        archive.unlink()
        self.say(f"{source.gives}: {count:,} new files")

    def _hub(self, source: HubFolder) -> None:
        """Get the files that the hub lists with their sizes and SHA-256."""
        base = f"{HUB}/api/datasets/{source.repository}/tree/main/{quote(source.folder)}"
        with TemporaryDirectory() as folder:
            listing = download(self._address(base), Path(folder) / "tree.json")
            entries = _hub_entries(listing, base)
        chosen = [e for e in entries if fnmatch.fnmatch(Path(e[0]).name, source.pattern)]
        if not chosen:
            raise DataError(f"{base} lists no {source.pattern}; the data set may have moved")
        for path, size, digest in chosen:
            name = f"{source.gives}/{Path(path).name}"
            url = f"{HUB}/datasets/{source.repository}/resolve/main/{quote(path)}"
            checksum = f"sha256:{digest}" if digest else None
            if (self.root / name).exists():
                verify(self.root, name, checksum)
                self.say(f"{name}: exists, left unchanged")
            else:
                self._file(url, name, checksum, size)

    def _images(self, source: ImageList) -> dict[str, str]:
        """Download the missing images in parallel; return those that failed, with the reasons."""
        urls = {p: u for p, u in source.urls(self.root).items() if not (self.root / p).exists()}
        (self.root / source.gives).mkdir(parents=True, exist_ok=True)
        if not urls:
            self.say(f"{source.gives}: all images exist, left unchanged")
            return {}
        lost: dict[str, str] = {}

        def one(item: tuple[str, str]) -> None:
            path, url = item
            unchecked = self.root / f"{path}.unchecked"
            try:
                download(self._address(url), unchecked, name=path)
            except ClicError as error:
                lost[path] = str(error)
                unchecked.unlink(missing_ok=True)
            else:
                os.replace(unchecked, self.root / path)

        advance = self.progress(source.gives)
        pool = ThreadPoolExecutor(CONNECTIONS)
        try:
            for done, _ in enumerate(pool.map(one, urls.items()), start=1):
                advance(done, len(urls))
        finally:  # on Ctrl-C, downloads that have not begun are cancelled
            pool.shutdown(cancel_futures=True)
        self.say(f"{source.gives}: {len(urls) - len(lost):,} new images, {len(lost):,} unavailable")
        return lost

    def _torchvision(self, source: Torchvision) -> None:
        if self.mirror is not None:
            raise ConfigError(
                f"--mirror has no effect on {source.gives}, which torchvision downloads from "
                "its own addresses; leave it out"
            )
        top = Path(source.gives).parts[0]
        place = _beside(self.root, source)
        if (place / top).exists():
            shutil.rmtree(place / top)
        place.mkdir(parents=True, exist_ok=True)
        try:
            source.fetch(place)
            os.rename(place / top, self.root / top)
        except (ImportError, RuntimeError, OSError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise DataError(f"torchvision cannot get {source.gives} ({reason})") from error
        shutil.rmtree(place)
        self.say(f"{source.gives}: downloaded by torchvision")

    def _address(self, url: str) -> str:
        """Return the URL, on the mirror if there is one."""
        if self.mirror is None:
            return url
        own, other = urlsplit(url), urlsplit(self.mirror)
        path = other.path.rstrip("/") + own.path
        return urlunsplit((other.scheme, other.netloc, path, own.query, ""))


def _beside(data_root: Path, source: Torchvision) -> Path:
    """Return a temporary folder, because torchvision takes a partial folder for a complete one."""
    return data_root / f".fetching-{Path(source.gives).parts[0]}"


def _hub_entries(listing: Path, url: str) -> list[tuple[str, int | None, str | None]]:
    """Return path, size and SHA-256 of the files that the hub lists."""
    try:
        content = json.loads(listing.read_text(encoding="utf-8"))
        return [
            (str(entry["path"]), entry.get("size"), (entry.get("lfs") or {}).get("oid"))
            for entry in content
            if entry["type"] == "file"
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{url} is no list of files ({error!r}); try again later") from error


def told(found: Iterable[Fetched]) -> list[str]:
    """Return lines that name the first images that could not be downloaded."""
    lost = {path: reason for one in found for path, reason in one.lost.items()}
    lines = [f"not available: {path} ({reason})" for path, reason in list(lost.items())[:LISTED]]
    more = len(lost) - LISTED
    return [*lines, f"and {more:,} more"] if more > 0 else lines


def steps(found: Sequence[Fetched], data_root: Path) -> list[str]:
    """Return the steps that the user must take, each once."""
    sources = [source for one in found for source in one.by_hand]
    said = [f"{s.why}: {s.steps.format(data=shlex.quote(str(data_root)))}" for s in sources]
    return list(dict.fromkeys(said))


@contextmanager
def no_empty_folders(places: Iterable[Path]) -> Iterator[None]:
    """Remove these folders and their parents if the block creates them and leaves them empty."""
    above = {folder for place in places for folder in (place, *place.parents)}
    new = [folder for folder in above if not folder.exists()]
    try:
        yield
    finally:
        for folder in sorted(new, key=lambda f: len(f.parts), reverse=True):
            with suppress(OSError):  # it does not exist, is not empty, or is a file
                folder.rmdir()


@contextmanager
def alone(data_root: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Let one process at a time write below a data root; the others wait.

    Raises:
        DataError: The folder cannot be created.
    """
    try:
        data_root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"no folder can be made at {data_root} ({error.strerror}); name another with --data"
        ) from error
    handle = os.open(data_root, os.O_RDONLY)
    try:
        if take_lock(handle, data_root, shared=False, wait=False) is Lock.HELD:
            say(f"{data_root}: waiting for another clic-data fetch")
            take_lock(handle, data_root, shared=False, wait=True)
        yield
    finally:
        os.close(handle)  # releases the lock


def recorded(data_root: Path, path: str) -> str | None:
    """Return ``sha256:...`` of a file that was fetched before, else None."""
    entry = _entries(_manifest(data_root, path)).get(path)
    value = entry.get("sha256") if isinstance(entry, dict) else None
    return f"sha256:{value}" if isinstance(value, str) else None


def record(data_root: Path, path: str, file: Path, url: str) -> str:
    """Record a file's size and SHA-256, and return the latter."""
    place = _manifest(data_root, path)
    digest = file_sha256(file)
    entry = {
        "sha256": digest,
        "bytes": file.stat().st_size,
        "url": url,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    content = {**_entries(place), path: entry}
    write_whole(place, json.dumps(content, indent=1) + "\n")
    return digest


def verify(data_root: Path, path: str, checksum: str | None) -> None:
    """Check an existing file against its published checksum, else against the recorded one.

    Raises:
        DataError: The file has another checksum.
    """
    expected = checksum or recorded(data_root, path)
    if expected is None:
        return
    file = data_root / path
    kind, _, value = expected.partition(":")
    if kind == "md5":
        check_md5(file, value, str(file))
    elif file_sha256(file) != value:
        raise DataError(
            f"{file} is not the file that {'is published' if checksum else 'was fetched'} (its "
            f"SHA-256 is not {value[:16]}...); move it away and fetch it again"
        )


def check_md5(file: Path, expected: str, name: str) -> None:
    """Raise `DataError` if a file has another MD5."""
    digest = hashlib.md5(usedforsecurity=False)
    with file.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    if digest.hexdigest() != expected:
        raise DataError(
            f"{name} has the MD5 {digest.hexdigest()} where {expected} was expected; it is another "
            "file, or broken: try again"
        )


def _manifest(data_root: Path, path: str) -> Path:
    return data_root / Path(path).parts[0] / MANIFEST


def _entries(place: Path) -> dict[str, Any]:
    try:
        content = json.loads(place.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise DataError(f"{place} cannot be read ({error}); remove it") from error
    return content if isinstance(content, dict) else {}
