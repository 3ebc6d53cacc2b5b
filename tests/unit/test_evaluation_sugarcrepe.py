"""SugarCrepe++ and SugarCrepe: real layouts in miniature, hand-worked scores, real annotations."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from torch import Tensor

from clic import evaluation
from clic.errors import DataError
from clic.evaluation import evaluation_plan
from clic.evaluation.benchmarks.sugarcrepe import load_sugarcrepe, load_sugarcrepe_pp
from clic.evaluation.encode import encoding

PLUS = ("replace_att", "replace_obj", "replace_rel", "swap_att", "swap_obj")
SEVEN = ("add_att", "add_obj", *PLUS)
ANNOTATIONS = os.environ.get("CLIC_TEST_DATA")
needs_annotations = pytest.mark.skipif(
    ANNOTATIONS is None, reason="CLIC_TEST_DATA does not name a folder with real annotations"
)


def direction(degrees: float) -> Tensor:
    """Return the unit vector at an angle: a higher cosine is a smaller difference of angles."""
    return torch.tensor([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])


class AngleModel:
    """Captions and images are angles: a caption says its own, an image holds it in its red."""

    def encode_image(self, images: Sequence[Image.Image]) -> Tensor:
        return torch.stack([direction(float(np.asarray(i)[..., 0].mean())) for i in images])

    def encode_text(self, captions: Sequence[str]) -> Tensor:
        return torch.stack([direction(float(caption.split()[-1])) for caption in captions])


class TextOnly:
    """Encodes text alone, each caption by its bytes."""

    def encode_text(self, captions: Sequence[str]) -> np.ndarray:
        seeds = [zlib.crc32(caption.encode()) for caption in captions]
        return np.stack([np.random.default_rng(seed).normal(size=16) for seed in seeds])


def write_image(folder: Path, name: str, angle: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), (angle, 0, 0)).save(folder / name, format="PNG")


def row(name: str, first: int, second: int, negative: int) -> dict[str, str]:
    return {
        "filename": name,
        "caption": f"a {first}",
        "caption2": f"b {second}",
        "negative_caption": f"c {negative}",
    }


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """A data root in SugarCrepe++'s layout whose scores can be worked out by hand."""
    for name, angle in (("000000000001.jpg", 40), ("000000000002.jpg", 80)):
        write_image(tmp_path / "coco" / "val2017", name, angle)
    first, second = "000000000001.jpg", "000000000002.jpg"
    rows = {
        # image at 40: both positives nearer than the negative; they are nearer to each other.
        "replace_att": [row(first, 38, 44, 60), row(second, 80, 84, 70)],
        # first: p1 wins, p2 does not; p1 and p2 are far apart. second: all right.
        "replace_obj": [row(first, 40, 70, 55), row(second, 79, 78, 60)],
        # the negative equals the first positive: a tie everywhere.
        "replace_rel": [row(first, 40, 42, 40)],
        # p2 beats the negative, p1 does not; text: sim(p1, p2) is beaten by sim(p1, n).
        "swap_att": [row(second, 60, 79, 65)],
        # text: sim(p1, p2) beats sim(p1, n) but not sim(p2, n), and both are needed.
        "swap_obj": [row(second, 79, 85, 90), row(first, 41, 39, 20)],
    }
    for name, content in rows.items():
        file = tmp_path / "sugarcrepe_pp" / f"{name}.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(content))
    return tmp_path


def test_hand_worked_scores(coco: Path) -> None:
    numbers = evaluation.evaluate(AngleModel(), ["sugarcrepe++"], data_root=coco).benchmarks
    assert numbers == {
        "sugarcrepe++": {
            "replace_att": {"itt": 100.0, "tot": 100.0, "p1": 100.0, "n": 2},
            "replace_obj": {"itt": 50.0, "tot": 50.0, "p1": 100.0, "n": 2},
            "replace_rel": {"itt": 0.0, "tot": 0.0, "p1": 0.0, "n": 1},
            "swap_att": {"itt": 0.0, "tot": 0.0, "p1": 0.0, "n": 1},
            "swap_obj": {"itt": 100.0, "tot": 50.0, "p1": 100.0, "n": 2},
            "replace": {"itt": 50.0, "tot": 50.0, "p1": 200 / 3, "n": 5},
            "swap": {"itt": 50.0, "tot": 25.0, "p1": 50.0, "n": 3},
            "mean": {"itt": 50.0, "tot": 40.0, "p1": 60.0, "n": 8},
            "all": {"itt": 62.5, "tot": 50.0, "p1": 75.0, "n": 8},
        }
    }


