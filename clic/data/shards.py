"""WebDataset shards: an index beside each tar, and samples read by position."""

from __future__ import annotations

import json
import os
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clic import images
from clic.data.naming import find_shards
from clic.data.sources import Source
from clic.errors import DataError
from clic.types import Sample, Token

INDEX_SUFFIX = ".index.npz"
IMAGE_TYPES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
FIELDS = np.dtype(
    [
        ("image_offset", "<i8"),
        ("image_length", "<i4"),
        ("json_offset", "<i8"),
        ("json_length", "<i4"),
        ("text_offset", "<i8"),
        ("text_length", "<i4"),
        ("width", "<i4"),
        ("height", "<i4"),
        ("sentences", "<i4"),
    ]
)
Member = tuple[str, str, int, int]  # key, extension, offset, length


def index_path(shard: Path) -> Path:
    """Return where the index of a shard lies."""
    return shard.with_name(shard.name + INDEX_SUFFIX)


def write_index(shard: Path) -> Path:
    """Index a tar in one pass: where each member of a sample lies, and its image's size.

    Keys without an image or without a caption are left out, and their number is printed.

    Raises:
        DataError: The tar is broken, or holds no sample with an image and a caption.
    """
    rows, keys, left_out = [], [], []
    for key, members in _samples(shard):
        row = _row(shard, key, members)
        if row is None:
            left_out.append(key)
        else:
            rows.append(row)
            keys.append(key)
    if not rows:
        _check_captions(shard)
        raise DataError(
            f"{shard} holds no sample with an image ({', '.join(IMAGE_TYPES[:3])}...) and a "
            "caption (.json or .txt) of the same key; it should be a WebDataset tar"
        )
    if left_out:
        print(
            f"{shard}: {len(left_out)} of {len(left_out) + len(rows)} keys have no image or no "
            f"caption and are left out ({', '.join(left_out[:3])}, ...)",
            file=sys.stderr,
        )
    _write_whole(
        index_path(shard),
        members=np.array(rows, dtype=FIELDS),
        keys=np.array(keys),
        tar_size=np.int64(shard.stat().st_size),
    )
    return index_path(shard)


def _row(shard: Path, key: str, members: dict[str, tuple[int, int]]) -> tuple[int, ...] | None:
    """Return a sample's entry of `FIELDS`, None where it has no image or no caption."""
    image = next((members[t] for t in IMAGE_TYPES if t in members), None)
    if image is None:
        return None
    meta, text = members.get(".json", (0, 0)), members.get(".txt", (0, 0))
    _, captions = _texts(shard, key, meta, text)
    if not captions:
        return None
    try:
        size = images.dimensions(_read(shard, *image))
    except DataError as error:
        raise DataError(f"{shard}: image of {key}: {error}") from error
    return (*image, *meta, *text, *size, len(captions))


def _check_captions(shard: Path) -> None:
    """Say what the first JSON file beside an image holds, where captions were not found in it.

    Raises:
        DataError: There is such a file.
    """
    for key, members in _samples(shard):
        if ".json" in members and any(t in members for t in IMAGE_TYPES):
            found = ", ".join(map(repr, _parse(_read(shard, *members[".json"]), shard, key)))
            raise DataError(
                f"{shard} holds images and JSON files but no captions; put each image's into its "
                "JSON's 'captions' (a list) or 'caption', or into a .txt "
                f"({key}.json has {found or 'no keys'})"
            )


def _write_whole(target: Path, **arrays: np.ndarray | np.generic) -> None:
    try:
        with tempfile.NamedTemporaryFile(
            dir=target.parent, prefix=f".{target.name}.", delete=False
        ) as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        os.chmod(file.name, 0o644)
        os.replace(file.name, target)
    except OSError as error:
        raise DataError(
            f"{target} cannot be written ({error.strerror}); index the shards where you may write"
        ) from error


def _samples(shard: Path) -> Iterator[tuple[str, dict[str, tuple[int, int]]]]:
    """Yield each key of a tar with (offset, length) by extension."""
    current = ""
    members: dict[str, tuple[int, int]] = {}
    for key, extension, offset, length in _members(shard):
        if key != current and members:
            yield current, members
            members = {}
        current = key
        members[extension] = (offset, length)
    if members:
        yield current, members


