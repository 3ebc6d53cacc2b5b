"""Checks every sample of shards, counts what they contain, and draws histograms.

Caption lengths are measured in the tokens of a model, whose context may cut captions.
"""

from __future__ import annotations

import hashlib
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from clic import images, models
from clic.data.batches.captioner import CaptionTokenizer
from clic.data.shards import tar
from clic.data.shards.index import ShardIndex, index_path, load_index
from clic.data.shards.records import captions_of, parse_record, stored_tokens
from clic.errors import DataError, ModelError
from clic.io.processes import Ticker

MOST_PROBLEMS = 100  # kept per shard; all are counted
BLUE, ORANGE = "#3b6ea5", "#c8702a"
BINS = 60
Measure = Callable[[str], int]


def make_measure(model: str) -> Measure:
    """Return a function that counts a caption's tokens, start and end of text included.

    Raises:
        ModelError: The model is unknown, or its tokenizer is unavailable.
    """
    return CaptionTokenizer(_tokenizer(model)).length


def context_length(model: str) -> int:
    """Return the number of tokens that the model reads; raises `ModelError`."""
    return int(getattr(_tokenizer(model), "context_length", None) or 77)


def _tokenizer(model: str) -> Any:
    source = models.resolve(model, None)
    try:
        return models.tokenizer_of(source)
    except (ImportError, OSError, ValueError) as error:
        raise ModelError(
            f"the tokenizer of {model} cannot be loaded ({str(error).splitlines()[0]}); "
            "check the network, or name another with --model"
        ) from error


_measure = lru_cache(maxsize=1)(make_measure)


@dataclass
class Findings:
    """What was found in shards; findings of several shards can be added up."""

    shards: int = 0  # number of tars
    tar_bytes: int = 0  # size of the tars
    samples: int = 0  # keys with an image and a caption, broken ones included
    left_out: int = 0  # keys without an image or without a caption
    # Samples whose JSON states another key or size; nothing relies on these, and other tools may
    # mean something else by them.
    differing: int = 0
    without_index: int = 0  # tars
    problems: list[tuple[str, str]] = field(default_factory=list)  # where, and the reason
    broken: int = 0  # number of problems, including those that are not kept
    captions: int = 0
    sentences: Counter[int] = field(default_factory=Counter)  # samples by number of captions
    taggers: Counter[str] = field(default_factory=Counter)  # samples with stored tags by tagger
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)  # images by (width, height)
    image_bytes: int = 0  # size of all images
    lengths: Counter[int] = field(default_factory=Counter)  # captions by number of tokens
    first_lengths: Counter[int] = field(default_factory=Counter)  # the same of first captions
    keys: list[bytes] = field(default_factory=list)  # hashes of the keys, to find duplicates
    notes: list[str] = field(default_factory=list)  # odd names in a tar, and how they are read

    def add(self, other: Findings) -> None:
        """Add the findings of other shards."""
        for name in (f.name for f in fields(self)):
            mine = getattr(self, name)
            if isinstance(mine, Counter):
                mine.update(getattr(other, name))
            else:
                setattr(self, name, mine + getattr(other, name))

    def problem(self, where: str, why: str) -> None:
        """Record a problem."""
        self.broken += 1
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append((where, why))

    def double_keys(self) -> int:
        """Return the number of samples whose key has occurred before."""
        hashes = np.frombuffer(b"".join(self.keys), np.uint64)
        return len(hashes) - len(np.unique(hashes))


def check_shard(model: str, shard: Path, tick: Ticker) -> Findings:
    """Check every sample of a tar: image, JSON, captions, stored tags, index and checksum.

    The tokenizer of `model` measures the captions; `tick` counts the bytes processed.
    """
    found = Findings(shards=1, tar_bytes=shard.stat().st_size)
    index = _load_index(shard, found)
    keys, notes = list[bytes](), list[str]()
    rows = 0
    try:
        with open(shard, "rb") as file:
            for key, members in tar.walk(file, shard, notes):
                try:
                    row = None if index is None else _row(index, rows)
                    if _check(file, shard, key, members, row, found, _measure(model)):
                        rows += 1
                        digest = hashlib.blake2b(_key_bytes(key), digest_size=8)
                        keys.append(digest.digest())
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
    found.keys = [b"".join(keys)]
    found.notes = [f"{shard.name}: {note}" for note in notes]
    return found


def _key_bytes(key: str) -> bytes:
    return key.encode(errors="surrogateescape")


