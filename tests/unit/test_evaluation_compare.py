"""Differences and their intervals: by hand, exact in small cases, right as often as said."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest

from clic.errors import DataError
from clic.evaluation.report.comparison import Comparison, Interval, bootstrap, compare
from clic.evaluation.report.paired_rows import Observed, leaves, observe
from clic.evaluation.report.report import Report
from clic.seeding import generator

ITT = ("c", "itt")


def rows(**categories: Sequence[int]) -> list[dict[str, Any]]:
    """Return triplet rows of these categories with these outcomes."""
    return [
        {"category": name, "image": f"{n}.jpg", "captions": {"positive1": "x"}, "itt": bool(right)}
        for name, outcomes in categories.items()
        for n, right in enumerate(outcomes)
    ]


def seen(groups: dict[str, list[str]] | None = None, **categories: Sequence[int]) -> Observed:
    form = {name: {"itt": 0.0, "n": len(right)} for name, right in categories.items()}
    return observe(rows(**categories), form, {"groups": groups or {}})


def interval(a: Observed, b: Observed, path: tuple[str, str] = ITT, **more: Any) -> Interval:
    return bootstrap([a, b], [path], generator(0, "test"), **more)[path][0]


def test_two_rows_by_hand() -> None:
    # B is right where A is wrong on one row of two: a resample differs by 0, 50 or 100 points
    # with chances 1/4, 1/2 and 1/4.
    assert interval(seen(c=[0, 0]), seen(c=[1, 0])) == Interval(50.0, 0.0, 100.0)


def test_a_model_against_itself_is_exactly_nothing() -> None:
    a = seen({"mean": ["c", "d"]}, c=[1, 0, 1], d=[0, 1, 1, 1, 0])
    found = bootstrap([a, a, a], [ITT, ("mean", "itt")], generator(3, "test"))
    assert set(found[ITT] + found[("mean", "itt")]) == {Interval(0.0, 0.0, 0.0)}


def test_rows_are_drawn_together() -> None:
    # Models that differ everywhere by the same amount have no spread, however each one varies.
    a, b = [0, 0, 0, 0, 1, 1, 1, 1] * 10, [0, 0, 0, 0, 1, 1, 1, 1] * 10
    assert interval(seen(c=a), seen(c=b)) == Interval(0.0, 0.0, 0.0)
    shuffled = interval(seen(c=a), seen(c=b[::-1]))
    assert shuffled.low < -20 and shuffled.high > 20


def test_the_interval_is_that_of_all_resamples() -> None:
    a, b = [1, 0, 0, 1], [1, 1, 0, 0]
    gain = np.array(b) - np.array(a)
    every = [100 * np.mean(gain[list(drawn)]) for drawn in product(range(4), repeat=4)]
    low, high = np.quantile(every, [0.025, 0.975])
    assert interval(seen(c=a), seen(c=b)) == Interval(0.0, low, high)


def test_macro_means_weigh_categories_alike_in_every_resample() -> None:
    # Category c has 2 rows, d has 4; each is drawn within itself, so c counts as much as d.
    groups = {"mean": ["c", "d"]}
    a, b = seen(groups, c=[0, 0], d=[0] * 4), seen(groups, c=[1, 0], d=[1, 0, 0, 0])
    of_c = [100 * np.mean([[1, 0][i] for i in drawn]) for drawn in product(range(2), repeat=2)]
    of_d = [100 * np.mean([[1, 0, 0, 0][i] for i in d]) for d in product(range(4), repeat=4)]
    low, high = np.quantile([(x + y) / 2 for x in of_c for y in of_d], [0.025, 0.975])
    found = interval(a, b, ("mean", "itt"))
    assert found.difference == (50 + 25) / 2
    assert found == pytest.approx(Interval(37.5, low, high), abs=1e-9)


def test_the_seed_decides() -> None:
    draws = np.random.default_rng(0)
    a, b = (seen(c=draws.random(300) < p) for p in (0.5, 0.6))
    one = interval(a, b, resamples=50)
    assert one == interval(a, b, resamples=50)
    assert one != bootstrap([a, b], [ITT], generator(1, "test"), 50)[ITT][0]


def test_the_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = np.random.default_rng(0)
    a, b = (seen(c=draws.random(50) < p) for p in (0.5, 0.6))
    whole = interval(a, b)
    monkeypatch.setattr("clic.evaluation.report.comparison.BLOCK", 64)
    assert interval(a, b, resamples=2000) == pytest.approx(whole, abs=2.1)


def test_coverage() -> None:
    """Of 95 % intervals about 95 % hold the true difference, here 10 points of paired rows."""
    draws = np.random.default_rng(7)
    held, trials, n = 0, 250, 150
    for trial in range(trials):
        a = draws.random(n) < 0.5
        change = draws.random(n)
        b = np.where(a, change >= 0.2, change < 0.4)  # P(a) = 0.5, P(b) = 0.5 * 0.8 + 0.5 * 0.4
        drawn = generator(trial, "coverage")
        found = bootstrap([seen(c=a), seen(c=b)], [ITT], drawn, resamples=1000)[ITT][0]
        held += found.low <= 10.0 <= found.high
    assert 0.91 <= held / trials <= 0.98  # 0.95 by 2.5 standard errors of its own


def test_many_rows_are_quick() -> None:
    draws = np.random.default_rng(0)
    a, b = (seen(c=draws.random(20_000) < p) for p in (0.60, 0.61))
    found = interval(a, b)
    # The normal approximation of two independent proportions.
    error = 1.96 * 100 * np.sqrt((0.6 * 0.4 + 0.61 * 0.39) / 20_000)
    assert found.low == pytest.approx(found.difference - error, abs=0.08)
    assert found.high == pytest.approx(found.difference + error, abs=0.08)


RETRIEVAL = {f"{way}@1": 0.0 for way in ("image_to_text", "text_to_image")}


def retrieval(image_ranks: Sequence[int], caption_ranks: Sequence[Sequence[int]]) -> Observed:
    queries: list[dict[str, Any]] = [
        {"direction": "image_to_text", "image": str(i), "rank": rank}
        for i, rank in enumerate(image_ranks)
    ]
    queries += [
        {"direction": "text_to_image", "caption": f"{i} {j}", "image": str(i), "rank": rank}
        for i, ranks in enumerate(caption_ranks)
        for j, rank in enumerate(ranks)
    ]
    return observe(queries, {**RETRIEVAL, "n_images": len(image_ranks)}, {})


def test_an_image_is_drawn_with_all_its_captions() -> None:
    a = retrieval([1, 2], [[9, 9], [9, 9]])
    b = retrieval([1, 1], [[1, 1], [9, 9]])
    found = bootstrap([a, b], list(leaves(RETRIEVAL)), generator(0, "test"))
    assert found[("image_to_text@1", "")] == [Interval(50.0, 0.0, 100.0)]
    # Were captions drawn alone, four of them would hardly ever all be right: 1/16 < 2.5 % + ...
    assert found[("text_to_image@1", "")] == [Interval(50.0, 0.0, 100.0)]


def test_images_with_different_numbers_of_captions_are_drawn_together() -> None:
    a = retrieval([1, 1], [[9], [9, 9, 9]])
    b = retrieval([1, 1], [[1], [9, 9, 9]])
    found = bootstrap([a, b], [("text_to_image@1", "")], generator(0, "test"))
    # Both the first image: 1 of 1; both the second: 0 of 3; one each: 1 of 4.
    assert found[("text_to_image@1", "")] == [Interval(25.0, 0.0, 100.0)]


def test_classification_and_its_mean_over_classes() -> None:
    def made(right: Sequence[int], target: str) -> Observed:
        images = [
            {"task": "pets", "image": str(n), "target": t, "right": bool(r)}
            for n, (r, t) in enumerate(zip(right, target, strict=True))
        ]
        return observe(images, {"pets": 0.0, "mean_per_class": 0.0, "n_images": 4}, {})

    a, b = made([1, 1, 1, 0], "aaab"), made([1, 1, 0, 1], "aaab")
    assert (a.value(("pets", "")), a.value(("mean_per_class", ""))) == (75.0, 50.0)
    assert b.value(("mean_per_class", "")) == pytest.approx((200 / 3 + 100) / 2)
    found = bootstrap([a, b], [("pets", ""), ("mean_per_class", "")], generator(0, "test"))
    assert found[("pets", "")][0].difference == 0.0
    assert found[("mean_per_class", "")][0].difference == pytest.approx(33.33, abs=0.01)


def test_sets_are_right_as_a_whole_and_drawn_as_a_whole() -> None:
    def made(right: Sequence[int]) -> Observed:
        numbers = [0, 0, 1, 1]
        options = [
            {
                "category": "on" if n % 2 else "under", "images": [str(n)], "captions": ["x"],
                "sets": {"pairs": number}, "accuracy": bool(r),
            }
            for n, (number, r) in enumerate(zip(numbers, right, strict=True))
        ]  # fmt: skip
        form = {"on": {}, "under": {}, "all": {}}
        return observe(options, form, {"overall": "all", "groups": {"mean": ["on", "under"]}})

    a, b = made([1, 0, 1, 1]), made([1, 1, 1, 1])
    assert a.value(("all", "accuracy")) == 75.0
    assert a.value(("all", "pairs")) == 50.0
    assert a.value(("on", "accuracy")) == a.value(("on", "pairs")) == 50.0
    assert a.value(("mean", "accuracy")) == 75.0
    found = bootstrap([a, b], [("all", "pairs"), ("all", "accuracy")], generator(0, "test"))
    assert found[("all", "pairs")] == [Interval(50.0, 0.0, 100.0)]
    assert found[("all", "accuracy")] == [Interval(25.0, 0.0, 50.0)]


def report(name: str, right: Sequence[int], **source: Any) -> tuple[Report, dict[str, Observed]]:
    source = {"version": "1", "sha256": "a" * 64, "rows": len(right), "groups": {}, **source}
    value = 100 * sum(right) / len(right)
    form = {"c": {"itt": value, "n": len(right)}}
    made = Report(name, {"name": name}, {"benchmarks": {"b": source}}, {"b": form})
    return made, {"b": observe(rows(c=right), form, source)}


def compared(*models: tuple[Report, dict[str, Observed]]) -> Comparison:
    return compare([one for one, _ in models], [observed for _, observed in models])


def test_a_comparison_says_how_it_was_made() -> None:
    made = compared(report("a", [0, 0]), report("b", [1, 0]), report("c", [0, 0]))
    assert made.get("b", ITT, 1) == Interval(50.0, 0.0, 100.0)
    assert made.get("b", ITT, 2) == Interval(0.0, 0.0, 0.0)
    assert made.get("b", ITT, 0) is None and made.get("other", ITT, 1) is None
    form = made.to_dict()
    assert (form["first"], form["resamples"], form["level"]) == ("a", 10_000, 95)
    assert form["differences"][0] == {
        "benchmark": "b", "category": "c", "metric": "itt", "model": "b",
        "difference": 50.0, "low": 0.0, "high": 100.0, "p": pytest.approx(0.5, abs=0.02),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"version": "2"}, r"different data \(version 1 and 2\)"),
        ({"sha256": "b" * 64}, r"different data \(sha256 aaaaaaaaaaaa and bbbbbbbbbbbb\)"),
    ],
)
def test_another_version_is_not_compared(source: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        compared(report("a", [0, 0]), report("b", [1, 0], **source))


def test_other_rows_are_not_compared() -> None:
    with pytest.raises(DataError, match="b: a and b were scored on different rows"):
        compared(report("a", [0, 0]), report("b", [1, 0, 1]))


def test_reports_that_kept_their_rows_are_enough() -> None:
    made = [report("a", [0, 0])[0], report("b", [1, 0])[0]]
    for one, right in zip(made, ([0, 0], [1, 0]), strict=True):
        one.rows = [{"benchmark": "b", **row} for row in rows(c=right)]
    assert compare(made).get("b", ITT, 1) == Interval(50.0, 0.0, 100.0)
    made[1].rows = []
    with pytest.raises(DataError, match="there are no rows of b on b"):
        compare(made)
