"""Zero-shot classification: ImageNet, and CLIC's ten sets, as torchvision reads them.

Prompts and class names are those published with CLIP (arXiv 2103.00020).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from clic.errors import ConfigError, DataError
from clic.evaluation.benchmarks import class_names
from clic.evaluation.encode.image_sources import ImageSource
from clic.evaluation.tables.classification import Classification, ClassificationTask
from clic.evaluation.tables.table import Interner

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
"""The folder that torchvision gives each set, below the data root."""
PER_CLASS = ("fgvc-aircraft", "pets", "caltech101", "flowers")
"""Sets on which CLIP's paper reports the mean of the classes' accuracies."""


class Labelled(NamedTuple):
    """Images, the class of each, and the classes' names."""

    images: Sequence[ImageSource]
    targets: Sequence[int]
    classes: Sequence[str]


def load_imagenet(data_root: Path) -> Classification:
    """Return ImageNet's validation set with open_clip's class names and CLIP's 80 prompts.

    Raises:
        DataError: There are not 1,000 folders of classes.
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
    """Return the test set of one of the ten sets (of Caltech101, which has none, all images).

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
    """Return a task named `accuracy`: each class is the mean of its prompts.

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
    """Return torchvision's data set, fetched first where asked."""
    from torchvision import datasets

    root = str(data_root)
    if name in ("cifar10", "cifar100"):
        make = datasets.CIFAR10 if name == "cifar10" else datasets.CIFAR100
        return make(root, train=False, download=download)
    if name == "caltech101":
        return datasets.Caltech101(root, download=download)
    makers: dict[str, Any] = {
        "food101": datasets.Food101,
        "cars": datasets.StanfordCars,
        "fgvc-aircraft": datasets.FGVCAircraft,
        "dtd": datasets.DTD,
        "pets": datasets.OxfordIIITPet,
        "flowers": datasets.Flowers102,
        "country211": datasets.Country211,
    }
    return makers[name](root, split="test", download=download)


def _image_folder(folder: Path, names: Sequence[str] | None = None) -> Labelled:
    """Return a folder of folders, one a class in the order of their names."""
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


# torchvision names these attributes for itself; its public face gives decoded images only.


def _files(name: str, data_root: Path, names: Sequence[str] | None = None) -> Labelled:
    found = make_dataset(name, data_root)
    files = found._images if name == "pets" else found._image_files
    return Labelled([Path(file) for file in files], found._labels, names or found.classes)


def _food101(data_root: Path) -> Labelled:
    found = _files("food101", data_root)
    return found._replace(classes=_spaced(found.classes))


def _cars(data_root: Path) -> Labelled:
    found = make_dataset("cars", data_root)
    files = [Path(file) for file, _ in found._samples]
    return Labelled(files, [int(target) for _, target in found._samples], found.classes)


def _cifar(name: str, data_root: Path) -> Labelled:
    found = make_dataset(name, data_root)
    return Labelled(list(found.data), found.targets, _spaced(found.classes))


def _spaced(names: Sequence[str]) -> list[str]:
    return [name.replace("_", " ") for name in names]


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
