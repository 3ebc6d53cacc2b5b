"""Zero-shot classification: ImageNet, and the ten data sets of CLIC, as torchvision reads them.

Prompts and class names are those published with CLIP (arXiv 2103.00020).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import starmap
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from clic.errors import ConfigError, DataError
from clic.evaluation.benchmarks import class_names
from clic.evaluation.benchmarks.benchmark import Benchmark, of_files
from clic.evaluation.encode.image_sources import ImageSource
from clic.evaluation.files.file_sources import ByHand, Source, Torchvision
from clic.evaluation.tables.classification import Classification, ClassificationTask
from clic.evaluation.tables.table import BenchmarkTable, Interner

IMAGENET = "imagenet/val"
IMAGENET_CLASSES = 1000
FOLDERS = {
    "food101": "food-101",
    "cifar10": "cifar-10-batches-py",
    "cifar100": "cifar-100-python",
    "cars": "stanford_cars",
    "fgvc-aircraft": "fgvc-aircraft-2013b",
    "dtd": "dtd",
    "pets": "oxford-iiit-pet",
    "caltech101": "caltech101/101_ObjectCategories",
    "flowers": "flowers-102",
    "country211": "country211",
}
"""The folder below the data root in which torchvision puts each data set."""
PER_CLASS = ("fgvc-aircraft", "pets", "caltech101", "flowers")
"""Data sets on which CLIP's paper reports the mean of per-class accuracies."""


class Labelled(NamedTuple):
    """Images, the class of each, and the classes' names."""

    images: Sequence[ImageSource]
    targets: Sequence[int]
    classes: Sequence[str]


def load_imagenet(data_root: Path) -> Classification:
    """Return ImageNet's validation set with open_clip's class names and CLIP's 80 prompts.

    Raises:
        DataError: There are not 1,000 class folders.
    """
    import open_clip

    folder = data_root / IMAGENET
    found = _image_folder(folder)
    if len(found.classes) != IMAGENET_CLASSES:
        raise DataError(
            f"{folder} has {len(found.classes)} folders where {IMAGENET_CLASSES}, one a class "
            "(n01440764, ...), were expected; sort the validation images into them"
        )
    templates = [template("{}") for template in open_clip.OPENAI_IMAGENET_TEMPLATES]
    named = found._replace(classes=open_clip.IMAGENET_CLASSNAMES)
    return classify(named, templates, per_class=False)


