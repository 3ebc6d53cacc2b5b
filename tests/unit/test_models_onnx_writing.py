"""A model as ONNX: what onnxruntime computes from the two files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clic import models
from clic.errors import ConfigError, ModelError
from clic.models import ClipModel, onnx_writing

VIT = {"layers": 1, "width": 32, "head_width": 16, "patch_size": 16, "image_size": 32}
TEXT = {"context_length": 20, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
SIGMOID = {
    "custom_text": True,
    "init_logit_bias": -10.0,
    "text_cfg": {**TEXT, "no_causal_mask": True, "pool_type": "last", "proj_bias": True},
}


@pytest.fixture(params=[{}, SIGMOID], ids=["clip", "sigmoid"])
def clip(
    request: pytest.FixtureRequest, build_tiny: Callable[..., ClipModel], tmp_path: Path
) -> ClipModel:
    changes = {"vision_cfg": VIT, "text_cfg": TEXT, **request.param}
    return build_tiny(tmp_path / "cfg", **changes)


@pytest.mark.slow
def test_onnxruntime_computes_the_same_for_any_number(clip: ClipModel, tmp_path: Path) -> None:
    ort = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    ours = models.save(clip, tmp_path / "model")
    (ours / "patch.json").write_text("{}")
    folder = onnx_writing.convert(ours, ["patch.json"])
    names = {path.name for path in folder.iterdir()}
    assert {"image.onnx", "text.onnx", "clic_onnx.json", "patch.json", "merges.txt"} <= names
    content = json.loads((folder / "clic_onnx.json").read_text())
    assert content["image"]["size"] == 32 and content["text"]["context_length"] == 20
    bias = getattr(clip.model, "logit_bias", None)
    assert content["logit_bias"] == (None if bias is None else -10.0)
    assert content["logit_scale"] == pytest.approx(float(clip.model.logit_scale.detach().exp()))
    texts = clip.tokenizer([f"a photo of {i} dogs" for i in range(4)])
    pixels = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(5))
    clip.model.eval()
    for count in (1, 4):
        inputs = {"image": pixels[:count], "text": texts[:count]}
        with torch.no_grad():
            expected = {
                "image": clip.model.encode_image(pixels[:count], normalize=True),
                "text": clip.model.encode_text(texts[:count], normalize=True),
            }
        for tower, value in inputs.items():
            session = ort.InferenceSession(str(folder / f"{tower}.onnx"))
            (found,) = session.run(None, {session.get_inputs()[0].name: value.numpy()})
            np.testing.assert_allclose(found, expected[tower].numpy(), rtol=0, atol=1e-5)


def test_other_features_are_refused(clip: ClipModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check itself, with a runtime that is off by a hundredth."""
    import sys
    import types

    class Session:
        def __init__(self, path: str, providers: list[str]) -> None:
            pass

        def get_inputs(self) -> list[Any]:
            return [types.SimpleNamespace(name="x")]

        def run(self, names: list[str], inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
            clip.model.eval()
            with torch.no_grad():
                given = torch.from_numpy(inputs["x"])
                return [clip.model.encode_text(given, normalize=True).numpy() + self.off]

        off = 0.0

    fake = types.SimpleNamespace(InferenceSession=Session)
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)
    clip.model.eval()
    assert onnx_writing._difference(clip, "text", Path("x")) < 1e-6
    for off in (0.01, float("nan")):
        Session.off = off
        with pytest.raises(ModelError, match="computes other features in ONNX"):
            onnx_writing._difference(clip, "text", Path("x"))


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_writing.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"to=onnx needs onnx, onnxscript, onnxruntime; pip ins"):
        onnx_writing.check_installed()
