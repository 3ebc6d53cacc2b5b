"""Folders with a Hugging Face text tower hold all that it is built from, wherever they lie."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from clic import models, runs
from clic.errors import ModelError
from clic.patching import folders, patch

transformers = pytest.importorskip("transformers")

PAGE = Path(__file__).parents[2] / "docs/models.md"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "dog", "bites", "man", "."]
LENGTH = 12


@pytest.fixture
def saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder saved by us, whose text tower's config names a folder that is no longer there."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    tower, first = tmp_path / "bert", tmp_path / "first"
    transformers.BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=LENGTH,
    ).save_pretrained(tower)
    first.mkdir()
    (tower / "vocab.txt").write_text("\n".join(WORDS))
    transformers.BertTokenizerFast(vocab=str(tower / "vocab.txt")).save_pretrained(first)
    architecture = {
        "embed_dim": 8,
        "vision_cfg": {"image_size": 16, "patch_size": 8, "width": 16, "layers": 1,
                       "head_width": 8},
        "text_cfg": {"hf_model_name": str(tower), "hf_tokenizer_name": str(tower),
                     "hf_proj_type": "mlp", "hf_pooler_type": "mean_pooler",
                     "context_length": LENGTH},
    }  # fmt: skip
    (first / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": architecture, "preprocess_cfg": {"size": 16}})
    )
    torch.manual_seed(0)
    models.save(models.create(str(first), None), tmp_path / "saved")
    shutil.rmtree(tower)
    shutil.rmtree(first)
    return tmp_path / "saved"


def features(folder: Path) -> torch.Tensor:
    clip = models.create(str(folder))
    clip.model.eval()
    with torch.no_grad():
        return clip.model.encode_text(clip.tokenizer(["a dog bites a man.", "a man bites a dog."]))


def test_a_moved_folder_loads_offline_with_the_same_features(saved: Path, tmp_path: Path) -> None:
    expected = features(saved)
    moved = tmp_path / "elsewhere" / "model"
    shutil.copytree(saved, moved)
    shutil.rmtree(saved)
    assert torch.equal(features(moved), expected)
    again = models.save(models.create(str(moved)), tmp_path / "again")
    assert torch.equal(features(again), expected)


def plain_open_clip(recipe: str, folder: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a recipe in a process without clic, from another folder, and save its features."""
    code = recipe.replace("DIR", str(folder)) + (
        "import sys, torch\n"
        "assert 'clic' not in sys.modules\n"
        "with torch.no_grad():\n"
        "    found = model.eval().encode_text(tokenizer(['a dog bites a man.', "
        "'a man bites a dog.']))\n"
        "torch.save(found, 'features.pt')\n"
    )
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env=env, capture_output=True, text=True
    )


def test_plain_open_clip_loads_a_moved_folder_by_the_recipe_of_the_page(
    saved: Path, tmp_path: Path
) -> None:
    expected = features(saved)
    moved, cwd = tmp_path / "elsewhere" / "model", tmp_path / "cwd"
    shutil.copytree(saved, moved)
    shutil.rmtree(saved)
    cwd.mkdir()
    recipe = PAGE.read_text(encoding="utf-8").partition("```python\n")[2].partition("```")[0]
    assert "text_tower" in recipe
    done = plain_open_clip(recipe, moved, cwd)
    assert done.returncode == 0, done.stderr
    torch.testing.assert_close(torch.load(cwd / "features.pt"), expected, rtol=0, atol=1e-6)


def test_plain_open_clip_cannot_find_the_tower_by_itself(saved: Path, tmp_path: Path) -> None:
    """When this fails, open_clip has learned to, and the recipe may go."""
    recipe = "import open_clip\nmodel = open_clip.create_model('local-dir:DIR')\n"
    done = plain_open_clip(recipe, saved, tmp_path)
    assert done.returncode != 0 and str(tmp_path / "bert") in done.stderr


