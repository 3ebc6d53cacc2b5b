"""CSV, Markdown and LaTeX: every number once, escapes, provenance, the best value bold."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from clic.evaluation.report import formats, score_table
from clic.evaluation.report.comparison import Comparison, Interval
from clic.evaluation.report.report import Report

THIRD = 100 / 3
WHOLE = {"groups": {"swap": ["swap_att"], "mean": ["swap_att", "swap_obj"]}, "overall": None}
SOURCE = {
    "version": "1", "sha256": "ab" * 32, "rows": 9, "rows_of_the_whole": 10, "citation": "Who 2024",
    "licence": "MIT", "missing_images": ["x.jpg"], "broken_images": [],
}  # fmt: skip
PATH = ("swap_att", "itt")


def made(name: str, itt: float) -> Report:
    entry = {"itt": itt, "tot": THIRD, "n": 4}
    numbers: dict[str, dict[str, Any]] = {
        "sugarcrepe++": {"swap_att": entry, "swap_obj": entry, "swap": entry, "mean": entry},
        "food101": {"food101": 50.0, "n_images": 10},
        "pets": {"pets": 60.0, "mean_per_class": 61.25, "n_images": 20},
    }
    record = {
        "commit": "c0ffee", "date": "2026-01-02T03:04:05+00:00", "seconds": 1.5, "device": "cpu",
        "dtype": "fp32", "seed": 0, "settings": {"split": "test"}, "versions": {"torch": "2.15"},
        "benchmarks": {"sugarcrepe++": {**SOURCE, **WHOLE}},
    }  # fmt: skip
    return Report(name, {"source": "here", "weights_sha256": "f" * 64}, record, numbers)


@pytest.fixture
def two() -> tuple[list[Report], Comparison]:
    intervals = {"sugarcrepe++": {PATH: [Interval(14.96, -0.01, 29.94)]}}
    return [made("a_b & c", 50.04), made("runs/x%", 65.0)], Comparison(("a", "b"), intervals)


def test_csv_has_every_number_unrounded_with_its_provenance(
    two: tuple[list[Report], Comparison],
) -> None:
    lines = list(csv.DictReader(io.StringIO(formats.csv_text(*two))))
    assert len(lines) == 2 * (4 * 2 + 1 + 2)
    assert tuple(lines[0]) == formats.CSV_COLUMNS
    found = next(x for x in lines if x["model"] == "runs/x%" and x["category"] == "swap_att")
    assert (found["metric"], found["value"], found["n"]) == ("itt", "65.0", "4")
    assert (found["difference"], found["low"], found["high"]) == ("14.96", "-0.01", "29.94")
    assert (found["rows"], found["rows_of_the_whole"]) == ("9", "10")
    assert found["weights_sha256"] == "f" * 64 and found["commit"] == "c0ffee"
    assert found["benchmark_version"] == "1" and json.loads(found["settings"]) == {"split": "test"}
    assert {x["value"] for x in lines if x["metric"] == "tot"} == {repr(THIRD)}
    flat = next(x for x in lines if x["metric"] == "mean_per_class")
    assert (flat["benchmark"], flat["category"], flat["value"]) == ("pets", "", "61.25")


def table_of(markdown: str, title: str) -> list[list[str]]:
    part = markdown.split(f"## {title}")[1].split("\n\n")[1]
    return [[c.strip() for c in line.strip("|").split("|")] for line in part.splitlines()]


def test_markdown_of_one_model_has_a_column_for_each_metric() -> None:
    text = formats.markdown([made("a", 50.04)])
    table = table_of(text, "sugarcrepe++ (a covered subset of 9 rows of 10)")
    assert table[0] == ["category", "ITT", "TOT", "n"]
    assert table[2] == ["swap_att", "50.0", "33.3", "4"]
    assert "weights SHA-256: " + "f" * 64 in text and "clic commit: c0ffee" in text
    assert (
        "Note: sugarcrepe++: a covered subset of 9 rows of 10; 1 images missing or broken." in text
    )
    assert len({len(line) for line in text.splitlines() if line.startswith("| ")}) == 2


def test_markdown_of_several_models_has_differences_and_the_best_bold(
    two: tuple[list[Report], Comparison],
) -> None:
    text = formats.markdown(*two)
    table = table_of(text, "sugarcrepe++ (a covered subset of 9 rows of 10)")
    assert table[0] == ["measure", "A", "B", "B − A", "n"]
    assert table[2] == ["ITT swap_att", "50.0", "**65.0**", "+15.0 [0.0, 29.9]", "4"]
    assert table[6][1:3] == ["**33.3**", "**33.3**"]  # equal as shown
    assert "- **B** = runs/x%" in text
    assert "10,000 resamples, seed 0" in text
    assert table_of(text, score_table.TOGETHER)[2][0] == "food101"
    assert table_of(text, score_table.TOGETHER)[4][0] == "pets mean per class"


def test_markdown_shows_names_as_they_are() -> None:
    text = formats.markdown([made("a|b *x* <b> `c` _d_ [e](f)\nG", 1.0)])
    assert r"- **a\|b \*x\* \<b> \`c\` \_d\_ \[e\](f) G**" in text


def test_latex_is_booktabs_with_escapes_and_the_best_bold(
    two: tuple[list[Report], Comparison],
) -> None:
    text = formats.latex(*two)
    assert r"& swap\_att & swap\_obj & swap & mean \\" in text
    assert text.count(r"swap\_att") == 1  # one heading for both metrics
    assert r"a\_b \& c & 50.0 & 50.0" in text
    assert r"runs/x\% & \textbf{65.0} & \textbf{65.0}" in text
    assert r"\quad difference & $+15.0$ &" in text
    assert r"\quad 95\,\% interval & $[0.0, 29.9]$" in text
    assert r"$n$ & 4 & 4 & 4 & 4 \\" in text
    assert "% weights SHA-256: " + "f" * 64 in text
    assert r"\label{tab:sugarcrepepp}" in text and "(a covered subset of 9 rows of 10)" in text
    body = [line for line in text.splitlines() if not line.startswith("%")]
    for line in body:
        assert not re.search(r"(?<!\\)[%#_]", line.removesuffix("%"))
    tables = text.split(r"\begin{table}")[1:]
    for one in tables:
        columns = len(re.search(r"tabular\}\{l(r+)\}", one)[1])  # type: ignore[index]
        for row in re.findall(r"^    (.*) \\\\$", one, re.MULTILINE):
            spans = row.startswith(r"\multicolumn")
            assert spans or len(re.findall(r"(?<!\\)&", row)) == columns


def test_latex_compiles(two: tuple[list[Report], Comparison], tmp_path: Path) -> None:
    if shutil.which("pdflatex") is None:
        pytest.skip("no pdflatex on this machine")
    (tmp_path / "report.tex").write_text(formats.latex(*two))
    (tmp_path / "paper.tex").write_text(
        r"\documentclass{article}\usepackage{booktabs,graphicx}\begin{document}"
        r"\input{report.tex}\end{document}"
    )
    words = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(
        words, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout


def test_latex_escapes_all_of_its_own_characters() -> None:
    assert formats.escape_latex(r"\{}$&#_%~^<>|") == (
        r"\textbackslash{}\{\}\$\&\#\_\%\textasciitilde{}\textasciicircum{}"
        r"\textless{}\textgreater{}\textbar{}"
    )


def test_of_many_categories_tables_show_the_means() -> None:
    names = [f"relation {i}" for i in range(13)]
    entry = {"accuracy": 50.0, "n": 2}
    numbers = {"aro-relation": {**dict.fromkeys(names, entry), "macro": entry}}
    source = {**SOURCE, "groups": {"macro": names}}
    one = Report("m", {}, {"benchmarks": {"aro-relation": source}}, numbers)
    for text in (formats.markdown([one]), formats.latex([one])):
        assert "13 categories: in the CSV and JSON files" in text
        assert "relation 1" not in text and "macro" in text
    assert formats.csv_text([one]).count("relation ") == 13


def test_benchmarks_of_one_number_stand_together() -> None:
    together = [
        p for p in score_table.score_tables([made("a", 1.0)]) if p.name == score_table.TOGETHER
    ]
    assert [line.category for line in together[0].lines] == [
        "food101", "pets", "pets mean per class",
    ]  # fmt: skip
    assert [line.counts[0] for line in together[0].lines] == [10, 20, 20]


def test_with_one_true_caption_tables_have_its_accuracy_once() -> None:
    entry = {"itt": 70.0, "p1": 70.0, "n": 4}
    one = Report("m", {}, {}, {"sugarcrepe": {"add_obj": entry, "mean": entry}})
    assert table_of(formats.markdown([one]), "sugarcrepe")[0] == ["category", "accuracy", "n"]
    lines = list(csv.DictReader(io.StringIO(formats.csv_text([one]))))
    assert [line["metric"] for line in lines] == ["itt", "itt", "p1", "p1"]


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t=", "\r", " =", "\uff1d", "\n@"])
def test_no_cell_is_a_formula(start: str) -> None:
    name = f'{start}HYPERLINK("http://x","y")'
    text = formats.csv_text([made(name, 50.0)])
    one = next(csv.DictReader(io.StringIO(text, newline="")))
    assert one["model"] == f"'{name}"


def test_numbers_are_no_formulas() -> None:
    for value in (-1.5, "-1.5", "+2", "a-b", "ViT-B-32:openai", None, ""):
        assert formats._cell(value) == value
