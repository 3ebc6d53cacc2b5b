"""The order of an epoch: permutations, mixtures, replacement, partners, hard images."""

from __future__ import annotations

import pickle
from collections import Counter

import numpy as np
import pytest

from clic.data import Sampler
from clic.data.sampling.sampler import (
    EpochPart,
    Partners,
    Permutation,
    Resampled,
    SampleSet,
    Shuffled,
    quotas,
)
from clic.errors import DataError
from clic.seeding import generator

# --- permutations --------------------------------------------------------------------------------


def test_a_small_permutation_is_the_generators() -> None:
    expected = generator(3, "epoch", step=2).permutation(20)
    np.testing.assert_array_equal(Permutation(20, 3, "epoch", 2).at(np.arange(20)), expected)


@pytest.fixture
def no_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clic.data.sampling.sampler.TABLE", 0)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 64, 97, 1000, 4097, 100_000])
def test_a_computed_permutation_has_each_number_once(no_table: None, count: int) -> None:
    found = Permutation(count, 0, "epoch", 0).at(np.arange(count))
    np.testing.assert_array_equal(np.sort(found), np.arange(count))
    assert found.dtype == np.int64


def test_a_computed_permutation_looks_random(no_table: None) -> None:
    count, cells = 100_000, 20
    first, other, seeded = (
        Permutation(count, seed, "epoch", number).at(np.arange(count))
        for seed, number in ((0, 0), (0, 1), (1, 0))
    )
    for a, b in ((np.arange(count), first), (first, other), (first, seeded), (first, first[::-1])):
        table = np.histogram2d(a, b, bins=cells)[0]
        expected = count / cells**2
        chi = ((table - expected) ** 2 / expected).sum()
        freedom = (cells - 1) ** 2
        assert abs(chi - freedom) < 6 * np.sqrt(2 * freedom)
    steps = np.abs(np.diff(first)).mean()  # of a random order: a third of the length
    assert abs(steps / count - 1 / 3) < 0.01
    assert (first == np.arange(count)).sum() < 12  # fixed points are Poisson(1)


def test_every_permutation_of_four_comes_about_equally_often(no_table: None) -> None:
    seen = Counter(
        tuple(Permutation(4, 0, "epoch", number).at(np.arange(4))) for number in range(4800)
    )
    assert len(seen) == 24
    assert max(seen.values()) < 1.5 * 200 and min(seen.values()) > 0.5 * 200


def test_ten_million_take_no_memory() -> None:
    permutation = Permutation(10_000_000, 0, "epoch", 0)
    assert len(pickle.dumps(permutation)) < 1000
    found = permutation.at(np.arange(5_000_000, 5_000_200))
    assert len(set(found.tolist())) == 200 and found.max() > 9_000_000