def test_plain_open_clip_finds_the_tower_from_within_the_folder(
    saved: Path, tmp_path: Path
) -> None:
    """The second recipe of the page: a relative name, seen from the working directory."""
    expected = features(saved)
    page = PAGE.read_text(encoding="utf-8")
    edit = page.partition("```bash\ncd DIR\n")[2].partition("```")[0]
    subprocess.run(["bash", "-ec", edit], cwd=saved, check=True)
    recipe = (
        "import open_clip\nmodel = open_clip.create_model('local-dir:.')\n"
        "tokenizer = open_clip.get_tokenizer('local-dir:.')\n"
    )
    done = plain_open_clip(recipe, saved, saved)
    assert done.returncode == 0, done.stderr
    found = torch.load(saved / "features.pt")
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert torch.equal(features(saved), expected)  # clic reads it as before, from anywhere
    done = plain_open_clip(recipe.replace("local-dir:.", "local-dir:DIR"), saved, tmp_path)
    assert done.returncode != 0


# --- a tokenizer that is not at hand -------------------------------------------------------------


def test_a_tokenizer_of_the_hub_that_is_not_at_hand_is_named_before_the_model_is_built(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("open_clip.create_model", lambda *_, **__: pytest.fail("it was built"))

    def missing(*_: object, **__: object) -> None:
        raise OSError("We couldn't connect")

    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", missing)
    with pytest.raises(ModelError, match=r"timm/ViT-B-16-SigLIP.*hf download timm/ViT-B-16-SigLIP"):
        models.create("ViT-B-16-SigLIP", None)


@pytest.mark.parametrize(
    ("gone", "says"),
    [
        (("tokenizer.json",), "lacks its tokenizer.*none of tokenizer.json"),
        (("tokenizer_config.json",), "no padding token; copy its tokenizer_config.json"),
    ],
)
def test_a_folder_without_its_tokenizer_is_refused(
    saved: Path, tmp_path: Path, gone: tuple[str, ...], says: str
) -> None:
    """transformers makes a tokenizer without a vocabulary of what is left, and says nothing."""
    whole = shutil.copytree(saved, tmp_path / "whole")
    for name in gone:
        (saved / name).unlink()
    with pytest.raises(ModelError, match=says):
        models.create(str(saved))
    with pytest.raises(ModelError, match=says):
        patch(whole, saved, 0.5, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_patch_of_another_tokenizer_is_refused(saved: Path, tmp_path: Path) -> None:
    other = shutil.copytree(saved, tmp_path / "other")
    file = other / "tokenizer.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content))  # the same, in other bytes
    out = patch(saved, other, 0.5, tmp_path / "out")
    weights = other / runs.OPEN_CLIP_WEIGHTS
    names = load_file(weights).keys()
    weights.rename(other / "part.safetensors")  # of several, as far as the index knows
    index = {"weight_map": dict.fromkeys(names, "part.safetensors")}
    (other / folders.WEIGHTS_INDEX).write_text(json.dumps(index))
    parts = patch(saved, other, 0.5, tmp_path / "parts") / runs.OPEN_CLIP_WEIGHTS
    assert parts.read_bytes() == (out / runs.OPEN_CLIP_WEIGHTS).read_bytes()
    content["normalizer"]["lowercase"] = not content["normalizer"]["lowercase"]
    words = content["model"]["vocab"]
    words["a"], words["dog"] = words["dog"], words["a"]
    file.write_text(json.dumps(content))
    with pytest.raises(ModelError, match="give the same texts other token ids"):
        patch(saved, other, 0.5, tmp_path / "never")
    assert not (tmp_path / "never").exists()


def test_a_patched_folder_holds_the_text_tower_too(saved: Path, tmp_path: Path) -> None:
    expected = features(saved)
    out = patch(saved, saved, 1.0, tmp_path / "patched")
    shutil.rmtree(saved)
    assert torch.equal(features(out), expected)


def test_a_text_tower_with_code_of_its_own_is_refused(saved: Path) -> None:
    path = saved / "text_tower" / "config.json"
    config = json.loads(path.read_text())
    config["auto_map"] = {"AutoConfig": "evil.Evil", "AutoModel": "evil.Model"}
    config["model_type"] = "evil"
    path.write_text(json.dumps(config))
    (path.parent / "evil.py").write_text("raise SystemExit('it ran')")
    with pytest.raises(ModelError, match=r"brings its own code|auto_map asks to run code"):
        models.create(str(saved))


@pytest.mark.parametrize("pooler", ["mean_pooler", "cls_pooler"])
def test_padding_is_left_out_and_features_and_gradients_stay(saved: Path, pooler: str) -> None:
    config = saved / "open_clip_config.json"
    content = json.loads(config.read_text())
    content["model_cfg"]["text_cfg"]["hf_pooler_type"] = pooler
    config.write_text(json.dumps(content))
    clip = models.create(str(saved), None)  # the weights at hand lack what the CLS token needs
    clip.model.eval().double()
    ids = clip.tokenizer(["a dog bites a man.", "a dog"])
    encoder = models.TextEncoder(clip.model)
    assert encoder.rule.trim(ids).shape == (2, 8)  # of 12: [CLS], five words, the period, [SEP]
    found = []
    for encode in (encoder, clip.model.encode_text):
        clip.model.zero_grad()
        features = encode(ids)
        features.sin().sum().backward()
        gradients = {
            n: p.grad.clone() for n, p in clip.model.named_parameters() if p.grad is not None
        }
        found.append((features.detach(), gradients))
    (ours, own), (whole, theirs) = found
    torch.testing.assert_close(ours, whole, rtol=0, atol=1e-12)
    assert own.keys() == theirs.keys()
    for name, gradient in theirs.items():
        torch.testing.assert_close(own[name], gradient, rtol=1e-9, atol=1e-12, msg=name)


def test_a_text_of_padding_alone_keeps_one_token(saved: Path) -> None:
    encoder = models.TextEncoder(models.create(str(saved)).model)
    assert encoder.rule.trim(torch.zeros(3, LENGTH, dtype=torch.long)).shape == (3, 1)


def test_mpnet_reads_as_in_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """open_clip does not know this kind of tower; its layers are counted as BERT's."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    words = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "[UNK]", *WORDS[5:]]
    tower, folder = tmp_path / "mpnet", tmp_path / "model"
    config = transformers.MPNetConfig(
        vocab_size=len(words), hidden_size=16, intermediate_size=16, num_hidden_layers=3,
        num_attention_heads=2, max_position_embeddings=LENGTH + 2,
    )  # fmt: skip
    config.save_pretrained(tower)
    folder.mkdir()
    (tower / "vocab.txt").write_text("\n".join(words))
    transformers.MPNetTokenizerFast(vocab=str(tower / "vocab.txt")).save_pretrained(folder)
    text = {"hf_model_name": str(tower), "hf_tokenizer_name": str(tower), "hf_proj_type": None,
            "hf_pooler_type": "mean_pooler", "context_length": LENGTH}  # fmt: skip
    vision = {"image_size": 16, "patch_size": 8, "width": 16, "layers": 1, "head_width": 8}
    architecture = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": architecture, "preprocess_cfg": {"size": 16}})
    )
    clip = models.create(str(folder), None)
    clip.model.eval()
    tokens = clip.tokenizer(["a dog bites a man.", "a man."])
    inner = clip.model.text.transformer
    assert type(inner).__name__ == "MPNetModel"
    mask = tokens != config.pad_token_id
    assert mask.sum(1).tolist() == [8, 5]
    with torch.no_grad():
        states = inner(input_ids=tokens, attention_mask=mask.long()).last_hidden_state
        expected = (states * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)
        read = models.TextEncoder(clip.model)(tokens)
    torch.testing.assert_close(read, expected, rtol=0, atol=1e-6)
    models.set_trainable(clip.model, "text.last:1", False)
    trained = {name for name, p in clip.model.named_parameters() if p.requires_grad}
    assert trained == {n for n, _ in clip.model.named_parameters() if "encoder.layer.2." in n}
