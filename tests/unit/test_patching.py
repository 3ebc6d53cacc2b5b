"""Models between models: folders, names, refusals, atomic writes."""

from __future__ import annotations

import hashlib
import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from clic import patching, runs, shapes
from clic.errors import ConfigError, ModelError
from clic.patching import folders, tensor_files
from clic.patching.blending import write_blend
from clic.patching.tensor_files import TensorFiles, TensorWriter

CONFIG = {"model_cfg": {"embed_dim": 4, "text_cfg": {"width": 4}}, "preprocess_cfg": {"mean": [0]}}


def state(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "logit_scale": torch.tensor(1.0 + seed),
        "visual.frozen": torch.arange(6.0).reshape(2, 3) / 7,
        "text.weight": torch.randn(3, 4, generator=generator),
        "attn_mask": torch.full((3, 3), float("-inf")).triu(1),
        "steps": torch.tensor(17),
    }


def folder(path: Path, tensors: dict[str, Tensor], config: dict[str, Any] = CONFIG) -> Path:
    path.mkdir(parents=True)
    save_file(tensors, path / runs.OPEN_CLIP_WEIGHTS)
    (path / runs.OPEN_CLIP_CONFIG).write_text(json.dumps(config))
    return path


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return folder(tmp_path / "base", state(0)), folder(tmp_path / "tuned", state(1))


def test_hand_worked_half_way() -> None:
    half = patching.interpolate(
        {"w": torch.tensor([0.0, 2.0])}, {"w": torch.tensor([1.0, 4.0])}, 0.25
    )
    assert half["w"].tolist() == [0.25, 2.5]


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_ends_are_equal_files(pair: tuple[Path, Path], tmp_path: Path, alpha: float) -> None:
    out = patching.patch(*pair, alpha, tmp_path / "out")
    weights = (out / runs.OPEN_CLIP_WEIGHTS).read_bytes()
    assert weights == (pair[int(alpha)] / runs.OPEN_CLIP_WEIGHTS).read_bytes()


def test_a_patched_folder_is_complete(pair: tuple[Path, Path], tmp_path: Path) -> None:
    (pair[1] / "tokenizer.json").write_text("{}")
    (pair[1] / "training.pt").write_text("not copied")
    out = patching.patch(*pair, 0.5, tmp_path / "new" / "out")
    assert {file.name for file in out.iterdir()} == {
        runs.OPEN_CLIP_WEIGHTS, runs.OPEN_CLIP_CONFIG, patching.RECORD_FILE, "tokenizer.json",
    }  # fmt: skip
    assert json.loads((out / runs.OPEN_CLIP_CONFIG).read_text()) == CONFIG
    record = json.loads((out / patching.RECORD_FILE).read_text())
    tuned = (pair[1] / runs.OPEN_CLIP_WEIGHTS).read_bytes()
    assert (record["alpha"], record["tuned"]) == (0.5, str(pair[1]))
    assert record["tuned_file_sha256"] == hashlib.sha256(tuned).hexdigest()
    expected = patching.interpolate(state(0), state(1), 0.5)
    found = load_file(out / runs.OPEN_CLIP_WEIGHTS)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_frozen_tensors_keep_their_bits() -> None:
    weights = torch.randn(1000, generator=torch.Generator().manual_seed(1))
    mixed = patching.interpolate({"w": weights}, {"w": weights.clone()}, 0.3)
    assert torch.equal(mixed["w"], weights)


def test_infinite_entries_are_copied_and_must_agree() -> None:
    mask = torch.full((3, 3), float("-inf")).triu(1)
    for alpha in (0.0, 0.4, 1.0):
        assert torch.equal(patching.interpolate({"m": mask}, {"m": mask}, alpha)["m"], mask)
    other = mask + torch.eye(3)
    mixed = patching.interpolate({"m": mask}, {"m": other}, 0.5)["m"]
    assert torch.equal(mixed.isinf(), mask.isinf())
    assert torch.equal(mixed.diagonal(), torch.full((3,), 0.5))
    with pytest.raises(ModelError, match="'m' is infinite in different places"):
        patching.interpolate({"m": mask}, {"m": mask.T}, 0.5)
    with pytest.raises(ModelError, match="'m' is infinite"):
        patching.interpolate({"m": mask}, {"m": -mask}, 0.5)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool])
