"""What holds for every test: GPU tests say why they are skipped, and a model that is fast."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked ``gpu`` where torch sees no GPU."""
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA GPU, and torch sees none")
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(skip)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what the commands cache out of the user's folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLIC_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def clic_data(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """Return what runs `clic-data` in `tmp_path` and gives exit code, output and errors."""
    from clic.cli import data

    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["clic-data", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            data.main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run


TINY = {
    "embed_dim": 16,
    "vision_cfg": {"layers": [1, 1, 1, 1], "width": 8, "head_width": 32, "image_size": 32},
    "text_cfg": {
        "context_length": 34,
        "vocab_size": 49408,
        "width": 16,
        "heads": 2,
        "layers": 1,
    },
}
"""A CLIP of a second's thought: BatchNorm in its vision tower, CLIP's own tokenizer."""


@pytest.fixture(scope="session")
def build_tiny() -> Callable[..., Any]:
    """Return what builds a tiny `ClipModel` with random weights of a seed."""
    from clic.models import ModelSource, build

    def make(folder: Path, seed: int = 0, **changes: Any) -> Any:
        architecture = json.loads(json.dumps({**TINY, **changes}))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "open_clip_config.json").write_text(
            json.dumps({"model_cfg": architecture, "preprocess_cfg": {}})
        )
        torch.manual_seed(seed)
        return build(ModelSource("tiny", f"local-dir:{folder}", None, architecture))

    return make


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory, build_tiny: Callable[..., Any]) -> Path:
    """Return the open_clip folder of a tiny model."""
    from clic.models import save

    return save(
        build_tiny(tmp_path_factory.mktemp("cfg")), tmp_path_factory.mktemp("tiny") / "model"
    )


@pytest.fixture(scope="session")
def tiny_words(tiny: Path) -> list[str]:
    """Return the words that make a `clic-train` of any experiment small and fast."""
    return [
        f"model.name={tiny}",
        "model.pretrained=included",
        "data=shapes",
        "data.samples=64",
        "data.workers=0",
        "train.batch_size=4",
        "train.device=cpu",
        "train.log_every=1",
    ]


@pytest.fixture
def settings(tmp_path: Path, tiny_words: list[str]) -> Callable[..., Any]:
    """Return what composes the settings of a small run below `tmp_path`, with overrides."""
    from clic.cli.train import compose

    def make(*words: str) -> Any:
        return compose([*tiny_words, f"train.runs_dir={tmp_path / 'runs'}", *words])

    return make
