"""Plans for texts: trees of tokens in packs, groups of similar length, and batches with them."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest
import torch

from clic.models import TextPlanner
from clic.models.text_encoder import ReadingRule, group, pack, pack_groups
from clic.types import Batch, TextGroups, TextPacks

A, B, C, D, END = 1, 2, 3, 4, 9
CAUSAL = ReadingRule("argmax", None, None, True)


def seen(packs: TextPacks) -> list[list[list[int]]]:
    return [[row.nonzero().flatten().tolist() for row in mask] for mask in packs.mask()]


def test_packs_by_hand() -> None:
    """ab9 and ac9 share a; d9 does not fit any more and makes a pack of its own."""
    packs = pack([(D, END), (A, C, END), (A, B, END)], size=5)
    assert packs.tokens.tolist() == [A, B, END, C, END, D, END]
    assert packs.positions.tolist() == [0, 1, 2, 1, 2, 0, 1]
    assert packs.grid.tolist() == [[0, 1, 2, 3, 4], [5, 6, 0, 0, 0]]
    assert packs.places.tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert packs.ends.tolist() == [6, 4, 2]
    assert packs.readers.tolist() == [[2, 1], [0, 0]]
    assert packs.read_at.tolist() == [[2, 4], [1, 0]]
    assert packs.reads.tolist() == [2, 1, 0]
    assert seen(packs) == [
        [[0], [0, 1], [0, 1, 2], [0, 3], [0, 3, 4]],
        [[0], [0, 1], [2], [3], [4]],
    ]


def test_equal_texts_are_one_path() -> None:
    packs = pack([(A, END), (A, END)], size=4)
    assert packs.tokens.tolist() == [A, END] and packs.ends.tolist() == [1, 1]


def test_a_text_that_another_continues_is_read_on_its_way() -> None:
    packs = pack([(A, B), (A,), (A, B, C)], size=4)
    assert packs.tokens.tolist() == [A, B, C] and packs.ends.tolist() == [1, 0, 2]
    assert seen(packs) == [[[0], [0, 1], [0, 1, 2]]]


def test_the_longest_text_makes_all_packs_as_long() -> None:
    packs = pack([(A, B, C, END), (D, END), (D, C, END)], size=2)
    assert packs.grid.shape == (2, 4)


def test_random_packs_give_every_text_its_own_tokens_and_ancestors() -> None:
    generator = torch.Generator().manual_seed(0)
    texts = [
        (*torch.randint(1, 4, (int(n),), generator=generator).tolist(), END)
        for n in torch.randint(1, 12, (60,), generator=generator)
    ]
    for rows, packs in pack_groups(texts, at_once=2, size=24):
        visible = packs.mask()
        nodes = packs.tokens[packs.grid]
        for number, row in enumerate(rows):
            place = int(packs.places[packs.ends[number]])
            at, inner = divmod(place, packs.grid.shape[1])
            assert tuple(nodes[at][visible[at, inner]].tolist()) == texts[row]
            read = divmod(int(packs.reads[number]), packs.readers.shape[1])
            assert packs.readers[read] == number and packs.read_at[read] == inner
    found = [row for rows, _ in pack_groups(texts, at_once=2, size=24) for row in rows]
    assert sorted(found) == list(range(60))


@pytest.mark.parametrize("texts", [[], [()], [(A,), ()]])
def test_what_cannot_be_packed(texts: list[tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="at least one token"):
        pack(texts)


def test_groups_by_hand() -> None:
    groups = group(torch.tensor([5, 2, 9, 2, 7, 9, 3, 9]))
    assert groups.sizes == ((2, 2), (2, 5), (4, 9))
    assert groups.order.tolist() == [1, 3, 6, 0, 4, 2, 5, 7]
    assert groups.order[groups.back].tolist() == list(range(8))


def test_lengths_of_padded_texts() -> None:
    """A hole is part of a text, and a text of padding alone keeps one token."""
    rule = ReadingRule("cls_pooler", None, 0, True)
    tokens = torch.tensor([[5, 0, 6, 0, 0], [5, 6, 7, 8, 9], [0, 0, 0, 0, 0]])
    assert rule.lengths(tokens).tolist() == [3, 5, 1]
    assert rule.texts(tokens) == [(5, 0, 6), (5, 6, 7, 8, 9), (0,)]


def batch(negatives: bool = True) -> Batch:
    def texts(*rows: tuple[int, ...]) -> torch.Tensor:
        return torch.tensor([[(*row, *[0] * (8 - len(row)))] for row in rows])

    return Batch(
        images=torch.zeros(3, 4, 4, 3, dtype=torch.uint8),
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        positives=texts((A, B, END), (A, END), (A, B, C, END)),
        negatives=texts((A, C, END), (A, D, D, D, END), (END,)) if negatives else None,
        negative_mask=None,
        kind="composite",
        step=0,
    )


@pytest.mark.parametrize("negatives", [True, False])
def test_a_batch_is_cut_and_planned_once(negatives: bool) -> None:
    planner = pickle.loads(pickle.dumps(TextPlanner(CAUSAL, packs=True)))
    planned = planner(batch(negatives))
    longest = 5 if negatives else 4
    assert planned.positives.shape == (3, 1, longest) and planned.positives.is_contiguous()
    assert planned.texts.shape == (3, 2 if negatives else 1, longest)
    assert len(planned.text_plan.ends) == (6 if negatives else 3)
    assert planner(planned) is planned


def test_chunks_of_a_batch_have_plans_of_their_own() -> None:
    planned = TextPlanner(CAUSAL, packs=True, rows=2)(batch())
    first, second = planned.chunks(2)
    assert len(first.text_plan.ends) == 4 and len(second.text_plan.ends) == 2
    assert first.positives.shape[0] == 2 and second.positives.shape[0] == 1
    assert planned.rows(0, 2).text_plan is None
    with pytest.raises(ValueError, match="too many values"):
        _ = planned.text_plan  # there is no plan for all of it
    assert [part.text_plan for part in batch().chunks(2)] == [None, None]


def test_plans_travel_with_the_batch() -> None:
    for packs, kind in ((True, TextPacks), (False, TextGroups)):
        moved = TextPlanner(CAUSAL, packs)(batch()).to(torch.device("meta"))
        assert isinstance(moved.text_plan, kind)
        tensors = [v for v in vars(moved.text_plan).values() if isinstance(v, torch.Tensor)]
        assert tensors and all(tensor.is_meta for tensor in tensors)


def test_no_plans_where_they_are_not_asked_for_or_not_exact() -> None:
    cut = TextPlanner(CAUSAL, packs=True, plans=False)(batch())
    assert cut.text_plans == () and cut.positives.shape[-1] == 5
    whole = TextPlanner(replace(CAUSAL, can_trim=False), packs=False)(batch())
    assert whole.text_plans == () and whole.positives.shape[-1] == 8
