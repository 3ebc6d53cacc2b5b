"""`clic-eval --describe` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from clic import models
from clic.cli.eval import main


def call(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[object, str, str]:
    with pytest.raises(SystemExit) as stopped:
        main([str(word) for word in words])
    captured = capsys.readouterr()
    return stopped.value.code, captured.out, captured.err


def test_a_model_against_its_base_on_80_columns_and_as_json(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = models.create(str(tiny))
    with torch.no_grad():
        clip.model.ln_final.weight += 0.5
    tuned, file = models.save(clip, tmp_path / "tuned"), tmp_path / "out.json"
    code, out, err = call(capsys, "--describe", tuned, "--against", tiny, "--json", file)
    assert (code, err) == (0, "")
    shown = " ".join(out.split())
    assert "tensors are equal bit for bit text tower differs: 1 of 17 tensors, relative" in shown
    assert "tokenizer SimpleTokenizer of 49,408 tokens" in shown
    assert all(len(line) <= 80 or "/" in line for line in out.splitlines())
    form = json.loads(file.read_text())
    assert set(form) == {"model", "base", "differences", "provenance"}
    assert form["model"]["weights_sha256"] == models.weights_sha256(clip.model)
    assert form["model"]["weights_sha256"] in out
    assert form["differences"]["text"]["changed"] == 1


def test_a_model_alone(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "--describe", tiny)
    assert code == 0 and "against" not in out and "context        34 tokens" in out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--describe", "{tiny}", "--bench", "shapes"], "bench=shapes has no effect with --des"),
        (["--describe", "{tiny}", "--model", "x"], "model=x has no effect with --describe"),
        (["--against", "{tiny}"], "has no effect without --describe MODEL"),
        (["--describe", "shapes-bse"], "did you mean 'shapes-base'"),
        (["--describe", "{tiny}", "--json", "/nowhere/x.json"], "there is no folder /nowhere"),
    ],
)
def test_a_mistake_is_one_line(
    words: list[str], says: str, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = call(capsys, *[word.replace("{tiny}", str(tiny)) for word in words])
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert says in err
