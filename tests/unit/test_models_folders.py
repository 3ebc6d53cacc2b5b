"""Models in and out: names, folders, equal weights as equal files, what they are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file

from clic import models
from clic.errors import ModelError
from clic.models import ClipModel, create, identity, loading, resolve, save
from clic.models.loading import Undrawn

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"


def assert_equal_weights(first: ClipModel, second: ClipModel) -> None:
    one, two = first.model.state_dict(), second.model.state_dict()
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert value.dtype == two[name].dtype and torch.equal(value, two[name]), name


# --- saving and loading --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [{}, {"quick_gelu": True}, {"custom_text": True}, {"init_logit_bias": -10.0}],
    ids=["clip", "quick gelu", "custom text", "sigmoid"],
)
def test_what_is_saved_comes_back_bit_for_bit(
    build_tiny: Callable[..., ClipModel], tmp_path: Path, changes: dict[str, Any]
) -> None:
    clip = build_tiny(tmp_path / "cfg", **changes)
    clip.model.logit_scale.data.fill_(1.25)
    folder = save(clip, tmp_path / "out" / "model")
    again = create(f"local-dir:{folder}")
    assert_equal_weights(clip, again)
    assert again.source.architecture == clip.source.architecture
    assert again.preprocess == clip.preprocess
    assert type(again.model) is type(clip.model)


def test_open_clip_itself_loads_what_we_save(
    build_tiny: Callable[..., ClipModel], tmp_path: Path
) -> None:
    clip = build_tiny(tmp_path / "cfg", quick_gelu=True)
    folder = save(clip, tmp_path / "model")
    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    pixels, tokens = torch.rand(2, 3, 32, 32), clip.tokenizer(["a dog", "a cat"])
    model.eval(), clip.model.eval()
    with torch.no_grad():
        assert torch.equal(model.encode_image(pixels), clip.model.encode_image(pixels))
        assert torch.equal(model.encode_text(tokens), clip.model.encode_text(tokens))
    assert preprocess.transforms[0].size == 32
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    assert torch.equal(tokenizer(["a dog", "a cat"]), tokens)


def test_equal_weights_are_equal_files(
    build_tiny: Callable[..., ClipModel], tmp_path: Path
) -> None:
    files = []
    for number in range(2):
        clip = build_tiny(tmp_path / f"cfg{number}")
        files.append((save(clip, tmp_path / f"m{number}") / WEIGHTS).read_bytes())
    assert files[0] == files[1]
    with torch.no_grad():
        clip.model.logit_scale += 1e-6
    assert (save(clip, tmp_path / "m2") / WEIGHTS).read_bytes() != files[0]


def test_saving_replaces_and_leaves_nothing_beside(tiny: Path, tmp_path: Path) -> None:
    clip = create(str(tiny))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "old").touch()
    save(clip, tmp_path / "model")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]
    assert not (tmp_path / "model" / "old").exists()


def test_a_failed_save_leaves_what_was_there(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip, folder = create(str(tiny)), tmp_path / "model"
    save(clip, folder)
    monkeypatch.setattr("clic.models.saving.json.dumps", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save(clip, folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]
    assert_equal_weights(create(str(folder)), clip)


def test_others_may_read_what_is_saved(tiny: Path, tmp_path: Path) -> None:
    folder = save(create(str(tiny)), tmp_path / "model")
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    assert modes[WEIGHTS] == modes[CONFIG]


def test_saving_a_bf16_model_keeps_its_type(tiny: Path, tmp_path: Path) -> None:
    clip = create(str(tiny))
    clip.model.to(torch.bfloat16)
    stored = load_file(save(clip, tmp_path / "m") / WEIGHTS)
    assert stored["token_embedding.weight"].dtype == torch.bfloat16


# --- QuickGELU -----------------------------------------------------------------------------------


def activations(clip: ClipModel) -> set[str]:
    return {type(m).__name__ for m in clip.model.modules() if "GELU" in type(m).__name__}


def test_quick_gelu_survives_save_and_load(
    build_tiny: Callable[..., ClipModel], tmp_path: Path
) -> None:
    clip = build_tiny(tmp_path / "cfg", quick_gelu=True)
    assert activations(clip) == {"QuickGELU"}
    again = create(str(save(clip, tmp_path / "model")))
    assert activations(again) == {"QuickGELU"}
    assert again.source.architecture["quick_gelu"] is True


@pytest.mark.parametrize("name", ["ViT-B-32", "ViT-B-32-quickgelu"])
def test_openais_weights_bring_quick_gelu(name: str) -> None:
    assert resolve(name, "openai").architecture["quick_gelu"] is True


def test_other_weights_keep_what_the_architecture_says() -> None:
    assert "quick_gelu" not in resolve("ViT-B-32", "laion2b_s34b_b79k").architecture
    # An architecture that is QuickGELU by itself, whose tag does not repeat it.
    assert resolve("roberta-ViT-B-32", "laion2b_s12b_b32k").architecture["quick_gelu"] is True


# --- names ---------------------------------------------------------------------------------------


def test_forms_of_a_folders_name(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tiny.parent))
    found = [resolve(n) for n in (str(tiny), f"local-dir:{tiny}", f"local-dir:~/{tiny.name}")]
    assert {source.open_clip_name for source in found} == {f"local-dir:{tiny}"}
    assert {source.pretrained for source in found} == {"included"}


def test_forms_of_an_architectures_name() -> None:
    one, two = resolve("ViT-B-32:openai"), resolve("ViT-B-32", "openai")
    assert (one.open_clip_name, one.pretrained, one.architecture) == (
        two.open_clip_name,
        two.pretrained,
        two.architecture,
    )
    assert resolve("ViT-B-32:openai", None).pretrained is None


def test_resolving_does_not_change_open_clips_own_config() -> None:
    resolve("ViT-B-32", "openai")
    assert "quick_gelu" not in open_clip.get_model_config("ViT-B-32")


@pytest.mark.parametrize(
    ("name", "pretrained", "parts"),
    [
        ("ViT-B-23", "openai", ["'ViT-B-23'", "did you mean", "ViT-B-32", "local-dir:PATH"]),
        ("shapes-bse", "included", ["'shapes-bse'", "did you mean 'shapes-base'"]),
        ("ViT-B-32", "openi", ["model.pretrained='openi'", "did you mean 'openai'", "tags:"]),
        (
            "ViT-B-32",
            "included",
            ["without weights", "e.g. ViT-B-32:openai", "(clic-train: model.pre"],
        ),
        ("ViT-B-32:openai", "laion400m_e31", ["'ViT-B-32:openai'", "leave out 'laion400m_e31'"]),
        ("ViT-B-32:opnai", "included", ["'opnai'", "did you mean 'openai'"]),
        ("shapes-base", "openai", ["model.pretrained='openai'", "shapes-base", "included"]),
        ("local-dir:/nowhere", "included", ["/nowhere", CONFIG, "open_clip folder"]),
    ],
)
def test_names_that_stand_for_nothing(name: str, pretrained: str, parts: list[str]) -> None:
    with pytest.raises(ModelError) as error:
        resolve(name, pretrained)
    text = str(error.value)
    assert "\n" not in text
    for part in parts:
        assert part in text


def test_folders_that_lack_something(tmp_path: Path, tiny: Path) -> None:
    with pytest.raises(ModelError, match=f"{tmp_path} holds no {CONFIG}"):
        resolve(str(tmp_path))
    (tmp_path / CONFIG).write_text("{")
    with pytest.raises(ModelError, match=f"{tmp_path} holds no {WEIGHTS}"):
        resolve(str(tmp_path))
    with pytest.raises(ModelError, match=f"{CONFIG} cannot be read"):
        resolve(str(tmp_path), None)
    for text, reason in (("[]", "should hold a JSON object"), ("{}", "no 'model_cfg'")):
        (tmp_path / CONFIG).write_text(text)
        with pytest.raises(ModelError, match=reason):
            resolve(str(tmp_path), None)


def test_a_hub_that_cannot_be_reached_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **settings: object) -> None:
        raise OSError("no such repository\nsecond line")

    monkeypatch.setattr("open_clip.pretrained.download_pretrained_from_hf", refuse)
    with pytest.raises(ModelError, match=r"hf-hub:a/b.*no such repository.*the network") as error:
        resolve("hf-hub:a/b")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("break_it", ["missing", "shape"])
def test_weights_that_do_not_fit_are_refused(tiny: Path, tmp_path: Path, break_it: str) -> None:
    tensors = load_file(tiny / WEIGHTS)
    if break_it == "missing":
        del tensors["ln_final.weight"]
    else:
        tensors["ln_final.weight"] = torch.ones(3)
    save_file(tensors, tmp_path / WEIGHTS)
    (tmp_path / CONFIG).write_text((tiny / CONFIG).read_text())
    with pytest.raises(ModelError, match=r"could not be built: .*ln_final\.weight") as error:
        create(str(tmp_path))
    assert "\n" not in str(error.value)


def test_an_architecture_with_a_local_weights_file(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    file.touch()
    assert resolve("ViT-B-32-quickgelu", str(file)).pretrained == str(file)


def test_a_filled_longest_side_is_refused(tiny: Path, tmp_path: Path) -> None:
    config = json.loads((tiny / CONFIG).read_text())
    config["preprocess_cfg"] = {"resize_mode": "longest", "fill_color": 128}
    (tmp_path / CONFIG).write_text(json.dumps(config))
    (tmp_path / WEIGHTS).write_bytes((tiny / WEIGHTS).read_bytes())
    with pytest.raises(ModelError, match="fill_color=128"):
        create(str(tmp_path))


def test_preprocessing_is_kept(tiny: Path, tmp_path: Path) -> None:
    config = json.loads((tiny / CONFIG).read_text())
    config["preprocess_cfg"] = {
        "mean": [0.5, 0.5, 0.5],
        "std": [0.25, 0.25, 0.25],
        "interpolation": "bilinear",
        "resize_mode": "squash",
    }
    (tmp_path / CONFIG).write_text(json.dumps(config))
    (tmp_path / WEIGHTS).write_bytes((tiny / WEIGHTS).read_bytes())
    clip = create(str(tmp_path))
    again = create(str(save(clip, tmp_path / "again")))
    assert (
        clip.preprocess
        == again.preprocess
        == models.Preprocess(32, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), "bilinear", "squash")
    )


def test_the_packaged_model_loads() -> None:
    clip = create("shapes-base")
    assert clip.preprocess.size == 64
    assert clip.tokenizer(["a dog"]).shape == (1, clip.context_length)


# --- what a model is -----------------------------------------------------------------------------


def test_random_weights_depend_on_torchs_seed_alone(tiny: Path) -> None:
    made = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        made.append(identity(create(str(tiny), None))["weights_sha256"])
    assert made[0] == made[1] != made[2]


def test_the_hashes_are_of_names_types_shapes_and_values(tiny: Path) -> None:
    """Worked out by hand: the hash of the lines of all tensors' names and own hashes."""
    clip = create(str(tiny))
    lines = {}
    for name, value in clip.model.state_dict().items():
        head = f"{value.dtype} {tuple(value.shape)}\n".encode()
        lines[name] = f"{name} {hashlib.sha256(head + value.numpy().tobytes()).hexdigest()}\n"
    found = identity(clip)
    vision = {name for name in lines if name.startswith("visual.")}
    text = lines.keys() - vision - {"logit_scale"}
    for key, names in (("weights", lines.keys()), ("vision", vision), ("text", text)):
        joined = "".join(lines[name] for name in sorted(names))
        assert found[f"{key}_sha256"] == hashlib.sha256(joined.encode()).hexdigest()
    assert models.weights_sha256(clip.model) == found["weights_sha256"]
    assert models.weights_sha256(clip.model, "visual.") == found["vision_sha256"]


