"""`clic-data preview` of shards, of few samples, and what it marks as false."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFont

from clic.captions.composites import TokenBudget
from clic.data import pack
from clic.data.batches.captioner import RowCaptions
from clic.data.tools.contact_sheet import (
    FONT,
    GREY,
    INK,
    PALE,
    UNREAD_SHOWN,
    Word,
    _paragraphs,
    _unread_pale,
    mark_changes,
)
from clic.types import HardNegative, Sample

Clic = Callable[..., tuple[int, str, str]]
SENTENCES = ("a red dog sleeps", "two cats play", "a man rides a horse", "the blue car is old")


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Return shards of three landscape images and one portrait one."""
    samples = []
    for i, size in enumerate([(12, 9), (16, 10), (9, 12), (20, 20)]):
        buffer = io.BytesIO()
        Image.new("RGB", size, (60 * i, 200, 40)).save(buffer, "JPEG")
        samples.append(Sample(f"s{i}", buffer.getvalue(), (SENTENCES[i], SENTENCES[-1 - i])))
    pack(samples, tmp_path / "mine")
    return tmp_path / "mine"


def test_shards_are_shown_in_clics_recipe(
    clic_data: Clic, shards: Path, tiny: Path, tmp_path: Path
) -> None:
    words = (f"model.name={tiny}", "model.pretrained=included")
    code, out, err = clic_data("preview", "mine", *words, "--out", "sheet.png")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == ("sheet.png: 4 composite rows of step 0, 4 single rows of step 1 (vitb32)")
    assert "composite_negative=cross_swap" in out
    assert "  train.batch_size=4, the whole data, instead of 200" in lines
    assert "  sampling.partner_self=true, since an orientation has only one image" in lines
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert (sheet == (200, 20, 20)).all(axis=-1).any()  # the false words
    assert (np.abs(sheet.astype(int) - (120, 200, 40)).max(axis=-1) < 8).any()  # the portrait


def test_single_shards_of_an_experiment(clic_data: Clic, shards: Path, tiny: Path) -> None:
    (shard,) = shards.glob("*.tar")
    words = ("+experiment=shapes_clip", f"model.name={tiny}", "model.pretrained=included")
    code, out, _ = clic_data("preview", shard, *words, "--rows", 2)
    assert code == 0
    assert out.startswith("preview.png: 2 single rows of step 0 (shapes_clip)")


def test_images_that_are_not_joined_need_no_partner(
    clic_data: Clic, shards: Path, tiny: Path
) -> None:
    words = ("+experiment=vitb32_single_image", f"model.name={tiny}")
    code, out, _ = clic_data("preview", "mine", *words, "model.pretrained=included")
    assert code == 0 and out.startswith("preview.png: 4 composite rows of step 0, 4 single rows")
    assert "layout=alone" in out and "partner_self" not in out


def test_few_samples_of_the_world(clic_data: Clic, tiny_words: list[str]) -> None:
    words = [w for w in tiny_words if not w.startswith("data.samples")]
    code, out, _ = clic_data("preview", *words, "data.samples=3")
    assert code == 0 and out.startswith("preview.png: 3 composite rows of step 0, 3 single rows")


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["nowhere"], ["data.shards=nowhere", "no file or folder"]),
        (["mine", "data.shards=mine"], ["given twice", "mine"]),
        (["mine", "data=shards"], ["data is given 2 times"]),
        (["mine", "model.nam=x"], ["did you mean 'model.name'"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_is_one_line(
    clic_data: Clic, shards: Path, words: list[str], parts: list[str]
) -> None:
    code, out, err = clic_data("preview", *words)
    assert code == 2 and out == "" and err.count("\n") == 1
    assert all(part in err for part in parts), err


def test_changed_words_are_those_of_the_nearest_true_caption() -> None:
    true = ["a red dog. a blue cat.", "a blue cat. a red dog."]
    assert mark_changes("a blue dog. a red cat.", true[:1]) == [
        *(("a", False), ("blue", True), ("dog.", False)),
        *(("a", False), ("red", True), ("cat.", False)),
    ]
    assert [c for _, c in mark_changes("a blue dog. a red dog.", true)] == [
        *(False, False, True, False, False, False)
    ]
    longer = mark_changes("a big red dog. a blue fish.", true)
    assert [word for word, changed in longer if changed] == ["big", "fish."]


def test_what_the_model_does_not_read_is_pale_and_not_drawn_without_end() -> None:
    room = TokenBudget(lambda text: len(text.split()) + 2, 7)
    words: list[Word] = [(str(i), INK) for i in range(40)]
    shown = _unread_pale(words, room)
    assert shown[:5] == words[:5]
    assert shown[5:] == [(str(i), PALE) for i in range(5, 5 + UNREAD_SHOWN)] + [("...", PALE)]
    assert _unread_pale(words[:6], room) == [*words[:5], ("5", PALE)]
    assert _unread_pale(words[:5], room) == words[:5]
    assert _unread_pale(words, None) == words


def test_letters_beyond_english_are_drawn() -> None:
    font = ImageFont.truetype(FONT, 13)
    box = bytes(font.getmask("\uffff"))
    assert all(bytes(font.getmask(letter)) != box for letter in "üßéñåЖΩŁ")


def test_a_kind_is_told_where_there_are_several() -> None:
    swap, layout = (HardNegative(f"the {kind}", kind, ()) for kind in ("cross_swap", "layout"))
    shown = list(_paragraphs(RowCaptions(("the truth",), (swap, layout)), None))
    assert [" ".join(word for word, _ in words) for words in shown] == [
        "p1 the truth", "false (cross_swap) the cross_swap", "false (layout) the layout",
    ]  # fmt: skip
    shown = list(_paragraphs(RowCaptions(("the truth",), (swap,)), None))
    assert [word for word, _ in shown[1]] == ["false", "the", "cross_swap"]
    assert list(_paragraphs(RowCaptions(("the truth",), (None, None)), None))[1] == [
        ("no false caption", GREY)
    ]


def test_only_settings_that_matter_are_shown(clic_data: Clic, tiny: Path) -> None:
    words = (f"model.name={tiny}", "data.samples=64", "train.batch_size=4")
    _, told, _ = clic_data("preview", "+experiment=shapes_layout", *words)
    assert "layout_share=0.75" in told
    _, single, _ = clic_data("preview", "+experiment=shapes_negclip", *words)
    assert "layout_" not in single and "compose:" not in single
