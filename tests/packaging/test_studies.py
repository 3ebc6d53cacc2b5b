"""The studies reuse what is finished and nothing else, and their tables add up."""

from __future__ import annotations

import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from clic.cli import train
from clic.config.checks import validate
from clic.evaluation.report.paired_rows import Observed, Series

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def study(studies: SimpleNamespace) -> ModuleType:
    return studies.study


def setup(study: ModuleType, runs: Path, jobs: int = 1) -> Any:
    sources = study.Sources("t" * 64, "a" * 64)
    evaluations = (study.Evaluation("", ("--bench", "shapes++")),)
    return study.Setup(runs, 1, jobs, evaluations, sources, ("shapes++/swap_att/itt",))


def test_every_number_is_found(study: ModuleType) -> None:
    benchmarks = {"a": {"x": {"itt": 1, "n": 5}, "y": 2.5, "n_images": 7}, "b": {"name@1": 3}}
    assert dict(study.numbers(benchmarks)) == {"a/x/itt": 1.0, "a/y": 2.5, "b/name@1": 3.0}


def test_mean_and_sample_deviation(studies: SimpleNamespace) -> None:
    tables = studies.study_tables
    three = [{"m": value} for value in (1.0, 2.0, 6.0)]
    summary = tables.summarise(three)
    assert summary["m"]["mean"] == 3.0
    assert summary["m"]["std"] == pytest.approx(7**0.5)
    assert tables.cell(summary["m"]) == "3.0 ± 2.6"
    assert tables.cell(tables.summarise(three[:1])["m"]) == "1.0"


def test_a_cell_gives_the_largest_deviation(studies: SimpleNamespace) -> None:
    values = {"itt": (90.0, 1.0), "tot": (80.0, 3.0), "p1": (95.0, 2.0)}
    measures = {f"shapes++/c/{k}": {"mean": m, "std": s} for k, (m, s) in values.items()}
    triplet = studies.study_tables.triplet
    assert triplet(measures, "shapes++/c") == "90.0 / 80.0 / 95.0 (≤ ±3.0)"
    single = {path: {**measure, "std": None} for path, measure in measures.items()}
    assert triplet(single, "shapes++/c") == "90.0 / 80.0 / 95.0"


def outcomes(right: list[bool]) -> dict[str, Observed]:
    """Return one seed's outcomes of TOT on as many rows of one category."""
    series = {("swap_obj", "tot"): Series(np.arange(len(right)), np.array(right))}
    none = Observed(1, {}, {}, "same")
    rest = ("sugarcrepe++", "bla", "flickr8k-retrieval", "coco2017-retrieval")
    own = {"text/sugarcrepe++": Observed(len(right), series, {}, "same")}
    return {**own, **dict.fromkeys(rest, none)}


def test_a_difference_is_of_the_seeds_that_both_have(studies: SimpleNamespace) -> None:
    control = [outcomes([False, True] * 10)]
    models = [outcomes([True] * 20), outcomes([False] * 20), outcomes([False] * 20)]
    found = studies.photos_report.differences
    (name,) = found(control, models[:1])
    assert name == "text/sugarcrepe++/swap_obj/tot"
    difference, least, most = found(control, models)[name]
    assert difference == 50.0 and 0 < least < 50 < most < 100
    assert found(control, models) == found(control, models[:1])


def test_the_shipped_table_is_what_its_results_give(studies: SimpleNamespace) -> None:
    table = json.loads((ROOT / "docs" / "shapes_table.json").read_text("utf-8"))
    shipped = (ROOT / "docs" / "shapes_table.md").read_text("utf-8")
    assert studies.shapes_report.markdown(table) == shipped


def test_what_decides_a_result(
    study: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "CHECKOUT", tmp_path)
    for folder in ("clic/cli/data", "configs/experiment"):
        (tmp_path / folder).mkdir(parents=True)
    files = [
        tmp_path / name
        for name in ("clic/loop.py", "clic/cli/eval.py", "clic/cli/data/pack.py", "configs/a.yaml")
    ]

    def hashes(*texts: str, without: tuple[str, ...] = ()) -> tuple[str, str]:
        for file, text in zip(files, texts, strict=True):
            file.write_text(text, "utf-8")
        training = (*study.EVALUATION_ONLY, *without)
        return study.hash_source(training), study.hash_source(without)

    first = hashes("x = 1", "y = 1", "z = 1", "s: 1")
    assert hashes("x  =  1  # a comment", "y = 1", "z = 1", "s: 1") == first
    for changed in (("x = 1", "y = 2", "z = 1", "s: 1"), ("x = 1", "y = 1", "z = 2", "s: 1")):
        training, everything = hashes(*changed)
        assert training == first[0], "training does not depend on the other commands"
        assert everything != first[1]
    for changed in (("x = 2", "y = 1", "z = 1", "s: 1"), ("x = 1", "y = 1", "z = 1", "s: 2")):
        assert hashes(*changed)[0] != first[0]
    names = ("configs/a.yaml",)
    before = hashes("x = 1", "y = 1", "z = 1", "s: 1", without=names)
    assert hashes("x = 1", "y = 1", "z = 1", "s: 2", without=names) == before