def load_torchvision(name: str, data_root: Path) -> Classification:
    """Return the test set of one of the ten data sets, or all of Caltech101, which has none.

    Raises:
        ConfigError: A package that torchvision needs for it is not installed.
        DataError: Its files are broken.
    """
    folder = data_root / FOLDERS[name]
    try:
        found = READERS[name](data_root)
    except (ImportError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        if "scipy" in reason.lower():
            raise ConfigError(
                f"{name}: its labels need scipy; install it with: pip install scipy"
            ) from error
        raise DataError(f"{folder} cannot be read ({reason}); fetch it again") from error
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise DataError(f"{folder} cannot be read ({error!r}); fetch it again") from error
    return classify(found, class_names.TEMPLATES[name], per_class=name in PER_CLASS)


def classify(found: Labelled, templates: Sequence[str], per_class: bool) -> Classification:
    """Return a task named `accuracy`, in which the mean of its prompts represents each class.

    Raises:
        DataError: There is no image.
    """
    if not len(found.images):
        raise DataError("no image of the test set is there; fetch it again")
    texts = Interner()
    prompts = tuple(
        texts.add_all(template.replace("{}", name) for template in templates)
        for name in found.classes
    )
    task = ClassificationTask(
        image=np.arange(len(found.images)),
        target=np.array(found.targets, dtype=np.int64),
        classes=tuple(found.classes),
        prompts=prompts,
    )
    return Classification(
        images=tuple(found.images),
        texts=tuple(texts.items),
        tasks={"accuracy": task},
        per_class=per_class,
    )


def make_dataset(name: str, data_root: Path, download: bool = False) -> Any:
    """Return torchvision's data set, downloading it first if `download` is set."""
    from torchvision import datasets

    makers: dict[str, Callable[..., Any]] = {
        "food101": partial(datasets.Food101, split="test"),
        "cifar10": partial(datasets.CIFAR10, train=False),
        "cifar100": partial(datasets.CIFAR100, train=False),
        "cars": partial(datasets.StanfordCars, split="test"),
        "fgvc-aircraft": partial(datasets.FGVCAircraft, split="test"),
        "dtd": partial(datasets.DTD, split="test"),
        "pets": partial(datasets.OxfordIIITPet, split="test"),
        "caltech101": datasets.Caltech101,
        "flowers": partial(datasets.Flowers102, split="test"),
        "country211": partial(datasets.Country211, split="test"),
    }
    return makers[name](str(data_root), download=download)


def _image_folder(folder: Path, names: Sequence[str] | None = None) -> Labelled:
    """Return the images of a folder with one subfolder per class, classes in name order."""
    from torchvision import datasets

    if not any(entry.is_dir() for entry in folder.iterdir()):
        raise DataError(f"{folder} has no folders of classes; unpack the images into them")
    found = datasets.ImageFolder(str(folder), allow_empty=True)
    if names is not None and len(names) != len(found.classes):
        raise DataError(
            f"{folder} has {len(found.classes)} classes where {len(names)} were expected; "
            "fetch it again"
        )
    files = [Path(file) for file, _ in found.samples]
    return Labelled(files, [target for _, target in found.samples], names or found.classes)


# The attributes read below are private: torchvision's public interface only returns decoded images.


def _files(name: str, data_root: Path, names: Sequence[str] | None = None) -> Labelled:
    found = make_dataset(name, data_root)
    files = found._images if name == "pets" else found._image_files
    return Labelled([Path(file) for file in files], found._labels, names or found.classes)


def _food101(data_root: Path) -> Labelled:
    found = _files("food101", data_root)
    return found._replace(classes=[name.replace("_", " ") for name in found.classes])


def _cars(data_root: Path) -> Labelled:
    found = make_dataset("cars", data_root)
    files = [Path(file) for file, _ in found._samples]
    return Labelled(files, [int(target) for _, target in found._samples], found.classes)


def _cifar(name: str, data_root: Path) -> Labelled:
    found = make_dataset(name, data_root)
    names = [name.replace("_", " ") for name in found.classes]
    return Labelled(list(found.data), found.targets, names)


READERS: dict[str, Callable[[Path], Labelled]] = {
    "food101": _food101,
    "cifar10": lambda root: _cifar("cifar10", root),
    "cifar100": lambda root: _cifar("cifar100", root),
    "cars": _cars,
    "fgvc-aircraft": lambda root: _files("fgvc-aircraft", root),
    "dtd": lambda root: _files("dtd", root),
    "pets": lambda root: _files("pets", root),
    "caltech101": lambda root: _image_folder(root / FOLDERS["caltech101"], class_names.CALTECH101),
    "flowers": lambda root: _files("flowers", root, class_names.FLOWERS102),
    "country211": lambda root: _image_folder(
        root / FOLDERS["country211"] / "test", class_names.COUNTRY211
    ),
}


_IMAGENET_FILES = ByHand(
    IMAGENET,
    why="ImageNet needs a sign-up",
    steps="sign up at https://image-net.org/download-images and sort ILSVRC2012_img_val.tar "
    "into {data}/imagenet/val/<wnid>/*.JPEG (1,000 folders)",
)

_CARS_FILES = ByHand(
    FOLDERS["cars"],
    why="the set's own address is gone",
    steps="put devkit/, cars_test/ and cars_test_annos_withlabels.mat from a copy of Stanford "
    "Cars into {data}/stanford_cars (https://github.com/pytorch/vision/issues/7545)",
)


def _tv(name: str) -> Torchvision:
    """Return torchvision's own download of one of the ten sets."""

    def fetch(data_root: Path) -> object:
        return make_dataset(name, data_root, download=True)

    return Torchvision(FOLDERS[name], fetch)


RULE = "the class whose mean prompt is nearest"
_CLIC_SAMPLE = "CLIC's code scores 1,000 images drawn at random; here it is the whole test set"


def _classification(
    name: str,
    title: str,
    about: str,
    citation: str,
    licence: str,
    rows: int,
    source: Source | None = None,
    load: Callable[[Path], BenchmarkTable] | None = None,
    differs: str = _CLIC_SAMPLE,
) -> Benchmark:
    """Return a classification benchmark, by default one that torchvision downloads and reads."""
    per_class = name in PER_CLASS
    return Benchmark(
        name=name,
        title=title,
        about=about,
        load=of_files(load or partial(load_torchvision, name)),
        citation=citation,
        licence=licence,
        rule=f"{RULE}; the mean over classes too" if per_class else RULE,
        annotations=(source or _tv(name),),
        rows=rows,
        differs=f"{differs}; CLIP's paper reports the mean over classes" if per_class else differs,
    )


CLASSIFICATION = (
    _classification(
        "imagenet", "ImageNet", "1,000 classes, 80 prompts", "Russakovsky et al. 2015, 1409.0575",
        "research only, after a sign-up", 50_000, _IMAGENET_FILES, load=load_imagenet, differs="",
    ),
    *starmap(_classification, (
        ("food101", "Food-101", "101 dishes", "Bossard et al. 2014", "research only", 25_250),
        ("cifar10", "CIFAR-10", "10 classes", "Krizhevsky 2009", "none given", 10_000),
        ("cifar100", "CIFAR-100", "100 classes", "Krizhevsky 2009", "none given", 10_000),
        ("cars", "Stanford Cars", "196 makes, models and years", "Krause et al. 2013",
         "research only", 8041, _CARS_FILES),
        ("fgvc-aircraft", "FGVC-Aircraft", "100 variants", "Maji et al. 2013, arXiv 1306.5151",
         "research only", 3333),
        ("dtd", "Describable Textures", "47 textures", "Cimpoi et al. 2014, arXiv 1311.3618",
         "research only", 1880),
        ("pets", "Oxford-IIIT Pets", "37 breeds", "Parkhi et al. 2012", "CC BY-SA 4.0", 3669),
        ("caltech101", "Caltech-101", "102 classes with the background, all images",
         "Li et al. 2004", "CC BY 4.0", 9144),
        ("flowers", "Oxford Flowers-102", "102 flowers", "Nilsback and Zisserman 2008",
         "none given", 6149),
        ("country211", "Country211", "211 countries", "Radford et al. 2021, arXiv 2103.00020",
         "images under Creative Commons licences", 21_100),
    )),
)  # fmt: skip
