"""Sweeps: weights replaced in place, towers encoded once, and an alpha chosen by a stated rule."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file

import clic
from clic import models, runs, shapes
from clic.errors import ConfigError
from clic.evaluation.report.paired_rows import Observed, Series
from clic.models import encoder, saving
from clic.models.encoder import Encoder
from clic.patching import choice, interpolate, live_model, search
from clic.patching.choice import Measure, best, choose, completed, points_of
from clic.patching.search import split_number

MODEL = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 16, "head_width": 8, "patch_size": 16},
    "text_cfg": {"context_length": 24, "width": 16, "heads": 2, "layers": 1},
}
PREPROCESS = {"size": 32, "mean": [0.5] * 3, "std": [0.5] * 3}


@pytest.fixture(autouse=True)
def small_world(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "triplets", partial(shapes.triplets, per_category=6))


def write_model(folder: Path, changed: str = "", half: bool = False) -> Path:
    """Write a tiny model; in the second one the tensors whose names begin so are others."""
    folder.mkdir()
    torch.manual_seed(0)
    state = {n: v.contiguous() for n, v in open_clip.model.CLIP(**MODEL).state_dict().items()}
    generator = torch.Generator().manual_seed(1)
    for name, value in state.items():
        if changed and name.startswith(changed) and value.is_floating_point():
            drawn = torch.randn(value.shape, generator=generator)
            state[name] = torch.where(value.isfinite(), value + drawn / 8, value)
        if half:
            state[name] = state[name].half()
    save_file(state, folder / runs.OPEN_CLIP_WEIGHTS)
    config = {"model_cfg": MODEL, "preprocess_cfg": PREPROCESS}
    (folder / runs.OPEN_CLIP_CONFIG).write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("changed", ["visual.", "t", ("t", "visual.", "logit")], ids=str)
@pytest.mark.parametrize("half", [False, True], ids=["fp32", "fp16 and fp32"])
def test_in_place_is_what_a_written_model_is(changed: Any, half: bool, tmp_path: Path) -> None:
    pair = write_model(tmp_path / "base", half=half), write_model(tmp_path / "tuned", changed)
    found = clic.sweep(*pair, [0, 0.3, 1], bench=["shapes++"], cache=False)
    for alpha, report in zip(found.alphas, found.reports, strict=True):
        out = clic.patch(*pair, alpha, tmp_path / f"{alpha}")
        loaded = encoder.load(str(out))
        hashes = ("weights_sha256", "vision_sha256", "text_sha256")
        assert [report.model[key] for key in hashes] == [loaded.identity[key] for key in hashes]
        written = clic.evaluate(loaded, ["shapes++"])
        assert report.benchmarks == written.benchmarks
    assert len({report.model["weights_sha256"] for report in found.reports}) == 3


def test_a_model_is_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[str] = []
    create = models.create

    def spy(name: str, *words: Any, **settings: Any) -> models.ClipModel:
        built.append(name)
        return create(name, *words, **settings)

    monkeypatch.setattr(models, "create", spy)
    pair = write_model(tmp_path / "base"), write_model(tmp_path / "tuned", "t")
    clic.sweep(*pair, "0:1:0.25", bench=["shapes++"], cache=False)
    assert len(built) == 1
    built.clear()
    monkeypatch.setattr(live_model.LiveModel, "_fits", lambda self, layout: False)
    clic.sweep(*pair, [0, 1], bench=["shapes++"], cache=False)
    assert len(built) == 3  # the tuned model shows that it cannot change in place
    assert {path.name for path in tmp_path.iterdir()} == {"base", "tuned"}


def test_what_no_alpha_changes_is_hashed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[int] = []
    digest = saving._digest

    def spy(value: torch.Tensor) -> bytes:
        hashed.append(value.data_ptr())
        return digest(value)

    monkeypatch.setattr(saving, "_digest", spy)
    pair = write_model(tmp_path / "base"), write_model(tmp_path / "tuned", "visual.")
    clic.sweep(*pair, [0, 0.5, 1], bench=["shapes++"], cache=False)
    names = clic.load(pair[0]).clip.model.state_dict()
    changing = sum(name.startswith("visual.") for name in names)
    assert 0 < changing < len(names)
    assert len(hashed) == len(names) + 2 * changing


@pytest.mark.parametrize("changed", ["visual.", "t"])
def test_what_no_alpha_changes_is_encoded_once(
    changed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = {"images": 0, "texts": 0}
    of_images, of_texts = Encoder.encode_prepared, Encoder.encode_text

    def images(self: Encoder, pixels: Any) -> torch.Tensor:
        encoded["images"] += len(pixels)
        return of_images(self, pixels)

    def texts(self: Encoder, captions: Any) -> torch.Tensor:
        encoded["texts"] += len(captions)
        return of_texts(self, captions)

    monkeypatch.setattr(Encoder, "encode_prepared", images)
    monkeypatch.setattr(Encoder, "encode_text", texts)
    pair = write_model(tmp_path / "base"), write_model(tmp_path / "tuned", changed)
    found = clic.sweep(*pair, [0, 0.5, 1], bench=["shapes++"], cache=False)
    source = found.reports[0].provenance["benchmarks"]["shapes++"]
    times = (3, 1) if changed == "visual." else (1, 3)
    expected = {"images": times[0] * source["images"], "texts": times[1] * source["texts"]}
    assert encoded == expected


def test_a_part_stays_while_the_rest_is_swept(tmp_path: Path) -> None:
    pair = write_model(tmp_path / "base"), write_model(tmp_path / "tuned", ("t", "visual."))
    found = clic.sweep(*pair, [0, 1], bench=["shapes++"], alpha_vision=0, cache=False)
    assert len({report.model["vision_sha256"] for report in found.reports}) == 1
    assert len({report.model["text_sha256"] for report in found.reports}) == 2


def measures() -> tuple[Measure, Measure]:
    composed = Measure("c", (("mean", "itt"),), preserved=False)
    return composed, Measure("k", (("a@1", ""), ("b@1", "")), preserved=True)


def numbers(composed: float, one: float, other: float) -> dict[str, dict[str, Any]]:
    return {
        "c": {"mean": {"itt": composed, "n": 4}},
        "k": {"a@1": one, "b@1": other, "n_images": 4},
    }


def test_hand_worked_points() -> None:
    """Kept 80, 79.5, 78 and 79: alpha 2/3 loses two points; 1 is worse than 1/3 on both."""
    alphas = [0, 1 / 3, 2 / 3, 1]
    forms = [numbers(50, 90, 70), numbers(60, 90, 69), numbers(70, 88, 68), numbers(55, 90, 68)]
    points = points_of(measures(), forms, alphas, 1.0)
    assert [point.composed for point in points] == [50, 60, 70, 55]
    assert [point.kept for point in points] == [80, 79.5, 78, 79]
    assert [point.drop for point in points] == [0, 0.5, 2, 1]
    assert [point.allowed for point in points] == [True, True, False, True]
    assert [point.pareto for point in points] == [True, True, True, False]


def test_the_benchmark_that_lost_most_decides() -> None:
    """One preserved benchmark loses two points, which the other's gain does not outweigh."""
    kept = [Measure(name, (("r@1", ""),), preserved=True) for name in ("k", "l")]
    forms = [
        {**numbers(50, 0, 0), "k": {"r@1": 80}, "l": {"r@1": 60}},
        {**numbers(60, 0, 0), "k": {"r@1": 78}, "l": {"r@1": 64}},
    ]
    points = points_of([measures()[0], *kept], forms, [0.0, 1.0], 1.0)
    assert [point.drop for point in points] == [0, 2]
    assert [point.allowed for point in points] == [True, False]


