"""Every sample of shards checked, and what they hold counted.

Pictures of what shards hold.
"""

from __future__ import annotations

import hashlib
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from clic import images
from clic.captions.tagging import stored_tokens
from clic.data.shards.index import ShardIndex, index_path, load_index
from clic.data.shards.tar import (
    IMAGE_TYPES,
    NOTHING,
    Span,
    captions_of,
    parse_record,
    read_span,
    walk,
)
from clic.data.tools.caption_lengths import Measure, make_measure
from clic.errors import DataError
from clic.io.processes import Ticker

MOST_PROBLEMS = 100  # kept of a shard; all are counted


@dataclass
class Findings:
    """What was found in shards; those of several add up.

    Attributes:
        shards: Number of tars.
        tar_bytes: Of the tars.
        samples: Keys with an image and a caption, broken ones included.
        left_out: Keys without an image or without a caption.
        differing: Samples whose JSON states another key or size than they have; nothing relies on
            it, and other tools may mean something else by it.
        without_index: Tars that have no index.
        problems: What is broken: shard or sample, and why.
        broken: How many problems there are, more than are kept.
        captions: Number of captions.
        sentences: Samples by their number of captions.
        taggers: Samples with stored tags, by tagger.
        sizes: Images by (width, height).
        image_bytes: Of all images together.
        lengths: Captions by their length in tokens.
        first_lengths: First captions by their length in tokens.
        keys: A hash of each key, to find double ones.
        notes: What is odd about the names in a tar, and how it is read.
    """

    shards: int = 0
    tar_bytes: int = 0
    samples: int = 0
    left_out: int = 0
    differing: int = 0
    without_index: int = 0
    problems: list[tuple[str, str]] = field(default_factory=list)
    broken: int = 0
    captions: int = 0
    sentences: Counter[int] = field(default_factory=Counter)
    taggers: Counter[str] = field(default_factory=Counter)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    image_bytes: int = 0
    lengths: Counter[int] = field(default_factory=Counter)
    first_lengths: Counter[int] = field(default_factory=Counter)
    keys: list[bytes] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, other: Findings) -> None:
        """Add the findings of other shards."""
        for name in (f.name for f in fields(self)):
            mine = getattr(self, name)
            if isinstance(mine, Counter):
                mine.update(getattr(other, name))
            else:
                setattr(self, name, mine + getattr(other, name))

    def problem(self, where: str, why: str) -> None:
        """Note something broken."""
        self.broken += 1
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append((where, why))

    def double_keys(self) -> int:
        """Return how many samples have the key of another one before them."""
        hashes = np.frombuffer(b"".join(self.keys), np.uint64)
        return len(hashes) - len(np.unique(hashes))


def check_shard(model: str, shard: Path, tick: Ticker) -> Findings:
    """Check every sample of a tar: image, JSON, captions, stored tags, index and checksum.

    Args:
        model: Whose tokenizer measures the captions.
        shard: The tar.
        tick: Called with the bytes that were dealt with.
    """
    found = Findings(shards=1, tar_bytes=shard.stat().st_size)
    index = _index(shard, found)
    rows, notes = 0, list[str]()
    try:
        with open(shard, "rb") as file:
            for key, members in walk(file, shard, notes):
                row = _row(index, rows)
                try:
                    if _check(file, shard, key, members, row, found, _measure(model)):
                        rows += 1
                        found.keys.append(_hash(key))
                except DataError as error:
                    rows += 1
                    found.samples += 1
                    found.problem(f"{shard.name}/{key}", str(error))
                tick(sum(span.length for span in members.values()))
    except DataError as error:
        found.problem(shard.name, str(error))
    except OSError as error:
        found.problem(shard.name, f"cannot be read ({error.strerror})")
    if index is not None and index.samples != rows:
        found.problem(shard.name, f"its index has {index.samples} samples, the tar {rows}; "
                      f"run: clic-data index --force {shard}")  # fmt: skip
    found.keys = [b"".join(found.keys)]
    found.notes = [f"{shard.name}: {note}" for note in notes]
    return found


def _hash(key: str) -> bytes:
    return hashlib.blake2b(key.encode(errors="surrogateescape"), digest_size=8).digest()


def _index(shard: Path, found: Findings) -> ShardIndex | None:
    path = index_path(shard)
    if not path.exists():
        found.without_index = 1
        return None
    try:
        index = load_index(path)
        if index.shard_bytes != found.tar_bytes:
            raise DataError(
                f"the tar has {found.tar_bytes} bytes, and had {index.shard_bytes} when it was "
                f"indexed; run: clic-data index --force {shard}"
            )
    except DataError as error:
        found.problem(shard.name, str(error))
        return None
    return index


