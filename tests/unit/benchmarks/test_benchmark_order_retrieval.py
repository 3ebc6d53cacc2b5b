"""Karpathy's splits in miniature: retrieval over them, and ARO's order tests made of them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from clic import evaluation
from clic.captions.tagging import make_tagger
from clic.errors import DataError
from clic.evaluation import evaluation_plan
from clic.evaluation.benchmarks import aro
from clic.evaluation.report.report import notes
from clic.types import Token

Paint = Callable[..., None]
FILES = {
    "coco": ("coco/dataset_coco.json", "coco/val2014", "COCO_val2014_{:012d}.jpg"),
    "flickr30k": ("flickr30k/dataset_flickr30k.json", "flickr30k/flickr30k-images", "{}.jpg"),
}


def write_karpathy(
    root: Path,
    paint: Paint,
    which: str,
    captions: dict[int, list[str]],
    validation: dict[int, list[str]] | None = None,
) -> None:
    """Write the file of splits whose image i is of red i; one more image is of the train split."""
    file, folder, name = FILES[which]
    images = [{"filename": "train.jpg", "split": "train", "sentences": [{"raw": "not this"}]}]
    both = [("test", *item) for item in captions.items()]
    both += [("val", *item) for item in (validation or {}).items()]
    for split, red, own in both:
        sentences = [{"raw": text, "tokens": text.split()} for text in own]
        entry = {"filename": name.format(red), "split": split, "sentences": sentences}
        images.append({**entry, "filepath": "val2014", "imgid": red})
        paint(root / folder / name.format(red), red)
    (root / file).write_text(json.dumps({"images": images, "dataset": which}))


@pytest.mark.parametrize("which", ["coco", "flickr30k"])
def test_retrieval_takes_all_sentences_of_the_test_split(
    tmp_path: Path, angle_model: Any, paint: Paint, which: str
) -> None:
    # Image 10's captions are nearest to it but for one, image 80's only one belongs to it.
    write_karpathy(tmp_path, paint, which, {10: ["a 11", "b 12", "c 70"], 80: ["d 79"]})
    report = evaluation.evaluate(angle_model, [f"{which}-retrieval"], tmp_path)
    numbers = report.benchmarks[f"{which}-retrieval"]
    assert (numbers["n_images"], numbers["n_captions"]) == (2, 4)
    assert numbers["image_to_text@1"] == 100.0
    assert numbers["text_to_image@1"] == 75.0
    assert numbers["text_to_image@5"] == 100.0


@pytest.mark.parametrize("which", ["coco", "flickr30k"])
@pytest.mark.parametrize("ending", ["@val", "@validation", "@VAL"])
def test_the_validation_split_is_a_benchmark_of_its_own(
    tmp_path: Path, angle_model: Any, paint: Paint, which: str, ending: str
) -> None:
    test, validation = {10: ["a 11"], 80: ["d 79"]}, {20: ["a 20"], 50: ["b 50"], 70: ["c 20"]}
    write_karpathy(tmp_path, paint, which, test, validation)
    names = [f"{which}-retrieval{ending}", f"{which}-retrieval", f"{which}-retrieval@test"]
    report = evaluation.evaluate(angle_model, names, tmp_path)
    own, usual = f"{which}-retrieval@val", f"{which}-retrieval"
    assert list(report.benchmarks) == [own, usual]
    assert report.benchmarks[own]["n_images"] == 3
    assert report.benchmarks[own]["text_to_image@1"] == pytest.approx(200 / 3)
    assert report.benchmarks[usual]["n_images"] == 2
    sources = report.provenance["benchmarks"]
    assert [sources[name]["split"] for name in (own, usual)] == ["validation", "test"]
    told = [line for line in notes([report]) if "scored on the" in line]
    assert len(told) == 1 and told[0].startswith(f"{own}: scored on the validation split")


def test_a_file_without_a_validation_split_is_named(tmp_path: Path, paint: Paint) -> None:
    write_karpathy(tmp_path, paint, "coco", {10: ["a 11"]})
    with pytest.raises(DataError, match=r"dataset_coco\.json has no image of the val split"):
        evaluation_plan.prepare("coco-retrieval@val", tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [("[]", "is not a Karpathy split"), ('{"images": []}', "no image of the test split")],
)
def test_a_broken_split_is_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "coco").mkdir()
    (tmp_path / "coco/dataset_coco.json").write_text(content)
    with pytest.raises(DataError, match=message):
        evaluation.BENCHMARKS["coco-retrieval"].load(tmp_path, "test", 0)


class WordOrder:
    """Knows the true captions by heart; images are all the same."""

    def __init__(self, known: Sequence[str]) -> None:
        self.known = {aro.plain(caption) for caption in known}
        self.seen: list[str] = []

    def encode_image(self, images: Sequence[Image.Image]) -> Tensor:
        return torch.tensor([[1.0, 0.0]]).repeat(len(images), 1)

    def encode_text(self, captions: Sequence[str]) -> Tensor:
        self.seen += captions
        rows = [[1.0, 0.0] if caption in self.known else [0.0, 1.0] for caption in captions]
        return torch.tensor(rows)


CAPTIONS = ["A brown dog chases two small cats through the old garden.", "dog dog dog dog"]


@pytest.mark.parametrize("which", ["coco", "flickr30k"])
def test_order_is_right_where_the_caption_beats_all_four_shuffles(
    tmp_path: Path, paint: Paint, which: str
) -> None:
    write_karpathy(tmp_path, paint, which, {1: CAPTIONS})
    model = WordOrder(CAPTIONS)
    report = evaluation.evaluate(model, [f"{which}-order"], tmp_path, keep_rows=True)
    # The second caption's shuffles are the caption itself: a tie, and wrong.
    assert report.benchmarks[f"{which}-order"] == {"five_options": {"accuracy": 50.0, "n": 2}}
    first = report.rows[0]["captions"]
    assert first[0] == "a brown dog chases two small cats through the old garden"
    assert len(first) == 5
    assert all(Counter(option.split()) == Counter(first[0].split()) for option in first)


def test_shuffles_are_the_same_in_every_run(tmp_path: Path, paint: Paint) -> None:
    write_karpathy(tmp_path, paint, "coco", {1: CAPTIONS, 2: CAPTIONS})
    first, second = (aro.COCO_ORDER.load(tmp_path, "test", 0) for _ in range(2))
    assert first.digest() == second.digest()
    # The same caption is shuffled anew at another place.
    texts = [[first.texts[i] for i in row] for row in first.caption]
    assert texts[0][0] == texts[2][0] and texts[0][1:] != texts[2][1:]


def test_shuffles_belong_to_the_version_of_the_benchmark() -> None:
    """Where tags, words or draws change, so do numbers: then the benchmarks' version must too."""
    assert {evaluation.BENCHMARKS[f"{which}-order"].version for which in FILES} == {"1"}
    caption = "A small dog and two white cats sleep on the old couch."
    shuffled = aro.perturbations(make_tagger("hanta")(caption), 7)
    assert [aro.plain(text) for text in shuffled] == [
        "a small couch and two old dog sleep on the white cats",
        "two small dog sleep white cats the and on old couch a",
        "dog small a white and two on sleep cats couch old the",
        "cats sleep on a small dog the old couch and two white",
    ]


