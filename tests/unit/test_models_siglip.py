"""SigLIP as a Hugging Face folder, read and written: the features that transformers computes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch

from clic import models
from clic.errors import ClicError, ModelError
from clic.models import ClipModel, exporting, siglip

sys.path.insert(0, str(Path(__file__).parent))
import tiny_siglip

transformers = pytest.importorskip("transformers")

CAPTIONS = ["A Dog's_bowl, of a CAT!", "a dog  bowl " * 8, "", "!"]
ACTIVATIONS = ["gelu", "gelu_pytorch_tanh"]


@pytest.fixture(autouse=True)
def towers(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_siglip.register(monkeypatch)


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., ClipModel]:
    """Return what builds a small SigLIP as open_clip has it."""

    def make(**changes: Any) -> ClipModel:
        folder = tmp_path / "cfg"
        folder.mkdir()
        tiny_siglip.write_tokenizer(folder)
        config = {
            "model_cfg": tiny_siglip.architecture(**changes),
            "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3, "resize_mode": "squash",
                               "interpolation": "bilinear"},
        }  # fmt: skip
        (folder / "open_clip_config.json").write_text(json.dumps(config))
        torch.manual_seed(0)
        clip = models.create(str(folder), None)
        stir(clip.model)
        return clip

    return make


def stir(model: torch.nn.Module) -> None:
    """Move every weight: biases of zero and norms of one would hide a mistaken name."""
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            generator = torch.Generator().manual_seed(number)
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)


def pixels() -> torch.Tensor:
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def check_equal(clip: ClipModel, folder: Path) -> None:
    """Compare a model with what transformers loads from a folder."""
    theirs, report = transformers.SiglipModel.from_pretrained(folder, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    theirs.eval(), clip.model.eval()
    words = transformers.AutoTokenizer.from_pretrained(folder)
    inputs = words(CAPTIONS, padding="max_length", truncation=True, return_tensors="pt")
    tokens = clip.tokenizer(CAPTIONS)
    assert torch.equal(inputs["input_ids"], tokens)
    with torch.no_grad():
        out = theirs(**inputs, pixel_values=pixels())
        images = clip.model.encode_image(pixels(), normalize=True)
        texts = clip.model.encode_text(tokens, normalize=True)
        logits = clip.model.logit_scale.exp() * images @ texts.T + clip.model.logit_bias
    torch.testing.assert_close(images, out.image_embeds, rtol=0, atol=1e-5)
    torch.testing.assert_close(texts, out.text_embeds, rtol=0, atol=1e-5)
    torch.testing.assert_close(logits, out.logits_per_image, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"act_kwargs": {"approximate": "tanh"}},
        {"name": tiny_siglip.TANH, "tokenizer_kwargs": {"clean": "lower"}},
        {"mlp_ratio": 2.5, "tokenizer_kwargs": {}},
    ],
    ids=["siglip", "siglip 2", "tanh in both", "other width"],
)
def test_what_is_written_is_what_transformers_computes(
    build: Callable[..., ClipModel], tmp_path: Path, changes: dict[str, Any]
) -> None:
    clip = build(**changes)
    folder = exporting.export(clip, tmp_path / "hf")
    check_equal(clip, folder)
    again = models.create(str(folder))
    ours, found = clip.model.state_dict(), again.model.state_dict()
    assert ours.keys() == found.keys()
    assert all(torch.equal(value, found[name]) for name, value in ours.items())
    assert again.preprocess == clip.preprocess
    assert torch.equal(again.tokenizer(CAPTIONS), clip.tokenizer(CAPTIONS))
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    assert (processor.size["height"], list(processor.image_mean)) == (32, [0.5] * 3)


@pytest.fixture
def published(tmp_path: Path) -> Callable[..., Path]:
    """Return what writes a random SiglipModel as transformers does."""

    def make(vision_act: str, text_act: str = "gelu_pytorch_tanh", **text: Any) -> Path:
        common = {"num_hidden_layers": 2, "num_attention_heads": 2}
        config = transformers.SiglipConfig(
            text_config={**common, "hidden_size": 16, "intermediate_size": 40,
                         "vocab_size": len(tiny_siglip.WORDS), "projection_size": 32,
                         "max_position_embeddings": tiny_siglip.LENGTH,
                         "hidden_act": text_act, **text},
            vision_config={**common, "hidden_size": 32, "intermediate_size": 128,
                           "image_size": 32, "patch_size": 8, "hidden_act": vision_act},
        )  # fmt: skip
        torch.manual_seed(0)
        model = transformers.SiglipModel(config)
        stir(model)
        folder = tmp_path / "published"
        model.save_pretrained(folder)
        tiny_siglip.write_tokenizer(folder)
        return folder

    return make


@pytest.mark.parametrize("vision_act", ACTIVATIONS)
@pytest.mark.parametrize("text_act", ACTIVATIONS)
def test_a_folder_of_transformers_is_read(
    published: Callable[..., Path], tmp_path: Path, vision_act: str, text_act: str
) -> None:
    folder = published(vision_act, text_act)
    words = json.loads((folder / "tokenizer_config.json").read_text())
    words |= {"model_max_length": tiny_siglip.LENGTH, "model_input_names": ["input_ids"]}
    (folder / "tokenizer_config.json").write_text(json.dumps(words))
    clip = models.create(str(folder))
    assert clip.preprocess == models.Preprocess(32, (0.5,) * 3, (0.5,) * 3, "bicubic", "squash")
    check_equal(clip, folder)
    again = models.create(str(models.save(clip, tmp_path / "ours")))
    assert again.source.architecture == clip.source.architecture
    check_equal(again, folder)
    out = exporting.export(again, tmp_path / "hf")
    check_equal(again, out)


def test_what_plain_open_clip_computes_without_the_approximation(
    published: Callable[..., Path], tmp_path: Path
) -> None:
    """The one difference of a saved folder in open_clip itself, and how large it is."""
    clip = models.create(str(published("gelu_pytorch_tanh")))
    folder = models.save(clip, tmp_path / "ours")
    plain = open_clip.create_model(f"local-dir:{folder}").eval()
    clip.model.eval()
    tokens = clip.tokenizer(CAPTIONS)
    with torch.no_grad():
        texts = [m.encode_text(tokens, normalize=True) for m in (clip.model, plain)]
        images = [m.encode_image(pixels(), normalize=True) for m in (clip.model, plain)]
    torch.testing.assert_close(*texts, rtol=0, atol=0)
    torch.testing.assert_close(*images, rtol=0, atol=1e-3)
    assert not torch.allclose(*images, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"hidden_size": 16, "projection_size": 24}, "projection_size=24, and only 32"),
        ({"hidden_act": "relu"}, "hidden_act='relu' is not known"),
    ],
)
def test_what_cannot_be_read_is_refused(
    published: Callable[..., Path], changes: dict[str, Any], says: str
) -> None:
    folder = published("gelu")
    config = json.loads((folder / "config.json").read_text())
    config["text_config"] |= changes
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ClicError, match=says):
        models.resolve(str(folder))


def test_a_tower_that_timm_lacks_is_named(published: Callable[..., Path]) -> None:
    folder = published("gelu")
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"]["num_hidden_layers"] = 3
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"has none of hidden_size=32.*num_hidden_layers=3"):
        models.resolve(str(folder))


def test_code_in_a_folder_is_refused(published: Callable[..., Path]) -> None:
    folder = published("gelu")
    words = json.loads((folder / "tokenizer_config.json").read_text())
    words["auto_map"] = {"AutoTokenizer": ["evil.Evil", None]}
    (folder / "tokenizer_config.json").write_text(json.dumps(words))
    with pytest.raises(ModelError, match="auto_map asks to run code"):
        models.resolve(str(folder))


def test_a_tensor_of_another_model_is_named() -> None:
    with pytest.raises(ModelError, match=r"'vision_model\.odd\.weight' is not one of SigLIP's"):
        siglip._ours("vision_model.odd.weight")
    with pytest.raises(ModelError, match=r"'visual\.odd\.weight' has no place"):
        siglip._theirs("visual.odd.weight", torch.ones(2))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"no_causal_mask": False}, "text_cfg.no_causal_mask=False"),
        ({"pool_type": "argmax"}, "text_cfg.pool_type=argmax"),
        ({"proj_bias": False}, "text_cfg.proj_bias=False"),
    ],
)
def test_what_siglip_model_cannot_hold_is_refused_by_name(
    changes: dict[str, Any], says: str
) -> None:
    found = tiny_siglip.architecture(**changes)
    source = models.ModelSource("mine", "local-dir:/mine", None, found)
    with pytest.raises(ModelError, match=says):
        exporting.check_fits(source)


def test_a_repository_of_the_hub(
    published: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`hf-hub:` finds a SiglipModel where there is no open_clip_config.json."""
    import huggingface_hub
    from open_clip import pretrained

    folder = published("gelu")

    def missing(*args: Any, **kwargs: Any) -> str:
        raise FileNotFoundError("404: no such file")

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(pretrained, "download_pretrained_from_hf", missing)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda repo, file: folder / file)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda repo, **kwargs: str(folder))
    clip = models.create("hf-hub:google/siglip-tiny")
    assert clip.source.reference == "hf-hub:google/siglip-tiny"
    assert clip.source.architecture["vision_cfg"]["timm_model_name"] == tiny_siglip.NAME
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "blip"}))
    with pytest.raises(ModelError, match="model_type='blip' is not read"):
        models.resolve("hf-hub:google/siglip-tiny")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", missing)
    with pytest.raises(ModelError, match=r"open_clip_config\.json could not be downloaded"):
        models.resolve("hf-hub:google/siglip-tiny")


def test_the_tokenizer_of_the_first_siglips(published: Callable[..., Path], tmp_path: Path) -> None:
    """It is a slow one, which drops punctuation by itself."""
    trainer = pytest.importorskip("sentencepiece").SentencePieceTrainer
    pytest.importorskip("google.protobuf")
    folder = published("gelu", vocab_size=32000)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (folder / file).unlink()
    (tmp_path / "text.txt").write_text("a dog bites a man\nthe cat sits left of a bowl\n" * 20)
    trainer.train(input=str(tmp_path / "text.txt"), model_prefix=str(folder / "spiece"),
                  vocab_size=22, unk_id=2, eos_id=1, pad_id=0, bos_id=-1)  # fmt: skip
    words = transformers.SiglipTokenizer(vocab_file=str(folder / "spiece.model"))
    words.save_pretrained(folder)
    clip = models.create(str(folder))
    texts = words(CAPTIONS, padding="max_length", truncation=True, return_tensors="pt",
                  max_length=tiny_siglip.LENGTH)  # fmt: skip
    assert torch.equal(clip.tokenizer(CAPTIONS), texts["input_ids"])
    check_equal(clip, exporting.export(clip, tmp_path / "hf"))