def _check(
    file: BinaryIO,
    shard: Path,
    key: str,
    members: dict[str, Span],
    row: dict[str, Any] | None,
    found: Findings,
    measure: Measure,
) -> bool:
    """Check one key and count it; return whether it is a sample.

    Raises:
        DataError: It is broken.
    """
    image = next((members[t] for t in IMAGE_TYPES if t in members), None)
    if image is None:
        found.left_out += 1
        return False
    spans = (image, members.get(".json", NOTHING), members.get(".txt", NOTHING))
    data, meta, text = (read_span(file, span, shard) for span in spans)
    record = parse_record(meta) if meta else {}
    captions = captions_of(record, text)
    if not captions:
        found.left_out += 1
        return False
    height, width = images.decode(data).shape[:2]
    if row is not None:
        _check_row(row, key, spans, (data, meta, text), (width, height), len(captions))
    if "caption_hash" in record:
        if stored_tokens(record, captions) is None:
            raise DataError("its stored tags are those of other captions; run clic-data annotate")
        found.taggers[_tagger_of(record)] += 1
    true = {"key": key, "width": width, "height": height}
    found.differing += any(record.get(name, value) != value for name, value in true.items())
    lengths = [measure(caption) for caption in captions]
    found.samples += 1
    found.captions += len(captions)
    found.sentences[len(captions)] += 1
    found.sizes[width, height] += 1
    found.image_bytes += len(data)
    found.lengths.update(lengths)
    found.first_lengths[lengths[0]] += 1
    return True


def _tagger_of(record: dict[str, Any]) -> str:
    tagger = record.get("tagger")
    return " ".join(map(str, tagger.values())) if isinstance(tagger, dict) else "unknown"


def _row(index: ShardIndex | None, number: int) -> dict[str, Any] | None:
    """Return what the index says of a sample; an empty dict where it ends before."""
    if index is None:
        return None
    if number >= index.samples:
        return {}
    columns = index.columns
    ends = columns["key_ends"]
    start = int(ends[number - 1]) if number else 0
    return {
        "key": columns["keys"][start : int(ends[number])].tobytes(),
        **{name: columns[name][number].tolist() for name in columns if not name.startswith("key")},
    }


def _check_row(
    row: dict[str, Any],
    key: str,
    spans: Sequence[Span],
    contents: Sequence[bytes],
    size: tuple[int, int],
    captions: int,
) -> None:
    """Hold a sample against its row of the index; raises `DataError`."""
    crc = 0
    for data in contents:
        crc = zlib.crc32(data, crc)
    true = {
        "key": key.encode(errors="surrogateescape"),
        "blocks": [span.offset // 512 for span in spans],
        "lengths": [span.length for span in spans],
        "crcs": crc,
        "sizes": list(size),
        "sentences": captions,
    }
    differing = [name for name in true if row.get(name) != true[name]]
    if differing == ["crcs"]:
        raise DataError("its bytes are not those that were indexed; fetch or pack the shard again")
    if differing:
        raise DataError(f"its index differs in {', '.join(differing)}; index the shard again")


@lru_cache(maxsize=1)
def _measure(model: str) -> Measure:
    return make_measure(model)


BLUE, ORANGE = "#3b6ea5", "#c8702a"
BINS = 60


def draw_histogram(found: Findings, contexts: Sequence[int], model: str, path: Path) -> None:
    """Draw how long captions are, and how wide images are, as a PNG.

    Args:
        found: What was found.
        contexts: Numbers of tokens to mark.
        model: Whose tokens they are.
        path: The PNG.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    lengths, counts = _arrays(found.lengths)
    first, first_counts = _arrays(found.first_lengths)
    longest = max(int(lengths.max()), *contexts) + 2
    edges = np.arange(0, longest + 1, max(1, -(-longest // BINS))) - 0.5
    left.hist(lengths, edges, weights=counts / counts.sum(), color=BLUE, label="all captions")
    left.hist(
        first,
        edges,
        weights=first_counts / first_counts.sum(),
        histtype="step",
        color=ORANGE,
        linewidth=1.5,
        label="first captions",
    )
    for context in contexts:
        left.axvline(context, color="black", linewidth=0.8, linestyle=":")
        left.annotate(f" {context}", (context, 0.94), xycoords=("data", "axes fraction"))
    left.set(xlabel=f"tokens of a caption ({model})", ylabel="share", xlim=(0, longest))
    left.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    ratios = np.log2([width / height for width, height in found.sizes])
    images = np.array(list(found.sizes.values())) / sum(found.sizes.values())
    reach = max(1.0, float(np.ceil(np.abs(ratios).max() * 2) / 2))
    right.hist(ratios, np.linspace(-reach, reach, BINS + 1), weights=images, color=BLUE)
    right.axvline(0, color="black", linewidth=0.8, linestyle=":")
    ticks = np.arange(-np.floor(reach), np.floor(reach) + 1)
    labels = [f"{2**t:g}:1" if t >= 0 else f"1:{2**-t:g}" for t in ticks]
    right.set(xlabel="width : height", ylabel="share of images", xticks=ticks, xticklabels=labels)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    FigureCanvasAgg(figure)
    figure.savefig(path, format="png", dpi=120)


def _arrays(counter: Mapping[int, int]) -> tuple[np.ndarray, np.ndarray]:
    return np.array(list(counter)), np.array(list(counter.values()), dtype=float)