def test_loading_draws_no_weights(
    tiny: Path,
    build_tiny: Callable[..., ClipModel],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    torch.manual_seed(0)
    with monkeypatch.context() as patch:
        patch.setattr(loading, "Undrawn", nullcontext)
        drawn = create(str(tiny))
    filled = []
    own = Undrawn.__torch_function__

    def counted(self: Undrawn, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = own(self, func, types, args, kwargs)
        if isinstance(result, torch.Tensor) and result.isnan().any():
            filled.append(func)
        return result

    monkeypatch.setattr(Undrawn, "__torch_function__", counted)
    assert_equal_weights(create(str(tiny)), drawn)
    assert len(filled) > 10
    count = len(filled)
    random = build_tiny(tmp_path / "cfg").model.state_dict().values()
    assert len(filled) == count and not any(value.isnan().any() for value in random)


def test_every_initialisation_is_left_undrawn() -> None:
    state = torch.get_rng_state()
    with Undrawn():
        modules = [
            torch.nn.Linear(3, 4), torch.nn.Conv2d(3, 4, 2), torch.nn.Embedding(3, 4),
            torch.nn.MultiheadAttention(4, 2),
        ]  # fmt: skip
        others = [torch.empty(3).normal_(), torch.empty(3).uniform_()]
        others += [init(torch.empty(3, 4)) for init in (
            torch.nn.init.trunc_normal_, torch.nn.init.xavier_uniform_, torch.nn.init.normal_
        )]  # fmt: skip
        scale = torch.nn.LayerNorm(3).weight
    assert torch.equal(torch.get_rng_state(), state)
    for tensor in [module.state_dict() for module in modules]:
        weights = [value for name, value in tensor.items() if name.endswith("weight")]
        assert all(value.isnan().all() for value in weights)
    assert all(value.isnan().all() for value in others)
    assert torch.equal(scale, torch.ones(3))  # what is not random is left as it is


def test_identity(tiny: Path) -> None:
    clip = create(str(tiny))
    first = identity(clip)
    assert first == identity(create(str(tiny)))
    assert first["source"] == f"local-dir:{tiny}"
    assert first["image_size"] == 32 and first["context_length"] == 34
    assert first["parameters"] == sum(p.numel() for p in clip.model.parameters())
    assert json.loads(json.dumps(first)) == first
    with torch.no_grad():
        clip.model.ln_final.weight[0] += 1
    second = identity(clip)
    assert second["weights_sha256"] != first["weights_sha256"]
    assert second["vision_sha256"] == first["vision_sha256"]
    with torch.no_grad():
        clip.model.visual.conv1.weight[0] += 1
    assert identity(clip)["vision_sha256"] != first["vision_sha256"]


def test_the_hash_sees_names_types_and_shapes() -> None:
    def hashed(**tensors: torch.Tensor) -> str:
        module = torch.nn.Module()
        for name, tensor in tensors.items():
            module.register_buffer(name, tensor)
        return models.weights_sha256(module)

    zeros = torch.zeros(4)
    different = [
        hashed(a=zeros),
        hashed(b=zeros),
        hashed(a=zeros.view(2, 2)),
        hashed(a=zeros.double()[:2]),
        hashed(a=zeros.int()),
        hashed(a=torch.tensor(0.0)),
    ]
    assert len(set(different)) == len(different)
    assert hashed(a=zeros) == hashed(a=torch.zeros(8)[::2])  # strides are no part of it


def test_truncated_weights_are_told_in_one_line(tiny: Path, tmp_path: Path) -> None:
    for file in tiny.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = tmp_path / "open_clip_model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    with pytest.raises(ModelError, match="could not be built"):
        create(f"local-dir:{tmp_path}")
