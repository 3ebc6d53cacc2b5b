"""A cache of features on disk, so that no tower encodes the same image or text twice.

One folder contains blocks: immutable safetensors files with one tower's features of some items. A
block's name contains its tower, the hash of its keys and the hash of its features, which reveals
corruption. Blocks are written under a temporary name and then renamed, so that processes need no
locks and a killed process leaves no partial block.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
import warnings
from collections.abc import Hashable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor

from clic.config.eval_settings import ScoringConfig
from clic.errors import ConfigError
from clic.evaluation.encode.image_sources import ImageSource, image_key, image_part, image_path
from clic.io.files import write_whole

KEY_BYTES = 16
BLOCK_ROWS = 1024  # a block is written when it has this many rows,
BLOCK_SECONDS = 20.0  # or after this time
STALE_SECONDS = 3600.0  # age at which a temporary file is considered abandoned
ENDING = ".safetensors"
PART = ".part"


def default_folder() -> Path:
    """Return `features` below the environment's CLIC_CACHE, else below ~/.cache/clic."""
    return Path(os.environ.get("CLIC_CACHE") or "~/.cache/clic").expanduser() / "features"


def image_bytes(ref: ImageSource) -> bytes | None:
    """Return an image's key, None if its file does not exist.

    It is the hash of the file's path, size, modification time and part, or of the pixels.
    """
    path = image_path(ref)
    if path is None:
        return _hash(repr(image_key(ref)).encode())
    try:
        status = path.stat()
    except OSError:
        return None
    parts = (os.path.abspath(path), status.st_size, status.st_mtime_ns, image_part(ref))
    return _hash(repr(parts).encode())


def text_bytes(ids: Sequence[int]) -> bytes:
    """Return a text's key, the hash of its token ids."""
    return _hash(np.asarray(ids, dtype=np.int64).tobytes())


class FeatureCache:
    """A folder of features with a size limit; the least recently used blocks are removed first.

    Args:
        folder: The folder, by default `default_folder()`.
        limit_gb: Size limit, in 10^9 bytes.

    Raises:
        ConfigError: The folder cannot be created or written to, or the limit is not above 0.
    """

    def __init__(self, folder: str | Path | None = None, limit_gb: float = 10.0) -> None:
        self.folder = default_folder() if folder is None else Path(folder).expanduser()
        self.limit = limit_gb * 1e9
        if not limit_gb > 0:
            raise ConfigError(f"cache_gb={limit_gb} must be above 0 (--no-cache keeps nothing)")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self.folder).close()
        except OSError as error:
            raise ConfigError(
                f"cannot keep features in {self.folder} ({error.strerror}); choose another folder "
                "with --cache-dir (or CLIC_CACHE), or none with --no-cache"
            ) from error

    @classmethod
    def of(cls, settings: ScoringConfig) -> FeatureCache | None:
        """Return the cache that a command's settings ask for, or None.

        If the default folder cannot be written to, a warning says so and None is returned.
        """
        if not settings.cache:
            return None
        try:
            return cls(settings.cache_dir, settings.cache_gb)
        except ConfigError as error:
            if settings.cache_dir is not None or os.environ.get("CLIC_CACHE"):
                raise
            warnings.warn(str(error), stacklevel=2)
            return None

    def tower(self, key: Hashable) -> TowerCache:
        """Return one tower's cache; `key` is everything that the tower's features depend on."""
        return TowerCache(self, _hash(repr(key).encode()).hex())

    def evict(self) -> None:
        """Remove the least recently used blocks until the rest is within the limit."""
        blocks = []
        for path, status in self._files():
            if path.suffix == ENDING:
                blocks.append((status.st_mtime_ns, status.st_size, path))
            elif path.suffix == PART and status.st_mtime < time.time() - STALE_SECONDS:
                with suppress(PermissionError):
                    path.unlink(missing_ok=True)
        total = sum(size for _, size, _ in blocks)
        for _, size, path in sorted(blocks):
            if total <= self.limit:
                break
            with suppress(PermissionError):  # another user's file
                path.unlink(missing_ok=True)  # a process that is reading it keeps it open
                total -= size

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        for entry in os.scandir(self.folder):
            try:
                yield Path(entry.path), entry.stat()
            except FileNotFoundError:
                continue  # another process has just removed it


