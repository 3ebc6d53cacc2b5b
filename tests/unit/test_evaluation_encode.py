"""Every distinct image and text is encoded once, and what comes back is checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from clic import evaluation
from clic.errors import ModelError
from clic.evaluation import evaluation_plan
from clic.evaluation.encode import encoding
from clic.evaluation.encode.distributed_encoding import EncodingOptions
from clic.evaluation.tables.table import TableFeatures
from clic.evaluation.tables.triplets import Triplets


class Counting:
    """Counts what it encodes; pixels and bytes decide the features."""

    def __init__(self, seed: int = 0) -> None:
        self.texts: Counter[str] = Counter()
        self.images: Counter[bytes] = Counter()
        self.largest = 0
        self.weights = np.random.default_rng(seed).normal(size=(256, 8))

    def encode_image(self, images: Sequence[Image.Image]) -> np.ndarray:
        assert all(image.mode == "RGB" for image in images)
        self.images.update(image.tobytes() for image in images)
        self.largest = max(self.largest, len(images))
        return np.stack([self._feature(image.tobytes()) for image in images])

    def encode_text(self, texts: Sequence[str]) -> np.ndarray:
        self.texts.update(texts)
        self.largest = max(self.largest, len(texts))
        return np.stack([self._feature(text.encode()) for text in texts])

    def _feature(self, data: bytes) -> np.ndarray:
        return np.bincount(np.frombuffer(data, np.uint8), minlength=256) @ self.weights


def table(images: Sequence[Any], texts: Sequence[str], rows: Sequence[Sequence[int]]) -> Triplets:
    """Return a table of one category with rows (image, positive1, positive2, negative)."""
    index = np.array(rows)
    return Triplets(
        images=tuple(images),
        texts=tuple(texts),
        categories=("all",),
        category=np.zeros(len(index), dtype=np.int64),
        image=index[:, 0],
        positive1=index[:, 1],
        positive2=index[:, 2],
        negative=index[:, 3],
    )


def pixels(value: int) -> np.ndarray:
    return np.full((4, 4, 3), value, dtype=np.uint8)


def test_benchmarks_share_their_items() -> None:
    model = Counting()
    evaluation.evaluate(model, ["shapes", "shapes++"], split="validation", batch_size=50)
    assert set(model.texts.values()) == {1}
    assert set(model.images.values()) == {1}
    assert len(model.images) == 3000 + 500 + 1000
    assert model.largest == 50


def test_equal_pixels_are_one_image() -> None:
    tables = [
        table([pixels(1), pixels(2)], ["a"], [[0, 0, 0, 0]]),
        table([pixels(2), pixels(1), pixels(3)], ["a"], [[0, 0, 0, 0]]),
    ]
    union = encoding.unique_images(tables)
    assert len(union.items) == 3
    assert [position.tolist() for position in union.positions] == [[0, 1], [1, 0, 2]]


def test_texts_of_equal_token_ids_share_a_row() -> None:
    def key(text: str) -> list[int]:
        return [ord(letter) for letter in text.lower()] + [0] * (10 - len(text))

    tables = [
        table([pixels(1)], ["A dog", "a cat", "a dog"], [[0, 0, 1, 2]]),
        table([pixels(1)], ["a DOG"], [[0, 0, 0, 0]]),
    ]
    by_string = encoding.unique_texts(tables)
    assert by_string.items == ["A dog", "a cat", "a dog", "a DOG"]
    by_ids = encoding.unique_texts(tables, key)
    assert by_ids.items == ["A dog", "a cat"]
    assert [position.tolist() for position in by_ids.positions] == [[0, 1, 0], [0]]
    assert by_ids.sizes == [5, 5]


@pytest.mark.parametrize("shared", [True, False])
def test_a_negative_of_equal_ids_is_never_beaten(shared: bool) -> None:
    """Equal texts encoded apart can differ in the last bit; as one row they tie, so are wrong."""

    class Noisy(Counting):
        noise = np.random.default_rng(3)

        def _feature(self, data: bytes) -> np.ndarray:
            return super()._feature(data.lower()) + 1e-3 * self.noise.normal(size=8)

    model = Noisy()
    texts = [name for n in range(40) for name in (f"Dog {n}", f"dog {n}")]
    rows = table([pixels(9)], texts, [[0, 2 * n, 2 * n, 2 * n + 1] for n in range(40)])
    union = encoding.unique_texts([rows], (lambda text: text.lower().encode()) if shared else None)
    text = encoding.encode_texts(model, union, EncodingOptions(8)).features
    image = encoding.checked_features(model.encode_image([Image.fromarray(pixels(9))]), 1, "")
    features = TableFeatures(image, text[torch.from_numpy(union.positions[0])])
    right = rows.score(features)["all"]["p1"]
    assert (right == 0.0) if shared else (20 < right < 80)


def test_texts_come_back_in_their_own_order() -> None:
    texts = ["a long caption of many words", "b", "cc c", "another long caption of words"]
    union = encoding.Unique(texts, [], [len(text) for text in texts])
    model = Counting()
    features = encoding.encode_texts(model, union, EncodingOptions(2)).features
    alone = torch.cat([encoding.checked_features(model.encode_text([t]), 1, "") for t in texts])
    torch.testing.assert_close(features, alone)


def test_features_are_normalised_and_unit_rows_kept_bit_for_bit() -> None:
    unit = torch.nn.functional.normalize(torch.randn(5, 7), dim=1)
    assert torch.equal(encoding.checked_features(unit, 5, "x"), unit)
    scaled = encoding.checked_features(unit.double() * 3, 5, "x")
    assert scaled.dtype == torch.float32
    torch.testing.assert_close(scaled, unit)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (torch.ones(3), r"shape \(3,\) for 2 inputs"),
        (torch.ones(3, 4), r"shape \(3, 4\) for 2 inputs"),
        (torch.tensor([[1.0, float("nan")], [1.0, 0.0]]), "NaN or infinite"),
        (torch.tensor([[0.0, 0.0], [1.0, 0.0]]), "norm 0"),
    ],
)
def test_bad_output_is_refused(output: Tensor, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        encoding.checked_features(output, 2, "encode_text")


def test_towers_of_different_widths_are_refused() -> None:
    class Uneven(Counting):
        def encode_text(self, texts: Sequence[str]) -> np.ndarray:
            return super().encode_text(texts)[:, :4]

    with pytest.raises(ModelError, match="8 wide and the text features 4"):
        evaluation.evaluate(Uneven(), ["shapes-retrieval"])


def test_models_with_one_vision_tower_encode_images_once() -> None:
    class Keyed(Counting):
        image_key = "tower"

    ready = evaluation_plan.prepare(["shapes-retrieval"])
    first, second, other = Keyed(), Keyed(), Counting()
    reports = [evaluation.run(model, ready) for model in (first, second)]
    assert sum(first.images.values()) == 500
    assert not second.images
    assert reports[0].benchmarks == reports[1].benchmarks
    evaluation.run(other, ready)
    assert sum(other.images.values()) == 500