def tokens(*words: tuple[str, str]) -> list[Token]:
    return [Token(text, 0, 0, pos, text) for text, pos in words]


def test_what_each_shuffle_moves() -> None:
    sentence = tokens(
        ("the", "DET"), ("red", "ADJ"), ("cat", "NOUN"), ("bites", "VERB"), ("a", "DET"),
        ("big", "ADJ"), ("dog", "NOUN"), ("near", "ADP"), ("Rome", "PROPN"),
    )  # fmt: skip
    words = [token.text for token in sentence]
    seen: list[set[str]] = [set() for _ in range(4)]
    for number in range(40):
        options = [option.split() for option in aro.perturbations(sentence, number)]
        nouns, others, within, threes = options
        for index, option in enumerate(options):
            assert sorted(option) == sorted(words)
            seen[index].add(" ".join(option))
        # Nouns on nouns' places, adjectives on adjectives', all else where it was.
        assert {nouns[i] for i in (2, 6, 8)} == {"cat", "dog", "Rome"}
        assert {nouns[i] for i in (1, 5)} == {"red", "big"}
        assert [nouns[i] for i in (0, 3, 4, 7)] == ["the", "bites", "a", "near"]
        assert [others[i] for i in (1, 2, 5, 6, 8)] == ["red", "cat", "big", "dog", "Rome"]
        assert [sorted(within[i : i + 3]) for i in (0, 3, 6)] == [
            sorted(words[i : i + 3]) for i in (0, 3, 6)
        ]
        assert {tuple(threes[i : i + 3]) for i in (0, 3, 6)} == {
            tuple(words[i : i + 3]) for i in (0, 3, 6)
        }
    assert [len(different) > 5 for different in seen] == [True, True, True, True]


def test_plain_captions() -> None:
    assert aro.plain('  A "big" dog;  two cats!\n') == "a big dog two cats"
    assert aro.plain("It's 3 o'clock, a-ha") == "it's 3 o'clock, a-ha"
    assert len(aro.plain("word " * 40).split()) == 30
