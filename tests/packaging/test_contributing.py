"""What CONTRIBUTING tells to do is enough: its recipes, carried out on a copy of the tree."""

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

TERM = '''
"""A margin between true and false captions."""

from torch import Tensor


def margin_loss(images: Tensor, positives: Tensor, negatives: Tensor, margin: float) -> Tensor:
    own = (images.unsqueeze(1) * positives[:, :1]).sum(-1)
    false = (images.unsqueeze(1) * negatives).sum(-1)
    return (margin - own + false).clamp_min(0).mean()
'''
OBJECTIVE = '''

@dataclass(frozen=True)
class MarginObjective(Objective):
    """Plain CLIP and a margin."""

    margin: float = 0.2

    def _compute(self, features: Features) -> tuple[Tensor, Terms]:
        from clic.losses.margin import margin_loss

        assert features.negative_features is not None
        terms = self._contrastive(features)
        terms["margin"] = margin_loss(
            features.image_features,
            features.positive_features,
            features.negative_features,
            self.margin,
        )
        return terms["contrastive"] + terms["margin"], terms
'''
ENTRY = """
OBJECTIVES["margin"] = Entry(
    home="clic.losses.objectives:MarginObjective",
    about="plain CLIP and a margin",
    needs={NEGATIVES: None},
    reads=("margin",),
    kinds=("composite",),
)
"""


@pytest.fixture(scope="module")
def tree(copied_tree: Path, recipe: Callable[[str], str]) -> Path:
    """A copy of the tree with a loss `margin`, which is in the places that CONTRIBUTING names."""
    told = set(re.findall(r"`([\w/]+/[\w<>]+\.(?:py|yaml))`", recipe("Adding a loss")))

    def place(named: str) -> Path:
        assert named in told, f"CONTRIBUTING does not name {named}"
        return copied_tree / named.replace("<name>", "margin")

    place("clic/losses/<name>.py").write_text(TERM, "utf-8")
    place("configs/loss/<name>.yaml").write_text(
        "# Plain CLIP and a margin on composites.\ncomposite: margin\nsingle: clip\nmargin: 0.3\n",
        "utf-8",
    )
    for named, end in (
        ("clic/losses/objectives.py", OBJECTIVE),
        ("clic/losses/registry.py", ENTRY),
        ("clic/config/checks.py", '\nRANGES["loss.margin"] = (0, None)\n'),
    ):
        path = place(named)
        path.write_text(path.read_text("utf-8") + end, "utf-8")
    config = place("clic/config/train_settings.py")
    head, tail = config.read_text("utf-8").split('    single: str = "clip"\n')
    config.write_text(f'{head}    single: str = "clip"\n    margin: float = 0.2\n{tail}', "utf-8")
    return copied_tree


def clic_train(tree: Path, where: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the copy's clic-train."""
    return subprocess.run(
        [sys.executable, "-m", "clic.cli.train", *words],
        cwd=where,
        env=os.environ | {"PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
    )


def test_a_loss_that_is_added_as_told_can_be_trained_with(tree: Path, tmp_path: Path) -> None:
    done = clic_train(
        tree, tmp_path, "loss=margin", "train.max_steps=2", "train.batch_size=4",
        "train.log_every=1", "train.run_name=margin", "train.device=cpu",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "runs/margin/metrics.jsonl").read_text("utf-8").splitlines()
    composite, single = (json.loads(line) for line in lines)
    assert composite["loss"] == pytest.approx(
        composite["composite/contrastive"] + composite["composite/margin"], rel=1e-5
    )
    assert "single/contrastive" in single and "single/margin" not in single


def test_help_lists_a_loss_that_is_added(tree: Path, tmp_path: Path) -> None:
    done = clic_train(tree, tmp_path, "--help")
    told = " ".join(done.stdout.split())
    assert "plain CLIP and a margin; needs false captions; composite only" in told
    assert "loss.margin" in done.stdout


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["loss=margin", "captions.composite_negative=none"], ["loss.composite=margin", "false"]),
        (["loss=margin", "loss.margin=-1"], ["loss.margin=-1", "0 or more"]),
        (["loss.margin=0.5"], ["loss.margin=0.5 has no effect", "leave it at 0.2"]),
        (
            ["loss.single=margin"],
            ["loss.single", "clip, paraphrase, sigmoid_negatives, softmax_negatives"],
        ),
    ],
)
def test_settings_of_a_loss_that_is_added_are_checked(
    tree: Path, tmp_path: Path, words: list[str], parts: list[str]
) -> None:
    done = clic_train(tree, tmp_path, *words)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    for part in parts:
        assert part in done.stderr
    assert not (tmp_path / "runs").exists()
