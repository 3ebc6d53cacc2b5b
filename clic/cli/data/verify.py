"""Check every sample of shards, and summarise what they contain.

Decodes each image, reads each caption, and compares every tar with its index
and checksums. Ends with 1 if something is broken.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from clic.cli.parser import Parser, check_least
from clic.io.files import check_writable, writing
from clic.io.terminal import progress_bar

if TYPE_CHECKING:
    from clic.data.tools.verifying import Findings

EXAMPLES = ("clic-data verify shards", "clic-data verify shards --model ViT-L-14 --out lengths.png")
BROKEN = 1
SHOWN = 10
CONTEXTS = (32, 77)


def add_arguments(parser: Parser) -> None:
    """Add this command's arguments."""
    add = parser.add_argument
    add("shards", metavar="SHARDS", nargs="+", help="folders, brace patterns or tars")
    add("--model", metavar="M", default="ViT-B-32", help="whose tokens are counted (ViT-B-32)")
    add("--out", metavar="FILE", type=Path, help="PNG with histograms to write")
    add("--workers", metavar="N", type=int, help="processes (default: one for each core)")


def run(flags: argparse.Namespace, words: Sequence[str]) -> int:
    """Check the shards; return 1 if something is broken."""
    if flags.workers is not None:
        check_least(1, workers=flags.workers)
    check_writable(flags.out and str(flags.out))
    from clic import runs
    from clic.data.shards.locating import find_shards
    from clic.data.tools import verifying
    from clic.io.processes import run_tasks, usable_cores

    shards = find_shards(flags.shards, "SHARDS")
    model = runs.source_of(flags.model)
    contexts = sorted({*CONTEXTS, verifying.context_length(model)})
    found, workers = verifying.Findings(), flags.workers or usable_cores()
    with progress_bar("verify", sum(s.stat().st_size for s in shards), in_bytes=True) as advance:
        work = partial(verifying.check_shard, model)
        for part in run_tasks(work, shards, workers, advance):
            found.add(part)
    for line in _summary(found, contexts, flags.model, verifying.make_measure(model)("")):
        print(line)
    if flags.out is not None and found.captions:
        with writing(flags.out):
            verifying.draw_histogram(found, contexts, flags.model, flags.out)
        print(f"{flags.out}: histograms")
    return _report(found)


def _summary(found: Findings, contexts: Sequence[int], model: str, special: int) -> Iterator[str]:
    """Yield what was found; `special` is the length of an empty text in tokens."""
    from clic.data.tools.verifying import joined, quantile

    tars = "1 tar" if found.shards == 1 else f"{found.shards:,} tars"
    yield f"{found.samples:,} samples in {tars}, {found.tar_bytes / 1e6:,.1f} MB"
    if found.without_index:
        yield f"  without an index: {found.without_index:,} tars (clic-data index makes it)"
    if found.left_out:
        yield f"  left out: {found.left_out:,} keys without an image or without a caption"
    if found.differing:
        yield f"  JSON that states a wrong key or size: {found.differing:,} samples"
    if double := found.double_keys():
        yield f"  duplicate keys: {double:,}"
    for note in found.notes[:SHOWN]:
        yield f"  {note}"
    if len(found.notes) > SHOWN:
        yield f"  ... and {len(found.notes) - SHOWN:,} more such notes"
    if not found.captions:
        return
    images = found.sizes.total()
    sides: Counter[int] = Counter()
    orientations: Counter[str] = Counter()
    for (width, height), number in found.sizes.items():
        sides[min(width, height)] += number
        name = "square" if width == height else "landscape" if width > height else "portrait"
        orientations[name] += number
    names = ("landscape", "square", "portrait")
    parts = (f"{name} {100 * orientations[name] / images:.1f} %" for name in names)
    yield f"  images    {', '.join(parts)}"
    yield (
        f"            shorter side {min(sides)} to {max(sides)}, median {quantile(sides, 0.5)} "
        f"pixels; mean {found.image_bytes / images / 1e3:.1f} kB"
    )
    yield (
        f"  captions  {found.captions:,}, {min(found.sentences)} to {max(found.sentences)} per "
        f"image, mean {found.captions / images:.2f}"
    )
    for tagger, number in found.taggers.items():
        yield f"  tags      stored with {number:,} samples ({tagger})"
    heads = "".join(f"{f'> {context}':>9}" for context in contexts)
    yield f"  {f'tokens ({model})'[:30]:<30}{'median':>8}{'95 %':>6}{'most':>6}{heads}"
    yield _line("captions", found.lengths, contexts)
    yield _line("first captions", found.first_lengths, contexts)
    yield _line("two first captions joined", joined(found.first_lengths, special), contexts)


def _line(name: str, lengths: Mapping[int, float], contexts: Sequence[int]) -> str:
    from clic.data.tools.verifying import fraction_above, quantile

    median, high = quantile(lengths, 0.5), quantile(lengths, 0.95)
    above = "".join(f"{100 * fraction_above(lengths, c):>7.1f} %" for c in contexts)
    return f"  {name:<30}{median:>8}{high:>6}{max(lengths):>6}{above}"


def _report(found: Findings) -> int:
    if not found.broken:
        print("nothing is broken")
        return 0
    print(f"{found.broken:,} broken:")
    for where, why in sorted(found.problems)[:SHOWN]:
        print(f"  {where}: {' '.join(why.split())}")
    if found.broken > SHOWN:
        print(f"  and {found.broken - SHOWN:,} more")
    return BROKEN