def test_the_largest_gain_that_is_allowed_and_the_smallest_alpha_of_equal_ones() -> None:
    composed = np.array([[50, 60, 70, 60], [50, 60, 70, 60.0]])
    allowed = np.array([[True, True, False, True], [True, False, False, False]])
    assert best(composed, allowed).tolist() == [1, 0]


def outcomes(series: dict[tuple[str, str], list[int]]) -> Observed:
    found = {
        path: Series(np.arange(len(right)), np.array(right, dtype=bool))
        for path, right in series.items()
    }
    means = {("mean", "itt"): (("x", "itt"),)} if ("x", "itt") in found else {}
    return Observed(len(next(iter(series.values()))), found, means, "same")


def test_certainty_is_the_share_of_resamples_that_choose_the_same() -> None:
    """Two rows: alpha 1 wins where row 0 is drawn at least once, in 3 of 4 draws; else alpha 0."""
    composed = Measure("c", (("mean", "itt"),), preserved=False)
    observed = [{"c": outcomes({("x", "itt"): right})} for right in ([0, 0], [1, 0])]
    forms = [{"c": {"mean": {"itt": value}}} for value in (0.0, 50.0)]
    made = choose([composed], forms, observed, [0.0, 1.0], 1.0)
    assert made.alpha == 1.0
    assert made.certainty == pytest.approx(0.75, abs=0.04)  # four standard errors
    assert (made.low, made.high) == (0.0, 1.0)
    assert made.hindsight is None


