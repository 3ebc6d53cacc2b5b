"""`clic-data verify`, `annotate`, `index` and `neighbours`, which work on existing shards."""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from clic.cli.common import DataCommand, Parser, check_least
from clic.errors import ConfigError, DataError, pick
from clic.io.files import check_writable, writing
from clic.io.processes import run_tasks, usable_cores
from clic.io.terminal import progress_bar

if TYPE_CHECKING:
    import numpy as np

    from clic.data.tools.annotating import Annotated
    from clic.data.tools.verifying import Findings

BROKEN = 1
SHOWN = 10
CONTEXTS = (32, 77)


def _verify_arguments(parser: Parser) -> None:
    add = parser.add_argument
    add("shards", metavar="SHARDS", nargs="+", help="folders, brace patterns or tars")
    add(
        "--model", metavar="M", default="ViT-B-32", help="model whose tokens are counted (ViT-B-32)"
    )
    add("--out", metavar="FILE", type=Path, help="PNG of histograms to write")
    add("--workers", metavar="N", type=int, help="processes (default: one for each core)")


def verify(flags: argparse.Namespace, words: Sequence[str]) -> int:
    """Check every sample of shards, and summarise what they contain.

    Decodes each image, reads each caption, and compares every tar with its index
    and checksums. Ends with 1 if something is broken.
    """
    check_least(1, workers=flags.workers)
    check_writable(flags.out and str(flags.out))
    from clic import runs
    from clic.data.shards.locating import find_shards
    from clic.data.tools import verifying

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
    return _report_broken(found)


def _summary(found: Findings, contexts: Sequence[int], model: str, special: int) -> Iterator[str]:
    """Yield lines on what was found; `special` is the number of tokens of an empty text."""
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
    yield from _first([f"  {note}" for note in found.notes], "  ... and {:,} more such notes")
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


def _report_broken(found: Findings) -> int:
    if not found.broken:
        print("nothing is broken")
        return 0
    print(f"{found.broken:,} broken:")
    problems = [f"  {where}: {' '.join(why.split())}" for where, why in sorted(found.problems)]
    print(*_first(problems, "  and {:,} more", found.broken), sep="\n")
    return BROKEN


def _first(lines: Sequence[str], more: str, count: int | None = None) -> Iterator[str]:
    """Yield the first lines, then `more` with the number of remaining ones, if any.

    Args:
        lines: The lines that can be shown.
        more: Format of the last line.
        count: Number of all lines, if there are more than `lines` contains.
    """
    yield from lines[:SHOWN]
    hidden = (len(lines) if count is None else count) - SHOWN
    if hidden > 0:
        yield more.format(hidden)


VERIFY = DataCommand(
    verify,
    _verify_arguments,
    ("clic-data verify shards", "clic-data verify shards --model ViT-L-14 --out lengths.png"),
)


def _annotate_arguments(parser: Parser) -> None:
    add = parser.add_argument
    add("shards", metavar="SHARDS", nargs="+", help="folders, brace patterns or tars")
    add("--tagger", metavar="T", default="hanta", help="hanta or spacy (hanta)")
    add("--workers", metavar="N", type=int, help="processes (default: one for each core)")
    add("--force", action="store_true", help="also tag what already has this tagger's tags")
    add("--ray", metavar="ADDRESS", help="a Ray cluster that sees the files, or auto, or local")


def annotate(flags: argparse.Namespace, words: Sequence[str]) -> int:
    """Store tags with the captions of existing shards.

    Each tar is replaced as a whole, together with its index. Samples that already
    have the tagger's tags are left as they are, so the same command continues
    where it was stopped. Train with captions.tagger=stored. Ends with 1 if a tar
    could not be annotated.
    """
    check_least(1, workers=flags.workers)
    if flags.workers is not None and flags.ray is not None:
        raise ConfigError(
            f"--workers {flags.workers} has no effect with --ray {flags.ray}, whose cluster "
            "decides; leave one out"
        )
    from clic.captions.tagging import TAGGERS
    from clic.data.shards.locating import find_shards
    from clic.data.tools.annotating import annotate_on_ray, annotate_shards

    pick(TAGGERS, flags.tagger, "--tagger")
    shards = find_shards(flags.shards, "SHARDS")
    sizes = {str(shard.resolve()): shard.stat().st_size for shard in shards}
    parts: list[Annotated] = []
    with progress_bar("annotate", sum(sizes.values()), in_bytes=True) as advance:
        if flags.ray is None:
            workers = flags.workers or usable_cores()
            parts += annotate_shards(shards, flags.tagger, workers, advance, flags.force)
        else:
            for part in annotate_on_ray(shards, flags.tagger, flags.ray, flags.force):
                parts.append(part)
                advance(sizes[part.shard])
    return _report_annotated(parts)


def _report_annotated(parts: Sequence[Annotated]) -> int:
    shards = "1 tar" if len(parts) == 1 else f"{len(parts):,} tars"
    tagged, kept = sum(part.tagged for part in parts), sum(part.kept for part in parts)
    print(f"{shards}: {tagged:,} samples tagged, {kept:,} were tagged already")
    if broken := sum(part.broken for part in parts):
        print(f"  {broken:,} samples cannot be read and are left unchanged (see clic-data verify)")
    if foreign := sum(part.foreign for part in parts):
        from clic.captions.negatives import FOREIGN

        print(
            f"  {foreign:,} of these ({foreign / tagged:.0%}) give few or no false captions: they "
            f"are not in Latin script, and {FOREIGN}"
        )
    problems = [part.problem for part in parts if part.problem is not None]
    lines = [f"  left as it was: {' '.join(problem.split())}" for problem in problems]
    for line in _first(lines, "  and {:,} more tars"):
        print(line)
    return BROKEN if problems else 0


