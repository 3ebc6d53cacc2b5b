"""One model of several: each method against values worked out by hand, folders, refusals."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import clic
from clic import patching, runs, shapes
from clic.errors import ConfigError, ModelError
from clic.patching import merging, soups, tensor_files
from clic.patching.merging import MergeSettings
from clic.seeding import generator

CONFIG = {"model_cfg": {"embed_dim": 4}, "preprocess_cfg": {}}


def t(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float32)


def test_average() -> None:
    assert merging.average([t(0, 4), t(2, 8)], [1, 1]).tolist() == [1, 6]
    assert merging.average([t(0, 4), t(2, 8)], [3, 1]).tolist() == [0.5, 5]


def test_task_arithmetic() -> None:
    """1 + 0.5 * ((3 - 1) + (0 - 1)) and 2 + 0.5 * ((2 - 2) + (6 - 2))."""
    assert merging.task_arithmetic(t(1, 2), [t(3, 2), t(0, 6)], 0.5).tolist() == [1.5, 4]


def test_ties() -> None:
    """Half of each difference stays: (4, -3, 0, 0), (5, 0, 0, -2) and (-1, 2, 0, 0).

    The sums (8, -1, 0, -2) elect +, -, 0, -: the means of those that agree are 4.5, -3, 0 and -2.
    """
    base = t(10, 10, 10, 10)
    changes = [t(4, -3, 1, 0.5), t(5, 0.5, 1, -2), t(-1, 2, 0.5, -0.5)]
    made = merging.ties(base, [base + change for change in changes], 0.5, 1.0)
    assert made.tolist() == [14.5, 7, 10, 8]
    assert merging.ties(base, [base + changes[0]], 0.5, 2.0).tolist() == [18, 4, 10, 10]


def test_ties_keeps_all_at_the_limit_and_drops_what_cancels() -> None:
    base = t(0, 0, 0)
    assert merging.ties(base, [t(1, -1, 0.5)], 1 / 3, 1.0).tolist() == [1, -1, 0]
    assert merging.ties(base, [t(1, 3, 0), t(-1, 3, 0)], 1.0, 1.0).tolist() == [0, 3, 0]


def test_dare_drops_by_its_generator_and_scales_the_rest_up() -> None:
    size, density = 4000, 0.25
    base, tuned = torch.ones(size), torch.full((size,), 3.0)
    drawn = generator(3, "dare/w").random(size, dtype=np.float32)
    made = merging.dare(base, [tuned], density, 1.0, [generator(3, "dare/w")])
    assert torch.equal(made, torch.where(torch.from_numpy(drawn) < density, 9.0, 1.0))
    assert float((made != 1).float().mean()) == pytest.approx(density, abs=0.03)
    pieces = generator(3, "dare/w")
    halves = [merging.dare(part, [part * 3], density, 1.0, [pieces]) for part in base.split(1001)]
    assert torch.equal(torch.cat(halves), made)


def test_dare_drops_other_places_of_every_model_and_of_every_tensor() -> None:
    how, base = MergeSettings("dare", density=0.5, seed=3), torch.zeros(200)
    changed = [base, base + 1, base + 10]
    one, other = (how.of_tensor(name, 2)(changed) for name in ("a", "b"))
    assert set(one.unique().tolist()) == {0.0, 2.0, 20.0, 22.0}  # neither, either or both stay
    assert not torch.equal(one, other)
    assert torch.equal(one, how.of_tensor("a", 2)(changed))


def test_model_stock() -> None:
    """Differences (1, 0) and (1, 1) / sqrt(2): cos = 1 / sqrt(2), t = 2 cos / (1 + cos)."""
    base, cosine = t(1, 1), 2**-0.5
    way = 2 * cosine / (1 + cosine)
    made = merging.model_stock(base, [t(2, 1), t(1 + cosine, 1 + cosine)])
    expected = [1 + way * (1 + cosine) / 2, 1 + way * cosine / 2]
    assert made.tolist() == pytest.approx(expected, rel=1e-6)
    three = [t(2, 1), t(2, 1), t(1, 2)]  # cosines 1, 0 and 0: 1/3; t = 3/3 / (1 + 2/3) = 0.6
    assert merging.model_stock(base, three).tolist() == pytest.approx([1.4, 1.2], rel=1e-6)
    assert merging.model_stock(base, [t(2, 1), t(0, 1)]).tolist() == [1, 1]


def test_slerp() -> None:
    """A quarter of a right angle, and the straight line where there is no angle."""
    made = merging.slerp(t(2, 0), t(0, 2), 0.25)
    angle = np.pi / 8
    assert made.tolist() == pytest.approx([2 * np.cos(angle), 2 * np.sin(angle)], rel=1e-6)
    assert merging.slerp(t(1, 0), t(3, 0), 0.25).tolist() == [1.5, 0]
    assert merging.slerp(t(1, 0), t(-1, 0), 0.5).tolist() == [0, 0]
    assert merging.slerp(t(0, 0), t(2, 0), 0.5).tolist() == [1, 0]


def state(seed: int) -> dict[str, Tensor]:
    drawn = generator(seed, "soup").standard_normal((7, 3), dtype=np.float32)
    return {
        "logit_scale": torch.tensor(1.0 + seed),
        "visual.frozen": torch.arange(6.0).reshape(2, 3) / 7,
        "text.weight": torch.from_numpy(drawn),
        "attn_mask": torch.full((3, 3), float("-inf")).triu(1) + seed,
        "visual.bn.num_batches_tracked": torch.tensor(3 + seed),
        "steps": torch.tensor(17),
    }


@pytest.fixture
def trio(tmp_path: Path) -> list[Path]:
    """A base and two models tuned from it."""
    made = []
    for seed, name in enumerate(("base", "one", "two")):
        folder = tmp_path / name
        folder.mkdir()
        save_file(state(seed), folder / runs.OPEN_CLIP_WEIGHTS)
        (folder / runs.OPEN_CLIP_CONFIG).write_text(json.dumps(CONFIG))
        made.append(folder)
    return made


METHODS: list[tuple[dict[str, Any], MergeSettings]] = [
    ({}, MergeSettings()),
    ({"method": "weights", "weights": [3, 1]}, MergeSettings("weights", (3, 1))),
    ({"method": "slerp", "weights": [3, 1]}, MergeSettings("slerp", (3, 1))),
    ({"method": "task", "scale": 0.5}, MergeSettings("task", scale=0.5)),
    ({"method": "ties"}, MergeSettings("ties", density=0.2)),
    ({"method": "dare", "draw_seed": 5}, MergeSettings("dare", density=0.1, seed=5)),
    ({"method": "stock"}, MergeSettings("stock")),
]


@pytest.mark.parametrize(("words", "how"), METHODS, ids=lambda x: str(x)[:24])
def test_a_folder_of_every_method(
    words: dict[str, Any],
    how: MergeSettings,
    trio: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Written in pieces of 4 numbers or whole, it is what the functions make of whole tensors."""
    based = how.method in ("task", "ties", "dare", "stock")
    monkeypatch.setattr(tensor_files, "CHUNK", 4)
    out = clic.soup(trio[1:], tmp_path / "out", base=trio[0] if based else None, **words)
    found = load_file(out / runs.OPEN_CLIP_WEIGHTS)
    states = [state(seed) for seed in ((0, 1, 2) if based else (1, 2))]
    for name in ("text.weight", "logit_scale"):
        expected = how.of_tensor(name, 2)([one[name] for one in states])
        assert torch.equal(found[name], expected), name
    assert torch.equal(found["visual.frozen"], state(0)["visual.frozen"])
    assert torch.equal(found["attn_mask"].isinf(), state(0)["attn_mask"].isinf())
    assert not found["attn_mask"].isnan().any()
    record = json.loads((out / patching.RECORD_FILE).read_text())
    assert record["method"] == how.method and record["soup"] == [str(one) for one in trio[1:]]
    assert len(record["file_sha256"]) == len(states)
    assert {path.name for path in tmp_path.iterdir()} == {"base", "one", "two", "out"}


