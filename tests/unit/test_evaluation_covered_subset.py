"""A benchmark of which only some rows were scored says so wherever its numbers are."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from clic.evaluation.report import alpha_sweep
from clic.evaluation.report.formats import csv_text, latex, markdown
from clic.evaluation.report.html_page import page
from clic.evaluation.report.report import Report, covered_subset
from clic.evaluation.report.score_table import score_tables

SAID = "a covered subset of 334 rows of 4,757"
SOURCE = {
    "rows": 334, "rows_of_the_whole": 4757, "missing_images": ["a.jpg"], "broken_images": [],
    "groups": {"mean": ["x"]}, "overall": None,
}  # fmt: skip


def report(source: dict[str, Any], numbers: dict[str, Any], *names: str) -> Report:
    provenance = {"benchmarks": dict.fromkeys(names, source)}
    return Report("m", {"name": "m"}, provenance, dict.fromkeys(names, numbers))


CATEGORIES = {"x": {"itt": 50.0, "tot": 25.0, "p1": 75.0, "n": 334}}


def test_only_lost_rows_make_a_covered_subset() -> None:
    assert covered_subset(SOURCE) == SAID
    assert covered_subset({**SOURCE, "rows": 4757}) == ""
    assert covered_subset({}) == ""


def test_files_and_tables_say_it() -> None:
    reports = [report(SOURCE, CATEGORIES, "sugarcrepe++")]
    for text in (markdown(reports), latex(reports), "".join(page(reports))):
        assert f"sugarcrepe++ ({SAID})" in text
    rows = list(csv.DictReader(io.StringIO(csv_text(reports))))
    assert rows and {row["subset"] for row in rows} == {SAID}


def test_one_covered_model_of_two_is_enough() -> None:
    whole = report({**SOURCE, "rows": 4757, "missing_images": []}, CATEGORIES, "sugarcrepe++")
    (table,) = score_tables([whole, report(SOURCE, CATEGORIES, "sugarcrepe++")])
    assert SAID in table.title


def test_a_table_of_several_small_benchmarks_names_the_covered_ones() -> None:
    both = report(SOURCE, {"accuracy": 50.0, "n": 334}, "pets", "cars")
    (table,) = score_tables([both])
    assert f"pets: {SAID}; cars: {SAID}" in table.title


def test_a_sweep_says_it_in_its_table_and_plot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = report(SOURCE, {**CATEGORIES, "mean": CATEGORIES["x"]}, "sugarcrepe++").to_dict()
    results = [{"alpha": alpha, **json.loads(json.dumps(one))} for alpha in (0.0, 1.0)]
    (table,) = alpha_sweep.tables(results)
    assert SAID in str(table.title)
    titles = []
    monkeypatch.setattr(alpha_sweep, "_panel", lambda axis, name, *rest: titles.append(name))
    alpha_sweep.draw(results, "m", tmp_path / "sweep.png")
    assert titles == [f"sugarcrepe++\n{SAID}"]
