"""Folders and hub repositories whose configuration would have code run are refused unread."""

from __future__ import annotations

import json
import sys
import types
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from clic.errors import ModelError
from clic.models import create, resolve, source

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
HOSTILE: dict[str, tuple[dict[str, Any], str]] = {
    "trusted tokenizer": (
        {"text_cfg": {"hf_tokenizer_name": "x", "tokenizer_kwargs": {"trust_remote_code": True}}},
        "trust_remote_code asks to run code",
    ),
    "trusted deep in a tower": (
        {"text_cfg": {"hf_model_name": "x", "hf_config": [{"trust_remote_code": "yes"}]}},
        "trust_remote_code asks to run code",
    ),
    "classes of its own": (
        {"text_cfg": {"auto_map": {"AutoModel": "evil.Evil"}}},
        "auto_map asks to run code",
    ),
    "another revision's code": (
        {"text_cfg": {"hf_tokenizer_name": "x", "tokenizer_kwargs": {"code_revision": "abc"}}},
        "tokenizer_kwargs has 'code_revision'",
    ),
    "a vocabulary elsewhere": (
        {"text_cfg": {"tokenizer_kwargs": {"bpe_path": "/etc/passwd"}}},
        "tokenizer_kwargs has 'bpe_path'",
    ),
    "a timm model elsewhere": (
        {"vision_cfg": {"timm_model_name": "hf-hub:evil/model"}},
        "timm_model_name='hf-hub:evil/model' points to another place",
    ),
    "no towers": ({"text_cfg": None}, "text_cfg is missing"),
}


def changed(tiny: Path, change: dict[str, Any]) -> dict[str, Any]:
    config = json.loads((tiny / CONFIG).read_text())
    for name, part in deepcopy(change).items():
        own = config["model_cfg"][name]
        config["model_cfg"][name] = None if part is None else {**own, **part}
    return config


def folder(tiny: Path, path: Path, change: dict[str, Any]) -> Path:
    (path / CONFIG).write_text(json.dumps(changed(tiny, change)))
    (path / WEIGHTS).write_bytes((tiny / WEIGHTS).read_bytes())
    return path


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("pretrained", ["included", None])
def test_a_folder_that_would_run_code_is_refused(
    tiny: Path, tmp_path: Path, kind: str, pretrained: str | None
) -> None:
    change, says = HOSTILE[kind]
    with pytest.raises(ModelError, match=says) as error:
        resolve(str(folder(tiny, tmp_path, change)), pretrained)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hub_repository_that_would_run_code_is_refused(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    change, says = HOSTILE[kind]
    file = tmp_path / CONFIG
    file.write_text(json.dumps(changed(tiny, change)))
    monkeypatch.setattr(source.loading, "go_offline_if_unreachable", lambda: None)
    monkeypatch.setattr("open_clip.pretrained.download_pretrained_from_hf", lambda *a, **k: file)
    with pytest.raises(ModelError, match=f"hf-hub:a/b: {says}"):
        resolve("hf-hub:a/b")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("tokenizer_config.json", '{"auto_map": {"AutoTokenizer": ["evil.T", null]}}', "auto_map"),
        ("config.json", '{"auto_map": {"AutoConfig": "evil.C"}}', "auto_map"),
        ("tokenizer_config.json", "{", "cannot be read"),
        ("vocab.pkl", "", "is a pickle, which runs code"),
    ],
)
def test_a_tokenizer_that_would_run_code_is_refused(
    tiny: Path, tmp_path: Path, name: str, content: str, says: str
) -> None:
    where = folder(tiny, tmp_path, {"text_cfg": {"hf_tokenizer_name": "any"}})
    (where / name).write_text(content)
    with pytest.raises(ModelError, match=says):
        resolve(str(where))


@pytest.mark.parametrize("brings", ["config", "tokenizer"])
def test_transformers_is_told_to_run_no_code_of_others(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, brings: str
) -> None:
    """What transformers does with code of a repository: refuses, asks, or runs, as it is told."""
    ran: list[str] = []

    class Auto:
        @staticmethod
        def from_pretrained(name: str, trust_remote_code: bool | None = None, **_: Any) -> None:
            if trust_remote_code is not False:
                ran.append(name)
            raise ValueError("contains custom code; pass `trust_remote_code=True`\nto run it")

    fake = types.ModuleType("transformers")
    fake.__dict__.update(AutoConfig=Auto, AutoTokenizer=Auto)
    monkeypatch.setitem(sys.modules, "transformers", fake)
    part = {"hf_tokenizer_name": "any"} if brings == "tokenizer" else {"hf_model_name": "any/any"}
    where = folder(tiny, tmp_path, {"text_cfg": part})
    (where / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="brings its own code, which is not run here") as error:
        create(str(where))
    assert not ran and "\n" not in str(error.value)


def test_harmless_arguments_of_a_tokenizer_are_taken(tiny: Path, tmp_path: Path) -> None:
    harmless = {"clean": "canonicalize", "strip_sep_token": True}
    where = folder(tiny, tmp_path, {"text_cfg": {"tokenizer_kwargs": harmless}})
    assert resolve(str(where)).architecture["text_cfg"]["tokenizer_kwargs"] == harmless
