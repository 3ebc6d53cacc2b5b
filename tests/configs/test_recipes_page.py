"""The tables of docs/recipes.md are what the configs say, and the configs what the papers say."""

from __future__ import annotations

import runpy
from pathlib import Path

import open_clip
import pytest

from clic.cli import train, train_help
from clic.models import families

ROOT = Path(__file__).resolve().parents[2]
recipes = runpy.run_path(str(ROOT / "scripts" / "recipes_page.py"))
PAGE = ROOT / "docs" / "recipes.md"


def test_the_page_is_up_to_date() -> None:
    """Where it is not, run scripts/recipes_page.py."""
    text = PAGE.read_text(encoding="utf-8")
    assert text.count(recipes["BEGIN"]) == text.count(recipes["END"]) == 1
    assert recipes["page"](text) == text


@pytest.mark.parametrize(
    ("experiment", "values"),
    [
        (
            "vitb32",
            {
                "train.batch_size": 200, "train.epochs": 1, "sampling.kinds": "alternate",
                "loss.contrastive_weight": 0.5, "loss.hard_negative_weight": 0.5,
                "loss.unimodal_weight": 1.0, "optim.lr_start": 1e-7, "optim.lr": 1e-6,
                "optim.lr_end": 1e-8, "optim.warmup_fraction": 0.2, "optim.betas": [0.9, 0.98],
                "optim.eps": 1e-8, "optim.weight_decay": 0.1, "captions.composite_positives": 4,
                "model.train": "text", "model.train_logit_scale": True,
            },
        ),
        (
            "vitb32_clove",
            {
                "train.batch_size": 256, "train.epochs": 100, "optim.lr": 1e-6,
                "optim.warmup_steps": 2000, "optim.betas": [0.9, 0.98], "optim.eps": 1e-6,
                "optim.weight_decay": 0.1, "captions.single_negative": "replace",
                "model.train": "both",
            },
        ),
        (
            "vitb32_negclip",
            {
                "train.batch_size": 256, "train.epochs": 5, "optim.warmup_steps": 50,
                "captions.single_negative": "swap", "model.train": "both",
            },
        ),
        (
            "vitb32_single_image",
            {
                "compose.layout": "alone", "captions.composite_positives": 4,
                "captions.composite_negative": "swap", "sampling.kinds": "alternate",
                "loss.composite": "clic", "loss.single": "clip", "model.train": "text",
            },
        ),
    ],
)  # fmt: skip
def test_the_configs_have_the_papers_values(experiment: str, values: dict[str, object]) -> None:
    config = train.compose([f"+experiment={experiment}"])
    assert {name: recipes["value_of"](config, name) for name in values} == values


def test_every_ablation_is_in_the_table_and_sets_something_apart() -> None:
    found = [name for name, about in train_help.described("experiment") if "of vitb32" in about]
    named = [name for name, _, _ in recipes["ABLATIONS"]]
    assert len(found) > 8 and set(found) - {"vitb32_clip"} <= set(named)
    rows = {
        row.split("`")[1]: row for row in recipes["ablation_lines"]() if row.startswith("| `vit")
    }
    assert list(rows) == named and all("=" in row for row in rows.values())


def test_estimates_by_hand() -> None:
    """CLIC: 1,250 steps; weights 0.6 GB, AdamW 0.76 GB, the backward pass 10.4 GB."""
    size = recipes["SIZES"]["ViT-B-32"]
    assert recipes["estimated_memory"](size, 200, 5, False) == pytest.approx(
        34 * 12 * 512 * 50 * 1000 + 4 * 151.2e6 + 12 * 63.4e6
    )
    text, vision = 24 * 12 * 512**2 * 50 * 3, 24 * 12 * 768**2 * 50
    assert recipes["mean_operations"](size, (1, 5), False) == vision + 3 * text
    (line,) = [row for row in recipes["estimate_lines"]() if row.startswith("| CLIC ")]
    assert "| 1,250 | 12 GB |" in line


def test_the_sizes_of_the_estimates_are_those_of_open_clip() -> None:
    families.register()
    for name, size in recipes["SIZES"].items():
        name = "ViT-L-14-CLIPS" if name.startswith("hf-hub:") else name
        found = open_clip.get_model_config(name)
        text, vision = found["text_cfg"], found["vision_cfg"]
        assert size.text[:2] == (text["layers"], text["width"])
        if "timm_model_name" not in vision:
            side = vision["image_size"] // vision["patch_size"]
            assert size.vision[:3] == (vision["layers"], vision["width"], side**2 + 1)
        blocks = [12 * layers * width**2 / 1e6 for layers, width, *_ in (size.text, size.vision)]
        words = text["vocab_size"] * text["width"] / 1e6
        assert size.text[3] == pytest.approx(blocks[0] + words, rel=0.02)
        assert size.vision[3] == pytest.approx(blocks[1], rel=0.1)