ANNOTATE = DataCommand(
    annotate,
    _annotate_arguments,
    ("clic-data annotate /data/laion", "clic-data annotate /data/laion --ray auto"),
)


def _index_arguments(parser: Parser) -> None:
    add = parser.add_argument
    add("shards", metavar="SHARDS", nargs="+", help="folders, brace patterns or tars")
    add("--force", action="store_true", help="make every index again")
    add("--workers", metavar="N", type=int, help="processes (default: one for each core)")


def index(flags: argparse.Namespace, words: Sequence[str]) -> None:
    """Index tars made elsewhere.

    An existing index that fits its tar is kept, unless --force is given.
    """
    from clic.data.shards.index import index_path, is_indexed, load_index
    from clic.data.shards.locating import find_shards

    workers = usable_cores() if flags.workers is None else flags.workers
    check_least(1, workers=workers)
    shards = find_shards(flags.shards, "SHARDS")
    todo = [shard for shard in shards if flags.force or not is_indexed(shard)]
    with progress_bar("index", len(todo)) as advance:
        failed = [error for error in run_tasks(_index, todo, workers, advance) if error]
    if failed:
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        raise DataError(f"{len(failed)} of {len(shards)} shards: {sorted(failed)[0]}{more}")
    samples = broken = 0
    for shard in shards:
        index = load_index(index_path(shard))
        samples, broken = samples + index.samples, broken + len(index.broken)
    kept = f", {len(shards) - len(todo)} kept" if len(todo) < len(shards) else ""
    print(f"{len(todo)} shards indexed{kept}: {samples} samples, {broken} of them broken")


def _index(shard: Path, tick: Callable[[int], None]) -> str:
    """Index one shard; return what is wrong with it, or ''."""
    from clic.data import write_index

    try:
        write_index(shard)
    except DataError as error:
        return str(error)
    finally:
        tick(1)
    return ""


INDEX = DataCommand(
    index,
    _index_arguments,
    ("clic-data index /data/laion", "clic-data index --force '/data/{00000..00099}.tar'"),
)


def _neighbours_arguments(parser: Parser) -> None:
    add = parser.add_argument
    add("shards", metavar="SHARDS", nargs="+", help="folders, brace patterns or tars")
    add("--model", metavar="M", default="ViT-B-32:openai",
        help="as clic-eval takes it (ViT-B-32:openai)")  # fmt: skip
    add("--k", metavar="N", type=int, default=3, help="neighbours of each image (3, as NegCLIP)")
    add("--out", metavar="FILE", type=Path,
        help="file to write (default: neighbours-MODEL beside the shards)")  # fmt: skip
    add("--device", metavar="D", default="auto", help="auto, cpu, cuda or cuda:N (auto)")
    add("--precision", metavar="P", default="fp32", choices=("fp32", "bf16", "fp16"),
        help="fp32, bf16 or fp16 (fp32)")  # fmt: skip
    add("--batch-size", metavar="N", type=int, default=128, help="images at a time (128)")
    add("--workers", metavar="N", type=int, default=2, help="threads that decode images (2)")


def neighbours(flags: argparse.Namespace, words: Sequence[str]) -> None:
    """Find each image's nearest images, for sampling.hard_images.

    Every image passes through the model once; then all pairs are compared, a
    block at a time. The same command continues where it was stopped.
    """
    import torch

    from clic.data.shards.shard_source import ShardSource
    from clic.data.tools.nearest import FeatureFile, encode_source, nearest, write_neighbours
    from clic.models import encoder

    check_least(1, k=flags.k, batch_size=flags.batch_size, workers=flags.workers)
    source = ShardSource(flags.shards, "clic-data neighbours")
    if len(source) <= flags.k:
        raise DataError(f"{len(source)} images are too few for --k {flags.k} neighbours of each")
    name = re.sub(r"[^A-Za-z0-9.-]+", "-", flags.model).strip("-")
    out = flags.out or source.paths[0].parent / f"neighbours-{name}"
    model = encoder.load(flags.model, flags.device, flags.precision, flags.batch_size)
    identity = {**model.identity, "precision": flags.precision}
    width = int(model.clip.source.architecture["embed_dim"])

    def encode(pixels: Sequence[np.ndarray]) -> np.ndarray:
        return model.encode_image(pixels).numpy()

    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        path, whose = out.with_name(f".{out.name}.features"), [source.shard_counts(), identity]
        features = FeatureFile(path, (len(source), width), whose)
        if features.done:
            print(f"continuing after {features.done} of {len(source)} images")
        with progress_bar("encode", len(source), done=features.done) as advance:
            encode_source(source, features, encode, flags.batch_size, flags.workers, advance)
        broken = sum(
            int((~features.rows[i : i + 65536].any(axis=1)).sum())
            for i in range(0, len(source), 65536)
        )
        if len(source) - broken <= flags.k:
            features.remove()
            raise DataError(f"only {len(source) - broken} images are whole, too few for --k")
        device = model.device if model.device.type == "cuda" else torch.device("cpu")
        with progress_bar("compare", len(source)) as advance:
            found = nearest(features.rows, flags.k, device, advance)
        write_neighbours(out, source, found, identity)
        features.remove()
    note = f" ({broken} broken images are nobody's neighbours; their own are arbitrary)"
    print(f"{out}: {flags.k} neighbours of each of {len(source)} images{note if broken else ''}")
    print(f"  clic-train ... sampling.kinds=single sampling.hard_images={out}")


NEIGHBOURS = DataCommand(
    neighbours, _neighbours_arguments, ("clic-data neighbours /data/coco --model ViT-B-32:openai",)
)
