"""What holds of every batch's plan, for any number of images, ranks and steps."""

from __future__ import annotations

from itertools import chain

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from clic.data import BatchPlan, Sampler


@st.composite
def cases(draw: st.DrawFn) -> dict[str, object]:
    """Draw the arguments of a sampler, without rank, that has enough images."""
    batch = draw(st.integers(1, 5))
    ranks = draw(st.integers(1, 4))
    upright = draw(st.sampled_from([0, 2, 3, 7]))
    count = draw(st.integers(max(batch * ranks, upright + 2), 60))
    landscape = np.random.default_rng(draw(st.integers(0, 99))).permutation(count) >= upright
    return {
        "landscape": {"composite": landscape, "single": landscape},
        "kinds": draw(st.sampled_from(["alternate", "composite", "single"])),
        "batch_size": batch,
        "seed": draw(st.integers(0, 2**32)),
        "world_size": ranks,
        "partner_self": draw(st.booleans()),
    }


def plans(case: dict, steps: range) -> list[list[BatchPlan]]:
    """Return the plans of each step, one for each rank."""
    samplers = [Sampler(rank=rank, **case) for rank in range(case["world_size"])]
    return [[sampler.plan(step) for sampler in samplers] for step in steps]


@settings(max_examples=60)
@given(cases())
def test_an_epoch_uses_each_image_at_most_once(case: dict) -> None:
    steps = Sampler(**case).steps_per_epoch()
    count = len(case["landscape"]["single"])
    assert steps == count // (case["batch_size"] * case["world_size"])
    used = [
        row.indices[0]
        for plan in chain.from_iterable(plans(case, range(steps)))
        for row in plan.rows
    ]
    assert len(used) == len(set(used)) == steps * case["batch_size"] * case["world_size"]


@settings(max_examples=60)
@given(cases(), st.integers(0, 10_000))
def test_ranks_share_one_global_batch(case: dict, step: int) -> None:
    (parts,) = plans(case, range(step, step + 1))
    whole = {**case, "world_size": 1, "batch_size": case["batch_size"] * case["world_size"]}
    alone = Sampler(**whole).plan(step)
    assert tuple(chain.from_iterable(plan.rows for plan in parts)) == alone.rows
    assert {plan.kind for plan in parts} == {alone.kind}


@settings(max_examples=60)
@given(cases(), st.integers(0, 10_000))
def test_partners_have_the_primarys_orientation(case: dict, step: int) -> None:
    plan = Sampler(**case).plan(step)
    wide = case["landscape"][plan.kind]
    for row in plan.rows:
        assert {bool(wide[i]) for i in row.indices} == {row.orientation == "landscape"}
        if plan.kind == "composite" and not case["partner_self"]:
            assert len(set(row.indices)) == 2


@settings(max_examples=40)
@given(cases(), st.lists(st.integers(0, 500), min_size=1, max_size=6))
def test_a_plan_does_not_depend_on_what_was_planned_before(case: dict, steps: list[int]) -> None:
    used = Sampler(**case)
    for step in steps:
        assert used.plan(step) == Sampler(**case).plan(step)