def _load_index(shard: Path, found: Findings) -> ShardIndex | None:
    path = index_path(shard)
    if not path.exists():
        found.without_index = 1
        return None
    try:
        index = load_index(path)
        if index.shard_bytes != found.tar_bytes:
            raise DataError(
                f"the tar has {found.tar_bytes} bytes, but had {index.shard_bytes} when it was "
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
    members: dict[str, tar.Span],
    row: dict[str, Any] | None,
    found: Findings,
    measure: Measure,
) -> bool:
    """Check one key and count it; return whether it is a sample, raise `DataError` if broken."""
    image = next((members[t] for t in tar.IMAGE_TYPES if t in members), None)
    if image is None:
        found.left_out += 1
        return False
    spans = (image, members.get(".json", tar.NOTHING), members.get(".txt", tar.NOTHING))
    data, meta, text = contents = [tar.read_span(file, span, shard) for span in spans]
    record = parse_record(meta) if meta else {}
    captions = captions_of(record, text)
    if not captions:
        found.left_out += 1
        return False
    height, width = images.decode(data).shape[:2]
    if row is not None:
        true = {
            "key": _key_bytes(key),
            "blocks": [span.offset // 512 for span in spans],
            "lengths": [span.length for span in spans],
            "crcs": zlib.crc32(b"".join(contents)),
            "sizes": [width, height],
            "sentences": len(captions),
        }
        _check_row(row, true)
    if "caption_hash" in record:
        if stored_tokens(record, captions) is None:
            raise DataError("its stored tags are those of other captions; run clic-data annotate")
        tagger = record.get("tagger")
        name = " ".join(map(str, tagger.values())) if isinstance(tagger, dict) else "unknown"
        found.taggers[name] += 1
    stated = {"key": key, "width": width, "height": height}
    found.differing += any(record.get(name, value) != value for name, value in stated.items())
    lengths = [measure(caption) for caption in captions]
    found.samples += 1
    found.captions += len(captions)
    found.sentences[len(captions)] += 1
    found.sizes[width, height] += 1
    found.image_bytes += len(data)
    found.lengths.update(lengths)
    found.first_lengths[lengths[0]] += 1
    return True


def _row(index: ShardIndex, number: int) -> dict[str, Any]:
    """Return the index's row for a sample; an empty dict past its end."""
    if number >= index.samples:
        return {}
    columns, ends = index.columns, index.columns["key_ends"]
    start = int(ends[number - 1]) if number else 0
    row = {name: columns[name][number].tolist() for name in columns if not name.startswith("key")}
    return {**row, "key": columns["keys"][start : int(ends[number])].tobytes()}


def _check_row(row: dict[str, Any], true: dict[str, Any]) -> None:
    """Compare a sample with its row of the index; raises `DataError`."""
    differing = [name for name in true if row.get(name) != true[name]]
    if differing == ["crcs"]:
        raise DataError("its bytes are not those that were indexed; fetch or pack the shard again")
    if differing:
        raise DataError(f"its index differs in {', '.join(differing)}; index the shard again")


def draw_histogram(found: Findings, contexts: Sequence[int], model: str, path: Path) -> None:
    """Draw the distributions of caption lengths and aspect ratios as a PNG.

    Args:
        found: The findings.
        contexts: Numbers of tokens to mark.
        model: The model whose tokens were counted.
        path: The PNG.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    longest = max(*found.lengths, *contexts) + 2
    edges = np.arange(0, longest + 1, max(1, -(-longest // BINS))) - 0.5
    outline = {"histtype": "step", "linewidth": 1.5}
    for lengths, style in (
        (found.lengths, {"color": BLUE, "label": "all captions"}),
        (found.first_lengths, {"color": ORANGE, "label": "first captions", **outline}),
    ):
        left.hist(list(lengths), edges, weights=_proportions(lengths), **style)
    for context in contexts:
        left.axvline(context, color="black", linewidth=0.8, linestyle=":")
        left.annotate(f" {context}", (context, 0.94), xycoords=("data", "axes fraction"))
    left.set(xlabel=f"tokens of a caption ({model})", ylabel="proportion", xlim=(0, longest))
    left.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    ratios = np.log2([width / height for width, height in found.sizes])
    reach = max(1.0, float(np.ceil(np.abs(ratios).max() * 2) / 2))
    edges = np.linspace(-reach, reach, BINS + 1)
    right.hist(ratios, edges, weights=_proportions(found.sizes), color=BLUE)
    right.axvline(0, color="black", linewidth=0.8, linestyle=":")
    ticks = np.arange(-np.floor(reach), np.floor(reach) + 1)
    labels = [f"{2**t:g}:1" if t >= 0 else f"1:{2**-t:g}" for t in ticks]
    right.set(
        xlabel="width : height", ylabel="proportion of images", xticks=ticks, xticklabels=labels
    )
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    FigureCanvasAgg(figure)
    figure.savefig(path, format="png", dpi=120)


def _proportions(counter: Counter[Any]) -> np.ndarray:
    return np.array(list(counter.values())) / counter.total()


def fraction_above(lengths: Mapping[int, float], context: int) -> float:
    """Return the fraction of texts longer than a context."""
    total = sum(lengths.values())
    return sum(n for length, n in lengths.items() if length > context) / total if total else 0.0


def joined(lengths: Mapping[int, int], special: int) -> dict[int, float]:
    """Return the distribution of the length, in tokens, of two random texts joined together.

    Joining keeps one start and one end of text; the period between the texts is not counted.

    Args:
        lengths: Number of texts by length, start and end included.
        special: Length of an empty text: the tokens that start and end it.
    """
    counts = np.zeros(max(lengths, default=special) + 1)
    counts[list(lengths)] = list(lengths.values())
    bare = counts[special:] / counts.sum()
    fractions = np.convolve(bare, bare)
    return {int(n) + special: float(fractions[n]) for n in np.flatnonzero(fractions)}


def quantile(lengths: Mapping[int, float], fraction: float) -> int:
    """Return the smallest length that at least a `fraction` of the texts do not exceed."""
    total, seen = sum(lengths.values()), 0.0
    for length in sorted(lengths):
        seen += lengths[length]
        if seen >= fraction * total * (1 - 1e-12):
            return length
    return 0
