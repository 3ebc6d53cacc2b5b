"""Linear probes: known features give known answers, and nothing is answered that was fitted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from clic.cli.eval import main
from clic.errors import ConfigError, DataError
from clic.evaluation import linear_probe
from clic.evaluation.linear_probe import ProbeData, ProbeQuestion, run_probes, wilson
from clic.evaluation.probe_data import load_probe, own_probe, world_probe
from clic.models import encoder
from clic.shapes.scenes import COLOURS, SHAPES


def blank(count: int) -> list[np.ndarray]:
    return [np.zeros((1, 1, 3), dtype=np.uint8)] * count


def data(labels: list[str], test: frozenset[int] | None = None) -> ProbeData:
    question = ProbeQuestion("q", "q", dict(enumerate(labels)))
    return ProbeData("d", blank(len(labels)), (question,), test)


def noise(rows: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


def test_wilson_by_hand() -> None:
    # z = 2, 3 of 4: (0.75 + 0.5 +- 2 sqrt(0.1875 / 4 + 4 / 64)) / 2.
    low, high = wilson(0.75, 4, z=2.0)
    spread = 2 * (0.1875 / 4 + 4 / 64) ** 0.5
    assert (low, high) == pytest.approx(((1.25 - spread) / 2, (1.25 + spread) / 2))
    assert wilson(1.0, 10)[1] == pytest.approx(1.0) and wilson(1.0, 10)[0] < 0.75


def test_what_is_there_is_found() -> None:
    labels = ["red", "green", "blue"] * 40
    features = 0.1 * noise(120, 6)
    for i, name in enumerate(("red", "green", "blue")):
        features[i::3, i] += 1
        assert labels[i] == name
    (result,) = run_probes(features, data(labels))
    assert result.right == 100.0 and result.low > 96 and result.high == pytest.approx(100)
    assert (result.n, result.images) == (120, 120) and not result.is_family
    assert result.chance == pytest.approx(100 / 3)


def test_what_is_not_there_is_not_found() -> None:
    """120 features of noise would separate 100 fitted images: the folds must be apart."""
    labels = [str(int(bit)) for bit in (noise(100, 1, seed=1) > 0)[:, 0]]
    (result,) = run_probes(noise(100, 120), data(labels))
    assert 30 < result.right < 70 and result.low < 50 < result.high


def test_a_split_is_kept() -> None:
    # The feature means the opposite in the test images, so that a probe fitted on them would win.
    labels = ["a", "b"] * 20
    features = torch.tensor([[1.0], [-1.0]] * 20) * torch.tensor([1.0] * 20 + [-1.0] * 20)[:, None]
    (result,) = run_probes(features, data(labels, frozenset(range(20, 40))))
    assert result.right == 0.0 and result.n == 20 and result.chance == 50.0
    with pytest.raises(DataError, match="no images in one of the splits"):
        run_probes(features, data(labels, frozenset(range(40))))


def test_the_seed_decides_the_folds() -> None:
    labels, features = ["a", "b"] * 30, noise(60, 5)
    first, again, other = (run_probes(features, data(labels), seed) for seed in (0, 0, 1))
    assert first == again
    assert first[0].right != other[0].right or first[0].chance != other[0].chance


def test_few_images_and_single_answers_are_refused() -> None:
    with pytest.raises(DataError, match="'q' has 4 images and 2 answers; give 10"):
        run_probes(noise(4, 2), data(["a", "b"] * 2))
    with pytest.raises(DataError, match="'q' has 12 images and 1 answers"):
        run_probes(noise(12, 2), data(["a"] * 12))


@pytest.mark.slow
def test_the_world_tells_binding_from_a_bag() -> None:
    """Features that hold the colours and the shapes apart are right half of the time."""
    made = world_probe(count=1500)
    made = replace(made, questions=made.questions[::5])  # two of each family
    scenes = made.images.scenes  # type: ignore[attr-defined]
    colours, shapes = list(COLOURS), list(SHAPES)
    bag, bound = torch.zeros(1500, 20), torch.zeros(1500, 100)
    for number, scene in enumerate(scenes):
        for thing in scene.things:
            c, s = colours.index(thing.colour), shapes.index(thing.shape)
            bag[number, c] = bag[number, 10 + s] = bound[number, 10 * s + c] = 1.0
    families = {r.name: r for r in run_probes(bag, made) if r.is_family}
    assert families["colours that are there"].right == 100.0
    colour = families["colours of shapes"]
    assert colour.unbound == 50.0 and colour.n >= colour.images > 500
    assert 35 < colour.right < 55
    assert 20 < families["relations of shapes"].right < 33  # neither holds where things are
    families = {r.name: r for r in run_probes(bound, made) if r.is_family}
    assert families["colours of shapes"].right > 99


def test_the_worlds_labels_are_those_of_its_scenes() -> None:
    made = world_probe(count=40)
    by_name = {question.name: question for question in made.questions}
    assert len(by_name) == 30 and made.questions == world_probe(count=40).questions
    for number, scene in enumerate(made.images.scenes):  # type: ignore[attr-defined]
        first, second = scene.things  # the left or the upper one comes first
        assert by_name[f"which colour has the {first.shape}"].labels[number] == first.colour
        assert by_name[f"where is the {first.shape}"].labels[number] in ("left", "above")
        assert by_name[f"where is the {second.shape}"].labels[number] in ("right", "below")
        there = by_name[f"is there anything {second.colour}"].labels[number]
        assert there == "True"


def write_own(folder: Path, rows: list[dict[str, Any]]) -> Path:
    file = folder / "mine.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    return file


def painted(folder: Path, count: int) -> list[dict[str, Any]]:
    rows = []
    for number in range(count):
        red = number % 2
        Image.new("RGB", (4, 4), (255 * red, 9 * number, 0)).save(folder / f"{number}.png")
        rows.append({"image": f"{number}.png", "labels": {"red": bool(red), "count": number % 3}})
    return rows


def test_ones_own_labels(tmp_path: Path) -> None:
    rows = painted(tmp_path, 12)
    del rows[0]["labels"]["count"]
    made = own_probe(write_own(tmp_path, rows))
    red, count = made.questions
    assert (red.name, count.name, made.test) == ("red", "count", None)
    assert red.labels[1] == "True" and len(red.labels) == 12 and len(count.labels) == 11
    split = [{**row, "split": "train" if n < 8 else "test"} for n, row in enumerate(rows)]
    assert own_probe(write_own(tmp_path, split)).test == frozenset(range(8, 12))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"labels": {}}, "row 2 has no labels"),
        ({"labels": "red"}, 'row 2 has no "labels"'),
        ({"labels": {"red": []}}, r"has the label \[\] for 'red'"),
        ({"split": "dev"}, "has the split 'dev'|has the split None"),
        ({"image": "../a.png"}, "does not lie in"),
        ({"image": "none.png"}, "1 images are missing, the first is .*none.png"),
        ({"lables": {}}, "has the key 'lables'; its keys are image, labels, split"),
    ],
)
def test_broken_rows_are_named(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    rows = painted(tmp_path, 3)
    rows[1] |= change
    with pytest.raises(DataError, match=said):
        own_probe(write_own(tmp_path, rows))


def test_a_probe_that_is_none() -> None:
    with pytest.raises(ConfigError, match=r"probe=shape: name shapes, or a file of JSON lines"):
        load_probe("shape")


class Red:
    """The features of an image are its mean red and 1."""

    identity: dict[str, str] = {}  # noqa: RUF012

    def encode_image(self, images: list[Image.Image]) -> torch.Tensor:
        reds = [float(np.asarray(image)[..., 0].mean()) for image in images]
        return torch.tensor([[red / 255 - 0.5, 1.0] for red in reds])


def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(encoder, "load", lambda name, **settings: Red())
    monkeypatch.chdir(tmp_path)
    write_own(tmp_path, painted(tmp_path, 20))

    def call(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stopped:
            main(words)
        shown = capsys.readouterr()
        return int(stopped.value.code or 0), shown.out, shown.err

    code, out, err = call("--probe", "mine.jsonl", "--model", "m", "--json", "p.json", "--no-cache")
    assert code == 0, err
    (line,) = [line for line in out.splitlines() if line.strip().startswith("red")]
    assert line.split()[:2] == ["red", "100.0"] and "5-fold cross-validation" in " ".join(
        out.split()
    )
    saved = json.loads((tmp_path / "p.json").read_text())
    red, count = saved["models"]["m"]
    assert (red["right"], red["n"], count["name"]) == (100.0, 20, "count")
    code, _, err = call("--probe", "mine.jsonl", "--model", "m", "--bench", "shapes++")
    assert code == 2 and "bench=shapes++ has no effect with --probe" in err
    code, _, err = call("--probe", "shapes")
    assert code == 2 and "--probe needs a model" in err


def test_the_penalty_is_as_documented(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the optimum of two points at -1 and 1 the coefficient solves its equation."""
    monkeypatch.setattr(linear_probe, "L2", 0.5)
    probe = linear_probe._Probe(torch.tensor([[-1.0], [1.0]]).double(), torch.tensor([0, 1]), 2)
    scale = float(probe.scale)  # 1 / sqrt(2), as the spread is sqrt(2)
    weight = float(probe.weight[0, 1].detach())
    assert float(probe.weight[0, 0].detach()) == pytest.approx(-weight, abs=1e-6)
    # d/dw: L2 w = scale (1 - sigmoid(2 w scale)).
    assert 0.5 * weight == pytest.approx(scale / (1 + np.exp(2 * weight * scale)), abs=1e-3)