def test_what_does_not_count_exists(studies: SimpleNamespace) -> None:
    for name in (*studies.study.EVALUATION_ONLY, *studies.layout_study.IN_THE_NAME):
        assert (ROOT / name).exists() and not name.endswith("/"), name


def test_a_job_is_trained_and_evaluated_once(
    study: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    calls: list[tuple[str, list[str]]] = []

    def command(name: str, log: Path, threads: int, words: list[str]) -> None:
        calls.append((name, list(words)))
        if name == "train":
            model = tmp_path / words[-1].removeprefix("train.run_name=") / "model"
            model.mkdir(parents=True)
            (model / "open_clip_config.json").touch()
            (model / "open_clip_model.safetensors").touch()
        elif name == "eval":
            scores = {"shapes++": {"swap_att": {"itt": 50.0, "tot": 25.0, "n": 4}}}
            content = {"model": {"weights_sha256": "w"}, "benchmarks": scores}
            Path(words[words.index("--json") + 1]).write_text(json.dumps(content), "utf-8")

    monkeypatch.setattr(study, "clic_command", command)
    words = ("+experiment=e",)
    jobs = [
        study.Job("e-seed3", words, 3, "test", base="/a 'base'"),
        study.Job("e-seed3", words, 3, "validation", base="/a 'base'"),
        study.Job("base", None, None, "test"),
    ]
    results = study.run_all(jobs, setup(study, tmp_path, jobs=2))
    assert [result.job for result in results] == jobs
    assert results[0].measures == {"shapes++/swap_att/itt": 50.0, "shapes++/swap_att/tot": 25.0}
    assert sorted(name for name, _ in calls) == ["eval", "eval", "eval", "train"]
    trained = next(words for name, words in calls if name == "train")
    run = "e-seed3-1t-tttttttttt"
    assert trained == [
        "+experiment=e",
        "seed=3",
        r"model.name='/a \'base\''",
        f"train.runs_dir='{tmp_path}'",
        f"train.run_name={run}",
    ]
    reports = sorted(path.name for path in tmp_path.glob(f"{run}-*.json"))
    assert len(reports) == 2 and reports[0].startswith(f"{run}-test-")
    capsys.readouterr()
    again = study.run_all(jobs, setup(study, tmp_path))
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "[3/3] base: reused, shapes++/swap_att/itt 50.0"
    assert len(calls) == 4 and all(result.record["reused"] for result in again)
    halfway = jobs[0]._replace(alpha=0.5)
    (result,) = study.run_all([halfway], setup(study, tmp_path))
    assert [name for name, _ in calls[4:]] == ["patch", "eval"] and not result.record["reused"]
    assert calls[4][1] == ["--alpha", "0.5", "--run", str(tmp_path / run)]
    assert str(tmp_path / run / "patched" / "alpha-0.50") in calls[5][1]


def test_a_command_that_fails_is_one_line(
    study: ModuleType, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "a.log"
    program = ["-c", "import sys; print('first'); sys.exit('clic-eval: error: last')"]
    with pytest.raises(study.CommandError) as caught:
        study.run_command("clic-eval", log, 1, program, ["--bench", "x"])
    assert str(caught.value) == f"clic-eval ended with 1: clic-eval: error: last (see {log})"
    assert log.read_text("utf-8").startswith("$ clic-eval --bench x\n")
    assert capfd.readouterr() == ("", "")


def test_an_interrupted_study_starts_no_further_job(
    studies: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[object] = []
    told = threading.Event()

    def interrupted(job: object, setup: object) -> None:
        started.append(job)
        told.wait()  # the job that runs when the study is interrupted

    class Pool(ThreadPoolExecutor):
        def shutdown(self, *words: Any, **settings: Any) -> None:
            super().shutdown(*words, **{**settings, "wait": False})
            told.set()

    def wait(futures: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(studies.study, "run_job", interrupted)
    monkeypatch.setattr(studies.study, "wait", wait)
    monkeypatch.setattr(studies.study, "ThreadPoolExecutor", Pool)
    monkeypatch.setattr(sys, "argv", ["shapes_table", "--runs", str(tmp_path)])
    assert studies.shapes_table.main() == 130
    assert len(started) <= 1


def test_the_time_left_is_that_of_what_was_run(study: ModuleType) -> None:
    assert study.time_left(3, [], 1) == ""
    assert study.time_left(0, [60.0], 1) == ""
    assert study.time_left(3, [60.0, 180.0], 1) == "; at most 6 min left"
    assert study.time_left(3, [60.0, 180.0], 2) == "; at most 4 min left"


def photos(
    commit: str, rows: dict[str, list[float]], base: str = "b", precision: str = "bf16"
) -> dict[str, Any]:
    """Results of the photographs' study whose only measures are TOT."""
    made = {
        label: {
            "made": {"commit": commit},
            "models": [
                {"measures": {f"text/sugarcrepe++/{c}/tot": v for c in ("swap_att", "mean")}}
                for v in values
            ],
            "differences": {},
        }
        for label, values in rows.items()
    }
    about = {"commit": commit, "base": base, "words": [], "precision": precision}
    return {"about": about, "parts": {"recipes": {"title": "t", "rows": made}}}


def test_rows_of_earlier_calls_stay(studies: SimpleNamespace, tmp_path: Path) -> None:
    order = {"recipes": ["base", "photos_clip", "photos_best"], "steps": []}
    report, out = studies.photos_report, tmp_path / "photos"
    report.join(photos("1", {"photos_best": [1.0], "base": [2.0]}), out, order)
    report.join(photos("2", {"photos_clip": [3.0], "base": [4.0]}), out, order)
    rows = json.loads((tmp_path / "photos.json").read_text("utf-8"))["parts"]["recipes"]["rows"]
    assert {label: row["made"]["commit"] for label, row in rows.items()} == {
        "base": "2", "photos_clip": "2", "photos_best": "1",
    }  # fmt: skip
    assert list(rows) == order["recipes"]
    report.join(photos("3", {"photos_clip": [3.0]}, base="another"), out, order)
    rows = json.loads((tmp_path / "photos.json").read_text("utf-8"))["parts"]["recipes"]["rows"]
    assert list(rows) == ["photos_clip"]  # of another base nothing is kept
    report.join(photos("4", {"base": [3.0]}, base="another", precision="fp32"), out, order)
    rows = json.loads((tmp_path / "photos.json").read_text("utf-8"))["parts"]["recipes"]["rows"]
    assert list(rows) == ["base"]  # nor of another precision


def test_the_shipped_photo_tables_are_what_their_results_give(studies: SimpleNamespace) -> None:
    table = json.loads((ROOT / "docs" / "photos.json").read_text("utf-8"))
    shipped = (ROOT / "docs" / "photos_tables.md").read_text("utf-8")
    assert studies.photos_report.markdown(table) == shipped


def test_every_model_of_the_photo_study_has_settings_that_hold(studies: SimpleNamespace) -> None:
    rows = [row for part in studies.photos_study.PARTS.values() for row in part.rows.values()]
    for words in dict.fromkeys(row.words for row in rows if row.words is not None):
        validate(train.compose([*words, "data.shards=shards"]))


def test_the_base_row_of_another_base_is_another_job(
    studies: SimpleNamespace, tmp_path: Path
) -> None:
    options = SimpleNamespace(seeds=[0], words=[], precision="fp32")
    row = studies.photos_study.PARTS["recipes"].rows["base"]
    jobs = [
        studies.photos_study.make_jobs(row, options, tmp_path / name, tmp_path / "s")
        for name in ("photos-base-minilm-1", "photos-base-mpnet-2")
    ]
    assert jobs[0][0].name != jobs[1][0].name


def test_a_study_of_fewer_photos_names_its_shards(studies: SimpleNamespace, tmp_path: Path) -> None:
    options = SimpleNamespace(seeds=[0, 1], words=["train.max_steps=5"], precision="fp32")
    row = studies.photos_study.PARTS["photos"].rows["3,000 photos"]
    jobs = studies.photos_study.make_jobs(row, options, tmp_path / "base", tmp_path / "s")
    files = ",".join(f"'{tmp_path}/s/{n:05d}.tar'" for n in range(3))
    assert f"data.shards=[{files}]" in jobs[0].words
    assert jobs[0].words[-2:] == ("train.precision=fp32", "train.max_steps=5")
    assert len({job.name for job in jobs}) == 2
    everything = studies.photos_study.PARTS["recipes"].rows["photos_best"]
    (full, _) = studies.photos_study.make_jobs(
        everything, options, tmp_path / "base", tmp_path / "s"
    )
    assert f"data.shards='{tmp_path}/s'" in full.words
    assert full.name.removesuffix("-seed0") != jobs[0].name.removesuffix("-seed0")
