"""VSR, CREPE, VL-CheckList, ConMe, SPEC, VisMin, EqBen and long captions, in miniature and by hand.

The layouts are those of public loaders; the files themselves were not at hand. An image's angle is
its red, a caption's its last word: the nearer, the more alike.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from clic import evaluation, metrics
from clic.errors import DataError
from clic.evaluation.benchmarks import caption_choices, long_captions, minimal_changes
from clic.evaluation.encode.image_sources import image_pixels
from clic.evaluation.report.comparison import observe_report
from clic.evaluation.tables.grids import RULES, Grids
from clic.evaluation.tables.judgements import Judgements, best_threshold

Paint = Callable[..., None]


def numbers_of(model: Any, name: str, root: Path) -> Any:
    return evaluation.evaluate(model, [name], root).benchmarks[name]


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


# Group matching


def test_group_match_by_hand() -> None:
    # The right matching has 0.9 + 0.1 against 0.3 + 0.6; the second row ties; the third is wrong.
    scores = torch.tensor(
        [[[0.9, 0.3], [0.6, 0.1]], [[0.5, 0.5], [0.5, 0.5]], [[0.1, 0.6], [0.6, 0.9]]]
    )
    assert metrics.group_match(scores).tolist() == [True, False, False]
    # By Winoground's rules the first row is wrong: image 2 prefers caption 1.
    assert RULES["winoground"](scores)["group"].tolist() == [False, False, False]
    assert RULES["cola"](scores)["group_match"].tolist() == [True, False, False]
    three = torch.eye(3)[None]
    assert metrics.group_match(three).tolist() == [True]
    assert metrics.group_match(three.roll(1, 1)).tolist() == [False]


def test_guessing_a_group_match_is_right_as_often_as_said() -> None:
    drawn = torch.rand(6000, 3, 3, generator=torch.Generator().manual_seed(0))
    assert float(metrics.group_match(drawn).float().mean()) == pytest.approx(1 / 6, abs=0.015)
    pairs = metrics.group_match(drawn[:, :2, :2]).float().mean()
    assert float(pairs) == pytest.approx(1 / 2, abs=0.02)
    assert "chance 50 %" in Grids.EXPLAINED["group_match"]


# One image, several captions


def test_vsr_pairs_true_and_false_captions_of_an_image(
    tmp_path: Path, angle_model: Any, paint: Paint
) -> None:
    rows = [
        {"image": "a.jpg", "image_link": "http://x/a.jpg", "caption": f"The cat is left of it {n}",
         "label": label, "relation": "left of", "annotator_id": 1}
        for n, label in ((41, 1), (50, 0), (40, 0))
    ]  # fmt: skip
    rows += [{"image": "b.jpg", "caption": "alone 80", "label": 1, "relation": "on"}]
    for name, red in (("a", 40), ("b", 80)):
        paint(tmp_path / f"vsr/images/{name}.jpg", red)
    (tmp_path / "vsr/test.jsonl").write_text("\n".join(map(json.dumps, rows)))
    # 41 beats 50 and not 40; the image that has a true caption alone makes no pair.
    assert numbers_of(angle_model, "vsr", tmp_path) == {"pairs": {"accuracy": 50.0, "n": 2}}
    (tmp_path / "vsr/test.jsonl").write_text(json.dumps({**rows[0], "label": 2}))
    with pytest.raises(DataError, match="the label 2, which is neither 0 nor 1"):
        caption_choices.load_vsr(tmp_path)


def test_a_threshold_by_hand() -> None:
    # Above 0.35 lie two of the three true ones and none of the false: five of six are right.
    scores, label = np.array([0.5, 0.4, 0.05, 0.3, 0.1, 0.0]), np.array([1, 1, 1, 0, 0, 0], bool)
    assert best_threshold(scores, label) == pytest.approx(0.35)
    assert best_threshold(np.array([0.2, 0.4]), np.array([True, True])) < 0.2
    assert best_threshold(np.array([0.2, 0.4]), np.array([False, False])) >= 0.4
    with pytest.raises(DataError, match="no rows are left to set the threshold"):
        best_threshold(np.array([]), np.array([], dtype=bool))


def write_vsr(root: Path, paint: Paint) -> None:
    """On dev, captions within 15 degrees are true; on test that is right for three of four."""
    dev = [(40, 50, 1), (40, 45, 1), (80, 60, 0), (80, 20, 0)]
    test = [(40, 41, 1), (40, 70, 0), (80, 75, 0), (80, 79, 1)]
    for split, rows in (("dev", dev), ("test", test)):
        (root / "vsr").mkdir(exist_ok=True)
        lines = []
        for image, caption, label in rows:
            paint(root / f"vsr/images/{image}.jpg", image)
            row = {"image": f"{image}.jpg", "caption": f"it is {caption}", "label": label}
            lines.append(json.dumps({**row, "relation": "on"}))
        (root / f"vsr/{split}.jsonl").write_text("\n".join(lines))


def test_vsr_by_threshold(tmp_path: Path, angle_model: Any, paint: Paint) -> None:
    write_vsr(tmp_path, paint)
    report = evaluation.evaluate(angle_model, ["vsr-threshold"], tmp_path, keep_rows=True)
    assert report.benchmarks["vsr-threshold"] == {"all": {"judged": 75.0, "n": 4}}
    source = report.provenance["benchmarks"]["vsr-threshold"]
    assert (source["rows"], source["images"]) == (4, 2)
    wrong = report.rows[2]  # type: ignore[index]
    middle = (math.cos(math.radians(10)) + math.cos(math.radians(20))) / 2
    assert wrong["threshold"] == pytest.approx(middle, abs=1e-6) and not wrong["judged"]
    assert [Judgements.margins(row)[""] > 0 for row in report.rows] == [True, True, False, True]
    card = report.tables["vsr-threshold"].illustrate(Judgements.failure(wrong, 2))
    assert card.verdict.startswith("a false caption is judged true, by 0.0")
    assert card.pictures[0].uri is not None
    observed = observe_report(report)["vsr-threshold"]
    assert observed.value(("all", "judged")) == 75.0
    table = report.tables["vsr-threshold"]
    lost = np.array([str(image).endswith("80.jpg") for image in table.images])
    kept = table.without(lost)
    assert (kept.rows, len(kept.fitted_label)) == (2, 2)  # type: ignore[attr-defined]


def write_crepe(root: Path, angles: dict[str, list[int]]) -> None:
    """Write all 27 files, with one row each; `angles` are the negatives of a file."""
    for kind in caption_choices.CREPE_KINDS:
        for number in range(4, 13):
            folder = root / "crepe/prod_hard_negatives" / kind
            folder.mkdir(parents=True, exist_ok=True)
            own = angles.get(f"{kind}_{number}", [50, 60])
            row = ["7", "a cat 41", str([f"a dog {n}" for n in own]), 10, 0, 10.0, 6]
            name = f"prod_vg_hard_negs_{kind}_complexity_{number}.csv"
            with (folder / name).open("w", newline="") as file:
                csv.writer(file).writerows(
                    [["image_id", "caption", "hard_negs", "x", "y", "width", "height"], row]
                )


def test_crepe_scores_the_part_of_an_image(tmp_path: Path, angle_model: Any, paint: Paint) -> None:
    write_crepe(tmp_path, {"atom_4": [40, 90], "swap_12": [90, 40]})
    paint(tmp_path / "crepe/VG_100K_2/7.jpg", 90, 40)  # the box is its right half, of angle 40
    numbers = numbers_of(angle_model, "crepe", tmp_path)
    assert numbers["atom_4"] == {"accuracy": 0.0, "n": 1}
    assert numbers["atom"] == pytest.approx({"accuracy": 100 * 8 / 9, "n": 9})
    assert numbers["negate"] == {"accuracy": 100.0, "n": 9}
    assert numbers["swap_12"]["accuracy"] == 0.0  # 40 is nearer than 41
    assert numbers["mean"]["accuracy"] == pytest.approx(100 * 25 / 27)
    assert numbers["all"] == pytest.approx({"accuracy": 100 * 25 / 27, "n": 27})


def test_crepe_reads_no_code(tmp_path: Path) -> None:
    write_crepe(tmp_path, {})
    file = tmp_path / "crepe/prod_hard_negatives/atom/prod_vg_hard_negs_atom_complexity_4.csv"
    file.write_text(file.read_text().replace("\"['a dog 50', 'a dog 60']\"", "open('x')"))
    with pytest.raises(DataError, match="has 'hard_negs' that are no list of texts"):
        caption_choices.load_crepe(tmp_path)


def test_vl_checklist(tmp_path: Path, angle_model: Any, paint: Paint) -> None:
    data = tmp_path / "vl_checklist/data"
    texts = {"good": {"POS": ["red 41"], "NEG": ["blue 60"]}, "bad": {"POS": ["41"], "NEG": ["40"]}}
    write_json(
        data / "Attribute/vg/color.json", [["1.jpg", texts["good"]], ["1.jpg", texts["bad"]]]
    )
    write_json(
        data / "Object/Location/hake_location/hake_obj_mid.json", [["h/2.jpg", texts["good"]]]
    )
    write_json(data / "Relation/swig_action.json", [["3.jpg", texts["bad"]]])
    write_json(tmp_path / "vl_checklist/data/corpus.json", {})  # no rows file
    for name in ("vg/1.jpg", "hake/h/2.jpg", "swig/3.jpg"):
        paint(tmp_path / "vl_checklist/images" / name, 40)
    numbers = numbers_of(angle_model, "vl-checklist", tmp_path)
    assert numbers["attribute_vg_color"] == {"accuracy": 50.0, "n": 2}
    assert numbers["object_location_hake_location_hake_obj_mid"] == {"accuracy": 100.0, "n": 1}
    assert numbers["attribute"]["accuracy"] == 50.0 and numbers["relation"]["accuracy"] == 0.0
    assert numbers["mean"] == pytest.approx({"accuracy": 50.0, "n": 4})
    assert numbers["all"] == {"accuracy": 50.0, "n": 4}
    write_json(data / "Relation/other.json", [["3.jpg", texts["bad"]]])
    with pytest.raises(DataError, match="names none of the image folders hake, swig, vaw, vg"):
        caption_choices.load_vl_checklist(tmp_path)


CONME = {  # the image's angle is 40; of each row the right and the wrong answer
    "att": [("on the left 42", "on the right 50"), ("blue 45", "red 40")],
    "obj": [("a cup 41", "a can 90")],
    "rel": [("above it 45", "below it 45")],
}


def write_conme(root: Path, paint: Paint) -> None:
    (root / "conme").mkdir()
    for part, answers in CONME.items():
        with (root / f"conme/replace-{part}.csv").open("w", newline="") as file:
            columns = ("image", "question", "answer", *caption_choices.CONME_COLUMNS[1:])
            table = csv.writer(file)
            table.writerow([*columns, "question_format"])
            for right, wrong in answers:
                asked = f"Where is it? Is it A. {wrong}, or B. {right}?"
                cells = ["images/000000000040.jpg", asked, "B", "Where is it?", right, wrong]
                table.writerow([*cells, "selective"])
    paint(root / "coco/val2017/000000000040.jpg", 40)


def test_conme(tmp_path: Path, angle_model: Any, paint: Paint) -> None:
    write_conme(tmp_path, paint)
    report = evaluation.evaluate(angle_model, ["conme"], tmp_path, keep_rows=True)
    assert report.benchmarks["conme"] == {
        "replace_att": {"accuracy": 50.0, "n": 2},
        "replace_obj": {"accuracy": 100.0, "n": 1},
        "replace_rel": {"accuracy": 0.0, "n": 1},  # a tie
        "mean": {"accuracy": 50.0, "n": 4},
        "all": {"accuracy": 50.0, "n": 4},
    }
    assert report.rows[0]["captions"] == [
        "Where is it? on the left 42", "Where is it? on the right 50"
    ]  # fmt: skip
    file = tmp_path / "conme/replace-obj.csv"
    file.write_text(file.read_text().replace("a can 90", " "))
    with pytest.raises(DataError, match="line 2 has no incorrect_option; get the file again"):
        caption_choices.load_conme(tmp_path)


# Several images


def write_spec(root: Path, paint: Paint) -> None:
    for subset in minimal_changes.SPEC_SUBSETS:
        folder = root / "spec" / subset
        for red in (20, 40, 60):
            paint(folder / f"img/{red}.png", red)
        # Of two texts the second is right; of three images the first.
        i2t = [{"query": "img/40.png", "keys": ["far 70", "near 42"], "label": 1}]
        images = ["img/40.png", "img/20.png", "img/60.png"]
        t2i = [{"query": "near 42", "keys": images, "label": 0}]
        if subset == "count":
            i2t[0]["label"] = 0
            t2i[0]["keys"] = ["img/60.png", "img/40.png"]
        write_json(folder / "image2text.json", i2t)
        write_json(folder / "text2image.json", t2i)


def test_spec_both_ways(tmp_path: Path, angle_model: Any, paint: Paint) -> None:
    write_spec(tmp_path, paint)
    report = evaluation.evaluate(angle_model, ["spec"], tmp_path, keep_rows=True)
    numbers = report.benchmarks["spec"]
    assert numbers["i2t_count"] == numbers["t2i_count"] == {"accuracy": 0.0, "n": 1}
    assert numbers["i2t_existence"] == numbers["t2i_existence"] == {"accuracy": 100.0, "n": 1}
    assert numbers["i2t"] == numbers["t2i"] == pytest.approx({"accuracy": 500 / 6, "n": 6})
    assert numbers["mean"] == numbers["all"] == pytest.approx({"accuracy": 1000 / 12, "n": 12})
    rows = {row["category"]: row for row in report.rows}
    pictures = [f"existence/img/{name}.png" for name in (40, 20, 60)]  # each subset has its own
    assert rows["t2i_existence"]["images"] == pictures
    assert np.array(rows["t2i_existence"]["scores"]).shape == (3, 1)
    assert np.array(rows["i2t_existence"]["scores"]).shape == (1, 2)
    wrong = rows["t2i_count"]
    assert Grids.failure(wrong, 1).verdict.startswith("another image is nearer to the caption")
    card = report.tables["spec"].illustrate(Grids.failure(wrong, wrong["row"]))
    assert [picture.uri is not None for picture in card.pictures] == [True, True]


def test_spec_without_an_image(tmp_path: Path, paint: Paint) -> None:
    write_spec(tmp_path, paint)
    (tmp_path / "spec/existence/img/60.png").unlink()
    table = minimal_changes.load_spec(tmp_path)
    lost = np.array([str(i).endswith("existence/img/60.png") for i in table.images])
    kept = table.without(lost)
    assert lost.sum() == 1 and kept.rows == 11  # its text-to-image row alone is gone


def test_spec_refuses_a_label_of_no_key(tmp_path: Path) -> None:
    write_json(
        tmp_path / "spec/absolute_size/image2text.json",
        [{"query": "a.png", "keys": ["a", "b"], "label": 2}],
    )
    with pytest.raises(DataError, match="has the label 2, which is none of its 2 keys"):
        minimal_changes.load_spec(tmp_path)


PAIRS = {"object": (41, 79), "counting": (50, 55)}  # see ColorSwap: 55 prefers 40


def test_vismin(tmp_path: Path, angle_model: Any, paint: Paint) -> None:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = []
    for category, (one, two) in PAIRS.items():
        stored = {}
        for index, red in enumerate((40, 80)):
            paint(tmp_path / f"{red}.png", red)
            content = (tmp_path / f"{red}.png").read_bytes()
            stored[f"image_{index}"] = {"bytes": content, "path": None}
        texts = {"text_0": f"a {one}", "text_1": f"a {two}"}
        rows.append({"id": category, "category": category, **texts, **stored})
    (tmp_path / "vismin/data").mkdir(parents=True)
    file = tmp_path / "vismin/data/test-00000-of-00001.parquet"
    parquet.write_table(arrow.Table.from_pylist(rows), file)
    numbers = numbers_of(angle_model, "vismin", tmp_path)
    right = {"text": 100.0, "image": 100.0, "group": 100.0, "group_match": 100.0, "n": 1}
    assert numbers["object"] == right
    assert numbers["counting"] == {**right, "image": 0.0, "group": 0.0}
    assert numbers["all"] == {**right, "image": 50.0, "group": 50.0, "n": 2}


def test_eqben(tmp_path: Path, angle_model: Any, paint: Paint) -> None:
    paint(tmp_path / "eqben/image_subset/eqbensd/1/a.jpg", 40)
    paint(tmp_path / "eqben/image_subset/eqbensd/1/b.jpg", 80)
    frames = tmp_path / "eqben/image_subset/eqbenyoucook2/v"
    frames.mkdir(parents=True)
    for red in (40, 80):
        pixels = np.zeros((4, 4, 3), dtype=np.uint8)
        pixels[..., 2] = red  # BGR
        np.save(frames / f"{red}.npy", pixels)
    write_json(
        tmp_path / "eqben/eqben_subset_10percent_final.json",
        [
            {"image0": "eqbensd/1/a.jpg", "image1": "eqbensd/1/b.jpg", "caption0": "a man 41",
             "caption1": "a dog 79"},
            {"image0": "eqbenyoucook2/v/40.npy", "image1": "eqbenyoucook2/v/80.npy",
             "caption0": "cut 50", "caption1": "stir 55"},
        ],
    )  # fmt: skip
    numbers = numbers_of(angle_model, "eqben", tmp_path)
    assert numbers["eqbensd"]["group"] == 100.0
    assert numbers["eqbenyoucook2"] == {
        "text": 100.0, "image": 0.0, "group": 0.0, "group_match": 100.0, "n": 1
    }  # fmt: skip
    assert numbers["mean"]["image"] == numbers["all"]["image"] == 50.0
    np.save(frames / "40.npy", np.zeros((4, 4), dtype=np.float32))
    with pytest.raises(DataError, match=r"40\.npy is float32 \[4, 4\], no image"):
        numbers_of(angle_model, "eqben", tmp_path)


# Retrieval

RIGHT = {f"{way}@{k}": 100.0 for way in ("image_to_text", "text_to_image") for k in (1, 5, 10)} | {
    "n_images": 2,
    "n_captions": 2,
}


def test_dci(tmp_path: Path, angle_model: Any, paint: Paint) -> None:
    folder = tmp_path / "dci/densely_captioned_images"
    write_json(folder / "splits.json", {"train": ["1.json"], "test": ["2.json"]})
    for name, red in (("1", 40), ("2", 80)):
        paint(folder / f"photos/sa_{name}.jpg", red)
        write_json(
            folder / f"annotations/{name}.json",
            {"image": f"sa_{name}.jpg", "short_caption": "a dog", "extra_caption": f"it is {red}"},
        )
    assert numbers_of(angle_model, "dci", tmp_path) == RIGHT
    assert long_captions.load_dci(tmp_path).texts[0] == "a dog\nit is 40"


def test_docci_takes_its_test_split(tmp_path: Path, angle_model: Any, paint: Paint) -> None:
    rows = [
        {"example_id": f"{split}_{red}", "split": split, "image_file": f"{split}_{red}.jpg",
         "description": f"a long text {red}"}
        for split, red in (("test", 40), ("train", 60), ("test", 80), ("qual_test", 10))
    ]  # fmt: skip
    for row in rows:
        paint(tmp_path / "docci/images" / row["image_file"], int(row["description"].split()[-1]))
    (tmp_path / "docci/docci_descriptions.jsonlines").write_text("\n".join(map(json.dumps, rows)))
    assert numbers_of(angle_model, "docci", tmp_path) == RIGHT


def test_sharegpt4v_takes_the_first_thousand_rows(
    tmp_path: Path, angle_model: Any, paint: Paint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(long_captions, "SHARE_COUNT", 2)
    rows = [
        {"id": str(red), "image": f"coco/train2017/{red}.jpg",
         "conversations": [{"from": "human", "value": "?"}, {"from": "gpt", "value": f"it\n{red}"}]}
        for red in (40, 80, 120)
    ]  # fmt: skip
    for red in (40, 80):
        paint(tmp_path / f"sharegpt4v/coco/train2017/{red}.jpg", red)
    name = "share-captioner_coco_lcs_sam_1246k_1107.json"
    write_json(tmp_path / "sharegpt4v" / name, rows)
    assert numbers_of(angle_model, "sharegpt4v", tmp_path) == RIGHT
    assert long_captions.load_sharegpt4v(tmp_path).texts == ("it 40", "it 80")


def test_xm3600_in_english(tmp_path: Path, angle_model: Any, paint: Paint) -> None:
    rows = [
        {"image/key": f"k{red}", "image/locale": "en",
         "de": {"caption": ["ein Hund 10"]},
         "en": {"caption": [f"a dog {red}", f"a cat {red + 1}"]}}
        for red in (40, 80)
    ]  # fmt: skip
    for red in (40, 80):
        paint(tmp_path / f"xm3600/images/k{red}.jpg", red)
    (tmp_path / "xm3600/captions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert numbers_of(angle_model, "xm3600", tmp_path) == {**RIGHT, "n_captions": 4}


def test_a_frame_is_read_as_rgb(tmp_path: Path) -> None:
    from clic.evaluation.encode.image_sources import image_pixels

    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    np.save(tmp_path / "a.npy", pixels)
    assert image_pixels(tmp_path / "a.npy").tolist() == pixels[:, :, ::-1].tolist()
    Image.fromarray(image_pixels(tmp_path / "a.npy"))
    np.save(tmp_path / "b.npy", np.array([{"a": math.pi}], dtype=object))
    with pytest.raises(DataError, match="no NumPy array"):
        image_pixels(tmp_path / "b.npy")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("\"['a dog 50', 'a dog 60']\"", "{[]: 1}", "has 'hard_negs' that are no list of texts"),
        (",10,0,", ",inf,0,", "has x 'inf', which is no number"),
    ],
)
def test_crepe_with_broken_cells(tmp_path: Path, old: str, new: str, message: str) -> None:
    write_crepe(tmp_path, {})
    file = tmp_path / "crepe/prod_hard_negatives/atom/prod_vg_hard_negs_atom_complexity_4.csv"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(DataError, match=message):
        caption_choices.load_crepe(tmp_path)


@pytest.mark.parametrize(("cut", "message"), [(0, "No data left"), (1, "but an archive")])
def test_a_broken_frame_is_a_broken_image(tmp_path: Path, cut: int, message: str) -> None:
    file = tmp_path / "frame.npy"
    with file.open("wb") as stream:
        if cut:
            np.savez(stream, pixels=np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(DataError, match=message):
        image_pixels(file)
