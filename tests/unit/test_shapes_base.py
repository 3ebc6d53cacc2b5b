"""The base model that ships: its files, what it can and cannot do, and how it is made."""

from __future__ import annotations

import importlib.util
import zlib
from pathlib import Path
from types import ModuleType

import numpy as np
import open_clip
import pytest
import torch

import clic
from clic import models, shapes
from clic.metrics import triplet
from clic.shapes.language import LEXICON

SCRIPT = Path(__file__).parents[2] / "scripts" / "build_shapes_base.py"
ROWS = 150
SWAPS = ("swap_att", "swap_noun", "swap_phrase", "replace_rel")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """Return scripts/build_shapes_base.py as a module."""
    spec = importlib.util.spec_from_file_location("build_shapes_base", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def outcomes() -> dict[str, dict[str, float]]:
    """Return percentages of the base by category and measure, on a part of the test split."""
    base = clic.load(shapes.base_folder(), device="cpu")
    benchmark = shapes.triplets("test", ROWS)
    image = base.encode_image(benchmark.images[:])
    texts = [
        base.encode_text([getattr(row, name) for row in benchmark.rows])
        for name in ("positive1", "positive2", "negative")
    ]
    categories = np.array([row.category for row in benchmark.rows])
    right = triplet(image, *texts)
    return {
        category: {
            name: 100 * float(values[torch.from_numpy(categories == category)].float().mean())
            for name, values in right.items()
        }
        for category in shapes.CATEGORIES
    }


def test_open_clip_loads_the_folder() -> None:
    model = open_clip.create_model(f"local-dir:{shapes.base_folder()}").eval()
    tokenizer = open_clip.get_tokenizer(f"local-dir:{shapes.base_folder()}")
    with torch.no_grad():
        features = model.encode_text(tokenizer(["a red circle"]), normalize=True)
    assert features.shape == (1, 128)
    assert model.logit_scale.exp().item() == pytest.approx(30.0, rel=1e-4)
    used = torch.unique(tokenizer([*LEXICON, "."]))
    is_zero = (model.token_embedding.weight == 0).all(dim=1)
    assert not is_zero[used].any()
    assert int(is_zero.sum()) == len(is_zero) - len(used)


def test_files_pack_small() -> None:
    files = {path.name: path for path in shapes.base_folder().iterdir()}
    assert set(files) == {"open_clip_config.json", "open_clip_model.safetensors"}
    packed = zlib.compress(files["open_clip_model.safetensors"].read_bytes(), level=1)
    assert len(packed) < 4 * 2**20


def test_the_base_names_what_is_there(outcomes: dict[str, dict[str, float]]) -> None:
    for category in ("replace_att", "replace_obj"):
        assert min(outcomes[category].values()) > 93


@pytest.mark.parametrize("category", SWAPS)
def test_the_base_binds_nothing(category: str, outcomes: dict[str, dict[str, float]]) -> None:
    assert 36 < outcomes[category]["p1"] < 64
    assert outcomes[category]["itt"] < 38
    assert outcomes[category]["tot"] < 15


def test_zero_shot_of_the_base() -> None:
    base = clic.load(str(shapes.base_folder()), device="cpu")
    for task in shapes.zero_shot("test", 200).values():
        prompts = torch.stack([base.encode_text(p).mean(0) for p in task.class_prompts])
        guess = (base.encode_image(task.images[:]) @ prompts.T).argmax(1)
        assert (guess == torch.tensor(task.targets)).float().mean() > 0.95


def test_its_vision_tower_holds_binding_and_layout(script: ModuleType) -> None:
    base = models.create(str(shapes.base_folder()))
    benchmarks = (shapes.triplets("test", 100), shapes.relations("test", 30))
    rights = script.probe(base, benchmarks, samples=3000, steps=200)
    assert len(rights) == 18 and rights.keys() >= shapes.CATEGORIES.keys()
    assert min(rights.values()) >= 95


def test_labels_of_captions_and_scenes_agree(script: ModuleType) -> None:
    for benchmark in (shapes.triplets("train", 40), shapes.relations("train", 20)):
        for row in benchmark.rows:
            true = script.targets(benchmark.images.scenes[row.image])
            assert true[script.said(row.positive1)].all()
            assert true[script.said(row.positive2)].all()
            assert not true[script.said(row.negative)].all()


def test_web_captions_keep_some_of_the_words(script: ModuleType) -> None:
    sentences = shapes.sample("train", 0, 2).captions
    words = {word for sentence in sentences for word in sentence.split()}
    rng = np.random.default_rng(0)
    captions = [script.web_caption(sentences, rng) for _ in range(200)]
    assert all(caption and set(caption.rstrip(".").split()) <= words for caption in captions)
    assert 60 < sum(caption.endswith(".") for caption in captions) < 140
    assert 0 < sum(caption.rstrip(".") in sentences for caption in captions) < 60


def test_building_is_reproducible_and_in_two_stages(script: ModuleType, tmp_path: Path) -> None:
    def build(name: str, seed: int) -> dict[str, torch.Tensor]:
        clip = script.new_model(tmp_path / name, seed)
        start = {key: value.clone() for key, value in clip.model.state_dict().items()}
        script.train_vision(clip, steps=2, seed=seed)
        seen = {key: value.clone() for key, value in clip.model.state_dict().items()}
        script.train_text(clip, steps=2, seed=seed)
        end = clip.model.state_dict()
        for key in end:
            is_vision = key.startswith("visual.")
            assert is_vision or torch.equal(start[key], seen[key])
            assert not is_vision or torch.equal(seen[key], end[key])
        assert not torch.equal(start["visual.conv1.weight"], seen["visual.conv1.weight"])
        assert not torch.equal(seen["text_projection"], end["text_projection"])
        assert torch.equal(seen["logit_scale"], end["logit_scale"])
        unused = (start["token_embedding.weight"] == 0).all(dim=1)
        assert (end["token_embedding.weight"][unused] == 0).all()
        models.save(clip, tmp_path / name)
        return end

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        first, again, other = build("first", 3), build("again", 3), build("other", 4)
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["text_projection"], other["text_projection"])
