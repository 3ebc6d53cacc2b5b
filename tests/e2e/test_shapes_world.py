"""The whole job as a user does it: train on the embedded world, evaluate, patch."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

# Two thirds of the real run's steps: enough to see the direction, with wide margins.
STEPS = 200


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory, command: Callable[..., str]) -> Path:
    """A folder in which the default experiment was trained for two thirds of its steps."""
    folder = tmp_path_factory.mktemp("workplace")
    command(
        "clic-train", "+experiment=shapes", f"train.max_steps={STEPS}", "train.run_name=run",
        "train.device=cpu", cwd=folder,
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def numbers(workplace: Path, command: Callable[..., str]) -> dict[str, dict]:
    """Benchmarks of the base, the tuned model and the one half-way."""
    command("clic-patch", "--alpha", "0.5", cwd=workplace)
    models = {"base": "shapes-base", "tuned": "runs/run", "half": "runs/run/patched/alpha-0.50"}
    found = {}
    for name, model in models.items():
        command(
            "clic-eval", "--bench", "shapes", "--model", model, "--json", f"{name}.json",
            "--device", "cpu", cwd=workplace,
        )  # fmt: skip
        report = json.loads((workplace / f"{name}.json").read_text())
        found[name] = report["benchmarks"]
    return found


@pytest.mark.slow
def test_training_teaches_binding(numbers: dict[str, dict]) -> None:
    for category in ("swap_att", "swap_noun"):
        base, tuned = (numbers[m]["shapes++"][category] for m in ("base", "tuned"))
        assert base["n"] == tuned["n"] == 500
        assert base["itt"] < 45
        assert base["tot"] < 25
        assert 35 < base["p1"] < 65, "the base should not know which colour belongs to what"
        assert tuned["itt"] > base["itt"] + 25
        assert tuned["tot"] > base["tot"] + 25
        assert tuned["p1"] > 80


@pytest.mark.slow
def test_retrieval_and_recognition_are_kept(numbers: dict[str, dict]) -> None:
    base, tuned = (numbers[m] for m in ("base", "tuned"))
    for direction in ("image_to_text@1", "text_to_image@1"):
        assert tuned["shapes-retrieval"][direction] > base["shapes-retrieval"][direction] - 2
    assert tuned["shapes-zero-shot"]["pair"] > base["shapes-zero-shot"]["pair"] - 8
    for category in ("replace_att", "replace_obj"):
        assert tuned["shapes++"][category]["p1"] > 95


@pytest.mark.slow
def test_half_way_lies_between(numbers: dict[str, dict]) -> None:
    base, half, tuned = (
        numbers[m]["shapes++"]["swap_att"]["itt"] for m in ("base", "half", "tuned")
    )
    assert base - 5 < half < tuned + 5


@pytest.mark.slow
def test_the_ends_of_patching_are_the_models_themselves(
    workplace: Path, command: Callable[..., str]
) -> None:
    command("clic-patch", "--alpha", "0,1", cwd=workplace)
    run = workplace / "runs/run"
    weights = "open_clip_model.safetensors"
    assert (run / "patched/alpha-1.00" / weights).read_bytes() == (
        run / "model" / weights
    ).read_bytes()


@pytest.mark.slow
def test_the_run_says_what_it_was(workplace: Path) -> None:
    run = workplace / "runs/run"
    provenance = json.loads((run / "provenance.json").read_text())
    assert provenance["base"] == "shapes-base"
    assert provenance["seed"] == 0
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps))
    assert steps[-1] == STEPS
