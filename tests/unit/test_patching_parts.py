"""Alphas of parts: towers, rules by name, depth; what each took, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from clic import patching, runs
from clic.errors import ConfigError, ModelError
from clic.patching.alpha_rules import AlphaRules, by_depth
from clic.patching.tensor_files import Layout

NAMES = [
    "logit_scale",
    "positional_embedding",
    "token_embedding.weight",
    *(f"transformer.resblocks.{i}.mlp.c_fc.weight" for i in range(3)),
    "ln_final.weight",
    "text_projection",
    "visual.conv1.weight",
    "visual.ln_pre.bias",
    *(f"visual.transformer.resblocks.{i}.attn.in_proj_weight" for i in range(5)),
    "visual.proj",
]
LAYOUT = {name: Layout(torch.float32, (2, 3)) for name in NAMES}


def test_the_last_rule_that_matches_wins() -> None:
    rules = AlphaRules(
        0.5, text=0.25, vision=0.0, rules=((r"\.mlp\.", 0.75), (r"resblocks\.2\.", 1.0))
    )
    with pytest.raises(ConfigError, match="'all' has no effect: later rules take all of its 16"):
        rules.resolve(LAYOUT)
    alphas, shares = AlphaRules(None, text=0.25, vision=0.0, rules=rules.rules).resolve(LAYOUT)
    assert alphas["logit_scale"] == 0.25
    assert alphas["visual.proj"] == 0.0
    assert alphas["transformer.resblocks.1.mlp.c_fc.weight"] == 0.75
    assert alphas["transformer.resblocks.2.mlp.c_fc.weight"] == 1.0
    assert alphas["visual.transformer.resblocks.2.attn.in_proj_weight"] == 1.0
    taken = {share.rule: (share.alpha, share.tensors, share.parameters) for share in shares}
    assert taken == {
        "text": ("0.25", 5, 30),
        "vision": ("0", 7, 42),
        r"\.mlp\.": ("0.75", 2, 12),
        r"resblocks\.2\.": ("1", 2, 12),
    }
    assert sum(share.tensors for share in shares) == len(NAMES)


def test_a_rule_that_takes_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'visul' takes no tensor; names are such as logit_sc"):
        AlphaRules(0.5, rules=(("visul", 1.0),)).resolve(LAYOUT)
    with pytest.raises(ConfigError, match=r"8 tensors are taken by no rule, 'visual\.conv1"):
        AlphaRules(text=0.5).resolve(LAYOUT)


def test_depth_goes_from_the_first_block_to_the_last_of_each_tower() -> None:
    alphas = by_depth(NAMES, 0.2, 1.0)
    text = [alphas[f"transformer.resblocks.{i}.mlp.c_fc.weight"] for i in range(3)]
    assert text == pytest.approx([0.2, 0.6, 1.0])
    vision = [alphas[f"visual.transformer.resblocks.{i}.attn.in_proj_weight"] for i in range(5)]
    assert vision == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    before = ("positional_embedding", "token_embedding.weight", "visual.conv1.weight")
    assert {alphas[name] for name in (*before, "visual.ln_pre.bias")} == {0.2}
    after = ("ln_final.weight", "text_projection", "logit_scale", "visual.proj")
    assert {alphas[name] for name in after} == {1.0}


@pytest.mark.parametrize(
    ("name", "alpha"),
    [
        ("visual.trunk.blocks.1.attn.qkv.weight", 0.5),
        ("visual.layer2.0.conv1.weight", 0.5),
        ("visual.trunk.stages.1.blocks.0.weight", 0.5),
        ("visual.conv3.weight", 0.0),
        ("visual.attnpool.c_proj.weight", 1.0),
    ],
)
def test_blocks_of_other_towers(name: str, alpha: float) -> None:
    forms = ("visual.trunk.blocks.{}.x", "visual.layer{}.x", "visual.trunk.stages.{}.x")
    form = forms[1] if "layer" in name else forms[2] if "stages" in name else forms[0]
    first = 1 if "layer" in name else 0
    names = [name, *(form.format(first + i) for i in range(3))]
    assert by_depth(names, 0.0, 1.0)[name] == alpha


def test_a_tower_without_blocks_has_no_depth() -> None:
    with pytest.raises(ConfigError, match="the vision tower has no numbered blocks"):
        by_depth(["visual.proj", "transformer.resblocks.0.weight"], 0, 1)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (AlphaRules(), "there is no alpha"),
        (AlphaRules(1.5), r"alpha=1.5 lies outside 0\.\.1"),
        (AlphaRules(0.5, vision=-0.5), r"alpha=-0.5 lies outside 0\.\.1"),
        (AlphaRules(float("nan"), extrapolate=True), "alpha=nan lies outside"),
        (AlphaRules(0.5, extrapolate=True), "extrapolate has no effect"),
        (AlphaRules(0.5, depth=(0, 1)), "alpha has no effect beside alpha_depth"),
        (AlphaRules(0.5, rules=(("(", 1.0),)), "'\\(' is no regular expression"),
    ],
)
def test_mistakes(rules: AlphaRules, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        rules.check()


def test_the_parts_of_a_model_and_their_record(tmp_path: Path) -> None:
    config = json.dumps({"model_cfg": {}, "preprocess_cfg": {}})
    for number, name in enumerate(("base", "tuned")):
        (tmp_path / name).mkdir()
        tensors = {name: torch.full((2, 3), 4.0 * number) for name in NAMES}
        save_file(tensors, tmp_path / name / runs.OPEN_CLIP_WEIGHTS)
        (tmp_path / name / runs.OPEN_CLIP_CONFIG).write_text(config)
    pair = tmp_path / "base", tmp_path / "tuned"
    rules = {r"\.0\.": 1.5}
    out = patching.patch(
        *pair,
        None,
        tmp_path / "out",
        alpha_text=0.25,
        alpha_vision=0,
        rules=rules,
        extrapolate=True,
    )
    found = load_file(out / runs.OPEN_CLIP_WEIGHTS)
    assert found["logit_scale"].unique().tolist() == [1.0]
    assert found["visual.proj"].unique().tolist() == [0.0]
    assert found["transformer.resblocks.0.mlp.c_fc.weight"].unique().tolist() == [6.0]
    record = json.loads((out / patching.RECORD_FILE).read_text())
    assert record["alpha"] is None and record["rules"] == [[r"\.0\.", 1.5]]
    assert [part["tensors"] for part in record["parts"]] == [7, 7, 2]


def test_extrapolation_that_overflows_is_refused() -> None:
    base, tuned = torch.tensor([-6e4]).half(), torch.tensor([6e4]).half()
    mixed = patching.interpolate({"w": base}, {"w": tuned}, 1.0, extrapolate=True)["w"]
    assert mixed.tolist() == tuned.tolist()
    with pytest.raises(ModelError, match=r"'w' becomes too large for torch\.float16 at alpha=1\.5"):
        patching.interpolate({"w": base}, {"w": tuned}, 1.5, extrapolate=True)


@pytest.mark.parametrize("alpha", [-0.5, 1.5])
def test_a_mask_stays_as_it_is_beyond_the_ends(alpha: float) -> None:
    mask = torch.full((3, 3), float("-inf")).triu(1)
    tuned = mask + torch.eye(3)
    mixed = patching.interpolate({"m": mask}, {"m": tuned}, alpha, extrapolate=True)["m"]
    assert torch.equal(mixed, mask + alpha * torch.eye(3))
