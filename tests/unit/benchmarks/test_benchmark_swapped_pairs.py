"""Half-Truths, ColorSwap, MMVP-VLM, NegBench and Urban1k in miniature, scores worked out by hand.

The layouts are those of the authors' READMEs and evaluation scripts; the files themselves were not
at hand.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clic import evaluation
from clic.errors import DataError
from clic.evaluation.benchmarks import half_truths
from clic.evaluation.tables.grids import Grids

Paint = Callable[..., None]


def numbers_of(model: Any, name: str, root: Path) -> Any:
    return evaluation.evaluate(model, [name], root).benchmarks[name]


# Half-Truths: the image's angle is 40, and a caption's last word is its own.
HALF_TRUTHS = {
    "coco_qwen": [(41, 50, 40), (50, 45, 40)],  # right and in order; the half-truth wins
    "coco_mistral": [(45, 60, 50), (45, 45, 40)],  # right, but the full truth is behind; a tie
    "cc3m_qwen": [(42, 60, 41)],
}


def write_half_truths(root: Path, paint: Paint) -> None:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    paint(root / "40.jpg", 40)
    stored = {"bytes": (root / "40.jpg").read_bytes(), "path": "40.jpg"}
    (root / "half_truths").mkdir()
    for subset, angles in HALF_TRUTHS.items():
        rows = [
            {"id": f"{subset}-{n}", "image": stored, "triplet_type": ("entity", "relation")[n % 2],
             "anchor": f"a dog {anchor}", "half_truth": f"a dog and a cat {half}",
             "full_truth": f"a dog and a man {full}"}
            for n, (anchor, half, full) in enumerate(angles)
        ]  # fmt: skip
        table = arrow.Table.from_pylist(rows)
        parquet.write_table(table, root / f"half_truths/{subset}.parquet")


def test_half_truths(tmp_path: Path, angle_model: Any, paint: Paint) -> None:
    write_half_truths(tmp_path, paint)
    numbers = numbers_of(angle_model, "half-truths", tmp_path)
    assert numbers["coco_qwen"] == {"accuracy": 50.0, "ordering": 50.0, "n": 2}
    assert numbers["coco_mistral"] == {"accuracy": 50.0, "ordering": 0.0, "n": 2}
    assert numbers["cc3m_qwen"] == {"accuracy": 100.0, "ordering": 100.0, "n": 1}
    assert numbers["mean"] == pytest.approx({"accuracy": 200 / 3, "ordering": 50.0, "n": 5})
    assert numbers["all"] == pytest.approx({"accuracy": 60.0, "ordering": 40.0, "n": 5})


def test_the_full_truth_is_no_rival(tmp_path: Path, angle_model: Any, paint: Paint) -> None:
    write_half_truths(tmp_path, paint)
    report = evaluation.evaluate(angle_model, ["half-truths"], tmp_path, keep_rows=True)
    right, wrong, behind, tie, _ = report.rows
    assert Grids.margins(right)[""] > 0 and Grids.margins(behind)[""] > 0
    assert Grids.margins(wrong)[""] < 0 and Grids.margins(tie)[""] == 0
    card = Grids.failure(wrong, 1)
    assert card.verdict.startswith("the wrong detail beats the true one")
    assert [text.is_true for text in card.texts] == [True, False, True]


def test_half_truths_needs_its_columns(tmp_path: Path, paint: Paint) -> None:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    write_half_truths(tmp_path, paint)
    parquet.write_table(
        arrow.Table.from_pylist([{"anchor": "a"}]), tmp_path / "half_truths/coco_qwen.parquet"
    )
    with pytest.raises(DataError, match="no column 'half_truth'"):
        half_truths.load_half_truths(tmp_path)


# ColorSwap: image 1 has the angle 40 and image 2 the angle 80.
COLORSWAP = [(41, 79), (50, 55)]  # all right; each image prefers its caption, but 55 prefers 40


def colorswap_rows() -> list[dict[str, Any]]:
    return [
        {"id": n, "caption_1": f"a yellow umbrella {one}", "caption_2": f"a white umbrella {two}",
         "image_1": f"images/img_{n}_1.png", "image_2": f"images/img_{n}_2.png",
         "image_source": "midjourney", "caption_source": "human"}
        for n, (one, two) in enumerate(COLORSWAP)
    ]  # fmt: skip


# cos 10 + cos 25 of the right matching are more than cos 15 + cos 30 of the other.
SCORES = {"all": {"text": 100.0, "image": 50.0, "group": 50.0, "group_match": 100.0, "n": 2}}


def test_colorswap(tmp_path: Path, angle_model: Any, paint: Paint) -> None:
    (tmp_path / "colorswap").mkdir()
    (tmp_path / "colorswap/test.json").write_text(json.dumps(colorswap_rows()))
    for n in range(2):
        for which, red in ((1, 40), (2, 80)):
            paint(tmp_path / f"colorswap/images/img_{n}_{which}.png", red)
    assert numbers_of(angle_model, "colorswap", tmp_path) == SCORES


def test_colorswap_as_parquet(tmp_path: Path, angle_model: Any, paint: Paint) -> None:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = colorswap_rows()
    for row in rows:
        for which, red in ((1, 40), (2, 80)):
            paint(tmp_path / "image.png", red)
            content = (tmp_path / "image.png").read_bytes()
            row[f"image_{which}"] = {"bytes": content, "path": row[f"image_{which}"]}
    with pytest.raises(DataError, match=r"colorswap/test\.json .*is missing"):
        numbers_of(angle_model, "colorswap", tmp_path)
    file = tmp_path / "colorswap/data/test-00000-of-00001.parquet"
    file.parent.mkdir(parents=True)
    parquet.write_table(arrow.Table.from_pylist(rows), file)
    assert numbers_of(angle_model, "colorswap", tmp_path) == SCORES


# MMVP-VLM: of each pair the first image has the angle 40 and the second 80.
MMVP = """\
Question ID,Type,Statement
2,Orientation,"a dog, facing left 79"
1,Orientation,a dog facing right 41
3,Orientation,a cat facing up 50
4,Orientation,a cat facing down 55
5,Color,a red cup 41
6,Color,a blue cup 79
"""


def write_mmvp(root: Path, paint: Paint, text: str = MMVP) -> None:
    for number in range(1, 7):
        kind = "Orientation" if number < 5 else "Color"
        paint(root / f"mmvp_vlm/MLLM_VLM Images/{kind}/{number}.jpg", 40 if number % 2 else 80)
    (root / "mmvp_vlm/Questions.csv").write_text(text, encoding="utf-8")


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_mmvp_vlm(tmp_path: Path, angle_model: Any, paint: Paint, mark: str) -> None:
    write_mmvp(tmp_path, paint, mark + MMVP)
    numbers = numbers_of(angle_model, "mmvp-vlm", tmp_path)
    # 55 prefers image 40 to its own, image 80: that pair is wrong.
    assert numbers["orientation"] == {"accuracy": 50.0, "group_match": 100.0, "n": 2}
    assert numbers["color"] == {"accuracy": 100.0, "group_match": 100.0, "n": 1}
    assert numbers["mean"] == {"accuracy": 75.0, "group_match": 100.0, "n": 3}
    assert numbers["all"]["accuracy"] == pytest.approx(200 / 3)
    texts = evaluation.prepare(["mmvp"], tmp_path).prepared[0].table.texts
    assert texts[:2] == ("a photo of a dog facing right 41", "a photo of a dog, facing left 79")


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        ("6,Color", "7,Color", "statement 5, whose pair has no other"),
        ("6,Color", "6,Orientation", "statement 5, whose pair"),
        ("6,Color", "x,Color", "'x', which is not a number"),
        ("Statement", "Text", "no column 'Statement'"),
        ("5,Color", "5,../Color", r"no image in"),
    ],
)
def test_broken_mmvp_files(tmp_path: Path, paint: Paint, old: str, new: str, part: str) -> None:
    text = MMVP.replace("6,Color", "6,../Color") if ".." in new else MMVP
    write_mmvp(tmp_path, paint, text.replace(old, new))
    with pytest.raises(DataError, match=part):
        evaluation.prepare(["mmvp-vlm"], tmp_path)


def test_urban1k(tmp_path: Path, angle_model: Any, paint: Paint) -> None:
    # Both images find 41, which is right for 40; both captions find their image.
    (tmp_path / "urban1k/caption").mkdir(parents=True)
    for name, red, caption in (("1", 40, "a long street 41"), ("2", 50, "a longer street 61")):
        paint(tmp_path / f"urban1k/image/{name}.jpg", red)
        (tmp_path / f"urban1k/caption/{name}.txt").write_text(f"{caption}\n")
    numbers = numbers_of(angle_model, "urban1k", tmp_path)
    assert (numbers["image_to_text@1"], numbers["text_to_image@1"]) == (50.0, 100.0)
    assert (numbers["n_images"], numbers["n_captions"]) == (2, 2)
    (tmp_path / "urban1k/caption/2.txt").write_text(" \n")
    with pytest.raises(DataError, match=r"2\.txt holds no caption"):
        numbers_of(angle_model, "urban1k", tmp_path)


NEGBENCH = """\
image_path,correct_answer,caption_0,caption_1,caption_2,caption_3,correct_answer_template
data/coco/images/val2017/000000000040.jpg,2,no dog 60,"a cat, no dog 70",a dog 41,a cat 80,positive
data/coco/images/val2017/000000000040.jpg,0,no cat 50,a cat 45,no dog 70,a dog 90,negative
data/coco/images/val2017/000000000040.jpg,3,a 60,b 70,c 80,d 41,negative
"""


def test_negbench(tmp_path: Path, angle_model: Any, paint: Paint) -> None:
    paint(tmp_path / "coco/val2017/000000000040.jpg", 40)
    (tmp_path / "negbench").mkdir()
    file = tmp_path / "negbench/COCO_val_mcq_llama3.1_rephrased.csv"
    file.write_text(NEGBENCH)
    numbers = numbers_of(angle_model, "negbench", tmp_path)
    assert numbers["positive"] == {"accuracy": 100.0, "n": 1}
    assert numbers["negative"] == {"accuracy": 50.0, "n": 2}  # 45 is nearer to 40 than 50 is
    assert numbers["mean"] == {"accuracy": 75.0, "n": 3}
    assert numbers["all"]["accuracy"] == pytest.approx(200 / 3)
    for old, new, part in ((",2,no", ",4,no", "the answer '4'"), ("caption_3", "d", "caption_3")):
        file.write_text(NEGBENCH.replace(old, new))
        with pytest.raises(DataError, match=part):
            evaluation.prepare(["negbench"], tmp_path)
