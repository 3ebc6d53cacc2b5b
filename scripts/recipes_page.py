"""Write the tables of docs/recipes.md from the configs, or compare them with `--check`.

The tables are between two markers; the text around them is written by hand. The papers' values are
kept here with their sources; clic's values are read from the experiments.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from clic.cli import train, train_help

PAGE = Path(__file__).resolve().parents[1] / "docs" / "recipes.md"
BEGIN, END = "<!-- tables: scripts/recipes_page.py -->", "<!-- end of the tables -->"


@dataclass(frozen=True)
class Recipe:
    """A published recipe and the experiment that implements it.

    Attributes:
        title: Its name.
        source: Where the values are published.
        experiment: The name of the experiment.
        rows: Description, setting (several joined by spaces), and the paper's value.
        images: Images per epoch as published, for the number of steps.
        ranks: GPUs as published.
        tokens: Computed tokens per text and texts per image, in a batch of single images and in one
            of composites (0 if there is none).
    """

    title: str
    source: str
    experiment: str
    rows: tuple[tuple[str, str, str], ...]
    images: int
    ranks: int
    texts: tuple[int, int]


RECIPES = (
    Recipe(
        "CLIC",
        "arXiv 2505.24424 and its code (trigger_train.sh, losses.py)",
        "vitb32",
        (
            ("model", "model.name model.pretrained", "ViT-B/32 of OpenAI; others likewise"),
            ("what trains", "model.train model.train_logit_scale",
             "all but the vision tower, logit_scale too"),
            ("images of a GPU", "train.batch_size", "200, on 4 GPUs"),
            ("epochs", "train.epochs", "1, of 1M images"),
            ("batches", "sampling.kinds", "composite, then single, in turn"),
            ("composite", "compose.fit sampling.square",
             "2 of one orientation, each squashed to a half; width = height is landscape"),
            ("true captions", "captions.composite_positives", "p1, p2 and 2 more"),
            ("false caption", "captions.composite_negative",
             "a word of each first sentence changes places"),
            ("lower case", "captions.lowercase", "yes"),
            ("weights of Eq. 4, 5, 6",
             "loss.contrastive_weight loss.hard_negative_weight loss.unimodal_weight",
             "0.5, 0.5, 1"),
            ("loss of single images", "loss.single", "CLIP's"),
            ("learning rate", "optim.lr_start optim.lr optim.lr_end",
             "1e-7 to 1e-6, then to 1e-8"),
            ("schedule", "optim.schedule optim.warmup_fraction",
             "linear over the first 20 %, half a cosine"),
            ("AdamW", "optim.betas optim.eps optim.weight_decay",
             "betas 0.9, 0.98; eps 1e-8; decay 0.1 of matrices"),
        ),
        1_000_000, 4, (1, 5),
    ),
    Recipe(
        "CLoVe",
        "arXiv 2402.15021",
        "vitb32_clove",
        (
            ("model", "model.name model.pretrained", "ViT-B/32 of OpenAI"),
            ("what trains", "model.train", "both towers"),
            ("images of a GPU", "train.batch_size", "256, on 8 GPUs"),
            ("epochs", "train.epochs", "100, of 10M images drawn anew"),
            ("caption", "captions.single_caption", "LAION-COCO's top caption"),
            ("false caption", "captions.single_negative", "one, a word replaced"),
            ("loss", "loss.single", "CLIP's, false captions among the images' candidates"),
            ("learning rate", "optim.lr", "1e-6"),
            ("schedule", "optim.schedule optim.warmup_steps", "2,000 steps up, cosine to 0"),
            ("AdamW", "optim.betas optim.eps optim.weight_decay",
             "betas 0.9, 0.98; eps 1e-6; decay 0.1"),
            ("afterwards", "", "patched with alpha 0.6: `clic-patch --alpha 0.6`"),
        ),
        10_000_000, 8, (2, 0),
    ),
    Recipe(
        "NegCLIP",
        "arXiv 2210.01936 and the threads of its repository",
        "vitb32_negclip",
        (
            ("model", "model.name model.pretrained", "ViT-B/32 of OpenAI"),
            ("what trains", "model.train", "both towers"),
            ("images", "train.batch_size", "256, and a near image of each"),
            ("epochs", "train.epochs", "5, of COCO's Karpathy split"),
            ("false caption", "captions.single_negative", "one of each caption, parts swapped"),
            ("loss", "loss.single", "CLIP's, false captions among the images' candidates"),
            ("learning rate", "optim.lr", "the best of 1e-5, 5e-6, 1e-6 on validation retrieval"),
            ("schedule", "optim.schedule optim.warmup_steps", "50 steps of warm-up, cosine"),
            ("AdamW", "optim.betas optim.eps optim.weight_decay",
             "open_clip's defaults of the time, not stated"),
        ),
        113_287, 1, (2, 0),
    ),
)  # fmt: skip

ABLATIONS = (
    ("vitb32_single_image", "Single-Image Baseline, Table 10 (`trigger_train_baseline.sh`)",
     "below CLIC on SugarCrepe++ and in retrieval §"),
    ("vitb32_composites_alone", "p1 alone (no `--hard_negatives`, no `--shuffled_positive`)", ""),
    ("vitb32_one_positive", "p1 and its false caption (no `--shuffled_positive`)", ""),
    ("vitb32_two_positives", "p1 and p2 (`--additional_positives 0`)",
     "p3 and p4 raise SugarCrepe++ ITT, lower TOT a little; more than two add nothing §"),
    ("vitb32_no_alternation", "without `--clip_loss_iterate`",
     "ImageNet 60.9, with the single steps 61.7 §"),
    ("vitb32_no_unimodal", "without `--uni_modal_loss`", "swaps change little §"),
    ("vitb32_softmax_negatives",
     "false captions in the softmax (no `--hard_negatives_separate`, no `--uni_modal_loss`)", ""),
    ("vitb32_no_hard_negative", "`--sneg 0`, which still makes them", ""),
    ("vitb32_train_vision", "`--freeze_only_text`", "next to no gain §"),
    ("vitb32_train_both", "neither `--freeze_only_vision` nor `--freeze_only_text`",
     "below the frozen vision tower §"),
    ("vitb32_clic_negclip", "their own NegCLIP (`trigger_train_negclip.sh`)", ""),
    ("vitb32_clip", "CLIP on the same single images (`--no_concat`)", ""),
)  # fmt: skip
"""CLIC's ablations: the experiment, the flags of the published code, and a remark."""