def test_integers_and_booleans_must_agree(dtype: torch.dtype) -> None:
    same = torch.tensor([1, 0, 1]).to(dtype)
    assert torch.equal(patching.interpolate({"i": same}, {"i": same}, 0.5)["i"], same)
    with pytest.raises(ModelError, match="'i' holds no weights, yet differs"):
        patching.interpolate({"i": same}, {"i": torch.tensor([1, 1, 1]).to(dtype)}, 0.5)
    with pytest.raises(ModelError, match="'i'"):
        patching.interpolate({"i": same}, {"i": same.float()}, 0.5)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_batch_norms_counters_are_the_tuned_models(alpha: float) -> None:
    name = "visual.bn1.num_batches_tracked"
    mixed = patching.interpolate({name: torch.tensor(3)}, {name: torch.tensor(9)}, alpha)
    assert mixed[name].item() == (3 if alpha == 0.0 else 9)
    with pytest.raises(ModelError, match="num_batches_tracked"):
        patching.interpolate({name: torch.tensor(3)}, {name: torch.tensor(9.0)}, alpha)


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_nan_is_refused_with_tensor_and_file(
    tmp_path: Path, side: int, alpha: float, dtype: torch.dtype
) -> None:
    states = [{n: v.to(dtype) if v.ndim else v for n, v in state(i).items()} for i in (0, 1)]
    states[side]["text.weight"][1, 2] = float("nan")
    with pytest.raises(ModelError, match=r"'text\.weight' of the (base|tuned model) holds NaN"):
        patching.interpolate(*states, alpha)
    pair = [folder(tmp_path / name, states[i]) for i, name in enumerate(("base", "tuned"))]
    with pytest.raises(ModelError, match=rf"'text\.weight' of {pair[side]}/.* holds NaN"):
        patching.patch(*pair, alpha, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_rounded_once(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    base, tuned = (torch.randn(1000, generator=generator).to(dtype) for _ in range(2))
    expected = (base.float() * 0.7 + tuned.float() * 0.3).to(dtype)
    assert torch.equal(patching.interpolate({"w": base}, {"w": tuned}, 0.3)["w"], expected)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_ends_keep_the_sign_of_zero(alpha: float) -> None:
    ends = torch.tensor([-0.0, 1.0]), torch.tensor([2.0, -0.0])
    mixed = patching.interpolate({"w": ends[0]}, {"w": ends[1]}, alpha)["w"]
    assert torch.equal(mixed.view(torch.int32), ends[int(alpha)].view(torch.int32))


def test_half_precision_is_computed_in_full() -> None:
    base = torch.tensor([1.0], dtype=torch.float16)
    tuned = torch.tensor([1.0 + 2**-10], dtype=torch.float16)
    mixed = patching.interpolate({"w": base}, {"w": tuned.float()}, 0.5)["w"]
    assert mixed.dtype == torch.float32
    assert mixed.item() == 1.0 + 2**-11
    assert patching.interpolate({"w": base}, {"w": tuned}, 0.5)["w"].dtype == torch.float16


def test_different_models_are_refused(pair: tuple[Path, Path], tmp_path: Path) -> None:
    wide = {**CONFIG, "model_cfg": {"embed_dim": 4, "text_cfg": {"width": 8}}}
    other = folder(tmp_path / "wide", state(1), wide)
    with pytest.raises(ModelError, match=r"text_cfg\.width \(4 against 8\)"):
        patching.patch(pair[0], other, 0.5, tmp_path / "out")
    for part, key, one, two in (
        ("vision", "image_size", 224, 336),
        ("text", "context_length", 77, 32),
    ):
        models_of_two_sizes = [
            folder(tmp_path / key / str(n), state(0), {"model_cfg": {f"{part}_cfg": {key: n}}})
            for n in (one, two)
        ]
        with pytest.raises(ModelError, match=rf"{part}_cfg\.{key} \({one} against {two}\)"):
            patching.patch(*models_of_two_sizes, 0.5, tmp_path / "out")
    resized = folder(tmp_path / "size", state(1), {**CONFIG, "preprocess_cfg": {"size": 64}})
    sized = folder(tmp_path / "sized", state(0), {**CONFIG, "preprocess_cfg": {"size": [32, 32]}})
    with pytest.raises(ModelError, match=r"preprocess_cfg\.size \(\[32, 32\] against \[64, 64\]\)"):
        patching.patch(sized, resized, 0.5, tmp_path / "out")
    fewer = state(1)
    del fewer["text.weight"]
    other = folder(tmp_path / "fewer", {**fewer, "extra": torch.ones(1)})
    with pytest.raises(ModelError, match=r"only in the base text\.weight; only in the tuned extra"):
        patching.patch(pair[0], other, 0.5, tmp_path / "out")
    other = folder(tmp_path / "shape", {**state(1), "text.weight": torch.ones(4, 3)})
    with pytest.raises(ModelError, match=r"'text\.weight' has shape \[3, 4\].*\[4, 3\]"):
        patching.patch(pair[0], other, 0.5, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_alpha_stays_between_the_models(alpha: float, pair: tuple[Path, Path]) -> None:
    with pytest.raises(ConfigError, match=r"outside 0\.\.1"):
        patching.patch(*pair, alpha, "out")
    with pytest.raises(ConfigError, match=r"outside 0\.\.1"):
        patching.interpolate({}, {}, alpha)


def test_only_patched_models_are_replaced(pair: tuple[Path, Path], tmp_path: Path) -> None:
    out = patching.patch(*pair, 0.5, tmp_path / "out")
    patching.patch(*pair, 1.0, out)
    assert json.loads((out / patching.RECORD_FILE).read_text())["alpha"] == 1.0
    before = (pair[0] / runs.OPEN_CLIP_WEIGHTS).read_bytes()
    with pytest.raises(ConfigError, match="is not a patched model"):
        patching.patch(*pair, 0.5, pair[0])
    assert (pair[0] / runs.OPEN_CLIP_WEIGHTS).read_bytes() == before


def test_a_failed_write_leaves_nothing(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(TensorWriter, "write", fail)
    with pytest.raises(ConfigError, match=r"cannot write .*out \(disk full\)"):
        patching.patch(*pair, 0.5, tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"base", "tuned"}


def test_a_patched_model_is_as_readable_as_its_configuration(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    out = patching.patch(*pair, 0.5, tmp_path / "out")
    modes = {file.stat().st_mode for file in out.iterdir()}
    assert len(modes) == 1


def test_a_folder_that_cannot_be_made_is_named(pair: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot write .*file/out"):
        patching.patch(*pair, 0.5, tmp_path / "file" / "out")


def test_a_model_that_is_read_is_not_replaced(pair: tuple[Path, Path], tmp_path: Path) -> None:
    out = patching.patch(*pair, 0.5, tmp_path / "out")
    with pytest.raises(ConfigError, match=r"out=.* is .*out, which is read; choose another"):
        patching.patch(pair[0], out, 0.5, out)


def test_weights_in_several_files_are_read(pair: tuple[Path, Path], tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    shards.mkdir()
    names = sorted(state(1))
    parts = {"a.safetensors": names[:2], "b.safetensors": names[2:]}
    for file, own in parts.items():
        save_file({name: state(1)[name] for name in own}, shards / file)
    index = {"weight_map": {name: file for file, own in parts.items() for name in own}}
    (shards / folders.WEIGHTS_INDEX).write_text(json.dumps(index))
    (shards / runs.OPEN_CLIP_CONFIG).write_text(json.dumps(CONFIG))
    out = patching.patch(pair[0], shards, 0.25, tmp_path / "out")
    one = patching.patch(*pair, 0.25, tmp_path / "one")
    weights = [(path / runs.OPEN_CLIP_WEIGHTS).read_bytes() for path in (out, one)]
    assert weights[0] == weights[1]
    record = json.loads((out / patching.RECORD_FILE).read_text())
    assert record["tuned_file_sha256"] == {
        file: hashlib.sha256((shards / file).read_bytes()).hexdigest() for file in parts
    }
    for wrong, message in (("../a.safetensors", "lies outside"), ("c.safetensors", "cannot be re")):
        (shards / folders.WEIGHTS_INDEX).write_text(json.dumps({"weight_map": {"x": wrong}}))
        with pytest.raises(ModelError, match=message):
            patching.patch(pair[0], shards, 0.25, tmp_path / "out")


def test_types_that_cannot_be_blended_are_named(pair: tuple[Path, Path], tmp_path: Path) -> None:
    eighth = {**state(1), "text.weight": torch.ones(3, 4).to(torch.float8_e4m3fn)}
    other = folder(tmp_path / "eighth", eighth)
    with pytest.raises(ModelError, match=r"'text\.weight' has type F8_E4M3"):
        patching.patch(pair[0], other, 0.5, tmp_path / "out")


def test_broken_weights_are_named(pair: tuple[Path, Path], tmp_path: Path) -> None:
    (pair[1] / runs.OPEN_CLIP_WEIGHTS).write_bytes(b"broken")
    with pytest.raises(ModelError, match=r"tuned/open_clip_model\.safetensors cannot be read"):
        patching.patch(*pair, 0.5, tmp_path / "out")
    (pair[0] / runs.OPEN_CLIP_CONFIG).write_text("[]")
    with pytest.raises(ModelError, match="should hold a JSON object"):
        patching.patch(*pair, 0.5, tmp_path / "out")


def test_runs_stand_for_their_final_model(pair: tuple[Path, Path], tmp_path: Path) -> None:
    run = tmp_path / "runs" / "first"
    run.mkdir(parents=True)
    pair[1].rename(run / runs.MODEL)
    out = patching.patch(pair[0], run, 1.0, tmp_path / "out")
    found = load_file(out / runs.OPEN_CLIP_WEIGHTS)
    assert torch.equal(found["text.weight"], state(1)["text.weight"])


def test_weights_are_read_in_pieces(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of tensors beyond a piece, none is ever whole in memory."""
    monkeypatch.setattr(tensor_files, "CHUNK", 5)
    sizes: list[int] = []
    fill = TensorFiles._fill

    def spy(self: TensorFiles, raw: Tensor, place: Any, start: int) -> None:
        sizes.append(raw.numel() if place.offset > 8 else 0)
        fill(self, raw, place, start)

    monkeypatch.setattr("safetensors.torch.load_file", lambda *a, **k: pytest.fail("read whole"))
    with ExitStack() as stack:
        opened = [stack.enter_context(folders.open_weights(model)) for model in pair]
        monkeypatch.setattr(TensorFiles, "_fill", spy)
        tensors = [one.tensors for one in opened]
        write_blend(*tensors, dict.fromkeys(tensors[0].layout, 0.5), tmp_path / "new")
        assert max(sizes) <= 5 * 4  # bytes; the largest tensor has 12 numbers
    expected = patching.interpolate(state(0), state(1), 0.5)
    save_file(expected, tmp_path / "expected")
    assert (tmp_path / "new").read_bytes() == (tmp_path / "expected").read_bytes()


def test_bytes_that_are_read_twice_are_hashed_once(pair: tuple[Path, Path]) -> None:
    file = pair[0] / runs.OPEN_CLIP_WEIGHTS
    with tensor_files.open_tensors([file]) as tensors:
        tensors.chunk("steps", 0, 1)  # the first in the file; the mask follows
        for start, stop in ((0, 5), (3, 7), (2, 9)):
            tensors.chunk("attn_mask", start, stop)
        assert tensors.sha256() == hashlib.sha256(file.read_bytes()).hexdigest()


def test_models_may_be_named(tmp_path: Path) -> None:
    out = patching.patch(
        "shapes-base", "local-dir:" + str(shapes.base_folder()), 0.5, tmp_path / "o"
    )
    expected = load_file(shapes.base_folder() / runs.OPEN_CLIP_WEIGHTS)
    found = load_file(out / runs.OPEN_CLIP_WEIGHTS)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name].to(found[name].dtype)) for name in expected)
    with pytest.raises(ModelError, match="shape-base"):
        patching.patch("shape-base", out, 0.5, tmp_path / "p")
