"""Metrics against plain loops over the definitions, on scores full of ties and NaN."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clic.metrics import classification, recall, triplet, winoground

few_values = st.sampled_from([-1.0, 0.0, 0.25, 0.5, 1.0, math.nan])
quick = settings(max_examples=60, deadline=None)


@st.composite
def galleries(draw: st.DrawFn) -> tuple[list[list[float]], list[int]]:
    images, captions = draw(st.integers(1, 5)), draw(st.integers(1, 8))
    rows = st.lists(few_values, min_size=captions, max_size=captions)
    scores = draw(st.lists(rows, min_size=images, max_size=images))
    owners = st.lists(st.integers(0, images - 1), min_size=captions, max_size=captions)
    return scores, draw(owners)


def in_top(k: int, matches: list[float], others: list[float]) -> bool:
    if not matches or any(math.isnan(match) for match in matches):
        return False
    best = max(matches)
    return sum(not best > other for other in others) < k


@quick
@given(gallery=galleries(), k=st.integers(1, 9))
def test_recall_by_its_definition(gallery: tuple[list[list[float]], list[int]], k: int) -> None:
    scores, owner = gallery
    images = [
        in_top(
            k,
            [s for s, o in zip(row, owner, strict=True) if o == image],
            [s for s, o in zip(row, owner, strict=True) if o != image],
        )
        for image, row in enumerate(scores)
    ]
    captions = [
        in_top(
            k,
            [scores[mine][caption]],
            [row[caption] for image, row in enumerate(scores) if image != mine],
        )
        for caption, mine in enumerate(owner)
    ]
    found = recall(torch.tensor(scores), torch.tensor(owner), ks=(k,))
    assert found == pytest.approx(
        {
            f"image_to_text@{k}": 100 * sum(images) / len(images),
            f"text_to_image@{k}": 100 * sum(captions) / len(captions),
        }
    )


@quick
@given(rows=st.lists(st.lists(few_values, min_size=4, max_size=4), min_size=1, max_size=6))
def test_winoground_by_its_definition(rows: list[list[float]]) -> None:
    found = winoground(torch.tensor(rows).view(-1, 2, 2))
    for number, (i0c0, i0c1, i1c0, i1c1) in enumerate(rows):
        text = i0c0 > i0c1 and i1c1 > i1c0
        image = i0c0 > i1c0 and i1c1 > i0c1
        outcome = {name: bool(ok[number]) for name, ok in found.items()}
        assert outcome == {"text": text, "image": image, "group": text and image}


@quick
@given(
    row=st.lists(few_values, min_size=1, max_size=6),
    data=st.data(),
)
def test_classification_by_its_definition(row: list[float], data: st.DataObject) -> None:
    target = data.draw(st.integers(0, len(row) - 1))
    others = row[:target] + row[target + 1 :]
    expected = not math.isnan(row[target]) and all(row[target] > other for other in others)
    assert classification(torch.tensor([row]), torch.tensor([target])).item() == expected


@quick
@given(seed=st.integers(0, 2**31), values=st.integers(1, 3))
def test_triplet_by_its_definition(seed: int, values: int) -> None:
    # Few whole numbers, so that products are exact and ties abound.
    generator = torch.Generator().manual_seed(seed)
    parts = torch.randint(-values, values + 1, (4, 5, 3), generator=generator).float()
    found = triplet(*parts)
    for number, (i, p1, p2, n) in enumerate(parts.unbind(1)):
        first, second, false = (float(i @ text) for text in (p1, p2, n))
        alike = float(p1 @ p2)
        expected = {
            "itt": first > false and second > false,
            "tot": alike > float(p1 @ n) and alike > float(p2 @ n),
            "p1": first > false,
        }
        assert {name: bool(ok[number]) for name, ok in found.items()} == expected