def test_models_that_do_not_fit_are_named(trio: list[Path], tmp_path: Path) -> None:
    fewer = {name: value for name, value in state(1).items() if name != "text.weight"}
    save_file(fewer, trio[2] / runs.OPEN_CLIP_WEIGHTS)
    with pytest.raises(ModelError, match=r"one \(base\) and .*two \(tuned\): .*text\.weight"):
        clic.soup(trio[1:], tmp_path / "out")
    broken = state(2)
    broken["text.weight"][1, 1] = float("nan")
    save_file(broken, trio[2] / runs.OPEN_CLIP_WEIGHTS)
    with pytest.raises(ModelError, match=r"'text\.weight' of .*two/.* holds NaN"):
        clic.soup(trio[1:], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"method": "tie"}, "did you mean 'ties'"),
        ({"method": "ties"}, "--method ties needs --base"),
        ({"method": "greedy"}, "--method greedy needs --select"),
        ({"base": "x"}, "base=x has no effect with --method uniform"),
        ({"scale": 2.0}, "scale=2.0 has no effect with --method uniform"),
        ({"method": "weights"}, "method=weights needs weights"),
        ({"method": "weights", "weights": [1]}, "there are 1 weights for 2 models"),
        ({"method": "weights", "weights": [0, 0]}, "weights=0,0: each must be 0 or more"),
        ({"method": "weights", "weights": [-1, 2]}, "weights=-1,2: each must be 0 or more"),
        ({"method": "ties", "base": "x", "density": 0.0}, "density=0.0 must be above 0"),
        ({"method": "task", "base": "x", "scale": float("nan")}, "scale=nan must be a finite"),
        ({"select": ["shapes++@val"]}, r"select=shapes\+\+@val has no effect with --method"),
        ({"device": "cuda"}, "device=cuda has no effect with --method uniform, which scores"),
    ],
)
def test_mistakes(words: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        clic.soup(["a", "b"], tmp_path / "out", **words)
    assert not list(tmp_path.iterdir())


def test_the_number_of_models_is_checked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="method=slerp takes exactly 2 models, and there are 3"):
        clic.soup(["a", "b", "c"], tmp_path / "out", method="slerp")
    with pytest.raises(ConfigError, match="method=uniform takes at least 2 models"):
        clic.soup(["a"], tmp_path / "out")


