"""ImageNet and the ten sets: torchvision's folders in miniature, with hand-worked accuracies."""

from __future__ import annotations

import builtins
import json
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torchvision.datasets as tv

from clic import evaluation
from clic.errors import ConfigError, DataError
from clic.evaluation.benchmarks import class_names, zero_shot
from clic.evaluation.files.file_sources import Torchvision

Paint = Callable[..., None]
Model = Callable[[Sequence[str]], Any]


def accuracy(model: Any, name: str, root: Path) -> dict[str, Any]:
    return evaluation.evaluate(model, [name], root).benchmarks[name]


def test_every_class_has_a_name_and_every_set_its_prompts() -> None:
    assert len(class_names.CALTECH101) == 102 and class_names.CALTECH101[1] == "off-center face"
    assert len(class_names.COUNTRY211) == 211 and "Bonaire, Saint Eustatius and Saba" in (
        class_names.COUNTRY211
    )
    assert len(set(class_names.FLOWERS102)) == 102
    lengths = {name: len(set(prompts)) for name, prompts in class_names.TEMPLATES.items()}
    assert lengths == {
        "food101": 1, "cifar10": 18, "cifar100": 18, "cars": 8, "fgvc-aircraft": 2, "dtd": 8,
        "pets": 1, "caltech101": 34, "flowers": 1, "country211": 5,
    }  # fmt: skip
    assert all(p.count("{}") == 1 for prompts in class_names.TEMPLATES.values() for p in prompts)
    assert "the plushie {}." in class_names.TEMPLATES["caltech101"]
    assert "a low contrast photo of the {}." in class_names.TEMPLATES["cifar10"]
    assert "a photo of the {} thing." in class_names.TEMPLATES["dtd"]


@pytest.fixture
def imagenet(tmp_path: Path, paint: Paint, monkeypatch: pytest.MonkeyPatch) -> Path:
    templates = [lambda c: f"a bad photo of a {c}.", lambda c: f"itap of my {c}."]
    monkeypatch.setattr(open_clip, "OPENAI_IMAGENET_TEMPLATES", templates)
    for number in range(1000):
        (tmp_path / f"imagenet/val/n{number:08d}").mkdir(parents=True)
    for wnid, name, red in ((0, "1", 0), (0, "2", 1), (1, "3", 1), (2, "4", 2)):
        paint(tmp_path / f"imagenet/val/n{wnid:08d}/ILSVRC2012_val_{name}.JPEG", red)
    return tmp_path


def test_imagenet(imagenet: Path, axis_model: Model) -> None:
    model = axis_model(open_clip.IMAGENET_CLASSNAMES)
    assert accuracy(model, "imagenet", imagenet) == {"accuracy": 75.0, "n_images": 4}
    assert "itap of my tench." in model.prompts
    assert (
        len(model.prompts) == len(set(model.prompts)) == 2 * len(set(open_clip.IMAGENET_CLASSNAMES))
    )


def test_imagenet_needs_all_its_folders(imagenet: Path, axis_model: Model) -> None:
    (imagenet / "imagenet/val/n00000999").rmdir()
    with pytest.raises(DataError, match="999 folders where 1000"):
        accuracy(axis_model(["a"]), "imagenet", imagenet)


def test_food101(tmp_path: Path, axis_model: Model, paint: Paint) -> None:
    folder = tmp_path / "food-101"
    (folder / "meta").mkdir(parents=True)
    names = {"hot_dog": ["hot_dog/1", "hot_dog/2"], "baklava": ["baklava/3"]}
    (folder / "meta/test.json").write_text(json.dumps(names))
    for file, red in (("hot_dog/1", 1), ("hot_dog/2", 0), ("baklava/3", 0)):
        paint(folder / f"images/{file}.jpg", red)
    model = axis_model(["baklava", "hot dog"])
    assert accuracy(model, "food101", tmp_path)["accuracy"] == pytest.approx(200 / 3)
    assert set(model.prompts) == {
        "a photo of baklava, a type of food.", "a photo of hot dog, a type of food.",
    }  # fmt: skip


