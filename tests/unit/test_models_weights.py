"""Weights files as people have them: wrapped, prefixed, pickled whole, damaged, or no weights."""

from __future__ import annotations

import argparse
import functools
import pickle
import subprocess
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from clic import models
from clic.errors import ModelError
from clic.models import weight_files

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


def assert_same(found: dict[str, Tensor], model: nn.Module) -> None:
    expected = model.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def prefixed(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in state.items()}


# --- wrappers and prefixes -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "prefix", ["", "module.", "model.", "_orig_mod.", "model._orig_mod.module."]
)
@pytest.mark.parametrize("wrappers", [(), ("state_dict",), ("model",), ("model", "state_dict")])
def test_wrappers_and_prefixes_come_off_in_any_nesting(
    model: nn.Module, tmp_path: Path, prefix: str, wrappers: tuple[str, ...]
) -> None:
    content: dict[str, Any] = prefixed(model.state_dict(), prefix)
    for name in wrappers:
        content = {"epoch": 3, name: content}
    torch.save(content, tmp_path / "w.pt")
    assert_same(weight_files.read(tmp_path / "w.pt"), model)


def test_a_part_that_was_compiled_has_its_plain_name(model: nn.Module, tmp_path: Path) -> None:
    state = {n.replace("visual.", "visual._orig_mod."): v for n, v in model.state_dict().items()}
    torch.save(state, tmp_path / "w.pt")
    assert_same(weight_files.read(tmp_path / "w.pt"), model)


def test_old_files_and_safetensors_of_another_name_are_read(
    model: nn.Module, tmp_path: Path
) -> None:
    state = model.state_dict()
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    save_file(state, tmp_path / "named.pt")
    for name in ("old.pt", "named.pt"):
        assert_same(weight_files.read(tmp_path / name), model)


def test_a_wrapped_file_loads_as_the_model(model: nn.Module, tmp_path: Path) -> None:
    file = tmp_path / "w.pt"
    torch.save({"model": prefixed(model.state_dict(), "_orig_mod.module.")}, file)
    clip = models.create(f"Single:{file}")
    assert_same(clip.model.state_dict(), model)


def test_hugging_faces_names_are_told_from_open_clips(model: nn.Module, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_file({"text_model.embeddings.position_ids": torch.arange(3)}, file)
    with pytest.raises(ModelError, match="has the tensor names of Hugging Face"):
        models.create(f"Single:{file}")


def test_numbers_of_openais_archives_are_left_out(model: nn.Module, tmp_path: Path) -> None:
    torch.save({**model.state_dict(), "input_resolution": torch.tensor(32)}, tmp_path / "w.pt")
    assert_same(weight_files.read(tmp_path / "w.pt"), model)


# --- more than weights ---------------------------------------------------------------------------


class Wrapped(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.activation = functools.partial(nn.functional.gelu, approximate="none")


def _more(model: nn.Module) -> dict[str, Any]:
    state = model.state_dict()
    return {
        "numpy scalar": {"state_dict": state, "epoch": np.int64(3), "best": np.float64(0.5)},
        "numpy array": {"state_dict": state, "losses": np.arange(4.0)},
        "arguments": {"model": state, "args": argparse.Namespace(lr=1, path=Path("x"))},
        "containers": {"state_dict": state, "log": defaultdict(list, {"a": [1]})},
        "whole model": model,
        "whole model in a wrapper": {"model": Wrapped(model), "epoch": 3},
    }


@pytest.mark.parametrize(
    "kind",
    [
        "numpy scalar",
        "numpy array",
        "arguments",
        "containers",
        "whole model",
        "whole model in a wrapper",
    ],
)
def test_a_file_that_holds_more_than_weights_is_converted_by_the_command_it_names(
    model: nn.Module, tmp_path: Path, kind: str
) -> None:
    file = tmp_path / "it's.pt"
    torch.save(_more(model)[kind], file)
    with pytest.raises(ModelError, match="holds more than weights") as error:
        weight_files.read(file)
    text = str(error.value)
    assert "\n" not in text
    subprocess.run(text.partition("with this command, which does not: ")[2], shell=True, check=True)
    assert_same(weight_files.read(tmp_path / "it's-weights.safetensors"), model)
    with pytest.raises(ModelError, match="exists; choose another"):
        weight_files.convert(file, tmp_path / "it's-weights.safetensors")


class Hostile:
    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, ...]]:
        return exec, (f"open({str(self.proof)!r}, 'w')",)


@pytest.mark.parametrize("new_format", [True, False])
def test_nothing_in_a_hostile_file_runs(model: nn.Module, tmp_path: Path, new_format: bool) -> None:
    file = tmp_path / "w.pt"
    content = {"state_dict": model.state_dict(), "extra": Hostile(tmp_path / "proof")}
    torch.save(content, file, _use_new_zipfile_serialization=new_format)
    with pytest.raises(ModelError):
        weight_files.read(file)
    assert_same(weight_files.read(weight_files.convert(file, tmp_path / "out.safetensors")), model)
    assert not (tmp_path / "proof").exists()


