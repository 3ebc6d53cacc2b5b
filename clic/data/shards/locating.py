"""Finds the tars that a setting names: folders, files, patterns or addresses of remote shards."""

from __future__ import annotations

import glob
import re
from pathlib import Path
from typing import Any

from webdataset.shardlists import expand_urls

from clic.errors import DataError

REMOTE = re.compile(r"pipe:|([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
_COMPRESSED = re.compile(r"\.(?:tar\.|t)(gz|bz2?|xz|zst)$", re.IGNORECASE)
SCHEMES = ("http", "https", "s3", "gs", "hf")
"""Schemes of remote shards, which are cached on disk."""


def find_shards(shards: Any, setting: str) -> list[Path]:
    """Return the tars on disk that a setting names; see `locate_shards`.

    Raises:
        DataError: Something that it names is missing, not on disk or not a tar.
    """
    found = locate_shards(shards, setting)
    for shard in found:
        if isinstance(shard, str):
            raise DataError(
                f"{setting}={shard}: this needs shards on disk; download them and name their folder"
            )
    return [Path(shard) for shard in found]


def locate_shards(shards: Any, setting: str) -> list[Path | str]:
    """Return the tars that a setting names: paths, and the addresses of remote ones.

    It may name a folder, a file, a brace pattern, an http(s), s3, gs or hf address (or a pattern of
    them; for all but http(s) also a folder), or a list of them.

    Raises:
        DataError: Something that it names is missing, cannot be read or is not a tar.
    """
    names = [shards] if isinstance(shards, str | Path) else list(shards)
    found: list[Path | str] = []
    for name in map(str, names):
        for word in expand_urls(name):
            if REMOTE.match(word):
                found += _remote(word, f"{setting}={name}")
            else:
                found += _local(Path(word).expanduser(), f"{setting}={name}")
    return found


def is_pattern(name: str) -> bool:
    """Return whether a name is a pattern such as ``a/*.tar`` and not an existing file."""
    return glob.has_magic(name) and not Path(name).exists() and not REMOTE.match(name)


def matches(pattern: str) -> list[Path]:
    """Return the files and folders that match a pattern, sorted; `**` matches nested folders."""
    return [Path(name) for name in sorted(glob.glob(pattern, recursive=True))]


def _remote(word: str, named: str) -> list[str]:
    scheme = (REMOTE.match(word) or [""])[1]
    if scheme is None or scheme.lower() not in SCHEMES:
        raise DataError(
            f"{named}: shards are read from folders and {', '.join(SCHEMES)} addresses, never "
            "from commands or others; name one of those, or download them"
        )
    if scheme.lower() in ("http", "https") or word.endswith(".tar"):
        return [word]
    from clic.io.download import list_folder

    inside = list_folder(word)
    if not inside:
        raise DataError(f"{named}: no .tar files in {word}")
    return inside


def _local(path: Path, named: str) -> list[Path]:
    if path.is_dir():
        names = sorted(p for p in path.iterdir() if not p.name.startswith("."))
        inside = [p for p in names if p.suffix.lower() == ".tar"]
        if not inside:
            packed = next((p for p in names if _COMPRESSED.search(p.name)), None)
            raise DataError(f"{named}: no .tar files in {path}{_unpack(packed) if packed else ''}")
        return inside
    if is_pattern(str(path)):
        found = [shard for one in matches(str(path)) for shard in _local(one, named)]
        if not found:
            raise DataError(f"{named}: no file matches the pattern {path}; check it")
        return found
    if not path.is_file():
        raise DataError(f"{named}: there is no file or folder {path}")
    if _COMPRESSED.search(path.name):
        raise DataError(f"{named}: shards must be plain .tar files{_unpack(path)}")
    if path.suffix.lower() != ".tar":
        raise DataError(
            f"{named}: {path.name} is not a .tar file, and shards must be WebDataset .tar files; "
            "pack the images and captions into some, e.g. with clic-data pack"
        )
    return [path]


def _unpack(path: Path) -> str:
    """Return the end of a message that says how to unpack a compressed tar."""
    ending = (_COMPRESSED.search(path.name) or ["", ""])[1].lower()
    program = {"gz": "gunzip", "xz": "unxz", "zst": "unzstd"}.get(ending, "bunzip2")
    return (
        f"; {path.name} is compressed, and samples are read by position; unpack it: "
        f"{program} -c {path} > {_COMPRESSED.sub('.tar', str(path))}"
    )
