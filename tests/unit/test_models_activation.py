"""QuickGELU or GELU: what a weights file, a tag or a setting says of the activation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from torch import nn

from clic import models
from clic.errors import ModelError

SMALL: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {
        "layers": 1, "width": 32, "head_width": 16, "patch_size": 16, "image_size": 32,
    },
    "text_cfg": {"context_length": 20, "vocab_size": 100, "width": 16, "heads": 2, "layers": 1},
}  # fmt: skip


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """Return a small CLIP, whose architecture open_clip lists with and without QuickGELU."""
    registry = open_clip.factory._MODEL_CONFIGS
    monkeypatch.setitem(registry, "Small", SMALL)
    monkeypatch.setitem(registry, "Small-quickgelu", {**SMALL, "quick_gelu": True})
    monkeypatch.setitem(registry, "Single", SMALL)
    torch.manual_seed(0)
    return open_clip.CLIP(**SMALL)


@pytest.mark.parametrize("name", ["Small", "ViT-B-32", "ViT-L-14-336", "RN50"])
@pytest.mark.parametrize("split", [True, False])
def test_a_weights_file_must_say_its_activation_where_both_exist(
    model: nn.Module, tmp_path: Path, name: str, split: bool
) -> None:
    file = tmp_path / "tuned.pt"
    torch.save(model.state_dict(), file)
    given = (name, str(file)) if split else (f"{name}:{file}",)
    with pytest.raises(ModelError, match=f"{name}-quickgelu:FILE.*{name}-gelu:FILE") as error:
        models.resolve(*given)
    assert "model.quick_gelu=true or false" in str(error.value)
    assert models.resolve(*given, quick_gelu=True).activation == "QuickGELU"
    assert models.resolve(*given, quick_gelu=False).activation == "GELU"


@pytest.mark.parametrize("name", ["negclip.pth", "negclip.pt", "NegCLIP.PT"])
@pytest.mark.parametrize("split", [True, False])
def test_a_published_file_known_by_its_name_has_its_activation_and_that_is_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, split: bool
) -> None:
    file = tmp_path / name
    file.touch()
    given = ("ViT-B-32", str(file)) if split else (f"ViT-B-32:{file}",)
    found = [models.resolve(*given) for _ in range(2)]
    assert [source.activation for source in found] == ["QuickGELU", "QuickGELU"]
    assert found[0].reference == f"ViT-B-32-quickgelu:{file}"
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith(f"{file} has the name")
    assert "ViT-B-32-gelu:FILE" in error and "model.quick_gelu=false" in error


def test_what_was_said_goes_before_a_files_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "negclip.pth"
    file.touch()
    assert models.resolve(f"ViT-B-32:{file}", quick_gelu=False).activation == "GELU"
    assert models.resolve(f"ViT-B-32-gelu:{file}").activation == "GELU"
    assert models.resolve(f"ViT-B-32-quickgelu:{file}").activation == "QuickGELU"
    for name in (f"ViT-L-14:{file}", f"ViT-B-32:{file.rename(tmp_path / 'my-negclip.pth')}"):
        file.touch()
        with pytest.raises(ModelError, match="say which activation"):
            models.resolve(name)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("name", "setting", "quick"),
    [
        ("Small-quickgelu", None, True),
        ("Small-quickgelu", True, True),
        ("Small-gelu", None, False),
        ("Small", True, True),
        ("Small", False, False),
        ("Single", None, False),
        ("Single", True, True),
        ("Single-quickgelu", None, True),
    ],
)
def test_the_activation_that_was_said_is_the_one_that_computes(
    model: nn.Module, tmp_path: Path, name: str, setting: bool | None, quick: bool
) -> None:
    file = tmp_path / "w.pt"
    torch.save(model.state_dict(), file)
    clip = models.create(f"{name}:{file}", quick_gelu=setting)
    reference = open_clip.CLIP(**SMALL, quick_gelu=quick)
    reference.load_state_dict(model.state_dict())
    pixels = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        expected = reference.eval().encode_image(pixels)
        assert torch.equal(clip.model.eval().encode_image(pixels), expected)
    assert models.identity(clip)["activation"] == ("QuickGELU" if quick else "GELU")
    again = models.create(clip.source.reference)
    assert again.source.activation == clip.source.activation
    folder = models.save(clip, tmp_path / "saved")
    assert models.create(str(folder)).source.activation == clip.source.activation


def test_an_activation_where_it_has_no_effect_is_refused(
    model: nn.Module, tiny: Path, tmp_path: Path
) -> None:
    (tmp_path / "w.pt").touch()
    for name, setting, says in (
        (f"Small-quickgelu:{tmp_path}/w.pt", False, "contradicts the name"),
        (f"Small-gelu:{tmp_path}/w.pt", True, "contradicts the name"),
        ("ViT-B-32:openai", True, "has no effect on the tag 'openai'"),
        (str(tiny), False, "whose own configuration says GELU"),
        ("shapes-base", True, "has no effect"),
        (f"xlm-roberta-base-ViT-B-32:{tmp_path}/w.pt", None, ""),
        (f"nllb-clip-base-siglip:{tmp_path}/w.pt", True, "chosen for nllb-clip-base-siglip"),
    ):
        if says:
            with pytest.raises(ModelError, match=says):
                models.resolve(name, quick_gelu=setting)
        else:
            models.resolve(name, quick_gelu=setting)


@pytest.mark.parametrize(
    ("name", "activation"),
    [
        ("ViT-B-32:metaclip_400m", "QuickGELU"),
        ("ViT-B-32:metaclip-400m", "QuickGELU"),
        ("ViT-B-16:dfn2b", "QuickGELU"),
        ("ViT-H-14-378-quickgelu:dfn5b", "QuickGELU"),
        ("RN50:openai", "QuickGELU"),
        ("ViT-B-32:laion2b_s34b_b79k", "GELU"),
        ("ViT-B-16:datacomp_xl_s13b_b90k", "GELU"),
    ],
)
def test_a_tag_has_the_activation_that_open_clip_knows(name: str, activation: str) -> None:
    assert models.resolve(name).activation == activation


def test_warnings_of_open_clip_reach_the_user_once(
    model: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    import logging

    plain = open_clip.create_model

    def warning(*arguments: Any, **settings: Any) -> nn.Module:
        logging.warning("the towers differ in something")
        logging.info("of no interest")
        return plain(*arguments, **settings)

    monkeypatch.setattr(open_clip, "create_model", warning)
    file = tmp_path / "w.pt"
    torch.save(model.state_dict(), file)
    for _ in range(2):
        models.create(f"Single:{file}")
    assert capsys.readouterr().err == "open_clip: the towers differ in something\n"
