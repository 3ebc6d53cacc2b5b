"""One's own benchmark in a file: scores worked out by hand, and what is refused, row by row."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clic import evaluation
from clic.errors import ClicError, ConfigError, DataError
from clic.evaluation.benchmarks import catalogue
from clic.evaluation.report.report import notes
from clic.evaluation.tables.triplets import Triplets

Paint = Callable[..., None]
Rows = list[dict[str, Any]]

# The angle of an image is its red, that of a caption its last word.
TRIPLETS: Rows = [
    {"image": "40.png", "positives": ["a 41", "b 42"], "negatives": ["c 60"], "category": "a"},
    # The second false caption is nearest to the image and to the first true one: all is wrong.
    {"image": "sub/50.png", "positives": ["a 51", "b 52"], "negatives": ["c 70", "d 50.5"],
     "category": "a"},
    # The second true caption loses, so ITT and TOT are wrong and P1 is right.
    {"image": "40.png", "positives": ["a 41", "b 50"], "negatives": ["c 45"], "category": "b"},
]  # fmt: skip


def write(path: Path, rows: Rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def folder(tmp_path: Path, paint: Paint) -> Path:
    """A folder with the images 40.png and sub/50.png."""
    paint(tmp_path / "40.png", 40)
    paint(tmp_path / "sub/50.png", 50)
    return tmp_path


def score(model: Any, path: Path, **settings: Any) -> Any:
    return evaluation.evaluate(model, [str(path)], **settings).benchmarks[path.stem]


def test_triplets_worked_out_by_hand(folder: Path, angle_model: Any) -> None:
    numbers = score(angle_model, write(folder / "my.jsonl", TRIPLETS))
    assert numbers["a"] == {"itt": 50.0, "tot": 50.0, "p1": 50.0, "n": 2}
    assert numbers["b"] == {"itt": 0.0, "tot": 0.0, "p1": 100.0, "n": 1}
    assert numbers["mean"] == {"itt": 25.0, "tot": 25.0, "p1": 75.0, "n": 3}
    third = 100 / 3
    assert numbers["all"] == pytest.approx({"itt": third, "tot": third, "p1": 2 * third, "n": 3})


def test_csv_gives_the_same_table(folder: Path) -> None:
    lines = ["image,positive1,positive2,negative,negative2,category"]
    for row in TRIPLETS:
        texts = [*row["positives"], *(row["negatives"] + [""])[:2]]
        lines.append(",".join([row["image"], *texts, row["category"]]))
    (folder / "my.csv").write_text("\ufeff" + "\r\n".join(lines) + "\r\n\r\n", encoding="utf-8")
    write(folder / "my.jsonl", TRIPLETS)
    plans = [evaluation.prepare([str(folder / f"my.{kind}")]) for kind in ("csv", "jsonl")]
    assert plans[0].prepared[0].sha256 == plans[1].prepared[0].sha256


def test_a_list_in_a_cell_holds_several_texts(folder: Path) -> None:
    (folder / "my.csv").write_text('image,captions\n40.png,"[""a 1"", ""b, 2""]"\n')
    table = evaluation.prepare([str(folder / "my.csv")]).prepared[0].table
    assert table.texts == ("a 1", "b, 2")


def test_one_true_caption_gives_accuracy(folder: Path, angle_model: Any) -> None:
    rows = [{**row, "positives": row["positives"][:1]} for row in TRIPLETS]
    for row in rows:
        del row["category"]
    numbers = score(angle_model, write(folder / "my.jsonl", rows))
    entry = pytest.approx({"itt": 200 / 3, "p1": 200 / 3, "n": 3})
    assert numbers == {"all": entry, "mean": entry}


def test_texts_without_images_give_tot_alone_which_is_said(folder: Path, angle_model: Any) -> None:
    rows = [{k: v for k, v in row.items() if k != "image"} for row in TRIPLETS]
    write(folder / "texts.jsonl", rows)
    write(folder / "my.jsonl", TRIPLETS)
    names = [str(folder / "texts.jsonl"), str(folder / "my.jsonl")]
    for some in (names, names[:1]):  # with and without a benchmark that has images
        report = evaluation.evaluate(angle_model, some, keep_rows=True)
        assert report.benchmarks["texts"]["mean"] == {"tot": 25.0, "n": 3}
        assert report.provenance["left_out"] == {"texts": "ITT and P1: no row names an image"}
        assert any("is read as triplets without images" in line for line in notes([report]))
    whole = score(angle_model, folder / "my.jsonl", text_only=True)
    assert whole["mean"] == {"tot": 25.0, "n": 3}


def test_margins_and_cards_are_of_the_best_false_caption(folder: Path, angle_model: Any) -> None:
    path = write(folder / "my.jsonl", TRIPLETS)
    report = evaluation.evaluate(angle_model, [str(path)], keep_rows=True)
    first, row, _ = report.rows
    assert list(first["captions"]) == ["positive1", "negative", "positive2"]
    scores = row["scores"]
    assert Triplets.margins(row)["first"] == scores["image_positive1"] - scores["image_negative2"]
    card = report.tables["my"].illustrate(Triplets.failure(row, 1))
    assert card.verdict.startswith("false captions beat both")
    assert [text.text for text in card.texts] == ["a 51", "b 52", "c 70", "d 50.5"]
    assert [text.is_true for text in card.texts] == [True, True, False, False]
    text_row = next(iter(evaluation.evaluate(
        angle_model, [str(path)], text_only=True, keep_rows=True).rows))  # fmt: skip
    assert Triplets.margins(text_row)["first"] > 0


def test_labels_worked_out_by_hand(folder: Path, axis_model: Any, paint: Paint) -> None:
    for number in range(4):
        paint(folder / f"{number}.png", number)
    # Of image 3 the red says "cat", and its label is "ox": three of four; cat 1/1, dog 1/1, ox 1/2.
    rows = [
        {"image": "0.png", "label": "cat"},
        {"image": "1.png", "label": "dog"},
        {"image": "2.png", "label": "ox"},
        {"image": "3.png", "label": "ox"},
    ]
    model = axis_model(["cat", "dog", "ox", "nothing"])
    numbers = score(model, write(folder / "my.jsonl", rows))
    assert numbers["accuracy"] == 75.0
    assert numbers["mean_per_class"] == pytest.approx(100 * (1 + 1 + 1 / 2) / 3)
    assert numbers["n_images"] == 4
    assert sorted(model.prompts) == [f"a photo of a {name}." for name in ("cat", "dog", "ox")]
    for row, name in zip(rows, ("cat", "dog", "ox", "ox"), strict=True):
        row["prompts"] = ["one {}", f"my {name}"]
    model.prompts.clear()
    assert score(model, write(folder / "my.jsonl", rows))["accuracy"] == 75.0
    assert sorted(model.prompts) == ["my cat", "my dog", "my ox", "one cat", "one dog", "one ox"]


def test_captions_worked_out_by_hand(folder: Path, angle_model: Any) -> None:
    # 40 has 41 and 70 in two rows, 50 has 61 and 90. Both images find 41, which is right for 40.
    # 41 finds 40, and 70, 61 and 90 find 50: three of four captions are right.
    (folder / "my.csv").write_text(
        "image,caption\n40.png,a 41\n./40.png,a 70\nsub/50.png,a 61\nsub/../sub/50.png,a 90\n"
    )
    numbers = score(angle_model, folder / "my.csv")
    assert numbers["image_to_text@1"] == 50.0
    assert numbers["text_to_image@1"] == 75.0
    assert (numbers["n_images"], numbers["n_captions"]) == (2, 4)


def changed(row: int, **values: Any) -> Rows:
    rows = [dict(one) for one in TRIPLETS]
    rows[row].update(values)
    return [{k: v for k, v in one.items() if v is not None} for one in rows]


@pytest.mark.parametrize(
    ("rows", "parts"),
    [
        (changed(1, positives=["a 1"]), ["row 2", "1 true captions and row 1 has 2", "two files"]),
        (changed(1, positives=["a 1", "b 2", "c 3"]), ["row 2", "3 true captions"]),
        (changed(1, positives="a 1"), ["row 2", "'positives' where a list belongs"]),
        (changed(1, negatives=[]), ["row 2", "'negatives', 1 texts or more"]),
        (changed(1, negatives=["a 1", " "]), ["row 2", "a blank text in 'negatives'"]),
        (changed(1, negatives=["\ud800"]), ["row 2", "half a character"]),
        (changed(1, image=None), ["row 2", "row 1 has 'image' and row 2 none", "or to none"]),
        (changed(2, category=None), ["row 3", "'category'"]),
        (changed(1, category="mean"), ["row 2", "'mean'", "rename"]),
        (changed(1, category="all"), ["row 2", "'all'", "rename"]),
        (changed(1, category=3), ["row 2", "no text 'category'", "correct the row"]),
        (changed(1, image="../40.png"), ["row 2", "'../40.png'", "does not lie in"]),
        (changed(1, image="sub/../../x/40.png"), ["row 2", "does not lie in"]),
        (changed(1, image="/etc/passwd"), ["row 2", "'/etc/passwd'", "does not lie in"]),
        (changed(1, image="a\0b"), ["row 2", "does not lie in"]),
        (changed(1, image="."), ["row 2", "does not lie in"]),
        (changed(0, images="40.png", image=None), ["row 1", "did you mean 'image'"]),
        (changed(0, label="a"), ["row 1", "several kinds"]),
        ([{"text": "a"}], ["row 1", "no kind of benchmark", "'captions'"]),
        ([{"positives": ["a"], "negatives": ["b"]}], ["row 1", "nothing to compare"]),
        ([{"image": "40.png", "label": "x"}] * 2, ["one label 'x'"]),
        ([{"image": "40.png", "label": "x", "prompts": ["{}"]}, {"image": "40.png", "label": "y"}],
         ["'y' has no prompts"]),
        ([{"image": "40.png", "label": "x", "prompts": ["{}"]},
          {"image": "40.png", "label": "x", "prompts": ["a {}"]}], ["row 2", "other prompts"]),
        ([{"label": "x"}], ["row 1", "no text 'image'"]),
        ([{"image": "40.png", "captions": []}], ["row 1", "'captions', 1 texts"]),
        ([], ["holds no rows"]),
    ],
)  # fmt: skip
def test_errors_name_file_and_row(folder: Path, rows: Rows, parts: list[str]) -> None:
    path = write(folder / "my.jsonl", rows)
    with pytest.raises(DataError) as caught:
        evaluation.prepare([str(path)])
    for part in [str(path), *parts]:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        (
            "my.jsonl",
            b'{"image": "40.png", "label": "a"}\n\n{"label"\n',
            ["row 2 (line 3)", "is no JSON"],
        ),
        ("my.jsonl", b"[1]\n", ["row 1", "no JSON object", "in braces"]),
        ("my.jsonl", b'{"label": "\xff"}\n', ["UTF-8"]),
        ("my.csv", b"image,label\n40.png\n", ["row 1 (line 2)", "1 cells under a header of 2"]),
        ("my.csv", b"image,label,label\n", ["two columns 'label'"]),
        ("my.csv", b'image,label\n40.png,"a\n', ["cannot be read as CSV"]),
        ("my.csv", b'image,captions\n40.png,"[""a"", "\n', ["row 1", "a JSON list and is none"]),
    ],
)
def test_broken_files_name_the_place(
    folder: Path, name: str, content: bytes, parts: list[str]
) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        evaluation.prepare([str(folder / name)])
    for part in [name, *parts]:
        assert part in str(caught.value)


def test_an_absolute_path_into_the_folder_is_that_image(folder: Path, angle_model: Any) -> None:
    path = write(folder / "my.jsonl", changed(0, image=str(folder / "40.png")))
    table = evaluation.prepare([str(path)]).prepared[0].table
    assert len(table.images) == 2  # not an image of its own


def test_missing_images_are_named_or_left_out(folder: Path, angle_model: Any) -> None:
    path = write(folder / "my.jsonl", TRIPLETS)
    (folder / "sub/50.png").unlink()
    with pytest.raises(DataError, match=r"1 of 2 images are missing .*my\.jsonl name them"):
        evaluation.prepare([str(path)])
    report = evaluation.evaluate(angle_model, [str(path)], allow_missing=True)
    assert report.benchmarks["my"]["a"] == {"itt": 100.0, "tot": 100.0, "p1": 100.0, "n": 1}
    source = report.provenance["benchmarks"]["my"]
    assert source["covered_subset"] == "a covered subset of 2 rows of 3"
    assert source["own_file"] == str(path)


def test_two_files_of_one_stem_are_refused(folder: Path) -> None:
    one, two = write(folder / "my.jsonl", TRIPLETS), write(folder / "sub/my.jsonl", TRIPLETS)
    with pytest.raises(ConfigError, match=r"both files would be reported as my; rename"):
        catalogue.select([str(one), "shapes++", str(two)])
    with pytest.raises(ConfigError, match="reported as my"):
        evaluation.prepare(catalogue.for_choosing([str(one), str(two)], on_test=False))
    again = str(folder / "sub/../my.jsonl")
    assert [b.name for b in catalogue.select([str(one), again])] == ["my"]


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("none.jsonl", "there is no such file"),
        ("my.jsonl@val", "has no splits"),
        ("shapes++.jsonl", "name of a known benchmark; rename the file"),
        ("my.json", "a file of one's own ends in .jsonl, .csv or .tar"),
    ],
)
def test_names_that_are_refused(folder: Path, name: str, part: str) -> None:
    write(folder / "my.jsonl", TRIPLETS)
    write(folder / "shapes++.jsonl", TRIPLETS)
    with pytest.raises(ClicError, match=part.replace("+", r"\+")):
        catalogue.select([str(folder / name)])


def test_training_takes_the_file_as_it_is(folder: Path) -> None:
    path = str(write(folder / "my.jsonl", TRIPLETS))
    assert catalogue.for_choosing([path, "shapes++"], on_test=False) == [path, "shapes++@val"]
    with pytest.raises(ConfigError, match="has no effect"):
        catalogue.for_choosing([path], on_test=True)
