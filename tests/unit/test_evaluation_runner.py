"""`evaluate` on the embedded world: the report's form, what is left out, wrong settings."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clic import distributed, evaluation, shapes
from clic.errors import ConfigError, DataError
from clic.evaluation import evaluation_plan, runner
from clic.evaluation.benchmarks import catalogue
from clic.evaluation.report.listing import lines, state

TRIPLET = {"itt", "tot", "p1", "n"}
RECALL = {f"{way}@{k}" for way in ("image_to_text", "text_to_image") for k in (1, 5, 10)}


def noise(data: bytes) -> np.ndarray:
    return np.random.default_rng(zlib.crc32(data)).normal(size=12)


class Images:
    def encode_image(self, images: Sequence[Image.Image]) -> np.ndarray:
        return np.stack([noise(image.tobytes()) for image in images])


class Texts:
    def encode_text(self, texts: Sequence[str]) -> np.ndarray:
        return np.stack([noise(text.encode()) for text in texts])


class Both(Images, Texts):
    identity = {"name": "noise", "weights_sha256": "00"}  # noqa: RUF012
    device = "cpu"
    precision = "fp32"


@pytest.fixture(scope="module")
def report() -> evaluation.Report:
    return evaluation.evaluate(Both(), ["shapes"], keep_rows=True, seed=3)


def test_the_form_of_the_report(report: evaluation.Report) -> None:
    form = report.to_dict()
    assert set(form) == {"model", "provenance", "benchmarks"}
    assert set(form["benchmarks"]) == {"shapes++", "shapes-retrieval", "shapes-zero-shot"}
    triplets = form["benchmarks"]["shapes++"]
    assert list(triplets) == [*shapes.CATEGORIES, "replace", "swap", "mean"]
    assert all(set(entry) == TRIPLET for entry in triplets.values())
    assert [entry["n"] for entry in triplets.values()] == [500] * 6 + [1500, 1500, 3000]
    retrieval = form["benchmarks"]["shapes-retrieval"]
    assert set(retrieval) == {*RECALL, "n_images", "n_captions"}
    assert (retrieval["n_images"], retrieval["n_captions"]) == (500, 500)
    zero_shot = form["benchmarks"]["shapes-zero-shot"]
    assert set(zero_shot) == {"shape", "colour", "pair", "n_images"}
    assert json.loads(json.dumps(form, allow_nan=False)) == form


def test_groups_are_means_of_their_categories(report: evaluation.Report) -> None:
    triplets = report.benchmarks["shapes++"]
    for group, start in (("replace", "replace_"), ("swap", "swap_"), ("mean", "")):
        members = [triplets[name] for name in shapes.CATEGORIES if name.startswith(start)]
        for metric in ("itt", "tot", "p1"):
            mean = sum(entry[metric] for entry in members) / len(members)
            assert triplets[group][metric] == pytest.approx(mean)


def test_provenance_says_what_was_done(report: evaluation.Report) -> None:
    record = report.provenance
    assert record["settings"]["split"] == "test"
    assert record["seed"] == 3
    assert record["device"] == "cpu"
    assert record["dtype"] == "fp32"
    assert record["seconds"] > 0
    assert record["versions"]["torch"]
    assert "commit" in record
    assert len(record["benchmarks"]["shapes++"]["sha256"]) == 64
    assert report.model == {"name": "noise", "source": "a Python object", "weights_sha256": "00"}


def test_the_hash_follows_the_content() -> None:
    def hashes(**settings: Any) -> list[str]:
        return [
            item.sha256
            for item in evaluation_plan.prepare(["shapes-zero-shot"], **settings).prepared
        ]

    assert hashes() == hashes()
    assert hashes() != hashes(seed=1)
    assert hashes() != hashes(split="validation")


def test_rows_recompute_the_numbers(report: evaluation.Report) -> None:
    rows = [row for row in report.rows if row["benchmark"] == "shapes++"]
    assert len(rows) == 3000
    for name in shapes.CATEGORIES:
        mine = [row for row in rows if row["category"] == name]
        for metric in ("itt", "tot", "p1"):
            right = sum(row[metric] for row in mine)
            assert report.benchmarks["shapes++"][name][metric] == 100 * right / len(mine)
    for row in rows[:50]:
        score = row["scores"]
        assert row["p1"] == (score["image_positive1"] > score["image_negative"])
    world = shapes.triplets("test", seed=3).rows[7]
    assert rows[7]["captions"] == {
        "positive1": world.positive1,
        "positive2": world.positive2,
        "negative": world.negative,
    }
    zero_shot = [row for row in report.rows if row.get("task") == "pair"]
    right = sum(row["right"] for row in zero_shot)
    assert report.benchmarks["shapes-zero-shot"]["pair"] == 100 * right / len(zero_shot)
    assert all(row["right"] == (row["predicted"] == row["target"]) for row in zero_shot)


def test_what_a_model_cannot_do_is_left_out_and_said() -> None:
    texts = evaluation.evaluate(Texts(), ["shapes"])
    assert set(texts.benchmarks) == {"shapes++"}
    assert set(texts.benchmarks["shapes++"]["swap_att"]) == {"tot", "n"}
    assert set(texts.provenance["left_out"]) == set(catalogue.GROUPS["shapes"])
    images = evaluation.evaluate(Images(), ["shapes"])
    assert images.benchmarks == {}
    assert "no encode_text" in images.provenance["left_out"]["shapes++"]


def test_a_thing_without_either_method_is_no_model() -> None:
    with pytest.raises(ConfigError, match="neither encode_image nor encode_text"):
        evaluation.evaluate(object(), ["shapes++"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"split": "tset"}, "did you mean 'test'"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"workers": 0}, "workers=0"),
        ({"benches": ["shapes+"]}, r"did you mean 'shapes\+\+'"),
        ({"benches": []}, "bench is empty"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        evaluation.evaluate(Both(), settings.pop("benches", ["shapes-retrieval"]), **settings)


@pytest.mark.parametrize("setting", [{"split": "validation"}, {"seed": 1}])
def test_world_settings_have_no_effect_on_files(setting: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no effect"):
        evaluation_plan.prepare(["sugarcrepe++"], tmp_path, **setting)


@pytest.mark.parametrize(
    ("benches", "remedy"),
    [
        (["coco-retrieval"], "name coco-retrieval@val"),
        (["shapes++@val"], r"in the name already \(shapes\+\+@val\)"),
        (["shapes++@val", "coco-retrieval@val"], "in the name already .*; leave one out"),
    ],
)
def test_a_split_beside_names_that_have_theirs(benches: list[str], remedy: str) -> None:
    with pytest.raises(ConfigError, match=f"split=validation has no effect.*{remedy}"):
        evaluation_plan.prepare(benches, split="validation")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sugarcrepe@val", "sugarcrepe has no validation split.*coco-retrieval"),
        ("retrieval@val", "coco2017-retrieval has no validation split"),
        ("coco-retrieval@train", r"coco-retrieval@train.*choices: test, val, validation"),
        ("coco-retrieval@", "coco-retrieval@.*choices: test, val"),
        ("coco-retreival@val", "did you mean 'coco-retrieval'"),
    ],
)
def test_a_split_that_there_is_not(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        catalogue.select([name])


def test_a_split_in_the_name_is_that_of_the_setting() -> None:
    named = evaluation_plan.prepare(["shapes++@val", "shapes++"]).prepared
    asked = evaluation_plan.prepare(["shapes++"], split="validation").prepared
    assert [item.benchmark.name for item in named] == ["shapes++@val", "shapes++"]
    assert named[0].sha256 == asked[0].sha256 != named[1].sha256


@pytest.mark.parametrize(
    "name", ["SugarCrepe++", "sugar-crepe++", "SUGAR_CREPE++", "sugarcrepe-pp"]
)
def test_names_as_people_write_them(name: str) -> None:
    assert [benchmark.name for benchmark in catalogue.select([name])] == ["sugarcrepe++"]


def test_groups_and_repeats_name_each_benchmark_once() -> None:
    chosen = catalogue.select(["shapes-retrieval", "shapes", "Shapes++"])
    assert [b.name for b in chosen] == ["shapes-retrieval", "shapes++", "shapes-zero-shot"]
    assert len(catalogue.select(["all"])) == len(catalogue.BENCHMARKS)


def test_one_message_for_all_missing_files(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        evaluation_plan.prepare(["shapes++", "sugarcrepe++", "coco2017-retrieval"], tmp_path)
    message = str(caught.value)
    assert "sugarcrepe++, coco2017-retrieval" in message
    assert str(tmp_path / "sugarcrepe_pp" / "replace_att.json") in message
    command = f"clic-data fetch sugarcrepe++ coco2017-retrieval --data {tmp_path}"
    assert f"get it with: {command} (or name the folder" in message


def test_text_only_models_need_annotations_alone(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        evaluation_plan.prepare(["sugarcrepe++"], tmp_path, with_images=False)
    assert "val2017" not in str(caught.value)


def test_text_only_hides_the_images_of_a_model_that_has_them() -> None:
    report = evaluation.evaluate(Both(), ["shapes"], text_only=True)
    assert report.benchmarks == evaluation.evaluate(Texts(), ["shapes"]).benchmarks
    assert report.provenance["settings"]["text_only"] is True
    assert report.provenance["left_out"] == {
        "shapes++": "ITT and P1: text_only leaves images out",
        "shapes-retrieval": "text_only leaves images out",
        "shapes-zero-shot": "text_only leaves images out",
    }


@pytest.mark.parametrize(
    ("bench", "setting", "message"),
    [
        ("shapes++", {"allow_missing": True}, "allow_missing has no effect with text_only"),
        ("shapes-retrieval", {}, r"shapes-retrieval cannot be scored.*name shapes\+\+, shapes-rel"),
    ],
)
def test_text_only_without_effect(bench: str, setting: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        evaluation_plan.prepare([bench], text_only=True, **setting)


@pytest.mark.parametrize(
    ("benches", "hinted"),
    [(["sugarcrepe++", "shapes"], True), (["sugarcrepe"], False), (["coco2017-retrieval"], False)],
)
def test_where_only_images_are_missing_text_only_is_the_other_way_out(
    benches: list[str], hinted: bool, tmp_path: Path
) -> None:
    for item in catalogue.select(benches)[0].annotations:
        file = tmp_path / item.gives
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("[]")
    with pytest.raises(DataError) as caught:
        evaluation_plan.prepare(benches, tmp_path)
    hint = "score the captions alone with clic-eval --text-only"
    assert (hint in str(caught.value)) == hinted


def test_the_data_root_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIC_DATA", "/somewhere")
    assert evaluation_plan.default_data_root() == Path("/somewhere")
    monkeypatch.delenv("CLIC_DATA")
    assert evaluation_plan.default_data_root() == Path("data")


def test_listing_says_what_is_here(tmp_path: Path) -> None:
    bench = catalogue.BENCHMARKS["sugarcrepe++"]
    assert state(catalogue.BENCHMARKS["shapes++"], tmp_path) == "built in"
    assert state(bench, tmp_path) == "missing"
    for item in bench.annotations:
        file = tmp_path / item.gives
        file.parent.mkdir(exist_ok=True)
        file.write_text("[]")
    assert state(bench, tmp_path) == "text only"
    assert any("--text-only scores the captions of sugarcrepe++" in ln for ln in lines(tmp_path))
    (tmp_path / "coco" / "val2017").mkdir(parents=True)
    assert state(bench, tmp_path) == "installed"
    can_be_fetched = " ".join(lines(tmp_path)).split("can be fetched: ")[1].split("; one with")[0]
    assert "sugarcrepe" in can_be_fetched.split(", ")
    assert "sugarcrepe++" not in can_be_fetched.split(", ")


def test_every_benchmark_says_where_it_is_from() -> None:
    for name, bench in catalogue.BENCHMARKS.items():
        assert bench.name == name
        assert bench.version and bench.citation and bench.licence and bench.about
        assert bench.made == (not bench.annotations)
    for members in catalogue.GROUPS.values():
        assert set(members) <= set(catalogue.BENCHMARKS)


def test_ranks_beyond_the_first_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "world_size", lambda group=None: 2)
    monkeypatch.setattr(distributed, "rank", lambda group=None: 1)
    with pytest.raises(ConfigError, match="rank 0 alone"):
        evaluation.evaluate(Both(), ["shapes-retrieval"])


def test_threads_are_as_many_as_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(24)), raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    for ranks, threads in ((None, 16), ("2", 12), ("40", 1)):
        if ranks is not None:
            monkeypatch.setenv("LOCAL_WORLD_SIZE", ranks)
        assert runner.decoding_threads() == threads


def test_stages_say_what_was_encoded(tmp_path: Path) -> None:
    class Keyed(Both):
        image_tower_key = text_tower_key = "noise"

        def text_key(self, text: str) -> tuple[int, ...]:
            return tuple(text.encode())

    cache = evaluation.FeatureCache(tmp_path)
    for cached in (0, 500):
        report = evaluation.evaluate(Keyed(), ["shapes-retrieval"], cache=cache)
        stages = report.provenance["stages"]
        assert list(stages) == ["texts", "images", "scoring"]
        for name in ("texts", "images"):
            assert stages[name]["items"] == 500 and stages[name]["cached"] == cached
        assert all(stage["seconds"] >= 0 for stage in stages.values())
        assert report.provenance["cache"] == str(tmp_path)
    assert evaluation.evaluate(Both(), ["shapes-retrieval"]).provenance["cache"] is None


def test_a_model_may_prepare_images_and_batch_texts_itself() -> None:
    class Preparing(Both):
        texts_at_once = 700
        sizes: list[int] = []  # noqa: RUF012

        def prepare_image(self, pixels: np.ndarray) -> bytes:
            return pixels.tobytes()

        def encode_prepared(self, images: Sequence[bytes]) -> np.ndarray:
            return np.stack([noise(data) for data in images])

        def encode_image(self, images: Sequence[Image.Image]) -> np.ndarray:
            raise AssertionError("its images are prepared")

        def encode_text(self, texts: Sequence[str]) -> np.ndarray:
            self.sizes.append(len(texts))
            return super().encode_text(texts)

    found = evaluation.evaluate(Preparing(), ["shapes-retrieval"]).benchmarks
    assert found == evaluation.evaluate(Both(), ["shapes-retrieval"]).benchmarks
    assert Preparing.sizes == [500]
