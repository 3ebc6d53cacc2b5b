"""Figures for papers, and the marks of significance: by hand, corrected, and in every table."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clic.errors import ConfigError
from clic.evaluation.report import formats
from clic.evaluation.report.comparison import Comparison, compare
from clic.evaluation.report.report import Report
from clic.evaluation.report.result_files import write_figures
from clic.evaluation.report.score_figure import check_figure
from clic.evaluation.report.significance import corrected, holm, p_values
from clic.evaluation.report.terminal_tables import tables

CATEGORIES = ("swap_att", "swap_obj", "replace_att")


def report(name: str, *right: Sequence[int]) -> Report:
    """Return a report of rows in three categories with these outcomes."""
    rows = [
        {"benchmark": "b", "category": category, "image": f"{category}{n}.jpg",
         "captions": {"positive1": "x"}, "itt": bool(one), "tot": True}
        for category, own in zip(CATEGORIES, right, strict=True)
        for n, one in enumerate(own)
    ]  # fmt: skip
    numbers: dict[str, Any] = {
        category: {"itt": 100 * sum(own) / len(own), "tot": 100.0, "n": len(own)}
        for category, own in zip(CATEGORIES, right, strict=True)
    }
    mean = sum(numbers[category]["itt"] for category in CATEGORIES) / 3
    numbers["mean"] = {"itt": mean, "tot": 100.0, "n": len(rows)}
    source = {
        "version": "1", "sha256": "0", "rows": len(rows), "rows_of_the_whole": len(rows),
        "missing_images": [], "broken_images": [], "groups": {"mean": list(CATEGORIES)},
    }  # fmt: skip
    return Report(name, {}, {"benchmarks": {"b": source}}, {"b": numbers}, rows)


@pytest.fixture(scope="module")
def reports() -> list[Report]:
    """B is better by far on the first category, by a little on the second, equal on the third."""
    a = report("A_1", [0, 1] * 40, [0, 1] * 20, [1, 1, 0, 1] * 10)
    b = report("B", [1, 1] * 40, [0, 1] * 17 + [1, 1] * 3, [1, 1, 0, 1] * 10)
    return [a, b]


def test_a_name_with_dollars_is_no_formula(tmp_path: Path, reports: list[Report]) -> None:
    one = report(r"$x and \y$", [0, 1], [1, 1], [1, 0])
    write_figures([tmp_path / "f.svg"], [one], compare([one]), "dots", marked=False)
    assert r"$x and \y$" in (tmp_path / "f.svg").read_text()


@pytest.fixture(scope="module")
def comparison(reports: list[Report]) -> Comparison:
    return compare(reports)


def test_p_values_by_hand() -> None:
    # 9 resamples: one is below 0, one is 0; (1 + 2) / 10 of them do not favour the difference.
    drawn = np.array([-1.0, 0.0, *[2.0] * 7])[:, None]
    assert p_values(drawn).tolist() == pytest.approx([0.6])
    assert p_values(-drawn).tolist() == pytest.approx([0.6])
    assert p_values(np.zeros((9, 1))).tolist() == [1.0]
    assert p_values(np.full((9, 1), 3.0)).tolist() == pytest.approx([0.2])
    missed = np.array([np.nan, 1.0, 1.0, 1.0])[:, None]
    assert p_values(missed).tolist() == pytest.approx([0.5])


def test_holm_by_hand() -> None:
    # 0.01 * 4, 0.02 * 3, then 0.03 * 2 (not below what came before), 0.5 * 1.
    assert holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([0.03]) == [0.03] and holm([]) == []


def test_the_categories_of_a_metric_are_a_family() -> None:
    paths = [("a", "itt"), ("b", "itt"), ("mean", "itt"), ("a", "tot")]
    found = corrected(paths, np.array([[0.02], [0.03], [0.04], [0.05]]), ["mean"])
    assert found == {
        ("a", "itt"): [0.04], ("b", "itt"): [0.04], ("mean", "itt"): [0.04], ("a", "tot"): [0.05]
    }  # fmt: skip
    recalls = [("r@1", ""), ("r@5", "")]
    assert corrected(recalls, np.array([[0.02], [0.03]]), [])["r@1", ""] == [0.04]


def test_marks_follow_the_corrected_p_values(comparison: Comparison) -> None:
    far, little = (comparison.p_value("b", (c, "itt"), 1) for c in CATEGORIES[:2])
    assert far == pytest.approx(3 * 2 / 10_001)
    assert little is not None and 0.05 < little <= 1
    marked = [c for c in (*CATEGORIES, "mean") if comparison.differs("b", (c, "itt"), 1)]
    assert marked == ["swap_att", "mean"]
    assert not any(comparison.differs("b", (c, "tot"), 1) for c in CATEGORIES)
    assert not comparison.differs("b", ("swap_att", "itt"), 0)


def test_every_table_has_the_marks_and_their_meaning(
    reports: list[Report], comparison: Comparison
) -> None:
    (table,) = tables(reports, comparison)
    column = list(table.columns[3].cells)
    assert column[:4] == ["+50.0*", "+7.5", "+0.0", "+19.2*"]
    markdown = formats.markdown(reports, comparison)
    assert r"+50.0\* [" in markdown
    assert "corrected by Holm" in markdown
    latex = formats.latex(reports, comparison)
    assert "$+50.0^{*}$" in latex and "$+7.5$" in latex and "corrected by Holm" in latex
    lines = formats.csv_text(reports, comparison).splitlines()
    place = lines[0].split(",").index("p_holm")
    assert {line.split(",")[place] for line in lines[1:] if line.startswith("A_1,")} == {""}
    own = next(line for line in lines if line.startswith("B,b,swap_att,itt,"))
    assert float(own.split(",")[place]) == comparison.p_value("b", ("swap_att", "itt"), 1)


@pytest.mark.parametrize("kind", ["dots", "radar"])
def test_a_figure_of_each_form(
    reports: list[Report], comparison: Comparison, tmp_path: Path, kind: str
) -> None:
    files = [tmp_path / "new" / f"figure.{form}" for form in ("png", "SVG", "pdf")]
    assert write_figures(files, reports, comparison, kind, marked=True) == files
    png, svg, pdf = files
    with Image.open(png) as picture:
        assert picture.format == "PNG" and picture.width > 1000
        assert len(picture.convert("RGB").getcolors(1 << 20) or []) > 20
    text = svg.read_text()
    for said in ("b, ITT", "b, TOT", "A_1", "B", "swap_att", "replace_att", "Holm"):
        assert said in text, said
    assert pdf.read_bytes().startswith(b"%PDF")
    assert [file.name for file in sorted((tmp_path / "new").iterdir())] == [
        "figure.SVG", "figure.pdf", "figure.png"
    ]  # fmt: skip
    again = tmp_path / "again.svg"
    write_figures([again], reports, comparison, kind, marked=True)
    assert again.read_bytes() == svg.read_bytes()


def test_marks_stand_in_the_figure(
    reports: list[Report], comparison: Comparison, tmp_path: Path
) -> None:
    def stars(name: str, kind: str, marked: bool) -> int:
        write_figures([tmp_path / name], reports, comparison, kind, marked)
        return len(re.findall(r">[^<]*\*</text>", (tmp_path / name).read_text()))

    assert stars("a.svg", "dots", True) == 2  # swap_att and the mean
    assert stars("b.svg", "radar", True) == 1  # means have no spoke
    assert stars("c.svg", "dots", False) == 0
    assert "Holm" not in (tmp_path / "c.svg").read_text()


def test_a_single_model_has_intervals(reports: list[Report], tmp_path: Path) -> None:
    alone = compare(reports[:1])
    low, high = alone.levels["b"]["swap_att", "itt"][0]
    assert low == pytest.approx(50 - 11, abs=1.5) and high == pytest.approx(50 + 11, abs=1.5)
    assert alone.intervals["b"]["swap_att", "itt"] == []
    write_figures([tmp_path / "one.svg"], reports[:1], alone, "dots", marked=False)
    assert (tmp_path / "one.svg").exists()


def test_an_ending_that_is_no_picture_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"ends in \.jpg; name a file that ends in \.png, \.svg"):
        check_figure(Path("a.jpg"))
