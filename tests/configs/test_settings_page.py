"""The page of the settings is what the dataclasses say, and choices are the registries' names."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from clic import captions, images, shapes
from clic.cli import train as command
from clic.cli.train_help import settings
from clic.config import reference
from clic.config.checks import CHOICES
from clic.images import canvas
from clic.losses import registry
from clic.training import optim, strategy

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_is_up_to_date() -> None:
    """Where it is not, run scripts/settings_page.py."""
    assert (ROOT / "docs/settings.md").read_text(encoding="utf-8") == reference.page()


def test_every_setting_is_on_the_page() -> None:
    page = reference.page()
    assert not [name for name in settings() if f"| `{name}` |" not in page]


@pytest.mark.parametrize(
    ("setting", "names"),
    [
        ("captions.tagger", [*captions.TAGGERS, "stored"]),
        ("captions.single_negative", [*captions.GENERATORS, "mixture", "stored", "none"]),
        ("compose.layout", images.LAYOUTS),
        ("compose.fit", canvas.FITS),
        ("data.decode", images.METHODS),
        ("data.split", shapes.SPLITS),
        ("loss.composite", registry.choices("composite")),
        ("loss.single", registry.choices("single")),
        ("optim.schedule", optim.SCHEDULES),
        ("sampling.kinds", ["alternate", *registry.KINDS]),
        ("train.precision", ["auto", *strategy.DTYPES]),
    ],
)
def test_choices_are_those_of_the_registries(setting: str, names: list[str]) -> None:
    assert sorted(CHOICES[setting]) == sorted(names)


def run(words: list[str], monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.setattr(sys, "argv", ["clic-train", *words])
    with pytest.raises(SystemExit) as ended:
        command.main()
    return ended.value.code


@pytest.mark.parametrize("group", reference.groups())
def test_help_prints_a_group(
    group: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not run(["--help", group], monkeypatch)
    text = capsys.readouterr().out
    assert text.startswith(f"{group}: ")
    assert all(len(line) < 80 for line in text.splitlines())
    for name in settings(reference.groups()[group], "" if group == "general" else f"{group}."):
        if group != "general" or "." not in name:
            assert f"\n{name}\n" in text


def test_help_of_an_unknown_group_names_the_choices(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["--help", "optm"], monkeypatch) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "did you mean 'optim'" in error and "sampling" in error
