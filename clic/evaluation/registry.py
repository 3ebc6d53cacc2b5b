"""The benchmarks by name: what each is, how it is chosen, and what of it is on this disk."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from clic.errors import ConfigError, did_you_mean
from clic.evaluation.benchmarks.entries import ENTRIES
from clic.evaluation.benchmarks.entry import Benchmark
from clic.evaluation.sources import Source, present

__all__ = ["ALIASES", "BENCHMARKS", "GROUPS", "Benchmark", "missing", "select", "text_only"]

BENCHMARKS: dict[str, Benchmark] = {benchmark.name: benchmark for benchmark in ENTRIES}
ALIASES = {
    "sugarcrepepp": "sugarcrepe++",
    "shapespp": "shapes++",
    "vgrelation": "aro-relation",
    "vgattribution": "aro-attribution",
    "svo": "svo-probes",
    "imagenet1k": "imagenet",
    "aircraft": "fgvc-aircraft",
    "stanfordcars": "cars",
    "oxfordpets": "pets",
    "flowers102": "flowers",
}
"""Other spellings, as `spelling` leaves them."""

_SHAPES = ("shapes++", "shapes-retrieval", "shapes-zero-shot")
_TEN = (
    *("food101", "cifar10", "cifar100", "cars", "fgvc-aircraft"),
    *("dtd", "pets", "caltech101", "flowers", "country211"),
)
GROUPS: dict[str, tuple[str, ...]] = {
    "shapes": _SHAPES,
    # What of the papers' tables is here.
    "clic": (
        *("sugarcrepe++", "sugarcrepe", "winoground"),
        *("coco2017-retrieval", "flickr30k-retrieval", "imagenet"),
        *_TEN,
    ),
    "clove": (
        *("sugarcrepe", "aro-relation", "aro-attribution", "coco-order", "flickr30k-order"),
        *("svo-probes", "imagenet", "cars", "cifar10", "cifar100", "flowers", "dtd"),
    ),
    "zero-shot": ("imagenet", *_TEN),
    "retrieval": ("coco-retrieval", "coco2017-retrieval", "flickr30k-retrieval"),
    "compositional": (
        *("sugarcrepe++", "sugarcrepe", "winoground", "aro-relation", "aro-attribution"),
        *("coco-order", "flickr30k-order", "svo-probes", "whatsup", "cola", "valse", "bivlc"),
    ),
    "all": tuple(BENCHMARKS),
}


def spelling(name: str) -> str:
    """Return a name without case, hyphens, underscores and spaces."""
    return name.lower().translate(str.maketrans("", "", "-_ "))


def select(names: Iterable[str]) -> list[Benchmark]:
    """Return the benchmarks that names and groups mean, each once, in the order given.

    Raises:
        ConfigError: A name is not known, or none is given.
    """
    exact = {spelling(name): (name,) for name in BENCHMARKS}
    aliases = {key: (name,) for key, name in ALIASES.items()}
    known = {**{spelling(group): members for group, members in GROUPS.items()}, **aliases, **exact}
    chosen: dict[str, Benchmark] = {}
    for name in names:
        if spelling(name) not in known:
            choices = [*BENCHMARKS, *GROUPS]
            raise ConfigError(
                f"bench={name!r} is not known{did_you_mean(name.lower(), choices)} "
                f"(choices: {', '.join(choices)}; see --bench list)"
            )
        chosen.update((member, BENCHMARKS[member]) for member in known[spelling(name)])
    if not chosen:
        raise ConfigError("bench is empty; name a benchmark (see --bench list)")
    return list(chosen.values())


def missing(benchmark: Benchmark, data_root: Path, with_images: bool = True) -> list[Source]:
    """Return the sources of a benchmark whose files are not below the data root."""
    needed = [*benchmark.annotations, *(benchmark.images if with_images else ())]
    return [source for source in needed if not present(source, data_root)]


def text_only(benchmark: Benchmark, data_root: Path) -> bool:
    """Return whether captions can be scored alone here, because nothing but images is missing."""
    lacking = missing(benchmark, data_root)
    return (
        benchmark.text_metrics
        and bool(lacking)
        and not missing(benchmark, data_root, with_images=False)
    )
