"""All benchmarks by name and group, and which of their files are on disk."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from clic.errors import ConfigError, did_you_mean, pick
from clic.evaluation.benchmarks import (
    aro,
    bla,
    caption_choices,
    caption_retrieval,
    crossmodal3600,
    flickr8k,
    half_truths,
    image_pairs,
    long_captions,
    minimal_changes,
    negbench,
    own_file,
    sugarcrepe,
    swapped_pairs,
    valse,
    whatsup,
    world,
    zero_shot,
)
from clic.evaluation.benchmarks.benchmark import Benchmark
from clic.evaluation.files.file_sources import Source, present

SPLITS = {"test": "test", "val": "validation", "validation": "validation"}
"""The splits that may follow the @ in a benchmark's name, and what they mean."""

_LISTED = (
    *world.SHAPES,
    sugarcrepe.SUGARCREPE_PP,
    sugarcrepe.SUGARCREPE,
    image_pairs.WINOGROUND,
    aro.ARO_RELATION,
    aro.ARO_ATTRIBUTION,
    aro.COCO_ORDER,
    aro.FLICKR30K_ORDER,
    image_pairs.SVO_PROBES,
    whatsup.WHATSUP,
    image_pairs.COLA,
    valse.VALSE,
    image_pairs.BIVLC,
    bla.BLA,
    half_truths.HALF_TRUTHS,
    swapped_pairs.COLORSWAP,
    swapped_pairs.MMVP_VLM,
    negbench.NEGBENCH,
    caption_choices.VSR,
    caption_choices.VSR_THRESHOLD,
    caption_choices.CREPE,
    caption_choices.VL_CHECKLIST,
    caption_choices.CONME,
    minimal_changes.SPEC,
    minimal_changes.VISMIN,
    minimal_changes.EQBEN,
    caption_retrieval.COCO,
    caption_retrieval.COCO2017,
    caption_retrieval.FLICKR30K,
    flickr8k.FLICKR8K,
    crossmodal3600.XM3600,
    long_captions.URBAN1K,
    long_captions.DCI,
    long_captions.DOCCI,
    long_captions.SHAREGPT4V,
    *zero_shot.CLASSIFICATION,
)
BENCHMARKS: dict[str, Benchmark] = {benchmark.name: benchmark for benchmark in _LISTED}
ALIASES = {
    "sugarcrepepp": "sugarcrepe++",
    "shapespp": "shapes++",
    "vgrelation": "aro-relation",
    "vgattribution": "aro-attribution",
    "svo": "svo-probes",
    "mmvp": "mmvp-vlm",
    "share4v": "sharegpt4v",
    "crossmodal3600": "xm3600",
    "imagenet1k": "imagenet",
    "aircraft": "fgvc-aircraft",
    "stanfordcars": "cars",
    "oxfordpets": "pets",
    "flowers102": "flowers",
}
"""Other names of benchmarks, in the form that `spelling` returns."""

_SHAPES = ("shapes++", "shapes-retrieval", "shapes-zero-shot")
_TEN = (
    *("food101", "cifar10", "cifar100", "cars", "fgvc-aircraft"),
    *("dtd", "pets", "caltech101", "flowers", "country211"),
)
GROUPS: dict[str, tuple[str, ...]] = {
    "shapes": _SHAPES,
    # The papers' benchmarks, as far as they are implemented here.
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
    "retrieval": (
        *("coco-retrieval", "coco2017-retrieval"),
        *("flickr30k-retrieval", "flickr8k-retrieval", "xm3600"),
        *("urban1k", "dci", "docci", "sharegpt4v"),
    ),
    "long-captions": ("urban1k", "dci", "docci", "sharegpt4v"),
    "compositional": (
        *("sugarcrepe++", "sugarcrepe", "winoground", "aro-relation", "aro-attribution"),
        *("coco-order", "flickr30k-order", "svo-probes", "whatsup", "cola", "valse"),
        *("bivlc", "bla", "half-truths", "colorswap", "mmvp-vlm", "negbench"),
        *("vsr", "vsr-threshold", "crepe", "vl-checklist", "conme"),
        *("spec", "vismin", "eqben"),
    ),
    "all": tuple(BENCHMARKS),
}


def spelling(name: str) -> str:
    """Return a name in lower case, without hyphens, underscores and spaces."""
    return name.lower().translate(str.maketrans("", "", "-_ "))