def _members(shard: Path) -> Iterator[Member]:
    try:
        with tarfile.open(shard, "r:") as tar:
            for info in tar:
                if info.isfile():
                    folder, _, name = info.name.rpartition("/")
                    stem, dot, extension = name.partition(".")
                    key = f"{folder}/{stem}" if folder else stem
                    yield key, (dot + extension).lower(), info.offset_data, info.size
            end = tar.offset
    except (tarfile.TarError, OSError) as error:
        raise DataError(
            f"{shard} cannot be read as a tar file: {error}; fetch or pack it again"
        ) from error
    # tarfile takes a cut or broken header for the end; the real end is a block of zeros.
    if _read(shard, end, tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise DataError(f"{shard} is broken at byte {end}; fetch or pack it again")


def _read(shard: Path, offset: int, length: int) -> bytes:
    with open(shard, "rb") as file:
        file.seek(offset)
        data = file.read(length)
    if len(data) != length:
        raise DataError(
            f"{shard} ends before byte {offset + length}: it was cut short; fetch or pack it again"
        )
    return data


class ShardSource(Source):
    """Samples of WebDataset tars (img2dataset's layout), read by position.

    A tar without an index is indexed first, once.

    Args:
        shards: A folder, a brace pattern, or a list of them.
        setting: Name of the setting, for messages.

    Raises:
        DataError: A shard is missing, broken, or differs from its index.
    """

    def __init__(self, shards: Any, setting: str = "data.shards") -> None:
        self.paths = find_shards(shards, setting)
        members, keys, owner = [], [], []
        for number, path in enumerate(self.paths):
            shard_members, shard_keys = _load_index(path)
            members.append(shard_members)
            keys.append(shard_keys)
            owner.append(np.full(len(shard_members), number, dtype=np.int32))
        self._members = np.concatenate(members)
        self._keys = np.concatenate(keys)
        self._owner = np.concatenate(owner)

    def __len__(self) -> int:
        return len(self._members)

    def sizes(self) -> np.ndarray:
        return np.stack([self._members["width"], self._members["height"]], axis=1)

    def read(self, index: int) -> Sample:
        shard, row = self.paths[self._owner[index]], self._members[index]
        key = str(self._keys[index])
        image, meta, text = (
            (int(row[f"{member}_offset"]), int(row[f"{member}_length"]))
            for member in ("image", "json", "text")
        )
        record, captions = _texts(shard, key, meta, text)
        tags = _tags(record.get("tokens"), shard, key)
        return Sample(key, _read(shard, *image), captions, tags)


def _load_index(shard: Path) -> tuple[np.ndarray, np.ndarray]:
    path = index_path(shard)
    if not path.is_file():
        write_index(shard)
    try:
        with np.load(path, allow_pickle=False) as index:
            members, keys, tar_size = index["members"], index["keys"], int(index["tar_size"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is no index of this version ({error}); delete it") from error
    if members.dtype != FIELDS:
        raise DataError(f"{path} is of another version of clic; delete it")
    if tar_size != shard.stat().st_size:
        raise DataError(f"{shard} has changed since {path.name} was made; delete the index")
    return members, keys


def _texts(
    shard: Path, key: str, meta: tuple[int, int], text: tuple[int, int]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return a sample's `.json` and its captions, those of the `.txt` where it has none."""
    record = _parse(_read(shard, *meta), shard, key) if meta[1] else {}
    captions = _captions(record)
    if not captions and text[1]:
        caption = _read(shard, *text).decode("utf-8", errors="replace").strip()
        captions = (caption,) if caption else ()
    return record, captions


def _parse(data: bytes, shard: Path, key: str) -> dict[str, Any]:
    try:
        meta = json.loads(data)
    except ValueError as error:
        raise DataError(f"{shard}: {key}.json is not valid JSON: {error}") from error
    if not isinstance(meta, dict):
        raise DataError(f"{shard}: {key}.json should be an object, not {type(meta).__name__}")
    return meta


def _captions(meta: dict[str, Any]) -> tuple[str, ...]:
    sentences = meta.get("captions") or meta.get("caption")
    if not isinstance(sentences, list):
        sentences = [sentences]
    return tuple(s.strip() for s in sentences if isinstance(s, str) and s.strip())


def _tags(
    stored: Sequence[Sequence[Sequence[Any]]] | None, shard: Path, key: str
) -> tuple[tuple[Token, ...], ...] | None:
    if stored is None:
        return None
    try:
        return tuple(tuple(Token(*token) for token in sentence) for sentence in stored)
    except TypeError as error:
        raise DataError(
            f"{shard}: {key}.json: its 'tokens' are not lists of [text, start, end, pos, lemma]"
        ) from error
