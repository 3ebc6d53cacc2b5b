"""Metrics worked by hand; ties and NaN are never right."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from clic import metrics
from clic.metrics import beats, classification, recall, triplet, winoground

NAN = float("nan")
X, Y = [1.0, 0.0], [0.0, 1.0]
D = [0.6, 0.8]


def rows(*vectors: list[float]) -> Tensor:
    return torch.tensor(vectors)


def test_beats_is_strict() -> None:
    score = torch.tensor([1.0, 1.0, 0.0, NAN, 1.0, NAN])
    rival = torch.tensor([0.0, 1.0, 1.0, 0.0, NAN, NAN])
    assert beats(score, rival).tolist() == [True, False, False, False, False, False]


# Triplets


@pytest.mark.parametrize(
    ("image", "positive1", "positive2", "negative", "itt", "tot", "p1"),
    [
        (X, X, X, Y, True, True, True),
        (X, X, D, Y, True, False, True),  # sim(p1, p2) = 0.6 < sim(p2, n) = 0.8
        (X, X, Y, D, False, False, True),  # the second positive loses
        (X, Y, X, D, False, False, False),  # the first positive loses
        (X, X, X, X, False, False, False),  # ties everywhere
        (X, X, D, D, False, False, True),  # the negative is the second positive
        ([NAN, 0.0], X, X, Y, False, True, False),
        (X, X, X, [NAN, 0.0], False, False, False),
        (X, [NAN, 0.0], X, Y, False, False, False),
    ],
)
def test_triplet(
    image: list[float],
    positive1: list[float],
    positive2: list[float],
    negative: list[float],
    itt: bool,
    tot: bool,
    p1: bool,
) -> None:
    captions = rows(positive1), rows(positive2), rows(negative)
    found = triplet(rows(image), *captions)
    assert {n: v.tolist() for n, v in found.items()} == {"itt": [itt], "tot": [tot], "p1": [p1]}
    assert all(v.dtype == torch.bool for v in found.values())
    without = triplet(None, *captions)
    assert {n: v.tolist() for n, v in without.items()} == {"tot": [tot]}


def test_triplet_of_equal_rows_ties_in_every_dtype_and_place() -> None:
    generator = torch.Generator().manual_seed(0)
    image, positive = torch.nn.functional.normalize(
        torch.randn(2, 333, 77, generator=generator), dim=-1
    )
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        i, p = image.to(dtype), positive.to(dtype)
        assert not any(ok.any() for ok in triplet(i, p, p, p.clone()).values())
        # A transposed layout must not change the sums of one operand only.
        strided = p.T.contiguous().T
        assert not any(ok.any() for ok in triplet(i, p, p, strided).values())


# Winoground


@pytest.mark.parametrize(
    ("scores", "text", "image"),
    [
        ([[3, 1], [2, 4]], True, True),
        ([[3, 1], [2, 2]], False, True),  # image 1 ties between its captions
        ([[3, 1], [3, 4]], True, False),  # caption 0 ties between its images
        ([[1, 3], [4, 2]], False, False),
        ([[5, 4], [1, 2]], True, False),  # caption 1 prefers image 0
        ([[5, 1], [4, 2]], False, True),  # image 1 prefers caption 0
        ([[3, NAN], [2, 4]], False, False),
        ([[3, 3], [3, 3]], False, False),
    ],
)
def test_winoground(scores: list[list[float]], text: bool, image: bool) -> None:
    found = winoground(torch.tensor([scores], dtype=torch.float32))
    expected = {"text": [text], "image": [image], "group": [text and image]}
    assert {n: v.tolist() for n, v in found.items()} == expected


# Classification


@pytest.mark.parametrize(
    ("scores", "target", "right"),
    [
        ([1, 3, 2], 1, True),
        ([1, 3, 2], 2, False),
        ([1, 3, 3], 1, False),
        ([1, 3, NAN], 1, False),
        ([1, NAN, 2], 1, False),
        ([NAN, NAN, NAN], 0, False),
        ([NAN], 0, False),
        ([1], 0, True),
        ([0, 0], 0, False),
    ],
)
def test_classification(scores: list[float], target: int, right: bool) -> None:
    found = classification(torch.tensor([scores], dtype=torch.float32), torch.tensor([target]))
    assert found.tolist() == [right]


# Retrieval

# Captions 0 and 1 are of image 0, caption 2 of image 1, caption 3 of image 2.
OWNER = torch.tensor([0, 0, 1, 2])
SCORES = torch.tensor(
    [
        [0.9, 0.1, 0.5, 0.2],  # best match first
        [0.8, 0.3, 0.6, 0.7],  # two rivals higher
        [0.1, 0.2, 0.4, 0.4],  # a tie with one rival
    ]
)


def test_recall() -> None:
    # Columns: 0.9 first; 0.1 third; 0.6 first; 0.4 second.
    found = recall(SCORES, OWNER, ks=(1, 2, 3))
    third = 100 / 3
    assert found == pytest.approx(
        {
            "image_to_text@1": third,
            "image_to_text@2": 2 * third,
            "image_to_text@3": 100.0,
            "text_to_image@1": 50.0,
            "text_to_image@2": 75.0,
            "text_to_image@3": 100.0,
        }
    )
    assert all(isinstance(value, float) for value in found.values())
    assert list(recall(SCORES, OWNER)) == [
        f"{way}@{k}" for way in ("image_to_text", "text_to_image") for k in (1, 5, 10)
    ]


def test_recall_does_not_depend_on_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 6, (37, 91), generator=generator).float()
    owner = torch.randint(0, 37, (91,), generator=generator)
    expected = recall(scores, owner)
    for block in (1, 91, 200, 91 * 36):
        monkeypatch.setattr(metrics, "BLOCK", block)
        assert recall(scores, owner) == expected


def test_ranks_never_ask_for_more_than_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "BLOCK", 40)
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(23, 9, generator=generator).round(decimals=1)
    owner = torch.randint(23, (9,), generator=generator)
    asked: list[tuple[int, int]] = []

    def block(start: int, stop: int) -> torch.Tensor:
        asked.append((start, stop))
        return scores[start:stop]

    found = metrics.ranks(block, 23, owner)
    assert len(asked) == 12  # each block twice, and blocks of nearly equal height
    assert {stop - start for start, stop in asked} == {3, 4}
    for image in range(23):
        mine = owner == image
        rivals = int((scores[image][~mine] >= scores[image][mine].max()).sum()) if any(mine) else -1
        assert found["image_to_text"][image] == (rivals + 1 if rivals >= 0 else metrics.NEVER)
    for caption in range(9):
        rank = int((scores[:, caption] >= scores[owner[caption], caption]).sum())
        assert found["text_to_image"][caption] == rank


def test_recall_of_one_value_everywhere_is_zero_until_all_rivals_fit() -> None:
    found = recall(torch.zeros(3, 6), torch.tensor([0, 0, 1, 1, 2, 2]), ks=(1, 2, 3, 4, 5))
    # Four rivals for an image, two for a caption.
    assert [found[f"image_to_text@{k}"] for k in range(1, 6)] == [0, 0, 0, 0, 100]
    assert [found[f"text_to_image@{k}"] for k in range(1, 6)] == [0, 0, 100, 100, 100]


def test_recall_counts_nan_as_wrong() -> None:
    every = recall(torch.full((3, 4), NAN), OWNER, ks=(1, 100))
    assert set(every.values()) == {0.0}
    match = SCORES.clone()
    match[0, 0] = NAN  # a match of image 0, and caption 0's own score: both are never right
    found = recall(match, OWNER, ks=(100,))
    assert found["image_to_text@100"] == pytest.approx(200 / 3)
    assert found["text_to_image@100"] == 75.0
    rival = SCORES.clone()
    rival[0, 3] = NAN  # counts as higher than image 0's match, and than caption 3's
    found = recall(rival, OWNER, ks=(1, 2, 3))
    assert found["image_to_text@1"] == 0.0
    assert found["image_to_text@2"] == pytest.approx(200 / 3)
    assert found["text_to_image@2"] == 50.0


def test_recall_of_an_image_without_captions_is_wrong() -> None:
    found = recall(torch.tensor([[1.0], [0.0]]), torch.tensor([0]), ks=(1, 5))
    assert found["image_to_text@1"] == found["image_to_text@5"] == 50.0
    assert found["text_to_image@1"] == 100.0


@pytest.mark.parametrize("dtype", [torch.int64, torch.float16, torch.float64])
def test_recall_takes_any_dtype_and_a_list(dtype: torch.dtype) -> None:
    scores = (10 * SCORES).to(dtype)
    assert recall(scores, OWNER.tolist(), ks=(1, 2)) == recall(scores.float(), OWNER, ks=(1, 2))


def test_recall_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        recall(SCORES, OWNER[:3])
    with pytest.raises(ValueError, match="nothing to rank"):
        recall(torch.zeros(0, 0), torch.zeros(0))
    for outside in (3, -1):
        with pytest.raises(ValueError, match=r"outside 0\.\.2"):
            recall(SCORES, torch.tensor([0, 0, 1, outside]))
    for ks in ((), (0,), (1, -5)):
        with pytest.raises(ValueError, match="at least 1"):
            recall(SCORES, OWNER, ks=ks)


@pytest.mark.gpu
def test_recall_on_cuda_is_the_same() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 9, (50, 120), generator=generator).float()
    scores[3, 4] = NAN
    owner = torch.randint(0, 50, (120,), generator=generator)
    assert recall(scores.cuda(), owner) == recall(scores, owner)
