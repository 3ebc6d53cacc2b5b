"""Finds each image's nearest neighbours by a model's features, for batches of similar images."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clic import images
from clic.data.sampling.sample_sources import SampleSource
from clic.data.shards.index import ColumnsError, read_columns, write_columns
from clic.data.shards.shard_source import ShardSource
from clic.errors import DataError, UnavailableError
from clic.io.files import write_whole

FORMAT, VERSION = "neighbours", 1
QUERIES, KEYS = 1024, 16384
"""Rows and columns of the block of similarities in memory at a time, 64 MB."""
Encode = Callable[[Sequence[np.ndarray]], np.ndarray]
Progress = Callable[[int], None]


class FeatureFile:
    """Image features on disk in half precision, filled from first to last.

    Args:
        path: The file; if an interrupted call left one, it is continued.
        shape: N and D.
        identity: Identifies the images and the model; features of others are discarded.
    """

    def __init__(self, path: Path, shape: tuple[int, int], identity: Any) -> None:
        self.path, self._note = path, path.with_name(f"{path.name}.json")
        self._identity = json.loads(json.dumps([identity, shape]))
        self.done = 0
        with suppress(OSError, ValueError, KeyError, TypeError):
            note = json.loads(self._note.read_text(encoding="utf-8"))
            self.done = int(note["done"]) if note["identity"] == self._identity else 0
        self.rows = np.memmap(path, np.float16, "r+" if self.done else "w+", shape=shape)

    def add(self, rows: np.ndarray) -> None:
        """Write the next rows, so that they survive a kill."""
        self.rows[self.done : self.done + len(rows)] = rows
        self.rows.flush()
        self.done += len(rows)
        write_whole(self._note, json.dumps({"identity": self._identity, "done": self.done}))

    def remove(self) -> None:
        """Delete the files."""
        self._note.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)


def encode_source(
    source: SampleSource,
    features: FeatureFile,
    encode: Encode,
    batch_size: int,
    threads: int,
    add: Progress,
) -> None:
    """Fill the features of all images; those of a broken image stay 0.

    Args:
        source: N images.
        features: The file to fill, starting where it ends.
        encode: Maps uint8 [H, W, 3] images to unit-norm features, float [n, D].
        batch_size: Number of images at a time.
        threads: Number of decoding threads.
        add: Called with the number of images done since the last call.
    """
    with ThreadPoolExecutor(threads) as pool:
        while features.done < len(source):
            numbers = range(features.done, min(features.done + batch_size, len(source)))
            pixels = list(pool.map(lambda number: _pixels(source, number), numbers))
            whole = [image for image in pixels if image is not None]
            rows = np.zeros((len(numbers), features.rows.shape[1]), dtype=np.float32)
            if whole:
                rows[[image is not None for image in pixels]] = encode(whole)
            features.add(rows)
            add(len(numbers))


def _pixels(source: SampleSource, number: int) -> np.ndarray | None:
    try:
        return images.decode(source.read(number).image)
    except UnavailableError:
        raise
    except DataError:
        return None  # its features stay 0


def nearest(
    features: np.ndarray, count: int, device: torch.device, add: Progress = lambda rows: None
) -> np.ndarray:
    """Return the indices of each image's nearest images, the nearest first.

    Args:
        features: float [N, D], unit norm; a row of zeros is never a neighbour.
        count: Neighbours K per image, fewer than the number of nonzero rows.
        device: Where the similarities are computed, a block at a time.
        add: Called with the number of images done since the last call.

    Returns:
        uint32 [N, K]; never the image itself.
    """
    found = np.empty((len(features), count), dtype=np.uint32)
    for first in range(0, len(features), QUERIES):
        queries = _block(features, first, QUERIES, device)
        rows = torch.arange(len(queries), device=device)
        best = torch.full((len(queries), count), -torch.inf, device=device)
        which = torch.zeros((len(queries), count), dtype=torch.int64, device=device)
        for start in range(0, len(features), KEYS):
            keys = _block(features, start, KEYS, device)
            scores = queries @ keys.T
            scores[:, ~keys.any(dim=1)] = -torch.inf
            own = rows + first - start
            inside = (own >= 0) & (own < len(keys))
            scores[rows[inside], own[inside]] = -torch.inf
            near = scores.topk(min(count, len(keys)), dim=1)
            values = torch.cat([best, near.values], dim=1)
            numbers = torch.cat([which, near.indices + start], dim=1)
            best, places = values.topk(count, dim=1)
            which = numbers.gather(1, places)
        found[first : first + len(queries)] = which.cpu().numpy()
        add(len(queries))
    return found


def _block(features: np.ndarray, start: int, size: int, device: torch.device) -> torch.Tensor:
    rows = np.array(features[start : start + size], dtype=np.float32)
    return torch.from_numpy(rows).to(device)


def write_neighbours(
    path: Path, source: ShardSource, neighbours: np.ndarray, model: dict[str, Any]
) -> None:
    """Write each image's neighbours, uint32 [N, K], and the model whose features were compared."""
    header = {"shards": source.shard_counts(), "model": model}
    specs = {"neighbours": ("<u4", neighbours.shape)}
    with write_columns(path, FORMAT, VERSION, header, specs) as put:
        put("neighbours", neighbours)


def read_neighbours(path: Path, source: SampleSource) -> np.ndarray:
    """Return each image's neighbours, uint32 [N, K], memory-mapped from the file.

    Raises:
        DataError: There is no such file, or it belongs to other shards than the source's.
    """
    try:
        header, columns = read_columns(path, FORMAT, VERSION, mapped=True)
    except (OSError, ColumnsError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(
            f"sampling.hard_images={path}: {reason}; make it with clic-data neighbours"
        ) from error
    counts = source.shard_counts() if isinstance(source, ShardSource) else []
    if header.get("shards") != [list(pair) for pair in counts]:
        raise DataError(
            f"sampling.hard_images={path} is of other shards than data.shards names; name the "
            "same ones in the same order, or make it again with clic-data neighbours"
        )
    return columns["neighbours"]
