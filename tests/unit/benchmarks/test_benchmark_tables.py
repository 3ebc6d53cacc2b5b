"""Each benchmark's own folder, file names and fields in miniature, with hand-worked scores."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clic import evaluation
from clic.errors import DataError
from clic.evaluation.benchmarks import aro, image_pairs, whatsup
from clic.evaluation.encode.feature_cache import image_bytes
from clic.evaluation.tables.grids import Grids

Paint = Callable[..., None]


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def numbers_of(model: Any, name: str, root: Path, **settings: Any) -> dict[str, Any]:
    return evaluation.evaluate(model, [name], root, **settings).benchmarks[name]


# ARO


def relation(
    name: str, x: int, true: int, false: int, image: str = "2354786.jpg"
) -> dict[str, Any]:
    return {
        "image_id": "2354786", "image_path": image, "relation_name": name,
        "bbox_x": x, "bbox_y": 0, "bbox_w": 10, "bbox_h": 6,
        "true_caption": f"the door is to the left of the shirt {true}",
        "false_caption": f"the shirt is to the left of the door {false}",
    }  # fmt: skip


def test_aro_relation_looks_at_the_box(tmp_path: Path, angle_model: Any, paint: Paint) -> None:
    paint(tmp_path / "aro/images/2354786.jpg", 40, 80)
    rows = [
        relation("on", 0, true=41, false=60),  # the left half is at 40: right
        relation("on", 10, true=41, false=70),  # the right half is at 80: wrong
        relation("holding", 10, true=79, false=60),  # right
        relation("next to", 0, true=60, false=41),  # wrong, and not in the mean
        relation("on", 0, true=30, false=50),  # a tie is wrong
    ]
    write_json(tmp_path / "aro/visual_genome_relation.json", rows)
    numbers = numbers_of(angle_model, "aro-relation", tmp_path)
    assert numbers == {
        "relation_on": {"accuracy": 100 / 3, "n": 3},
        "relation_holding": {"accuracy": 100.0, "n": 1},
        "relation_next_to": {"accuracy": 0.0, "n": 1},
        "mean": {"accuracy": pytest.approx((100 / 3 + 100) / 2), "n": 4},
        "all": {"accuracy": 40.0, "n": 5},
    }
    assert {"next to", "typing on", "around"} <= aro.LEFT_OUT
    assert not {"on", "holding", "to the left of"} & aro.LEFT_OUT


def test_aro_attribution_means_over_pairs_with_25_rows(
    tmp_path: Path, angle_model: Any, paint: Paint
) -> None:
    paint(tmp_path / "aro/images/1.jpg", 40)
    row = relation("", 0, true=41, false=60, image="1.jpg")
    row["attributes"] = ["white", "black"]
    wrong = {**row, "true_caption": "a 80"}
    few = {**row, "attributes": ["old", "new"]}
    write_json(
        tmp_path / "aro/visual_genome_attribution.json", [row] * 20 + [wrong] * 5 + [few] * 2
    )
    numbers = numbers_of(angle_model, "aro-attribution", tmp_path)
    assert numbers["white_black"] == numbers["mean"] == {"accuracy": 80.0, "n": 25}
    assert numbers["all"] == {"accuracy": pytest.approx(2200 / 27), "n": 27}


# Two images, two captions


def winoground(number: int, tag: str, first: int, second: int) -> str:
    return json.dumps({
        "id": number, "caption_0": f"some plants {first}", "caption_1": f"a lightbulb {second}",
        "image_0": f"ex_{number}_img_0", "image_1": f"ex_{number}_img_1",
        "tag": "Adjective-Size", "secondary_tag": "", "num_main_preds": 1, "collapsed_tag": tag,
    })  # fmt: skip


def test_winoground(tmp_path: Path, angle_model: Any, paint: Paint) -> None:
    rows = [
        winoground(0, "Object", 41, 79),  # all right
        winoground(1, "Object", 50, 55),  # each image prefers its caption; 55 prefers image 40
        winoground(2, "Relation", 79, 41),  # all wrong
        winoground(3, "Relation", 61, 95),  # 61 prefers 80, by 19 to 21; image 40 is right
    ]
    (tmp_path / "winoground").mkdir()
    (tmp_path / "winoground/examples.jsonl").write_text("\n".join(rows) + "\n")
    for number in range(4):
        for which, red in enumerate((40, 80)):
            paint(tmp_path / f"winoground/images/ex_{number}_img_{which}.png", red)
    numbers = numbers_of(angle_model, "WinoGround".lower(), tmp_path)
    assert numbers == {
        "tag_object": {"text": 100.0, "image": 50.0, "group": 50.0, "group_match": 100.0, "n": 2},
        "tag_relation": {"text": 50.0, "image": 0.0, "group": 0.0, "group_match": 50.0, "n": 2},
        "all": {"text": 75.0, "image": 25.0, "group": 25.0, "group_match": 75.0, "n": 4},
    }


def test_winoground_as_parquet(tmp_path: Path, angle_model: Any, paint: Paint) -> None:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = []
    for number, (first, second) in enumerate(((41, 79), (50, 55))):
        row = json.loads(winoground(number, "Object", first, second))
        for which, red in enumerate((40, 80)):
            paint(tmp_path / "image.png", red)
            content = (tmp_path / "image.png").read_bytes()
            row[f"image_{which}"] = {"bytes": content, "path": f"ex_{number}_img_{which}.png"}
        rows.append(row)
    with pytest.raises(DataError, match=r"examples\.jsonl .*is missing; get it with: accept the"):
        numbers_of(angle_model, "winoground", tmp_path)
    file = tmp_path / "winoground/data/test-00000-of-00001.parquet"
    file.parent.mkdir(parents=True)
    parquet.write_table(arrow.Table.from_pylist(rows), file)
    numbers = numbers_of(angle_model, "winoground", tmp_path)
    assert numbers["all"] == {
        "text": 100.0,
        "image": 50.0,
        "group": 50.0,
        "group_match": 100.0,
        "n": 2,
    }


def test_winoground_row_3_by_hand(tmp_path: Path, angle_model: Any, paint: Paint) -> None:
    """Image 40: 61 is 21 away and 95 is 55. Image 80: 61 is 19 away and 95 is 15. Text is right."""
    (tmp_path / "winoground").mkdir()
    (tmp_path / "winoground/examples.jsonl").write_text(winoground(3, "Both", 61, 95))
    for which, red in enumerate((40, 80)):
        paint(tmp_path / f"winoground/images/ex_3_img_{which}.png", red)
    report = evaluation.evaluate(angle_model, ["winoground"], tmp_path, keep_rows=True)
    row = report.rows[0]
    assert (row["text"], row["image"], row["group"]) == (True, False, False)
    assert row["images"] == ["ex_3_img_0.png", "ex_3_img_1.png"]
    assert row["captions"] == ["some plants 61", "a lightbulb 95"]
    assert [[round(score, 4) for score in scores] for scores in row["scores"]] == [
        [0.9336, 0.5736], [0.9455, 0.9659],
    ]  # fmt: skip


def test_cola_takes_the_images_by_the_name_of_their_address(
    tmp_path: Path, angle_model: Any, paint: Paint
) -> None:
    url = "https://cs-people.bu.edu/array/data/vg_gqa_images/{}.jpg"
    rows = [
        [url.format(1), "a red box 41", url.format(2), "a blue box 79"],
        [url.format(1), "a red box 50", url.format(2), "a blue box 55"],
    ]
    write_json(tmp_path / "cola/COLA_multiobjects_matching_benchmark.json", rows)
    paint(tmp_path / "cola/images/1.jpg", 40)
    paint(tmp_path / "cola/images/2.jpg", 80)
    numbers = numbers_of(angle_model, "cola", tmp_path)
    # The second row's captions both prefer the first image, though both images choose well.
    assert numbers == {"multi_object": {"accuracy": 50.0, "group_match": 100.0, "n": 2}}


def test_bivlc_reads_parquet_group_by_group(tmp_path: Path, angle_model: Any, paint: Paint) -> None:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    reds = [(40, 80), (40, 80), (40, 80)]
    captions = [(41, 79), (50, 55), (79, 41)]
    rows = []
    for pair, (first, second) in zip(reds, captions, strict=True):
        cells = []
        for red in pair:
            paint(tmp_path / "image.png", red)
            cells.append({"bytes": (tmp_path / "image.png").read_bytes(), "path": None})
        kind = ("swap", "att") if first == 79 else ("replace", "obj")
        rows.append({
            "image": cells[0], "caption": f"a {first}", "negative_caption": f"b {second}",
            "negative_image": cells[1], "type": kind[0], "subtype": kind[1],
        })  # fmt: skip
    folder = tmp_path / "bivlc/data"
    folder.mkdir(parents=True)
    for number, part in enumerate((rows[:2], rows[2:])):
        file = folder / f"test-{number:05d}-of-00002.parquet"
        parquet.write_table(arrow.Table.from_pylist(part), file, row_group_size=1)
    report = evaluation.evaluate(angle_model, ["bivlc"], tmp_path, keep_rows=True)
    numbers = report.benchmarks["bivlc"]
    first = {"i2t": 100.0, "t2i": 50.0, "group": 50.0}
    parts = {"i_pos": 100.0, "i_neg": 100.0, "t_pos": 100.0, "t_neg": 50.0}
    assert numbers["replace_obj"] == numbers["replace"] == {**first, **parts, "n": 2}
    assert set(numbers["swap_att"].values()) == {0.0, 1}
    assert numbers["all"]["t_pos"] == pytest.approx(200 / 3)
    assert list(numbers) == ["replace_obj", "swap_att", "replace", "swap", "all"]
    assert report.rows[1]["images"] == [
        "test-00000-of-00002.parquet[image/1/0]",
        "test-00000-of-00002.parquet[negative_image/1/0]",
    ]
    # Images of one file are told apart by their place in it, in the cache of features too.
    images = evaluation.BENCHMARKS["bivlc"].load(tmp_path, "test", 0).images
    assert len({image_bytes(image) for image in images}) == len(images) == 6
    (folder / "test-00000-of-00002.parquet").write_bytes(b"PAR1 broken")
    with pytest.raises(DataError, match="is no parquet file"):
        numbers_of(angle_model, "bivlc", tmp_path)
    (folder / "test-00000-of-00002.parquet").unlink()
    with pytest.raises(DataError, match=r"1 files, and test-00001-of-00002\.parquet is one of 2"):
        numbers_of(angle_model, "bivlc", tmp_path)


# One caption, two images


def write_svo(root: Path, rows: list[tuple[Any, ...]]) -> None:
    text = io.StringIO()
    table = csv.writer(text)
    names = "sentence pos_triplet neg_triplet pos_url neg_url pos_image_id neg_image_id"
    table.writerow([*names.split(), *image_pairs.SVO_KINDS])
    for angle, pos, neg, *kinds in rows:
        words = ["girl,stand,grass", "dog,stand,grass", f"http://x/{pos}", f"http://x/{neg}"]
        table.writerow([f"A girl, standing, at {angle}", *words, pos, neg, *kinds])
    (root / "svo_probes").mkdir(exist_ok=True)
    (root / "svo_probes/svo_probes.csv").write_text(text.getvalue())


def test_svo_probes(tmp_path: Path, angle_model: Any, paint: Paint) -> None:
    write_svo(tmp_path, [
        (41, 1, 2, True, False, False),  # right
        (79, 1, 2, True, False, False),  # wrong
        (60, 1, 2, False, True, False),  # a tie
        (79, 2, 1, False, False, True),  # right
        (79, 1, 2, True, True, False),  # differs in two parts: not scored
    ])  # fmt: skip
    paint(tmp_path / "svo_probes/images/1.jpg", 40)
    paint(tmp_path / "svo_probes/images/2.jpg", 80)
    assert numbers_of(angle_model, "svo-probes", tmp_path) == {
        "negative_subject": {"accuracy": 50.0, "n": 2},
        "negative_verb": {"accuracy": 0.0, "n": 1},
        "negative_object": {"accuracy": 100.0, "n": 1},
        "mean": {"accuracy": 50.0, "n": 4},
        "all": {"accuracy": 50.0, "n": 4},
    }
    assert image_pairs.svo_urls(tmp_path)["svo_probes/images/2.jpg"] == "http://x/2"


def test_svo_probes_without_gone_images(tmp_path: Path, angle_model: Any, paint: Paint) -> None:
    rows = [(41, 1, 2, *kinds) for kinds in ((1, 0, 0), (0, 1, 0), (0, 0, 1))]
    rows = [(a, p, n, *(bool(k) for k in kinds)) for a, p, n, *kinds in rows]
    write_svo(tmp_path, [*rows, (41, 1, 3, True, False, False)])
    paint(tmp_path / "svo_probes/images/1.jpg", 40)
    paint(tmp_path / "svo_probes/images/2.jpg", 80)
    with pytest.raises(DataError, match=r"1 of 3 images are missing .*3\.jpg.*clic-data fetch svo"):
        numbers_of(angle_model, "svo-probes", tmp_path)
    report = evaluation.evaluate(angle_model, ["svo-probes"], tmp_path, allow_missing=True)
    assert report.benchmarks["svo-probes"]["all"] == {"accuracy": 100.0, "n": 3}
    source = report.provenance["benchmarks"]["svo-probes"]
    assert (source["rows"], source["rows_of_the_whole"]) == (3, 4)


# What's Up


def test_whatsup_pairs_and_sets(tmp_path: Path, angle_model: Any, paint: Paint) -> None:
    def controlled(
        folder: str, ending: str, words: tuple[str, ...], angles: tuple[int, ...]
    ) -> None:
        rows = []
        for word, angle in zip(words, angles, strict=True):
            name = f"{folder}/mug_{word}_plate.{ending}"
            paint(tmp_path / "whatsup" / name, 40)
            options = [f"A mug {word} {angle}", "b 60", "c 70", "d 80"]
            rows.append({"image_path": f"data/{name}", "caption_options": options})
        file = {"controlled_images": "images", "controlled_clevr": "clevr"}[folder]
        write_json(tmp_path / f"whatsup/controlled_{file}_dataset.json", rows)

    words = ("left_of", "right_of", "on", "under")
    controlled("controlled_images", "jpeg", words, (41, 42, 43, 65))  # "under" is wrong
    words = ("left_of", "right_of", "in-front_of", "behind")
    controlled("controlled_clevr", "jpeg", words, (41, 42, 43, 44))
    for name, image, angle in (
        ("coco_qa_one_obj", 139, 41), ("coco_qa_two_obj", 139, 61),
        ("vg_qa_one_obj", 2317, 41), ("vg_qa_two_obj", 2317, 41),
    ):  # fmt: skip
        write_json(tmp_path / f"whatsup/{name}.json", [[image, f"left {angle}", "right 60"]])
    paint(tmp_path / "coco/val2017/000000000139.jpg", 40)
    paint(tmp_path / "whatsup/vg_images/2317.jpg", 40)
    numbers = numbers_of(angle_model, "whatsup", tmp_path)
    assert numbers["controlled_images"] == {"accuracy": 75.0, "pairs": 50.0, "sets": 0.0, "n": 4}
    assert numbers["controlled_clevr"] == {"accuracy": 100.0, "pairs": 100.0, "sets": 100.0, "n": 4}
    assert numbers["controlled"] == {"accuracy": 87.5, "pairs": 75.0, "sets": 50.0, "n": 8}
    assert numbers["coco_two"] == {"accuracy": 0.0, "n": 1}
    assert numbers["mean"] == {"accuracy": pytest.approx(475 / 6), "n": 12}
    # A set that lost an image is no set any more; its pair of other images still is one.
    (tmp_path / "whatsup/controlled_clevr/mug_behind_plate.jpeg").unlink()
    numbers = numbers_of(angle_model, "whatsup", tmp_path, allow_missing=True)
    assert numbers["controlled_clevr"] == {"accuracy": 100.0, "pairs": 100.0, "n": 3}
    table = whatsup.load_whatsup(tmp_path)
    assert isinstance(table, Grids) and table.caption.shape == (12, 4)


# VALSE


def test_valse_scores_valid_rows_on_images_of_their_sources(
    tmp_path: Path, angle_model: Any, paint: Paint
) -> None:
    from clic.evaluation.benchmarks import valse

    def row(dataset: str, image: str, caption: Any, foil: int, votes: int = 3) -> dict[str, Any]:
        return {
            "dataset": dataset, "original_split": "test", "image_file": image,
            "caption": caption, "foil": f"two cats {foil}",
            "mturk": {"foil": 0, "caption": votes, "other": 0},
        }  # fmt: skip

    plain = {"a": row("visual7w", "v7w_1.jpg", "one cat 41", 60)}
    for piece in valse.PIECES:
        write_json(tmp_path / f"valse/{piece}.json", plain)
    write_json(tmp_path / "valse/plurals.json", {
        "a": row("coco_2017", "000000000001.jpg", "one cat 41", 60),
        "b": row("SWiG", "exercising_255.jpg", "one cat 70", 60),  # wrong
        "c": row("SWiG", "not_there.jpg", "one cat 70", 60, votes=1),  # not valid
        "d": row("VisDial_v1.0", "VisualDialog_val2018_1.jpg", "one cat 41", 60),
    })  # fmt: skip
    coreference = {"a": row("VisDial_v1.0", "COCO_train2014_000000000002.jpg", "one cat 41", 60)}
    write_json(tmp_path / "valse/coreference-standard.json", coreference)
    foil_it = {"a": row("FOIL dataset", "COCO_val2014_1.jpg", ["one cat 41"], 60)}
    write_json(tmp_path / "valse/foil-it.json", foil_it)
    for place in (
        "valse/visual7w/v7w_1.jpg", "coco/val2017/000000000001.jpg",
        "valse/SWiG/exercising_255.jpg", "coco/val2014/COCO_val2014_1.jpg",
        "valse/VisDial_v1.0/VisualDialog_val2018_1.jpg",
        "coco/train2014/COCO_train2014_000000000002.jpg",
    ):  # fmt: skip
        paint(tmp_path / place, 40)
    numbers = numbers_of(angle_model, "VALSE".lower(), tmp_path)
    assert numbers["piece_plurals"] == {"accuracy": pytest.approx(200 / 3), "n": 3}
    assert numbers["piece_coreference_standard"] == {"accuracy": 100.0, "n": 1}
    assert numbers["piece_foil_it"] == {"accuracy": 100.0, "n": 1}
    assert numbers["mean"] == {"accuracy": pytest.approx((1000 + 200 / 3) / 11), "n": 13}
    write_json(tmp_path / "valse/plurals.json", {"x": row("ADE20K", "1.jpg", "a 1", 2)})
    with pytest.raises(DataError, match=r"plurals\.json: row x is of 'ADE20K'"):
        numbers_of(angle_model, "valse", tmp_path)


# Faults


@pytest.mark.parametrize(
    ("name", "file", "content", "message"),
    [
        ("sugarcrepe", "sugarcrepe/add_att.json", "{}", "holds no rows"),
        ("sugarcrepe++", "sugarcrepe_pp/replace_att.json", "[]", "holds no rows"),
        ("aro-relation", "aro/visual_genome_relation.json", "{}", "should hold a JSON list"),
        ("aro-relation", "aro/visual_genome_relation.json", "[]", "holds no rows"),
        ("aro-relation", "aro/visual_genome_relation.json", "[" * 99_999, "cannot be read as JSON"),
        ("aro-relation", "aro/visual_genome_relation.json", "[{}]", "no text 'relation_name'"),
        ("aro-attribution", "aro/visual_genome_attribution.json", "[{}]", "attributes"),
        ("winoground", "winoground/examples.jsonl", "{", "cannot be read as JSON lines"),
        ("winoground", "winoground/examples.jsonl", "\n", "holds no rows"),
        ("winoground", "winoground/examples.jsonl", "{}", "no text 'image_0'"),
        ("cola", "cola/COLA_multiobjects_matching_benchmark.json", "[[1]]", "row 0 should have"),
        ("svo-probes", "svo_probes/svo_probes.csv", "a,b\n1,2\n", "no column 'sentence'"),
        ("valse", "valse/existence.json", "[]", "should hold a JSON object"),
        ("valse", "valse/existence.json", '{"a": {}}', "row a has no votes"),
    ],
)
def test_a_broken_file_is_one_line_that_names_it(
    tmp_path: Path, name: str, file: str, content: str, message: str
) -> None:
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(content)
    with pytest.raises(DataError, match=message) as error:
        evaluation.BENCHMARKS[name].load(tmp_path, "test", 0)
    assert str(tmp_path / file) in str(error.value)


@pytest.mark.parametrize("path", ["../../etc/passwd", "/etc/passwd"])
def test_no_annotation_leads_out_of_its_folder(tmp_path: Path, path: str) -> None:
    row = relation("on", 0, 1, 2, image=path)
    write_json(tmp_path / "aro/visual_genome_relation.json", [row])
    with pytest.raises(DataError, match="is no image in"):
        aro.load_relation(tmp_path)
