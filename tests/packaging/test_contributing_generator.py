"""What CONTRIBUTING tells to do for a caption generator is enough: carried out on a copy."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TITLE = "Adding a caption generator"

GENERATOR = '''
"""A false caption with another colour."""

from collections.abc import Sequence

import numpy as np

from clic.captions.text import Change, apply_edits, make_edits
from clic.captions.lexicon import WORDS
from clic.types import HardNegative, Token


def recolour(
    caption: str, tokens: Sequence[Token], rng: np.random.Generator
) -> HardNegative | None:
    places = [i for i, token in enumerate(tokens) if token.text in WORDS["colours"]]
    if not places:
        return None
    place = places[rng.integers(len(places))]
    others = sorted(WORDS["colours"] - {token.text for token in tokens})
    change = Change(place, place + 1, others[rng.integers(len(others))])
    edits = make_edits(caption, tokens, [change])
    return HardNegative(apply_edits(caption, edits), "recolour", edits)
'''


@pytest.fixture(scope="module")
def tree(copied_tree: Path, recipe: Callable[[str], str]) -> Path:
    """A copy of the tree with a generator `recolour`, in the places that CONTRIBUTING names."""
    told = recipe(TITLE)

    def place(named: str) -> Path:
        assert f"`{named}`" in told, f"CONTRIBUTING does not name {named}"
        return copied_tree / named.replace("<name>", "recolour")

    def append(named: str, old: str, new: str) -> None:
        path = place(named)
        text = path.read_text("utf-8")
        assert text.count(old) == 1
        path.write_text(text.replace(old, new), "utf-8")

    assert "`GENERATORS`" in told and "`MIXABLE`" in told
    place("clic/captions/<name>.py").write_text(GENERATOR, "utf-8")
    append(
        "clic/captions/negatives.py",
        '    "replace": replace,\n',
        '    "replace": replace,\n    "recolour": recolour,\n',
    )
    append(
        "clic/captions/negatives.py",
        "from clic.captions.replace import replace\n",
        "from clic.captions.recolour import recolour\nfrom clic.captions.replace import replace\n",
    )
    append(
        "clic/config/method_checks.py",
        'MIXABLE = ("swap", "swap_attributes", "replace")',
        'MIXABLE = ("swap", "swap_attributes", "replace", "recolour")',
    )
    return copied_tree


def run(tree: Path, where: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run python in a folder with the copy in front of the checkout."""
    return subprocess.run(
        [sys.executable, *words],
        cwd=where,
        env=os.environ | {"PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
    )


def test_the_places_that_the_recipe_names_are_there(recipe: Callable[[str], str]) -> None:
    named = re.findall(r"`((?:clic|docs|scripts|tests)/[\w/]+(?:\.\w+)?/?)`", recipe(TITLE))
    assert len(named) > 6
    assert not [path for path in named if not (ROOT / path).exists()]


def test_a_generator_that_is_added_as_told_makes_captions(tree: Path, tmp_path: Path) -> None:
    done = run(
        tree, tmp_path, "-m", "clic.cli.data", "negatives", "--caption", "A red dog sits",
        "--kinds", "recolour", "--n", "2", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)["negatives"]
    assert len({negative["text"] for negative in made}) == 2
    for negative in made:
        assert negative["kind"] == "recolour"
        assert re.fullmatch(r"An? (?!red)\w+ dog sits", negative["text"])
    face = "import clic; print(clic.hard_negatives('a red dog', kinds=['recolour'], n=1)[0].kind)"
    assert run(tree, tmp_path, "-c", face).stdout == "recolour\n"


def test_a_generator_that_is_added_can_be_trained_with(tree: Path, tmp_path: Path) -> None:
    done = run(
        tree, tmp_path, "-m", "clic.cli.train", "loss.single=softmax_negatives",
        "captions.single_negative=mixture", "+captions.mixture={swap: 1, recolour: 1}",
        "sampling.kinds=single", "train.max_steps=2", "train.batch_size=4", "train.log_every=1",
        "train.run_name=recolour", "train.device=cpu",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    config = (tmp_path / "runs/recolour/config.yaml").read_text("utf-8")
    assert "recolour: 1" in config


def test_settings_name_a_generator_that_is_added(tree: Path, tmp_path: Path) -> None:
    done = run(tree, tmp_path, "-m", "clic.cli.train", "captions.single_negative=recolours")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "recolour" in done.stderr.replace("recolours", "")