def test_a_torchscript_archive_is_not_run_and_its_remedy_works(
    model: nn.Module, tmp_path: Path
) -> None:
    file = tmp_path / "ViT.pt"
    torch.jit.trace(nn.Linear(2, 3), torch.ones(1, 2)).save(file)
    with pytest.raises(ModelError, match="TorchScript archive: a program") as error:
        weight_files.read(file)
    subprocess.run(str(error.value).partition("with: ")[2], shell=True, check=True)
    assert weight_files.read(tmp_path / "ViT-weights.pt").keys() == {"weight", "bias"}


# --- no weights at all ---------------------------------------------------------------------------


def _bytes(kind: str) -> bytes:
    noise = np.random.default_rng(0).bytes(4000)
    return {
        "empty": b"",
        "git lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 6\n",
        "web page": b"\n<!DOCTYPE html><html><body>Sign in</body></html>",
        "noise": noise,
        "noise like a pickle": b"\x80\x02" + noise,
        "noise like a zip": b"PK\x03\x04" + noise,
        "foreign pickle": pickle.dumps({"a": np.ones(3)}),
    }[kind]


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors", "w.bin"])
@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("empty", "is empty"),
        ("git lfs", "git lfs pull"),
        ("web page", "is a web page"),
        ("noise", "not a weights file|damaged"),
        ("noise like a pickle", "cannot be read as weights|damaged"),
        ("noise like a zip", "damaged or cut short"),
        ("foreign pickle", "cannot be read as weights|damaged"),
    ],
)
def test_what_is_no_weights_file_is_told_in_one_line(
    tmp_path: Path,
    model: nn.Module,
    recwarn: pytest.WarningsRecorder,
    name: str,
    kind: str,
    says: str,
) -> None:
    file = tmp_path / name
    file.write_bytes(_bytes(kind))
    with pytest.raises(ModelError, match=says) as error:
        models.create(f"Single:{file}")
    assert "\n" not in str(error.value) and str(file) in str(error.value)
    assert not recwarn.list


@pytest.mark.parametrize("save", [torch.save, save_file])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_a_file_cut_short_is_told_in_one_line(
    tmp_path: Path, model: nn.Module, save: Callable[..., None], share: float
) -> None:
    file = tmp_path / "w"
    save(model.state_dict(), file)
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ModelError, match="damaged or cut short") as error:
        weight_files.read(file)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [[1, 2], {}, 3, torch.zeros(3), {"a": 1}, {"net": {"a": 1}}])
def test_what_torch_saved_without_weights_is_refused(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"and not the weights|is not a tensor"):
        weight_files.read(tmp_path / "w.pt")


def test_a_folder_where_a_file_is_expected(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is a folder, not a weights file"):
        weight_files.read(tmp_path)
    with pytest.raises(ModelError, match="is a folder, not a weights file"):
        models.resolve("ViT-B-32", str(tmp_path))


def test_infinities_are_no_nan() -> None:
    both = torch.tensor([float("inf"), -float("inf"), 3e38])  # their sum is NaN
    weight_files.check_numbers({"mask": both, "many": torch.full((9,), 3e38)}, "here")
    with pytest.raises(ModelError, match="'last' of here holds NaN"):
        weight_files.check_numbers(
            {"mask": both, "last": torch.tensor([1.0, float("nan")])}, "here"
        )


def test_starting_weights_with_nan_name_the_tensor_and_the_file(
    model: nn.Module, tmp_path: Path
) -> None:
    with torch.no_grad():
        model.visual.proj[0, 0] = float("nan")
    file = tmp_path / "w.pt"
    torch.save(model.state_dict(), file)
    with pytest.raises(ModelError, match=r"'visual\.proj' of .*w\.pt holds NaN"):
        models.create(f"Single:{file}")


# --- a bare file as the model --------------------------------------------------------------------


def test_the_shapes_of_a_bare_weights_file_tell_its_architecture(
    model: nn.Module, tmp_path: Path
) -> None:
    file = tmp_path / "epoch_1.pt"
    torch.save({"state_dict": prefixed(model.state_dict(), "module.")}, file)
    with pytest.raises(ModelError, match=r"fits Small with either .*Small-quickgelu:FILE"):
        models.resolve(str(file))
    for quick in (True, False):
        clip = models.create(str(file), quick_gelu=quick)
        assert clip.source.activation == ("QuickGELU" if quick else "GELU")
        assert_same(clip.model.state_dict(), model)
        assert clip.source.reference == f"Small-{'quick' if quick else ''}gelu:{file}"
    with pytest.raises(ModelError, match="which includes its own weights"):
        models.resolve(str(file), "openai")


def test_a_bare_weights_file_of_two_architectures_or_none_is_refused(
    model: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "epoch_1.pt"
    torch.save(model.state_dict(), file)
    more_heads = {**SMALL, "text_cfg": {**SMALL["text_cfg"], "heads": 4}}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "Heads", more_heads)
    with pytest.raises(
        ModelError, match=r"ARCH:FILE \(of its shapes: .*Small.*Heads.*\), e\.g\. Small:"
    ):
        models.resolve(str(file), quick_gelu=False)
    torch.save({"a": torch.ones(2)}, file)
    with pytest.raises(ModelError, match=rf"ARCH:FILE, e\.g\. ARCH:{file}"):
        models.resolve(str(file))


def test_the_weights_of_a_folder_are_told_their_folder(tiny: Path) -> None:
    with pytest.raises(ModelError, match=f"name the folder {tiny}"):
        models.resolve(str(tiny / "open_clip_model.safetensors"))
