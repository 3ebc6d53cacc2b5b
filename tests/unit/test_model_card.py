"""The model card says what a folder and its run say, and shows only numbers of the same weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from clic import models, runs
from clic.errors import DataError
from clic.patching import model_card, patch

CLIC = {"loss": {"composite": "clic", "single": "clip"}, "sampling": {"kinds": "alternate"}}


def negatives(kind: str) -> dict[str, Any]:
    return {
        "loss": {"composite": "clip", "single": "softmax_negatives"},
        "sampling": {"kinds": "single"},
        "captions": {"single_negative": kind},
    }


@pytest.fixture
def model(tiny: Path, tmp_path: Path) -> Path:
    """A patched model of a finished run."""
    run = tmp_path / "run"
    models.save(models.create(str(tiny)), run / runs.MODEL)
    settings = {"name": "vitb32", "optim": {"lr": 1e-6}, "model": {"train": "text"}, **CLIC}
    (run / runs.CONFIG_FILE).write_text(yaml.safe_dump(settings))
    return patch(tiny, run / runs.MODEL, 0.5, tmp_path / "alpha-0.50")


def report(path: Path, sha256: str) -> Path:
    form = {
        "model": {"name": "mine", "weights_sha256": sha256},
        "provenance": {"name": "mine", "benchmarks": {}},
        "benchmarks": {"shapes++": {"swap_att": {"itt": 61.5, "tot": 50.0, "p1": 70.0, "n": 200}}},
    }
    path.write_text(json.dumps(form))
    return path


def test_a_card_has_base_recipe_licence_and_citation(model: Path) -> None:
    card = model_card.text(model, None)
    front = yaml.safe_load(card.split("---")[1])
    assert front["library_name"] == "open_clip" and front["license"] == "other"
    assert "at alpha 0.5" in card and "`vitb32`" in card and "| `optim.lr` | `1e-06` |" in card
    identity = models.identity(models.create(str(model)))
    assert identity["weights_sha256"] in card
    assert "arxiv.org/abs/2505.24424" in card and "arxiv.org/abs/2109.01903" in card
    assert "2402.15021" not in card and "None given" in card
    assert str(model.parent) not in card  # the writer's own folders


def test_a_card_shows_the_results_of_its_own_weights(model: Path, tmp_path: Path) -> None:
    sha256 = models.identity(models.create(str(model)))["weights_sha256"]
    reports = model_card.read_results(str(report(tmp_path / "r.json", sha256)))
    card = model_card.text(model, "hf", reports)
    assert "61.5" in card and "library_name: transformers" in card and "CLIPModel" in card
    others = model_card.read_results(str(report(tmp_path / "o.json", "0" * 64)))
    with pytest.raises(DataError, match=r"report of mine is of other weights"):
        model_card.text(model, None, others)


@pytest.mark.parametrize(
    ("settings", "alpha", "names"),
    [
        (CLIC, 1.0, ["clic"]),
        (negatives("replace"), 0.6, ["clove", "patching"]),
        (negatives("swap"), 1.0, ["negclip"]),
        ({}, None, ["patching"]),
    ],
)
def test_papers_by_settings(settings: dict[str, Any], alpha: float, names: list[str]) -> None:
    assert model_card.cited(settings, alpha) == names
