"""ImageNet and CLIC's ten sets of images in classes, in the order in which they are listed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from clic.evaluation.benchmarks import addresses, zero_shot
from clic.evaluation.benchmarks.benchmark import Benchmark, of_files
from clic.evaluation.files.file_sources import Source
from clic.evaluation.tables.table import Table

RULE = "the class whose mean prompt is nearest"
_CLIC_SAMPLE = "CLIC's code scores 1,000 images drawn at random; here it is the whole test set"


def _classification(
    name: str,
    title: str,
    about: str,
    citation: str,
    licence: str,
    source: Source,
    rows: int,
    load: Callable[[Path], Table] | None = None,
    differs: str = _CLIC_SAMPLE,
) -> Benchmark:
    """Return a benchmark of images in classes, by default one that torchvision reads."""
    per_class = name in zero_shot.PER_CLASS
    return Benchmark(
        name=name,
        title=title,
        about=about,
        load=of_files(load or partial(zero_shot.load_torchvision, name)),
        version="1",
        citation=citation,
        licence=licence,
        rule=f"{RULE}; the mean over classes too" if per_class else RULE,
        annotations=(source,),
        rows=rows,
        differs=f"{differs}; CLIP's paper reports the mean over classes" if per_class else differs,
    )


_tv = addresses.torchvision
CLASSIFICATION = (
    _classification(
        "imagenet", "ImageNet", "1,000 classes, 80 prompts", "Russakovsky et al. 2015, 1409.0575",
        "research only, after a sign-up", addresses.IMAGENET, 50_000,
        load=zero_shot.load_imagenet, differs="",
    ),
    _classification(
        "food101", "Food-101", "101 dishes", "Bossard et al. 2014",
        "research only", _tv("food101"), 25_250,
    ),
    _classification(
        "cifar10", "CIFAR-10", "10 classes", "Krizhevsky 2009",
        "none given", _tv("cifar10"), 10_000,
    ),
    _classification(
        "cifar100", "CIFAR-100", "100 classes", "Krizhevsky 2009",
        "none given", _tv("cifar100"), 10_000,
    ),
    _classification(
        "cars", "Stanford Cars", "196 makes, models and years", "Krause et al. 2013",
        "research only", addresses.CARS, 8041,
    ),
    _classification(
        "fgvc-aircraft", "FGVC-Aircraft", "100 variants", "Maji et al. 2013, arXiv 1306.5151",
        "research only", _tv("fgvc-aircraft"), 3333,
    ),
    _classification(
        "dtd", "Describable Textures", "47 textures", "Cimpoi et al. 2014, arXiv 1311.3618",
        "research only", _tv("dtd"), 1880,
    ),
    _classification(
        "pets", "Oxford-IIIT Pets", "37 breeds", "Parkhi et al. 2012",
        "CC BY-SA 4.0", _tv("pets"), 3669,
    ),
    _classification(
        "caltech101", "Caltech-101", "102 classes with the background, all images",
        "Li et al. 2004", "CC BY 4.0", _tv("caltech101"), 9144,
    ),
    _classification(
        "flowers", "Oxford Flowers-102", "102 flowers", "Nilsback and Zisserman 2008",
        "none given", _tv("flowers"), 6149,
    ),
    _classification(
        "country211", "Country211", "211 countries", "Radford et al. 2021, arXiv 2103.00020",
        "images under Creative Commons licences", _tv("country211"), 21_100,
    ),
)  # fmt: skip
