"""What the commands share."""

from __future__ import annotations

import pytest

from clic.cli.common import in_words_of, run_cli
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
def test_clic_eval_names_its_own_flags(
    message: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> int:
        raise ModelError(message)

    for command, expected in (("clic-eval", told), ("clic-train", message)):
        with pytest.raises(SystemExit):
            run_cli(command, fail)
        assert capsys.readouterr().err == f"{command}: error: {expected}\n"
    assert in_words_of("clic-train", message) == message