@dataclass(frozen=True)
class Size:
    """Sizes of a model's towers, as open_clip builds them.

    Attributes:
        text: Layers, width, computed tokens per text, parameters in millions.
        vision: Layers, width, patches with the class token, parameters in millions.
    """

    text: tuple[int, int, int, float]
    vision: tuple[int, int, int, float]


TEXT_TOKENS = 50
"""Tokens of a joined caption after trimming; an assumption."""
_TEXT_L, _VISION_L = (12, 768, TEXT_TOKENS, 123.7), (24, 1024, 257, 304.0)
SIZES = {
    "ViT-B-32": Size((12, 512, TEXT_TOKENS, 63.4), (12, 768, 50, 87.8)),
    "ViT-B-16": Size((12, 512, TEXT_TOKENS, 63.4), (12, 768, 197, 86.2)),
    "ViT-L-14": Size(_TEXT_L, _VISION_L),
    "EVA02-L-14": Size(_TEXT_L, _VISION_L),
    # Without a causal mask, or if padding is read, the whole context is computed.
    "ViT-L-14-CLIPA": Size((12, 768, 32, 110.2), _VISION_L),
    "hf-hub:UCSC-VLAA/ViT-L-14-CLIPS-224-Recap-DataComp-1B": Size((12, 768, 80, 110.3), _VISION_L),
    "ViT-B-16-SigLIP2": Size((12, 768, 64, 282.3), (12, 768, 196, 92.9)),
}
"""By the model's name."""
OTHERS = ("vitb32_single_image", "vitb16", "vitl14", "clipa_l14", "clips_l14", "eva02_l14",
          "siglip2_b16")  # fmt: skip
"""Experiments with CLIC's data and number of GPUs; their cost is estimated, too."""
PEAK, SHARE = 312e12, 0.4
"""An A100's bf16 operations per second, and the share that training reaches; an assumption."""


def tables() -> str:
    """Return the generated part of the page."""
    return "\n".join([*(line for recipe in RECIPES for line in recipe_lines(recipe)),
                      *ablation_lines(), *estimate_lines(), *experiment_lines()])  # fmt: skip


def recipe_lines(recipe: Recipe) -> list[str]:
    """Return a recipe's heading and table."""
    config = train.compose([f"+experiment={recipe.experiment}"])
    lines = [f"### {recipe.title}: `+experiment={recipe.experiment}`", "",
             f"Published: {recipe.source}.", "",
             "| | here | published |", "|---|---|---|"]  # fmt: skip
    for label, settings, published in recipe.rows:
        here = ", ".join(f"`{name}={shown(value_of(config, name))}`" for name in settings.split())
        lines.append(f"| {label} | {here or '-'} | {published} |")
    return [*lines, ""]