def test_a_greedy_soup_takes_what_does_not_make_it_worse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The score is the negated distance of a bias to 5: 20 would move the mean of 4, 8, 1 away."""
    monkeypatch.setattr(shapes, "triplets", partial(shapes.triplets, per_category=2))
    base = load_file(shapes.base_folder() / runs.OPEN_CLIP_WEIGHTS)
    config = (shapes.base_folder() / runs.OPEN_CLIP_CONFIG).read_text()
    folders = []
    for value in (20.0, 8.0, 4.0, 1.0):
        folder = tmp_path / f"{value:g}"
        folder.mkdir()
        save_file({**base, "ln_final.bias": torch.full_like(base["ln_final.bias"], value)},
                  folder / runs.OPEN_CLIP_WEIGHTS)  # fmt: skip
        (folder / runs.OPEN_CLIP_CONFIG).write_text(config)
        folders.append(folder)

    def score(settings: Any, plan: Any, model: Any, *words: Any, **more: Any) -> Any:
        bias = float(model.clip.model.state_dict()["ln_final.bias"][0])
        model.benchmarks = {"shapes++@val": {"mean": {"itt": -abs(bias - 5.0)}}}
        return model

    monkeypatch.setattr(soups, "score", score)
    out = clic.soup(folders, tmp_path / "out", method="greedy", select=["shapes++@val"])
    steps = json.loads((out / patching.RECORD_FILE).read_text())["steps"]
    tried = [(Path(s["model"]).name, s["alone"], s["together"], s["taken"]) for s in steps]
    assert tried == [
        ("4", -1.0, -1.0, True),
        ("8", -3.0, -1.0, True),
        ("1", -4.0, pytest.approx(-2 / 3), True),
        ("20", -15.0, -3.25, False),
    ]
    bias = load_file(out / runs.OPEN_CLIP_WEIGHTS)["ln_final.bias"]
    assert float(bias[0]) == pytest.approx(13 / 3)