def test_without_encode_image_no_image_is_needed_and_the_report_says_so(coco: Path) -> None:
    for image in (coco / "coco" / "val2017").iterdir():
        image.unlink()
    (coco / "coco" / "val2017").rmdir()
    report = evaluation.evaluate(TextOnly(), ["sugarcrepe++", "sugarcrepe"], data_root=coco)
    assert set(report.benchmarks) == {"sugarcrepe++"}
    assert set(report.benchmarks["sugarcrepe++"]["mean"]) == {"tot", "n"}
    assert "no encode_image" in report.provenance["left_out"]["sugarcrepe++"]
    assert "no encode_image" in report.provenance["left_out"]["sugarcrepe"]


def test_captions_reach_the_model_as_the_file_has_them(coco: Path) -> None:
    file = coco / "sugarcrepe_pp" / "swap_att.json"
    strange = {**row("000000000002.jpg", 60, 79, 65), "caption": "  A\tTwo  Spaces 60"}
    file.write_text(json.dumps([strange]))
    seen: list[str] = []

    class Spy(AngleModel):
        def encode_text(self, captions: Sequence[str]) -> Tensor:
            seen.extend(captions)
            return super().encode_text(captions)

    evaluation.evaluate(Spy(), ["sugarcrepe++"], data_root=coco)
    assert "  A\tTwo  Spaces 60" in seen
    assert len(seen) == len(set(seen))


@pytest.fixture
def plain(coco: Path) -> Path:
    """SugarCrepe's layout: objects keyed by numbers as text, one of them missing."""
    folder = coco / "sugarcrepe"
    folder.mkdir()
    for name in SEVEN:
        good, bad = row("000000000001.jpg", 41, 0, 60), row("000000000002.jpg", 60, 0, 61)
        (folder / f"{name}.json").write_text(json.dumps({"10": bad, "9": good, "12": good}))
    return coco


def test_object_form_with_missing_keys(plain: Path) -> None:
    report = evaluation.evaluate(AngleModel(), "SugarCrepe", data_root=plain, keep_rows=True)
    numbers = report.benchmarks["sugarcrepe"]
    expected = {"itt": 200 / 3, "p1": 200 / 3}
    assert list(numbers) == [*SEVEN, "add", "replace", "swap", "mean", "all"]
    assert numbers["swap_obj"] == {**expected, "n": 3}
    assert numbers["mean"] == pytest.approx({**expected, "n": 21})
    # Rows come in the order of their numbers: 9, 10, 12.
    assert [r["itt"] for r in report.rows[:3]] == [True, False, True]


@pytest.mark.parametrize(
    "content",
    ["{", '"text"', '{"a": {}}', "[1]", '[{"filename": "x.jpg", "caption": "a"}]'],
)
def test_a_broken_file_is_named(coco: Path, content: str) -> None:
    (coco / "sugarcrepe_pp" / "swap_att.json").write_text(content)
    with pytest.raises(DataError, match=r"swap_att\.json"):
        evaluation.evaluate(AngleModel(), ["sugarcrepe++"], data_root=coco)


@pytest.mark.parametrize("name", ["../../secret.jpg", "/etc/passwd", ""])
def test_an_image_outside_the_folder_is_refused(coco: Path, name: str) -> None:
    (coco / "sugarcrepe_pp" / "swap_att.json").write_text(json.dumps([row(name, 1, 2, 3)]))
    with pytest.raises(DataError, match=r"swap_att\.json: .*is no image in .*val2017"):
        load_sugarcrepe_pp(coco)


def test_missing_images_fail_before_the_model_is_used(coco: Path) -> None:
    (coco / "coco" / "val2017" / "000000000002.jpg").unlink()
    with pytest.raises(
        DataError,
        match=r"1 of 2 images.*02\.jpg.*clic-data fetch sugarcrepe\+\+ --data .*--text-only",
    ):
        evaluation_plan.prepare(["sugarcrepe++"], coco)


