"""Every benchmark by name: what it is, where its files come from and how it is read."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from clic.errors import ConfigError, did_you_mean
from clic.evaluation.benchmarks import retrieval as coco
from clic.evaluation.benchmarks import shapes, sugarcrepe
from clic.evaluation.cases import Table


@dataclass(frozen=True)
class Needed:
    """A file or folder that a benchmark reads, and the command that gets it.

    Attributes:
        path: Where it lies below the data root.
        command: Shell command with ``{data}`` for the data root.
    """

    path: str
    command: str

    def get(self, data_root: Path) -> str:
        """Return the command for a data root, ready to be pasted."""
        return self.command.format(data=shlex.quote(str(data_root)))


@dataclass(frozen=True)
class Benchmark:
    """A benchmark: its loader and what a reader of its numbers must know.

    Attributes:
        name: As people write it.
        about: One short line.
        load: (data root, split, seed) -> table; made benchmarks ignore the data root, and
            benchmarks on files ignore split and seed.
        version: Changes when the same files would give other numbers.
        citation: Paper.
        licence: Of the annotations.
        annotations: Files that are always needed.
        images: Folder of images, needed only for models that encode images.
        text_metrics: Whether something can be said of a model without `encode_image`.
    """

    name: str
    about: str
    load: Callable[[Path, str, int], Table]
    version: str
    citation: str
    licence: str
    annotations: tuple[Needed, ...] = ()
    images: Needed | None = None
    text_metrics: bool = False

    @property
    def made(self) -> bool:
        """Whether the benchmark is made on the fly, with a split and a seed."""
        return not self.annotations


COCO_IMAGES = Needed(
    sugarcrepe.IMAGES,
    "curl -fL --create-dirs -o {data}/coco/val2017.zip "
    "http://images.cocodataset.org/zips/val2017.zip && "
    "unzip -q {data}/coco/val2017.zip -d {data}/coco",
)
COCO_CAPTIONS = Needed(
    coco.CAPTIONS,
    "curl -fL --create-dirs -o {data}/coco/annotations.zip "
    "http://images.cocodataset.org/annotations/annotations_trainval2017.zip && "
    "unzip -q {data}/coco/annotations.zip -d {data}/coco",
)


def _json_files(folder: str, names: tuple[str, ...], repository: str) -> tuple[Needed, ...]:
    """Return the files of a benchmark in a GitHub repository; one command gets them all."""
    braces = "{{" + ",".join(names) + "}}"
    command = (
        f"curl -fL --create-dirs -o {{data}}/{folder}/'#1.json' "
        f"'https://raw.githubusercontent.com/{repository}/main/data/{braces}.json'"
    )
    return tuple(Needed(f"{folder}/{name}.json", command) for name in names)


def _made(
    name: str, about: str, load: Callable[[str, int], Table], text_metrics: bool = False
) -> Benchmark:
    """Return a benchmark of the world, which needs no files."""
    return Benchmark(
        name=name,
        about=about,
        load=lambda _, split, seed: load(split, seed),
        version="1",
        citation="made by clic.shapes",
        licence="MIT",
        text_metrics=text_metrics,
    )


_ALL = (
    _made("shapes++", "two true captions, a false one", shapes.load_triplets, text_metrics=True),
    _made("shapes-retrieval", "500 scenes of distinct attributes", shapes.load_retrieval),
    _made("shapes-zero-shot", "shape, colour and pair of one thing", shapes.load_zero_shot),
    Benchmark(
        name="sugarcrepe++",
        about="4,757 rows: two true captions, a false one",
        load=lambda root, split, seed: sugarcrepe.load_sugarcrepe_pp(root),
        version="1",
        citation="Dumpala et al. 2024, arXiv 2406.11171",
        licence="CC BY 4.0",
        annotations=_json_files("sugarcrepe_pp", sugarcrepe.PLUS_CATEGORIES, "Sri-Harsha/scpp"),
        images=COCO_IMAGES,
        text_metrics=True,
    ),
    Benchmark(
        name="sugarcrepe",
        about="7,511 rows: a true caption, a false one",
        load=lambda root, split, seed: sugarcrepe.load_sugarcrepe(root),
        version="1",
        citation="Hsieh et al. 2023, arXiv 2306.14610",
        licence="MIT",
        annotations=_json_files("sugarcrepe", sugarcrepe.CATEGORIES, "RAIVNLab/sugar-crepe"),
        images=COCO_IMAGES,
    ),
    Benchmark(
        name="coco2017-retrieval",
        about="val2017, five captions an image",
        load=lambda root, split, seed: coco.load_coco2017(root),
        version="1",
        citation="Chen et al. 2015, arXiv 1504.00325",
        licence="CC BY 4.0",
        annotations=(COCO_CAPTIONS,),
        images=COCO_IMAGES,
    ),
)

BENCHMARKS: dict[str, Benchmark] = {benchmark.name: benchmark for benchmark in _ALL}
ALIASES = {"sugarcrepepp": "sugarcrepe++", "shapespp": "shapes++"}
"""Other spellings, as `spelling` leaves them."""

GROUPS: dict[str, tuple[str, ...]] = {
    "shapes": ("shapes++", "shapes-retrieval", "shapes-zero-shot"),
    "compositional": ("sugarcrepe++", "sugarcrepe"),
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


def missing(benchmark: Benchmark, data_root: Path, with_images: bool = True) -> list[Needed]:
    """Return the files and folders of a benchmark that are not below the data root."""
    needed = [*benchmark.annotations]
    if benchmark.images is not None and with_images:
        needed.append(benchmark.images)
    return [item for item in needed if not (data_root / item.path).exists()]


def text_only(benchmark: Benchmark, data_root: Path) -> bool:
    """Return whether captions can be scored alone here, because nothing but images is missing."""
    return benchmark.text_metrics and missing(benchmark, data_root) == [benchmark.images]