@pytest.mark.parametrize(("name", "key"), [("cifar10", "labels"), ("cifar100", "fine_labels")])
def test_cifar(
    tmp_path: Path, axis_model: Model, monkeypatch: pytest.MonkeyPatch, name: str, key: str
) -> None:
    made = tv.CIFAR10 if name == "cifar10" else tv.CIFAR100
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    folder = tmp_path / zero_shot.FOLDERS[name]
    folder.mkdir()
    pixels = np.zeros((3, 3072), dtype=np.uint8)
    pixels[1, :1024], pixels[2, :1024] = 1, 0  # red comes first
    (folder / made.test_list[0][0]).write_bytes(pickle.dumps({"data": pixels, key: [0, 1, 1]}))
    meta = {made.meta["key"]: ["apple", "aquarium_fish"]}
    (folder / made.meta["filename"]).write_bytes(pickle.dumps(meta))
    numbers = accuracy(axis_model(["apple", "aquarium fish"]), name, tmp_path)
    assert numbers == {"accuracy": pytest.approx(200 / 3), "n_images": 3}


def test_aircraft_has_the_mean_over_classes_too(
    tmp_path: Path, axis_model: Model, paint: Paint
) -> None:
    data = tmp_path / "fgvc-aircraft-2013b/data"
    data.mkdir(parents=True)
    (data / "variants.txt").write_text("707-320\nF-16A/B\n")
    (data / "images_variant_test.txt").write_text(
        "0000001 707-320\n0000002 707-320\n0000003 707-320\n0000004 F-16A/B\n"
    )
    for number, red in enumerate((0, 0, 1, 1), start=1):
        paint(data / f"images/{number:07d}.jpg", red)
    numbers = accuracy(axis_model(["707-320", "F-16A/B"]), "fgvc-aircraft", tmp_path)
    # Two of three, and one of one: the mean over the classes is higher than that over images.
    assert numbers == {"accuracy": 75.0, "mean_per_class": pytest.approx(250 / 3), "n_images": 4}


def test_dtd(tmp_path: Path, axis_model: Model, paint: Paint) -> None:
    labels = tmp_path / "dtd/dtd/labels"
    labels.mkdir(parents=True)
    (labels / "test1.txt").write_text("banded/banded_1.jpg\nwoven/woven_1.jpg\n")
    paint(tmp_path / "dtd/dtd/images/banded/banded_1.jpg", 1)
    paint(tmp_path / "dtd/dtd/images/woven/woven_1.jpg", 1)
    numbers = accuracy(axis_model(["banded", "woven"]), "dtd", tmp_path)
    assert numbers == {"accuracy": 50.0, "n_images": 2}


def test_pets(tmp_path: Path, axis_model: Model, paint: Paint) -> None:
    folder = tmp_path / "oxford-iiit-pet"
    (folder / "annotations").mkdir(parents=True)
    (folder / "annotations/test.txt").write_text(
        "Abyssinian_201 1 1 1\namerican_bulldog_203 2 2 1\namerican_bulldog_204 2 2 1\n"
    )
    for file, red in (
        ("Abyssinian_201", 0),
        ("american_bulldog_203", 1),
        ("american_bulldog_204", 0),
    ):
        paint(folder / f"images/{file}.jpg", red)
    numbers = accuracy(axis_model(["Abyssinian", "American Bulldog"]), "pets", tmp_path)
    assert numbers["accuracy"] == pytest.approx(200 / 3)
    assert numbers["mean_per_class"] == 75.0


