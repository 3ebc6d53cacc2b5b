"""Which images make a batch: worked cases of the sampler."""

from __future__ import annotations

import numpy as np
import pytest

from clic.data import Sampler
from clic.errors import DataError


def wide(count: int, portrait: int = 0) -> np.ndarray:
    """Return the orientation of images, the last `portrait` of which are upright."""
    return np.arange(count) < count - portrait


def sampler(
    count: int = 20, batch: int = 4, kinds: str = "alternate", **settings: object
) -> Sampler:
    both = {"composite": wide(count), "single": wide(count)}
    return Sampler(both, kinds, batch, seed=settings.pop("seed", 0), **settings)  # type: ignore[arg-type]


def test_kinds_alternate_composite_first() -> None:
    assert [sampler().kind(step) for step in range(4)] == [
        "composite",
        "single",
        "composite",
        "single",
    ]
    assert {sampler(kinds="composite").kind(step) for step in range(4)} == {"composite"}
    assert {sampler(kinds="single").kind(step) for step in range(4)} == {"single"}


@pytest.mark.parametrize(
    ("count", "batch", "ranks", "steps"),
    [(20, 4, 1, 5), (23, 4, 1, 5), (23, 4, 2, 2), (8, 4, 2, 1)],
)
def test_steps_of_an_epoch(count: int, batch: int, ranks: int, steps: int) -> None:
    assert sampler(count, batch, world_size=ranks).steps_per_epoch() == steps


def test_single_rows_hold_one_image_and_composites_two() -> None:
    plans = [sampler().plan(step) for step in range(2)]
    assert {len(row.indices) for row in plans[0].rows} == {2}
    assert {len(row.indices) for row in plans[1].rows} == {1}


def test_a_pass_over_shared_samples_sees_each_once_whatever_the_kind() -> None:
    one = sampler(20, 4)
    primaries = [row.indices[0] for step in range(5) for row in one.plan(step).rows]
    assert sorted(primaries) == list(range(20))


def test_epochs_are_shuffled_anew() -> None:
    one = sampler(20, 4)
    orders = [
        [row.indices[0] for step in range(5 * e, 5 * e + 5) for row in one.plan(step).rows]
        for e in range(2)
    ]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(20))
    assert orders[0] != orders[1]


def test_seed_decides() -> None:
    assert sampler(seed=0).plan(0) == sampler(seed=0).plan(0)
    assert sampler(seed=0).plan(0) != sampler(seed=1).plan(0)


def test_partners_are_drawn_from_all_images() -> None:
    one = sampler(20, 4, kinds="composite")
    partners = {row.indices[1] for step in range(100) for row in one.plan(step).rows}
    assert partners == set(range(20))


def test_partners_are_uniform() -> None:
    one = sampler(5, 5, kinds="composite")
    counts = np.zeros((5, 5))
    for step in range(2000):
        for row in one.plan(step).rows:
            counts[row.indices] += 1
    assert (np.diag(counts) == 0).all()
    others = counts[~np.eye(5, dtype=bool)]
    assert abs(others - 500).max() < 5 * np.sqrt(500)


def test_an_image_is_its_own_partner_only_where_that_is_asked() -> None:
    own = sampler(4, 4, kinds="composite", partner_self=True)
    assert any(
        row.indices[0] == row.indices[1] for step in range(50) for row in own.plan(step).rows
    )


def test_too_few_samples_for_a_batch() -> None:
    with pytest.raises(DataError, match=r"7 composite samples.*one batch of 8.*train\.batch_size"):
        sampler(7, 4, world_size=2)


def test_a_lonely_orientation_needs_partner_self() -> None:
    lonely = {"composite": wide(20, portrait=1)}
    with pytest.raises(DataError, match=r"only 1 .*portrait.*sampling\.partner_self=true"):
        Sampler(lonely, "composite", 4, seed=0)
    Sampler(lonely, "composite", 4, seed=0, partner_self=True).plan(0)


def test_single_steps_need_no_partner() -> None:
    Sampler({"single": wide(20, portrait=1)}, "single", 4, seed=0).plan(0)


def test_sources_of_different_size() -> None:
    one = Sampler({"composite": wide(20), "single": wide(8)}, "alternate", 4, seed=0)
    assert one.steps_per_epoch() == 5
    for step in range(20):
        count = 20 if step % 2 == 0 else 8
        assert all(max(row.indices) < count for row in one.plan(step).rows)
