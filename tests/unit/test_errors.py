"""Errors and files tell no secrets."""

from __future__ import annotations

import pickle

import pytest

from clic.errors import ConfigError, DataError, redact


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("https://h.org/a-{0..9}.tar?X-Sig=s3cret&b=1", "https://h.org/a-{0..9}.tar?..."),
        ("https://user:s3cret@h.org/a.tar: gone", "https://h.org/a.tar: gone"),
        ("https://user:s3@cret@h.org", "https://h.org"),
        ("data.shards='s3://KEY:s3cret@bucket/a.tar'", "data.shards='s3://bucket/a.tar'"),
        ("[http://h/a?x=s3cret,http://h/b?y=s3cret]", "[http://h/a?...,http://h/b?...]"),
        ("http://h/a?x=s3cret,2;3: 404; check it", "http://h/a?...: 404; check it"),
        ("http://h/a?x=s3cret, or http://h/b", "http://h/a?..., or http://h/b"),
        ("(http://h/a#token=s3cret)", "(http://h/a#...)"),
        ("--api-key=s3cret", "--api-key=..."),
        ("+hf.token='s3cret' next", "+hf.token='...' next"),
        ("AWS_SECRET_ACCESS_KEY=s3cret", "AWS_SECRET_ACCESS_KEY=..."),
        ("name=hf_" + "s3cret" * 6, "name=hf_..."),
        ("ghp_" + "s3cret" * 6, "ghp_..."),
        ("Authorization: Bearer s3cret", "Authorization: Bearer ..."),
    ],
)
def test_secrets_are_left_out(text: str, told: str) -> None:
    assert "s3cret" not in redact(text) and redact(text) == told
    assert str(ConfigError(text)) == told
    assert str(pickle.loads(pickle.dumps(DataError(text)))) == told


@pytest.mark.parametrize(
    "text",
    [
        "is it https://h.org/a.tar? Then check it",
        "https://h.org/a/{000..010}.tar",
        "model.name=hf-hub:ORG/NAME tokenizer=clip tokens=77 max_tokens: 7",
        "runs/hf_openai_clip_vit_base_patch32/model, sk-learn, a@b.org",
        "data.shards=/data/a?b*.tar",
        "_" * 5000,
        "https://" * 500,
    ],
)
def test_what_is_no_secret_is_told(text: str) -> None:
    assert redact(text) == text


def test_settings_keep_their_form() -> None:
    settings = {"hf_token": "s3cret", "a": {"shards": ["http://h/a?b=s3cret", 1, None]}, "k": 0.5}
    kept = {"hf_token": "...", "a": {"shards": ["http://h/a?...", 1, None]}, "k": 0.5}
    assert redact(settings) == kept
    assert redact({"token": None, "tokens": "7"}) == {"token": None, "tokens": "7"}
