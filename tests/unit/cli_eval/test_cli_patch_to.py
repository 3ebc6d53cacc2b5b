"""`clic-patch --to hf` as a user types it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from clic import models
from clic.cli.patch import main
from clic.models import ClipModel

VIT = {"layers": 1, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 32}


def call(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[object, str, str]:
    with pytest.raises(SystemExit) as stopped:
        main([str(word) for word in words])
    captured = capsys.readouterr()
    return stopped.value.code, captured.out, captured.err


def test_the_tuned_model_as_a_hugging_face_folder(
    build_tiny: Callable[..., ClipModel], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = [build_tiny(tmp_path / f"cfg{seed}", seed, vision_cfg=VIT) for seed in (0, 1)]
    base, tuned = (models.save(clip, tmp_path / f"m{n}") for n, clip in enumerate(both))
    out, words = tmp_path / "hf", ("--base", base, "--tuned", tuned, "--to", "hf")
    code, shown, _ = call(capsys, "--alpha", 1, *words, "--out", out)
    assert (code, shown) == (0, f"wrote {out}\n")
    again, expected = models.create(str(out)).model.state_dict(), both[1].model.state_dict()
    assert all(torch.equal(value, again[name]) for name, value in expected.items())
    assert (out / "patch.json").is_file() and not (out / "open_clip_config.json").exists()
    assert call(capsys, "--alpha", 0.5, *words, "--out", out)[0] == 0  # it may be replaced


def test_what_it_cannot_hold_is_refused_before_anything_is_written(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--base", tiny, "--tuned", tiny, "--out", tmp_path / "out")
    code, out, err = call(capsys, "--alpha", 1, "--to", "hf", *words)
    assert (code, out) == (2, "") and "vision_cfg.layers=[1, 1, 1, 1]" in err
    assert not (tmp_path / "out").exists()
    code, _, err = call(capsys, "--alpha", 1, "--to", "tflite", *words)
    assert code == 2 and "to=tflite is not known (choices: hf, onnx)" in err
    code, _, err = call(capsys, "--sweep", "0,1", "--bench", "shapes", "--to", "hf", *words)
    assert code == 2 and "to=hf has no effect without --alpha" in err
