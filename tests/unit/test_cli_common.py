"""What the commands share."""

from __future__ import annotations

import importlib
import sys

import pytest

from clic.cli.common import WIDTH, in_words_of, run_cli
from clic.cli.data import COMMANDS
from clic.errors import ModelError


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("model.pretrained='x.pt' is no file", "--model ARCHITECTURE:x.pt is no file"),
        ("use model.pretrained=FILE", "use --model ARCHITECTURE:FILE"),
        ("model.name='RN50' is none", "--model RN50 is none"),
        ("name a tag (clic-train: model.pretrained=null is random)", "name a tag"),
        ("choose another data.cache_dir", "choose another --cache-dir"),
        ("lower train.batch_size=64, or data.workers", "lower --batch-size 64, or --workers"),
        ("model.safetensors has no data.json", "model.safetensors has no data.json"),
    ],
)
def test_clic_eval_and_clic_patch_name_their_own_flags(
    message: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> int:
        raise ModelError(message)

    of_patch = told.replace("--model", "model")
    for command, expected in (
        ("clic-eval", told),
        ("clic-patch", of_patch),
        ("clic-train", message),
    ):
        with pytest.raises(SystemExit):
            run_cli(command, fail)
        assert capsys.readouterr().err == f"{command}: error: {expected}\n"
    assert in_words_of("clic-train", message) == message


@pytest.mark.parametrize("columns", [80, 200])
@pytest.mark.parametrize(
    "words", ["train", "eval", "patch", "data", *(f"data {name}" for name in COMMANDS)]
)
def test_pages_of_help_are_at_most_80_columns_wide(
    words: str, columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command, *rest = words.split()
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys, "argv", [f"clic-{command}", *rest, "--help"])
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(f"clic.cli.{command}").main()
        sys.exit(0)  # a page may also end by itself
    page = capsys.readouterr().out
    assert not ended.value.code and "example" in page
    assert [line for line in page.splitlines() if len(line) > WIDTH] == []