# --- sets of samples -----------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 7, 8, 511, 512, 513, 5000])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_sample_set(count: int, share: float) -> None:
    members = np.random.default_rng(count).random(count) < share
    sample_set, numbers = SampleSet(members), np.flatnonzero(members)
    assert len(sample_set) == len(numbers)
    assert [sample_set.nth(i) for i in range(len(numbers))] == numbers.tolist()
    for sample in range(0, count + 1, max(1, count // 50)):
        assert sample_set.place(sample) == (numbers < sample).sum()


# --- mixtures ------------------------------------------------------------------------------------


def test_quotas_round_the_largest_remainders_up() -> None:
    assert quotas([1, 1, 1], 10) == [4, 3, 3]
    assert quotas([2, 1], 9) == [6, 3]
    assert quotas([0.9, 0.06, 0.04], 10) == [9, 1, 0]
    assert quotas([5], 7) == [7]


def counts(order: Shuffled | Resampled, samples: int, epochs: int = 1) -> np.ndarray:
    drawn = [order.at(epoch, np.arange(samples)) for epoch in range(epochs)]
    return np.bincount(np.concatenate(drawn), minlength=100)


def test_a_mixture_takes_its_shares_of_each_epoch() -> None:
    order = Shuffled([EpochPart(10, 3), EpochPart(90, 1)], samples=100, seed=0)
    assert counts(order, 100)[:10].sum() == 75
    assert (counts(order, 100)[:10] >= 7).all() and (counts(order, 100)[:10] <= 8).all()
    assert set(counts(order, 100)[10:]) == {0, 1}


def test_a_source_of_a_mixture_is_used_up_before_it_comes_again() -> None:
    order = Shuffled([EpochPart(10, 1), EpochPart(90, 1)], samples=100, seed=0)
    assert (counts(order, 100, epochs=9)[10:] == 5).all()  # 9 * 50 = 5 * 90
    assert (counts(order, 100, epochs=9)[:10] == 45).all()
    first = order.at(0, np.arange(100))
    assert 0 < (first[:20] < 10).sum() < 20  # and the sources are shuffled among each other


def test_one_source_with_longer_or_shorter_epochs_goes_on_where_it_was() -> None:
    order = Shuffled([EpochPart(10)], samples=4, seed=0)
    drawn = np.concatenate([order.at(epoch, np.arange(4)) for epoch in range(5)])
    assert sorted(drawn[:10]) == sorted(drawn[10:]) == list(range(10))


def test_places_do_not_depend_on_what_was_asked_before() -> None:
    parts = [EpochPart(10, 2), EpochPart(30, 1)]
    used = Shuffled(parts, samples=40, seed=1)
    for epoch, place in ((3, 7), (0, 39), (50, 0), (3, 8)):
        fresh = pickle.loads(pickle.dumps(used))
        assert used.at(epoch, np.array([place])) == fresh.at(epoch, np.array([place]))


def test_with_replacement() -> None:
    order = Resampled([EpochPart(10, 3), EpochPart(90, 1)], seed=0)
    found = counts(order, 40_000)
    assert abs(found[:10].sum() - 30_000) < 5 * np.sqrt(40_000 * 0.75 * 0.25)
    assert abs(found[:10] - 3000).max() < 5 * np.sqrt(3000)
    assert abs(found[10:] - 111).max() < 5 * np.sqrt(111)
    assert (order.at(0, np.arange(50)) == order.at(0, np.arange(100))[:50]).all()
    assert (order.at(0, np.arange(50)) != order.at(1, np.arange(50))).any()


def test_an_epoch_of_a_sampler_with_replacement_or_samples() -> None:
    wide = {"single": np.ones(100, dtype=bool)}
    settings = {"landscape": wide, "kinds": "single", "batch_size": 10, "seed": 0}
    assert Sampler(**settings, samples=25).steps_per_epoch() == 2
    again = Sampler(**settings, samples=1000, replacement=True)
    assert again.steps_per_epoch() == 100
    seen = [row.indices[0] for step in range(100) for row in again.plan(step).rows]
    assert len(set(seen)) == 100 and len(set(seen[:100])) < 90
    with pytest.raises(DataError, match="5 single samples are fewer than one batch of 10"):
        Sampler(**settings, samples=5)


# --- partners in a mixture -----------------------------------------------------------------------


def test_partners_come_from_each_source_by_its_weight() -> None:
    wide = np.array([True] * 10 + [True] * 45 + [False] * 45)
    parts = [EpochPart(10, 1), EpochPart(90, 1)]
    partners = Partners(wide, parts, images=2, partner_self=False)
    rng = np.random.default_rng(0)
    drawn = np.array([partners.draw(3, True, rng)[0] for _ in range(6000)])
    assert 3 not in drawn and set(drawn) == set(range(55)) - {3}
    # Wide images are all of the first source and half of the second one: two thirds, one third.
    # A draw of the image itself is made anew: 0.9 * 2/3 against 1/3.
    share = (drawn < 10).mean()
    assert abs(share - 0.6 / (0.6 + 1 / 3)) < 5 * np.sqrt(0.23 / 6000)
    upright = [partners.draw(99, False, rng)[0] for _ in range(200)]
    assert min(upright) >= 55 and 99 not in upright


def test_partners_of_the_only_image_of_a_dominant_source() -> None:
    """The image that is nearly always drawn is the primary itself."""
    partners = Partners(np.ones(3, dtype=bool), [EpochPart(1, 1e15), EpochPart(2, 1e-15)], 3, False)
    assert sorted(partners.draw(0, True, np.random.default_rng(0))) == [1, 2]


# --- hard images ---------------------------------------------------------------------------------


def test_each_primary_is_followed_by_one_of_its_neighbours() -> None:
    near = np.array([[(i + 1) % 40, (i + 2) % 40] for i in range(40)], dtype=np.uint32)
    wide = {"single": np.arange(40) % 2 == 0}
    settings = {"landscape": wide, "kinds": "single", "seed": 0, "neighbours": near}
    sampler = Sampler(batch_size=8, **settings)
    assert sampler.steps_per_epoch() == 10
    primaries, offsets = [], set()
    for step in range(10):
        rows = sampler.plan(step).rows
        assert [row.slot for row in rows] == list(range(8))
        for primary, hard in zip(rows[::2], rows[1::2], strict=True):
            primaries.append(primary.indices[0])
            offsets.add((hard.indices[0] - primary.indices[0]) % 40)
            assert hard.orientation == ("landscape" if hard.indices[0] % 2 == 0 else "portrait")
    assert sorted(primaries) == list(range(40))
    assert offsets == {1, 2}
    ranks = [Sampler(batch_size=4, rank=rank, world_size=2, **settings) for rank in range(2)]
    assert sum((rank.plan(3).rows for rank in ranks), ()) == sampler.plan(3).rows


def test_partners_and_hard_images_are_drawn_from_streams_of_their_own() -> None:
    """A batch stays the same from version to version, because its streams are named."""
    wide = np.ones(40, dtype=bool)
    sampler = Sampler({"composite": wide}, "composite", batch_size=4, seed=7)
    for row in sampler.plan(3).rows:
        drawn = int(generator(7, "partners", 3, row.slot).choice(39, size=1, replace=False)[0])
        assert row.indices[1] == drawn + (drawn >= row.indices[0])
    near = np.random.default_rng(0).integers(40, size=(40, 9))
    sampler = Sampler({"single": wide}, "single", batch_size=8, seed=7, neighbours=near)
    rows = sampler.plan(3).rows
    for primary, hard in zip(rows[::2], rows[1::2], strict=True):
        drawn = int(generator(7, "hard_images", 3, hard.slot).integers(9))
        assert hard.indices[0] == near[primary.indices[0], drawn]