def test_a_drop_counts_in_the_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Alpha 1 composes more and loses one of two rows: allowed where that is never drawn."""
    kept = Measure("k", (("t", ""),), preserved=True)
    composed = Measure("c", (("mean", "itt"),), preserved=False)
    observed = [
        {"c": outcomes({("x", "itt"): c}), "k": outcomes({("t", ""): k})}
        for c, k in (([0, 0], [1, 1]), ([1, 1], [1, 0]))
    ]
    forms = [
        {"c": {"mean": {"itt": c}}, "k": {"t": k, "n_images": 2}} for c, k in ((0, 100), (100, 50))
    ]
    made = choose([composed, kept], forms, observed, [0.0, 1.0], 1.0, [composed])
    assert made.alpha == 0.0
    assert made.certainty == pytest.approx(0.75, abs=0.04)
    assert (made.hindsight, made.lost) == (1.0, 100.0)
    assert made.to_dict()["resamples"] == choice.RESAMPLES


def test_a_number_that_a_benchmark_does_not_have_is_refused() -> None:
    form = {"mean": {"itt": 1.0, "tot": 2.0, "n": 3}}
    wanted = Measure("c", (("mean", "tot"),), preserved=False)
    assert completed(wanted, form) == wanted
    assert completed(Measure("c", (("mean", ""),), False), form).paths == (("mean", "itt"),)
    with pytest.raises(ConfigError, match=r"select=c/swap/itt is no number of it \(it has mean/it"):
        completed(Measure("c", (("swap", "itt"),), False), form)


def test_the_chosen_model_is_written(tmp_path: Path) -> None:
    pair = write_model(tmp_path / "base"), write_model(tmp_path / "tuned", "t")
    words = {"select": ["shapes++@val/swap/tot"], "report": ["shapes++"], "cache": False}
    with pytest.raises(ConfigError, match="keep_best needs out"):
        clic.sweep(*pair, [0, 1], keep_best=True, **words)
    found = clic.sweep(*pair, [0, 0.5, 1], keep_best=True, out=tmp_path / "out", **words)
    assert found.choice is not None and found.best is not None
    assert found.best == tmp_path / "out" / runs.alpha_folder(found.choice.alpha)
    assert found.choice.select[0].paths == (("swap", "tot"),)
    written = load_file(found.best / runs.OPEN_CLIP_WEIGHTS)
    assert written.keys() == load_file(pair[0] / runs.OPEN_CLIP_WEIGHTS).keys()


def test_the_written_model_has_the_chosen_alpha_and_the_parts_of_the_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def choosing(*words: Any) -> Any:
        return replace(choose(*words), alpha=0.5, hindsight=1.0)

    monkeypatch.setattr(search, "choose", choosing)
    pair = write_model(tmp_path / "base"), write_model(tmp_path / "tuned", ("t", "visual."))
    words = {"select": ["shapes++@val"], "report": ["shapes++"], "cache": False}
    found = clic.sweep(
        *pair, [0, 0.5, 1], keep_best=True, out=tmp_path / "out", alpha_vision=0, **words
    )
    assert found.best is not None and found.best.name == runs.alpha_folder(0.5)
    base, tuned = (load_file(one / runs.OPEN_CLIP_WEIGHTS) for one in pair)
    written = load_file(found.best / runs.OPEN_CLIP_WEIGHTS)
    for name, between in interpolate(base, tuned, 0.5).items():
        assert torch.equal(written[name], base[name] if "visual." in name else between), name


@pytest.mark.parametrize(
    ("word", "parts"),
    [
        ("shapes++", ("shapes++", "")),
        ("shapes++@val/swap_att/itt", ("shapes++@val", "swap_att/itt")),
        ("my.jsonl", ("my.jsonl", "")),
        ("/data/my.csv@val", ("/data/my.csv@val", "")),
        ("data/my.jsonl/colours/tot", ("data/my.jsonl", "colours/tot")),
    ],
)
def test_the_path_of_a_file_is_no_number(word: str, parts: tuple[str, str]) -> None:
    assert split_number(word) == parts


def test_a_number_that_does_not_exist_is_told_after_the_first_alpha(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs_of: list[str] = []
    run = search.evaluation.run
    monkeypatch.setattr(
        search.evaluation, "run", lambda *a, **k: [runs_of.append(k["name"]), run(*a, **k)][1]
    )
    pair = write_model(tmp_path / "base"), write_model(tmp_path / "tuned", "t")
    with pytest.raises(ConfigError, match=r"select=shapes\+\+@val/mean/it is no number of it"):
        clic.sweep(*pair, "0:1:0.5", select=["shapes++@val/mean/it"], cache=False)
    assert len(runs_of) == 1


def test_triplets_without_images_are_reported_by_tot(tmp_path: Path) -> None:
    rows = [
        {"positives": ["a dog", "one dog"], "negatives": ["a cat"], "category": category}
        for category in ("one", "two")
    ]
    own = tmp_path / "own.jsonl"
    own.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    pair = write_model(tmp_path / "base"), write_model(tmp_path / "tuned", "t")
    found = clic.sweep(*pair, [0, 1], select=["shapes++@val"], report=[str(own)], cache=False)
    assert found.choice is not None
    assert found.choice.report[0].paths == (("mean", "tot"),)
