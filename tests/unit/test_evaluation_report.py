"""Tables that fit 80 columns, files that are whole or absent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from clic.errors import ConfigError
from clic.evaluation.report import report, result_files, terminal_tables
from clic.evaluation.report.comparison import Comparison, Interval
from clic.evaluation.report.report import Report
from clic.evaluation.tables.table import macro_mean


def triplets(itt: float) -> dict[str, Any]:
    entry = {"itt": itt, "tot": 33.333333333333336, "p1": 100.0, "n": 1652}
    return {"replace_att": entry, "swap_obj": entry, "mean": entry}


def made(name: str, itt: float = 50.0, **provenance: Any) -> Report:
    numbers = {
        "sugarcrepe++": triplets(itt),
        "coco2017-retrieval": {"image_to_text@1": itt, "n_images": 5000, "n_captions": 25000},
    }
    return Report(name, {"name": name}, provenance, numbers)


def render(reports: list[Report]) -> str:
    console = Console(width=80, no_color=True)
    with console.capture() as capture:
        for table in terminal_tables.tables(reports):
            console.print(table)
    return capture.get()


def test_one_model_has_a_column_for_each_metric() -> None:
    text = render([made("m", 65.66)])
    assert "ITT" in text and "TOT" in text and "P1" in text
    row = next(line for line in text.splitlines() if "replace_att" in line)
    assert row.split() == ["replace_att", "65.7", "33.3", "100.0", "1,652"]
    assert "25,000" in text


def test_text_only_numbers_have_no_empty_columns() -> None:
    numbers = {"sugarcrepe++": {"swap_obj": {"tot": 50.0, "n": 3}, "mean": {"tot": 50.0, "n": 3}}}
    text = render([Report("m", {}, {}, numbers)])
    assert "TOT" in text and "ITT" not in text


def test_models_side_by_side_show_differences_to_the_first() -> None:
    text = render([made("a", 50.0), made("b", 65.5)])
    row = next(line for line in text.splitlines() if "ITT swap_obj" in line)
    assert row.split() == ["ITT", "swap_obj", "50.0", "65.5", "+15.5", "1,652"]
    assert report.legend([made("a"), made("b")]) == ["A  a", "B  b"]
    assert report.legend([made("a")]) == []


@pytest.mark.parametrize("count", [1, 2])
def test_counts_stand_in_the_title(count: int) -> None:
    text = render([made(f"model-{i}") for i in range(count)])
    assert "coco2017-retrieval (5,000 images, 25,000 captions)" in text.splitlines()[-6]
    assert "n_images" not in text and "n_captions" not in text


@pytest.mark.parametrize("count", [1, 2, 4, 5, 6])
def test_tables_fit_80_columns(count: int) -> None:
    text = render([made(f"model-{i}", 10.0 * i) for i in range(count)])
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    assert ("B - A" in text) == (2 <= count <= terminal_tables.MAX_WITH_DIFFERENCES)


def test_a_benchmark_that_one_model_lacks_shows_a_dash() -> None:
    second = made("b")
    del second.benchmarks["coco2017-retrieval"]
    row = next(r for r in render([made("a"), second]).splitlines() if "image to text R@1" in r)
    assert row.split() == ["image", "to", "text", "R@1", "50.0", "-"]


def test_notes_say_what_is_missing() -> None:
    source = {
        "missing_images": ["x.jpg"], "broken_images": [], "rows": 9, "rows_of_the_whole": 10,
    }  # fmt: skip
    one = made("m", benchmarks={"sugarcrepe++": source}, left_out={"sugarcrepe": "no images"})
    assert report.notes([one, one]) == [
        "sugarcrepe: left out, no images",
        "sugarcrepe++: a covered subset of 9 rows of 10; 1 images missing or broken",
    ]


def test_json_of_one_and_of_several(tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    result_files.write_json(file, [made("a")])
    assert json.loads(file.read_text()) == made("a").to_dict()
    result_files.write_json(file, [made("a"), made("b")])
    assert [form["model"]["name"] for form in json.loads(file.read_text())["reports"]] == ["a", "b"]


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "out.txt"
    file.write_text("old")

    def lines() -> Any:
        yield "new"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        result_files.write_text(file, lines())
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_devices_and_links_are_written_into(tmp_path: Path) -> None:
    target, link, null = (tmp_path / name for name in ("target", "link", "null"))
    target.write_text("old")
    link.symlink_to(target)
    null.symlink_to("/dev/null")
    for path in (link, null):
        result_files.write_text(path, ["new"])
        assert path.is_symlink()
    assert target.read_text() == "new"


def test_any_number_of_models_has_letters() -> None:
    many = [made(f"model-{i}") for i in range(30)]
    assert report.legend(many)[25:28] == ["Z  model-25", "AA  model-26", "BB  model-27"]
    assert len(terminal_tables.tables(many)) == 2


def test_a_folder_that_is_not_there_is_a_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot write"):
        result_files.write_text(tmp_path / "no" / "out.txt", ["x"])


def test_macro_means_weigh_categories_alike() -> None:
    entries = [{"itt": 100.0, "n": 1}, {"itt": 0.0, "n": 99}]
    assert macro_mean(entries) == {"itt": 50.0, "n": 100}


def compared(models: int, label: str = "replace_att") -> str:
    entry = {"itt": 50.0, "tot": 10.0, "p1": 100.0, "n": 12345}
    numbers = {"sugarcrepe++": {label: entry, "mean": entry}}
    source = {"sugarcrepe++": {"groups": {"mean": [label]}}}
    reports = [Report(f"m{i}", {}, {"benchmarks": source}, numbers) for i in range(models)]
    ends = [Interval(-100.0, -100.0, -99.95)] * (models - 1)
    found = Comparison(
        tuple(r.name for r in reports),
        {"sugarcrepe++": {(label, "itt"): ends, ("mean", "itt"): ends}},
    )
    console = Console(width=80, no_color=True)
    with console.capture() as capture:
        for table in terminal_tables.tables(reports, found):
            console.print(table)
    return capture.get()


@pytest.mark.parametrize("models", [2, 3, 5])
@pytest.mark.parametrize("label", ["replace_att", "to the right of something very far away"])
def test_comparisons_fit_80_columns_in_as_many_tables_as_it_takes(models: int, label: str) -> None:
    text = compared(models, label)
    assert max(map(len, text.splitlines())) <= 80
    row = [line for line in text.splitlines() if line.lstrip().startswith("ITT mean")]
    assert row[0].split()[2:7] == ["50.0", "50.0", "-100.0", "[-100.0,", "-100.0]"]
    for index in range(1, models):
        assert text.count(f"{report.letter(index)} - A") == 1


def test_timings_say_what_the_cache_knew() -> None:
    stages = {
        "texts": {"items": 1200, "cached": 200, "seconds": 1.25},
        "images": {"items": 30, "cached": 30, "seconds": 0.0},
        "scoring": {"seconds": 0.5},
    }
    one = Report("m", {}, {"seconds": 2.0, "stages": stages}, {})
    assert report.timings([one]) == [
        "m: 2.0 s (1,200 texts, 200 known, 1.2 s, 30 images from the cache 0.0 s, scoring 0.5 s)"
    ]
    assert report.timings([Report("m", {}, {}, {})]) == []
