"""Tables and features to numbers, against the golden cases and by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from clic.errors import DataError
from clic.evaluation.tables.classification import Classification, ClassificationTask
from clic.evaluation.tables.retrieval import Retrieval
from clic.evaluation.tables.table import TableFeatures
from clic.evaluation.tables.triplets import Triplets

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
CATEGORIES = ("replace_att", "replace_obj", "replace_rel", "swap_att", "swap_obj")


def blank(count: int) -> tuple[np.ndarray, ...]:
    return tuple(np.full((1, 1, 3), i % 256, dtype=np.uint8) for i in range(count))


def names(count: int) -> tuple[str, ...]:
    return tuple(f"text {i}" for i in range(count))


def test_triplets_match_the_golden_counts() -> None:
    arrays = np.load(GOLDEN / "eval_cases.npz")
    expected = json.loads((GOLDEN / "eval_cases.json").read_text())["sugarcrepe++"]
    (image, index, positive1, positive2, negative, category) = (
        arrays[f"pp_{name}"] for name in golden_names(arrays)
    )
    count = len(index)
    table = Triplets(
        images=blank(len(image)),
        texts=names(3 * count),
        categories=CATEGORIES,
        category=category.astype(np.int64),
        image=index.astype(np.int64),
        positive1=np.arange(count),
        positive2=np.arange(count) + count,
        negative=np.arange(count) + 2 * count,
        groups={"mean": CATEGORIES},
    )
    text = torch.from_numpy(np.concatenate([positive1, positive2, negative]))
    numbers = table.score(TableFeatures(torch.from_numpy(image), text))
    for name, counts in expected.items():
        for metric in ("itt", "tot"):
            assert numbers[name][metric] == 100 * counts[metric] / counts["n"]
    rows = list(table.outcomes(TableFeatures(torch.from_numpy(image), text)))
    assert sum(row["itt"] for row in rows) == sum(counts["itt"] for counts in expected.values())


def golden_names(arrays: np.lib.npyio.NpzFile) -> tuple[str, ...]:
    """Return the names of the golden triplet arrays in the order they are unpacked in."""
    present = {name.removeprefix("pp_") for name in arrays.files if name.startswith("pp_")}
    order = ("image", "image_index", "positive1", "positive2", "negative", "category")
    assert present == set(order)
    return order


def test_a_row_may_have_fewer_false_captions_than_another() -> None:
    """What is missing (-1) costs nothing; of two false captions, both have to be beaten."""
    table = Triplets(
        images=("a", "b"),
        texts=("first", "second", "far", "near"),
        categories=("all",),
        category=np.zeros(2, dtype=np.int64),
        image=np.array([0, 1]),
        positive1=np.array([0, 0]),
        positive2=np.array([1, 1]),
        negative=np.array([[2, -1], [2, 3]]),
    )
    angles = torch.tensor([0.0, 0.1, 2.0, 0.05])
    text = torch.stack([angles.cos(), angles.sin()], dim=-1)
    right = table.right(TableFeatures(text[[0, 0]], text))
    assert {name: outcome.tolist() for name, outcome in right.items()} == {
        "itt": [True, False],
        "tot": [True, False],
        "p1": [True, True],
    }


def test_retrieval_matches_the_golden_ties() -> None:
    arrays = np.load(GOLDEN / "eval_cases.npz")
    expected = json.loads((GOLDEN / "eval_cases.json").read_text())["retrieval_ties"]
    scores = torch.from_numpy(arrays["ties_scores"]).float()
    images, captions = scores.shape
    # Any score matrix is the product of itself and the identity.
    table = Retrieval(
        images=blank(images),
        texts=names(captions),
        gallery=np.arange(images),
        caption=np.arange(captions),
        owner=arrays["ties_owner"].astype(np.int64),
    )
    features = TableFeatures(scores, torch.eye(captions))
    numbers = table.score(features)
    assert {key: numbers[key] for key in expected} == pytest.approx(expected)
    rows = list(table.outcomes(features))
    for way in ("image_to_text", "text_to_image"):
        ranks = np.array([row["rank"] for row in rows if row["direction"] == way])
        for k in (1, 5, 10):
            assert 100 * (ranks <= k).mean() == pytest.approx(expected[f"{way}@{k}"])


def zero_shot(image: list[int], target: list[int]) -> Classification:
    task = ClassificationTask(
        image=np.array(image, dtype=np.int64),
        target=np.array(target, dtype=np.int64),
        classes=("x", "y"),
        prompts=(np.array([0, 1]), np.array([2])),
    )
    return Classification(images=blank(3), texts=names(3), tasks={"axis": task})


def test_a_class_is_the_mean_of_its_prompts() -> None:
    half = 0.5**0.5
    # Class x has prompts (1, 0) and (0, 1), whose mean is the diagonal; class y is (1, 0).
    text = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    image = torch.tensor([[half, half], [1.0, 0.0], [0.0, 1.0]])
    features = TableFeatures(image, text)
    numbers = zero_shot([0, 1, 2], [0, 1, 0]).score(features)
    assert numbers == {"axis": 100.0, "n_images": 3}
    numbers = zero_shot([0, 1, 2], [1, 1, 1]).score(features)
    assert numbers == {"axis": 100 / 3, "n_images": 3}


def test_tied_classes_are_wrong() -> None:
    text = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    features = TableFeatures(torch.eye(3)[:, :2], text)
    assert zero_shot([0], [0]).score(features)["axis"] == 0.0


def test_nothing_left_to_score_is_an_error() -> None:
    table = zero_shot([0, 1], [0, 1])
    gone = table.without(np.ones(3, dtype=bool))
    features = TableFeatures(torch.eye(3), torch.eye(3))
    with pytest.raises(DataError, match="task 'axis' has no images left"):
        gone.score(features)
    with pytest.raises(DataError, match="category 'b' has no rows left"):
        triplet_table(categories=("a", "b")).score(features)


def triplet_table(categories: tuple[str, ...] = ("a",), negative: int = 2) -> Triplets:
    zero = np.zeros(1, dtype=np.int64)
    return Triplets(
        images=blank(1),
        texts=names(3),
        categories=categories,
        category=zero,
        image=zero,
        positive1=zero,
        positive2=zero + 1,
        negative=zero + negative,
    )


def test_digest_sees_every_part() -> None:
    table = triplet_table()
    same, other = triplet_table(), triplet_table(negative=1)
    assert table.digest() == same.digest() != other.digest()