def select(names: Iterable[str]) -> list[Benchmark]:
    """Return the benchmarks of these names and groups, each once, in the given order.

    A name that ends in `@val` means the validation split; `@test` changes nothing. A name that ends
    in `.jsonl`, `.csv` or `.tar` is a user's own file, which is named after its stem or its card;
    so is a folder that contains a card.

    Raises:
        ConfigError: A name or its split is unknown, there is no name, or two have the same stem.
        DataError: A user's own file cannot be read.
    """
    exact = {spelling(name): (name,) for name in BENCHMARKS}
    aliases = {key: (name,) for key, name in ALIASES.items()}
    known = {**{spelling(group): members for group, members in GROUPS.items()}, **aliases, **exact}
    chosen: dict[str, Benchmark] = {}
    for word in names:
        if own_file.is_own_file(word):
            own = own_file.own_benchmark(word, BENCHMARKS)
            own_file.check_stems(list(chosen.values()), own)
            chosen[own.name] = own
            continue
        name, at, split = word.partition("@")
        if spelling(name) not in known:
            choices = [*BENCHMARKS, *GROUPS]
            raise ConfigError(
                f"bench={name!r} is not known{did_you_mean(name.lower(), choices)} "
                f"(choices: {', '.join(choices)}; see clic-eval --bench list; a file of one's own "
                "ends in .jsonl, .csv or .tar, and a folder holds a card.yaml)"
            )
        for member in known[spelling(name)]:
            found = of_split(BENCHMARKS[member], split if at else "test")
            chosen[found.name] = found
    if not chosen:
        raise ConfigError("bench is empty; name a benchmark (see clic-eval --bench list)")
    return list(chosen.values())


def of_split(benchmark: Benchmark, split: str) -> Benchmark:
    """Return a benchmark's test or validation split.

    Raises:
        ConfigError: The split is unknown, or the benchmark does not have it.
    """
    if pick(SPLITS, split.lower(), f"the split of bench={benchmark.name}@{split}") == "test":
        return benchmark
    if benchmark.validation is None:
        able = ", ".join(b.name for b in BENCHMARKS.values() if b.validation)
        raise ConfigError(
            f"bench={benchmark.name}@{split}: {benchmark.name} has no validation split here; name "
            f"{benchmark.name} alone for what its papers report, or one that has: {able}"
        )
    return benchmark.validation


def for_choosing(names: Sequence[str], on_test: bool) -> list[str]:
    """Return the names of the benchmarks, or their validation splits, to score during training.

    Args:
        names: Names and groups; a name that ends in `@test` means the test split. A user's own
            file is used as it is, because it was named for this purpose.
        on_test: Whether test data may be scored: because a benchmark has no validation split, or
            because the name asks for it.

    Raises:
        ConfigError: A name is unknown, test data are not allowed, or allowing them has no effect.
    """
    chosen: dict[str, Benchmark] = {}
    for name in names:
        wants_test = name.lower().endswith("@test")
        for benchmark in select([name]):
            own = benchmark if wants_test else benchmark.validation or benchmark
            chosen[own.name if own.own_file is None else str(own.own_file)] = own
    test = [b for b in chosen.values() if b.split != "validation" and b.own_file is None]
    if test and not on_test:
        able = ", ".join(b.name for b in BENCHMARKS.values() if b.validation)
        raise ConfigError(
            f"train.eval_bench={test[0].name}{'@test' if test[0].validation else ''} would score "
            "test data during training, and what is chosen by it is chosen on the test data; "
            + ("leave out its @test, or " if test[0].validation else f"name one of {able}, or ")
            + "add train.eval_on_test=true to do so nevertheless"
        )
    if on_test and not test:
        raise ConfigError(
            f"train.eval_on_test=true has no effect: {', '.join(chosen)} is not test data; leave "
            "it out"
        )
    return list(chosen)


def missing(benchmark: Benchmark, data_root: Path, with_images: bool = True) -> list[Source]:
    """Return the sources of a benchmark whose files are missing below the data root."""
    needed = [*benchmark.annotations, *(benchmark.images if with_images else ())]
    return [source for source in needed if not present(source, data_root)]


def text_only(benchmark: Benchmark, data_root: Path) -> bool:
    """Return whether only images are missing, so that the captions alone can be scored."""
    lacking = missing(benchmark, data_root)
    return (
        benchmark.text_metrics
        and bool(lacking)
        and not missing(benchmark, data_root, with_images=False)
    )