def ablation_lines() -> list[str]:
    """Return the table of CLIC's ablations: what each sets differently from the recipe."""
    recipe = asdict(train.compose(["+experiment=vitb32"]))
    lines = ["### CLIC's ablations", "",
             "| `+experiment=` | sets, apart from `vitb32` | published code | what it gave |",
             "|---|---|---|---|"]  # fmt: skip
    for experiment, flags, gave in ABLATIONS:
        own = asdict(train.compose([f"+experiment={experiment}"]))
        changed = [
            f"`{group}.{name}={shown(value)}`"
            for group, values in own.items() if isinstance(values, dict)
            for name, value in values.items() if value != recipe[group][name]
        ]  # fmt: skip
        lines.append(f"| `{experiment}` | {', '.join(changed)} | {flags} | {gave or 'not seen'} |")
    return [*lines, ""]


def value_of(config: Any, setting: str) -> Any:
    """Return a setting's value by its dotted name."""
    for part in setting.split("."):
        config = getattr(config, part)
    return config


def shown(value: Any) -> str:
    """Return a value as typed in a setting."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, list):
        return "[" + ",".join(map(shown, value)) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def estimate_lines() -> list[str]:
    """Return the table of steps, memory and hours."""
    lines = ["### What they cost: estimates", "",
             "| | steps | GPU memory | hours of one A100, the GPUs' arithmetic alone |",
             "|---|--:|--:|--:|"]  # fmt: skip
    others = [replace(RECIPES[0], title=f"CLIC's, `{name}`", experiment=name) for name in OTHERS]
    for recipe in (*RECIPES, *others):
        config = train.compose([f"+experiment={recipe.experiment}"])
        batch, epochs, size = config.train.batch_size, config.train.epochs, SIZES[config.model.name]
        steps = recipe.images // (recipe.ranks * batch) * epochs
        trains_vision = config.model.train == "both"
        memory = estimated_memory(size, batch, max(recipe.texts), trains_vision) / 1e9
        each = mean_operations(size, recipe.texts, trains_vision)
        hours = steps * recipe.ranks * batch * each / (PEAK * SHARE) / 3600
        hours_shown = f"{hours:.1f}" if hours < 10 else f"{hours:.0f}"
        lines.append(f"| {recipe.title} | {steps:,} | {memory:.0f} GB | {hours_shown} |")
    return [*lines, ""]


def estimated_memory(size: Size, batch: int, texts: int, trains_vision: bool) -> float:
    """Return bytes: weights and AdamW's state in fp32, and activations kept in bf16.

    A transformer layer keeps 34 bytes per token and unit of width (arXiv 2205.05198, without the
    part of attention that fused kernels do not keep).
    """
    layers, width, tokens, trained = size.text
    kept = 34 * layers * width * tokens * batch * texts
    if trains_vision:
        layers, width, tokens, _ = size.vision
        kept += 34 * layers * width * tokens * batch
        trained += size.vision[3]
    return kept + 4e6 * (size.text[3] + size.vision[3]) + 12e6 * trained


def mean_operations(size: Size, texts: tuple[int, int], trains_vision: bool) -> float:
    """Return the operations that an image with its texts costs, averaged over the kinds of batch.

    Two per weight of a block and token, three times as many if there is a backward pass.
    """
    text, vision = (
        2 * 12 * layers * width**2 * tokens for layers, width, tokens, _ in (size.text, size.vision)
    )
    kinds = [count for count in texts if count]
    return vision * (3 if trains_vision else 1) + 3 * text * sum(kinds) / len(kinds)


def experiment_lines() -> list[str]:
    """Return the list of all experiments."""
    described = sorted(train_help.described("experiment"))
    return ["### All experiments", "", "| `+experiment=` | what it is |", "|---|---|",
            *(f"| `{name}` | {about} |" for name, about in described)]  # fmt: skip


def page(text: str) -> str:
    """Return the page with its tables regenerated."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{tables()}\n\n{END}{after}"


def main() -> int:
    """Write the page; with `--check` return 1 if it is out of date."""
    text = PAGE.read_text(encoding="utf-8")
    made = page(text)
    if "--check" in sys.argv[1:]:
        print(f"{PAGE} is {'up to date' if made == text else 'out of date; run this script'}")
        return int(made != text)
    PAGE.write_text(made, encoding="utf-8")
    print(f"wrote {PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