class TowerCache:
    """One tower's features, read at the start and written in blocks; a context manager.

    If the disk cannot be written to, a warning says so and evaluation continues without the cache.
    """

    def __init__(self, cache: FeatureCache, tower: str) -> None:
        self._cache = cache
        self._tower = tower
        self._keys: list[bytes] = []
        self._rows: list[Tensor] = []
        self._since = time.monotonic()
        self._refused = False

    def read(self, keys: Sequence[bytes | None]) -> tuple[np.ndarray, Tensor]:
        """Return the features of the items that are in the cache.

        Args:
            keys: One for each item, see `image_bytes` and `text_bytes`; None is never found.

        Returns:
            bool [N], which items were found; and float32 [found, D], their features in order.
        """
        wanted = {key: index for index, key in enumerate(keys) if key is not None}
        items: list[int] = []
        rows: list[np.ndarray] = []
        for path in sorted(self._cache.folder.glob(f"{self._tower}-*{ENDING}")):
            if not wanted:
                break
            here, features = self._read_block(path, wanted)
            if here:
                items += here
                rows.append(features)
        found = np.zeros(len(keys), dtype=bool)
        if not items:
            return found, torch.empty(0, 0)
        found[items] = True
        return found, torch.from_numpy(np.concatenate(rows)[np.argsort(items)])

    def add(self, keys: Sequence[bytes | None], features: Tensor) -> None:
        """Add the features [N, D] of new items; they are written when a block is full."""
        for key, row in zip(keys, features, strict=True):
            if key is not None:
                self._keys.append(key)
                self._rows.append(row)
        if len(self._keys) >= BLOCK_ROWS or time.monotonic() - self._since > BLOCK_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write the features added so far, and keep the cache within its limit."""
        keys, rows = self._keys, self._rows
        self._keys, self._rows, self._since = [], [], time.monotonic()
        if not keys or self._refused:
            return
        try:
            self._write(np.frombuffer(b"".join(keys), np.uint8), torch.stack(rows).numpy())
            self._cache.evict()
        except OSError as error:
            self._refused = True
            warnings.warn(
                f"features are not kept, {self._cache.folder} cannot be written: "
                f"{error.strerror or error}",
                stacklevel=2,
            )

    def __enter__(self) -> TowerCache:
        return self

    def __exit__(self, *exception: object) -> None:
        self.flush()  # after a failure too: the features so far are worth keeping

    def _write(self, keys: np.ndarray, features: np.ndarray) -> None:
        keys = keys.reshape(-1, KEY_BYTES)
        name = f"{self._tower}-{_array_hash(keys)}-{_array_hash(features)}{ENDING}"
        write_whole(self._cache.folder / name, save({"keys": keys, "features": features}))

    def _read_block(self, path: Path, wanted: dict[bytes, int]) -> tuple[list[int], np.ndarray]:
        """Return a block's wanted items and their features, and remove the items from `wanted`."""
        keys_hash, _, features_hash = path.stem.removeprefix(f"{self._tower}-").partition("-")
        nothing: tuple[list[int], np.ndarray] = ([], np.empty((0, 0), np.float32))
        try:
            with safe_open(path, framework="numpy") as block:
                keys = block.get_tensor("keys")
                whole = _array_hash(keys) == keys_hash
                rows = {key.tobytes(): row for row, key in enumerate(keys)} if whole else {}
                here = [key for key in rows if key in wanted]
                if whole and not here:
                    return nothing
                features = block.get_tensor("features")
            if whole and _array_hash(features) == features_hash:
                with suppress(OSError):  # another user's file, or a read-only disk
                    os.utime(path)  # marks the block as recently used
                return [wanted.pop(key) for key in here], features[[rows[key] for key in here]]
            reason = "its content has changed"
        except FileNotFoundError:
            return nothing  # another process has just removed it
        except OSError as error:  # the block itself may be fine
            warnings.warn(f"features in {path} cannot be read ({error})", stacklevel=2)
            return nothing
        except SafetensorError as error:
            reason = str(error)
        warnings.warn(
            f"features in {path} are broken ({reason}); they are encoded again", stacklevel=2
        )
        with suppress(PermissionError):
            path.unlink(missing_ok=True)
        return nothing


def _hash(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=KEY_BYTES).digest()


def _array_hash(array: np.ndarray) -> str:
    return _hash(array.tobytes()).hex()