def test_allow_missing_counts_what_is_left(coco: Path) -> None:
    folder = coco / "coco" / "val2017"
    write_image(folder, "000000000003.jpg", 40)
    file = coco / "sugarcrepe_pp" / "replace_rel.json"
    lost, broken = row("000000000004.jpg", 40, 40, 0), row("000000000005.jpg", 40, 40, 0)
    kept = row("000000000003.jpg", 40, 40, 0)
    file.write_text(json.dumps([lost, broken, kept]))
    (folder / "000000000005.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match="1 of 5 images are missing"):
        evaluation.evaluate(AngleModel(), ["sugarcrepe++"], data_root=coco)
    report = evaluation.evaluate(AngleModel(), ["sugarcrepe++"], data_root=coco, allow_missing=True)
    assert report.benchmarks["sugarcrepe++"]["replace_rel"] == {
        "itt": 100.0, "tot": 100.0, "p1": 100.0, "n": 1,
    }  # fmt: skip
    source = report.provenance["benchmarks"]["sugarcrepe++"]
    assert (source["rows"], source["rows_of_the_whole"]) == (8, 10)
    assert [Path(name).name for name in source["missing_images"]] == ["000000000004.jpg"]
    assert "000000000005.jpg" in source["broken_images"][0]


def test_a_broken_image_fails_the_run(coco: Path) -> None:
    (coco / "coco" / "val2017" / "000000000001.jpg").write_bytes(b"\xff\xd8 broken")
    with pytest.raises(DataError, match=r"000000000001\.jpg cannot be decoded.*allow_missing"):
        evaluation.evaluate(AngleModel(), ["sugarcrepe++"], data_root=coco)


@needs_annotations
def test_real_annotations_have_the_published_sizes() -> None:
    root = Path(str(ANNOTATIONS))
    table = load_sugarcrepe_pp(root)
    assert table.rows == 4757
    assert (len(table.images), len(table.texts)) == (1542, 13189)
    assert np.bincount(table.category).tolist() == [788, 1652, 1406, 666, 245]
    assert np.bincount(load_sugarcrepe(root).category).tolist() == [
        692, 2062, 788, 1652, 1406, 666, 245,
    ]  # fmt: skip


@needs_annotations
def test_real_captions_that_clip_reads_alike_share_a_row() -> None:
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    table = load_sugarcrepe_pp(Path(str(ANNOTATIONS)))
    union = encoding.unique_texts([table], lambda text: tokenizer([text])[0].tolist())
    assert len(union.items) == 13108
    position = union.positions[0]
    negative = position[table.negative]
    assert table.positive2 is not None
    tied = (negative == position[table.positive1]) | (negative == position[table.positive2])
    assert tied.sum() == 2


@needs_annotations
def test_real_annotations_with_a_text_only_model_match_a_plain_loop() -> None:
    root = Path(str(ANNOTATIONS))
    model = TextOnly()
    report = evaluation.evaluate(model, ["sugarcrepe++"], data_root=root)
    for name in PLUS:
        rows = json.loads((root / "sugarcrepe_pp" / f"{name}.json").read_text())
        right = 0
        for entry in rows:
            captions = [entry[key] for key in ("caption", "caption2", "negative_caption")]
            a, b, n = (v / np.linalg.norm(v) for v in model.encode_text(captions))
            right += bool(a @ b > a @ n and a @ b > b @ n)
        numbers = report.benchmarks["sugarcrepe++"][name]
        assert numbers == {"tot": pytest.approx(100 * right / len(rows)), "n": len(rows)}


@needs_annotations
def test_real_annotations_with_images_made_here(tmp_path: Path) -> None:
    (tmp_path / "sugarcrepe_pp").symlink_to(Path(str(ANNOTATIONS)) / "sugarcrepe_pp")
    for name in {ref.name for ref in load_sugarcrepe_pp(Path(str(ANNOTATIONS))).images}:  # type: ignore[union-attr]
        write_image(tmp_path / "coco" / "val2017", name, zlib.crc32(name.encode()) % 90)

    class Both(TextOnly):
        def encode_image(self, images: Sequence[Image.Image]) -> np.ndarray:
            seeds = [int(np.asarray(image)[0, 0, 0]) for image in images]
            return np.stack([np.random.default_rng(seed).normal(size=16) for seed in seeds])

    report = evaluation.evaluate(Both(), ["sugarcrepe++"], data_root=tmp_path)
    source = report.provenance["benchmarks"]["sugarcrepe++"]
    assert (source["rows"], source["images"], source["texts"]) == (4757, 1542, 13189)
    # Random features: p1 is right half of the time, both positives a third of it.
    mean = report.benchmarks["sugarcrepe++"]["mean"]
    assert mean["n"] == 4757
    assert mean["p1"] == pytest.approx(50, abs=4)
    assert mean["itt"] == pytest.approx(100 / 3, abs=4)