def test_caltech101_keeps_the_background(tmp_path: Path, axis_model: Model, paint: Paint) -> None:
    folder = tmp_path / "caltech101/101_ObjectCategories"
    names = ["BACKGROUND_Google", "Faces", *(f"a{number:03d}" for number in range(100))]
    for name in names:
        (folder / name).mkdir(parents=True)
    for name, red in (("BACKGROUND_Google", 0), ("Faces", 1), ("Faces", 0)):
        count = len(list((folder / name).iterdir())) + 1
        paint(folder / f"{name}/image_{count:04d}.jpg", red)
    model = axis_model(class_names.CALTECH101)
    numbers = accuracy(model, "caltech101", tmp_path)
    assert (numbers["mean_per_class"], numbers["n_images"]) == (75.0, 3)
    assert "a origami off-center face." in model.prompts
    (folder / "Faces" / "image_0001.jpg").unlink()
    (folder / "a000").rmdir()
    with pytest.raises(DataError, match="101 classes where 102"):
        accuracy(model, "caltech101", tmp_path)


def test_country211(tmp_path: Path, axis_model: Model, paint: Paint) -> None:
    folder = tmp_path / "country211/test"
    for number in range(211):
        (folder / f"{number:03d}").mkdir(parents=True)
    paint(folder / "000/1.jpg", 0)
    paint(folder / "210/2.jpg", 0)
    model = axis_model(class_names.COUNTRY211)
    assert accuracy(model, "country211", tmp_path) == {"accuracy": 50.0, "n_images": 2}
    assert "a photo i took while visiting Zimbabwe." in model.prompts


def test_flowers(
    tmp_path: Path, axis_model: Model, paint: Paint, monkeypatch: pytest.MonkeyPatch
) -> None:
    scipy = pytest.importorskip("scipy.io")
    monkeypatch.setattr("torchvision.datasets.flowers102.check_integrity", lambda *_: True)
    folder = tmp_path / "flowers-102"
    for number, red in ((1, 0), (2, 101)):
        paint(folder / f"jpg/image_{number:05d}.jpg", red)
    scipy.savemat(folder / "setid.mat", {"tstid": [1, 2], "trnid": [3], "valid": [4]})
    scipy.savemat(folder / "imagelabels.mat", {"labels": [1, 102, 1, 1]})
    model = axis_model(class_names.FLOWERS102)
    numbers = accuracy(model, "flowers", tmp_path)
    assert numbers == {"accuracy": 100.0, "mean_per_class": 100.0, "n_images": 2}
    assert "a photo of a blackberry lily, a type of flower." in model.prompts


def test_cars(tmp_path: Path, axis_model: Model, paint: Paint) -> None:
    scipy = pytest.importorskip("scipy.io")
    folder = tmp_path / "stanford_cars"
    (folder / "devkit").mkdir(parents=True)
    names = np.array(["Audi TT", "BMW M3", "Fiat 500"], dtype=object)
    scipy.savemat(folder / "devkit/cars_meta.mat", {"class_names": names})
    rows = np.array([("1.jpg", 1), ("2.jpg", 3)], dtype=[("fname", object), ("class", object)])
    scipy.savemat(folder / "cars_test_annos_withlabels.mat", {"annotations": rows})
    paint(folder / "cars_test/1.jpg", 0)
    paint(folder / "cars_test/2.jpg", 1)
    model = axis_model(list(names))
    assert accuracy(model, "cars", tmp_path) == {"accuracy": 50.0, "n_images": 2}
    assert "i love my Fiat 500!" in model.prompts


def test_without_scipy_the_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stanford_cars").mkdir()
    real = builtins.__import__

    def without(name: str, *rest: Any, **named: Any) -> Any:
        if name.startswith("scipy"):
            raise ImportError(f"No module named {name!r}")
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"scipy; install it with: pip install scipy"):
        zero_shot.load_torchvision("cars", tmp_path)


def test_a_broken_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "food-101/meta").mkdir(parents=True)
    (tmp_path / "food-101/images").mkdir()
    with pytest.raises(DataError, match=r"food-101 cannot be read .*fetch it again"):
        zero_shot.load_torchvision("food101", tmp_path)


def test_the_ten_sets_are_what_the_registry_fetches_by_torchvision() -> None:
    for name, folder in zero_shot.FOLDERS.items():
        (source,) = evaluation.BENCHMARKS[name].annotations
        assert source.gives == folder
        assert isinstance(source, Torchvision) == (name != "cars")
