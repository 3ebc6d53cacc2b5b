"""A hub that cannot be reached is not waited for."""

from __future__ import annotations

import os
import socket
import sys
from typing import Any

import pytest

from clic.models import loading, source


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Addresses that were tried; none of them answers. The hub's client is not imported yet."""
    tried: list[tuple[str, int]] = []

    def refuse(address: tuple[str, int], timeout: float) -> Any:
        assert timeout <= 5
        tried.append(address)
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(loading, "getproxies", dict)
    monkeypatch.delitem(sys.modules, "huggingface_hub.constants", raising=False)
    monkeypatch.setenv(loading.OFFLINE, "")  # so that it is as before after the test
    monkeypatch.delenv(loading.OFFLINE)
    monkeypatch.delenv(loading.ENDPOINT, raising=False)
    return tried


def test_offline_is_set_and_said(
    asked: list[tuple[str, int]], capsys: pytest.CaptureFixture[str]
) -> None:
    loading.go_offline_if_unreachable()
    assert asked == [("huggingface.co", 443)] and os.environ[loading.OFFLINE] == "1"
    assert "huggingface.co cannot be reached" in capsys.readouterr().err
    loading.go_offline_if_unreachable()
    assert len(asked) == 1


def test_another_endpoint(asked: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(loading.ENDPOINT, "http://mirror.example:8080")
    loading.go_offline_if_unreachable()
    assert asked == [("mirror.example", 8080)]


def test_a_hub_that_answers(asked: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    class Socket:
        def close(self) -> None:
            asked.append("closed")

    monkeypatch.setattr(socket, "create_connection", lambda address, timeout: Socket())
    loading.go_offline_if_unreachable()
    assert asked == ["closed"] and loading.OFFLINE not in os.environ


@pytest.mark.parametrize("case", ["set by the user", "proxy", "client imported"])
def test_the_users_own_settings_win(
    asked: list[Any], monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    if case == "set by the user":
        monkeypatch.setenv(loading.OFFLINE, "0")
    elif case == "proxy":
        monkeypatch.setattr(loading, "getproxies", lambda: {"https": "http://proxy"})
    else:
        monkeypatch.setitem(sys.modules, "huggingface_hub.constants", loading)
    loading.go_offline_if_unreachable()
    assert not asked and os.environ.get(loading.OFFLINE) in (None, "0")


@pytest.mark.parametrize(
    ("name", "pretrained", "asks"),
    [
        ("hf-hub:no/such", "included", True),
        ("ViT-B-32:openai", "included", True),
        ("ViT-B-32", "openai", True),
        ("ViT-B-32", None, False),
        ("ViT-B-32:openai", None, False),
        ("shapes-base", "included", False),
        ("ViT-B-32-quickgelu", __file__, False),
        (f"ViT-B-32-gelu:{__file__}", "included", False),
    ],
)
def test_it_is_asked_only_for_what_the_hub_has(
    monkeypatch: pytest.MonkeyPatch, name: str, pretrained: str | None, asks: bool
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(loading, "go_offline_if_unreachable", lambda: asked.append("asked"))
    monkeypatch.setattr(source, "_from_hub", lambda name, pretrained: None)
    source.resolve(name, pretrained)
    assert bool(asked) == asks
