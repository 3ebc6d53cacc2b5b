"""`clic-eval --out`, `--compare` and results that were written before, as a user types them."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from clic.cli.eval import main
from clic.evaluation.report import result_files

Command = Callable[..., tuple[int, str, str]]
StandIn = Callable[[pytest.MonkeyPatch, Path], list[str]]
BENCH = ("--bench", "shapes-retrieval,shapes-zero-shot")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, stand_in: StandIn) -> Path:
    """Return a folder with what `--out` wrote of two models, and of one on other data."""
    root = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch:
        stand_in(patch, root)
        for words in (("m1", "one"), ("m2", "two"), ("m1", "other", "--seed", "1")):
            with pytest.raises(SystemExit) as stopped:
                main([*BENCH, "--model", words[0], "--out", words[1], *words[2:]])
            assert stopped.value.code == 0
    return root


@pytest.fixture
def clic_eval(results: Path, clic_eval: Command, tmp_path: Path) -> Command:
    """Return what runs the command in a folder with copies of the results."""
    for name in ("one", "two", "other"):
        shutil.copytree(results / name, tmp_path / name)
    return clic_eval


def numbers(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def test_out_writes_every_kind_of_file(results: Path) -> None:
    assert sorted(path.name for path in (results / "one").iterdir()) == sorted(
        result_files.FILES.values()
    )
    form = json.loads((results / "one" / "report.json").read_text())
    assert set(form) == {"model", "provenance", "benchmarks"}
    assert form["provenance"]["rows_file"] == "rows.jsonl"
    value = form["benchmarks"]["shapes-retrieval"]["image_to_text@1"]
    written = numbers(results / "one" / "report.csv")
    assert float(written[0]["value"]) == value
    assert f"{value:.1f}" in (results / "one" / "report.md").read_text()
    assert f" {value:.1f} &" in (results / "one" / "report.tex").read_text()
    page = (results / "one" / "report.html").read_text()
    assert f"<b>{value:.1f}</b>" in page and page.count("<article") == 24 + 24


def test_models_are_compared(clic_eval: Command, tmp_path: Path) -> None:
    code, out, err = clic_eval(
        *BENCH, "--compare", "m1", "m3", "batch_size=100", "--json", "x.json"
    )
    assert code == 0, err
    assert "A  m1" in out and "B  m3" in out and "95 %" in out and "10,000 resamples" in out
    assert max(map(len, out.splitlines())) <= 80
    form = json.loads((tmp_path / "x.json").read_text())
    assert form["reports"][0]["provenance"]["settings"]["batch_size"] == 100
    assert form["comparison"]["first"] == "m1"
    for found in form["comparison"]["differences"]:
        assert found["low"] <= found["difference"] <= found["high"]


def test_results_are_compared_as_their_models_are(clic_eval: Command, tmp_path: Path) -> None:
    code, out, _ = clic_eval("--compare", "one/", "two", "--json", "saved.json", "--csv", "s.csv")
    assert code == 0 and "B  m2" in out
    saved = json.loads((tmp_path / "saved.json").read_text())["comparison"]
    clic_eval(*BENCH, "--compare", "m1", "m2", "--json", "live.json")
    assert json.loads((tmp_path / "live.json").read_text())["comparison"] == saved


def test_a_result_and_a_model_side_by_side(clic_eval: Command) -> None:
    code, out, _ = clic_eval("--compare", "two", "one/report.json", "m3")
    assert code == 0
    assert "A  m2" in out and "B  m1" in out and "C  m3" in out
    assert max(map(len, out.splitlines())) <= 80


def test_a_model_against_itself(clic_eval: Command, tmp_path: Path) -> None:
    code, out, _ = clic_eval("--compare", "one", "one", "--csv", "x.csv")
    assert code == 0 and "B  m1 (2)" in out
    second = [line for line in numbers(tmp_path / "x.csv") if line["model"] == "m1 (2)"]
    assert len(second) == 6 + 3
    assert {(x["difference"], x["low"], x["high"]) for x in second} == {("0.0", "0.0", "0.0")}


def test_a_comparison_is_a_result_too(clic_eval: Command, tmp_path: Path) -> None:
    assert clic_eval("--compare", "one", "two", "--out", "both")[0] == 0
    code, out, _ = clic_eval("--compare", "both", "--csv", "again.csv", "--html", "again.html")
    assert code == 0 and "B  m2" in out
    assert (tmp_path / "again.csv").read_text() == (tmp_path / "both" / "report.csv").read_text()
    # Without the benchmark's images a gallery names them.
    assert '<div class="none">image-0' in (tmp_path / "again.html").read_text()


def test_a_result_is_written_in_another_form(clic_eval: Command, tmp_path: Path) -> None:
    code, _, err = clic_eval("--model", "one", "--bench", "shapes-zero-shot", "--latex", "x.tex")
    assert code == 0, err
    text = (tmp_path / "x.tex").read_text()
    assert "shape & colour & pair" in text and "R@1" not in text


def edit(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    form = json.loads(file.read_text())
    change(form)
    file.write_text(json.dumps(form))


def test_other_data_is_not_compared(clic_eval: Command) -> None:
    code, out, err = clic_eval("--compare", "one", "other")
    assert (code, out) == (2, "")
    assert "shapes-retrieval: m1 and m1 (2) were scored on different data (sha256" in err
    assert err.count("\n") == 1


def test_rows_of_another_report_are_noticed(clic_eval: Command, tmp_path: Path) -> None:
    def change(form: dict[str, Any]) -> None:
        form["benchmarks"]["shapes-retrieval"]["image_to_text@5"] += 1

    edit(tmp_path / "two" / "report.json", change)
    code, _, err = clic_eval("--compare", "one", "two")
    assert code == 2
    assert "the rows of m2 do not belong to its report: shapes-retrieval image_to_text@5" in err


def test_missing_rows_are_told(clic_eval: Command, tmp_path: Path) -> None:
    (tmp_path / "two" / "rows.jsonl").unlink()
    assert "rows.jsonl, which is missing; copy it too" in clic_eval("--compare", "one", "two")[2]
    edit(tmp_path / "two" / "report.json", lambda form: form["provenance"].pop("rows_file"))
    code, _, err = clic_eval("--compare", "one", "two")
    assert code == 2 and "was written without rows" in err and err.count("\n") == 1


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"reports": [1]}'])
def test_what_is_no_report_is_told(clic_eval: Command, tmp_path: Path, content: str) -> None:
    (tmp_path / "x.json").write_text(content)
    code, _, err = clic_eval("--compare", "one", "x.json")
    assert code == 2 and "x.json" in err and err.count("\n") == 1


def test_a_broken_row_is_told_with_its_line(clic_eval: Command, tmp_path: Path) -> None:
    rows = tmp_path / "two" / "rows.jsonl"
    lines = rows.read_text().splitlines(keepends=True)
    rows.write_text("".join([*lines[:3], "{\n"]))
    code, _, err = clic_eval("--compare", "one", "two")
    assert code == 2 and "rows.jsonl, line 4: no valid JSON" in err
    lines[2] = lines[2].replace('"rank"', '"range"')
    rows.write_text("".join(lines))
    assert "is not as this version writes it ('rank')" in clic_eval("--compare", "one", "two")[2]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--compare", "one"], "compare=one is a single model"),
        (["--compare", "one", "two", "--model", "one"], "either with --compare or with --model"),
        (["--compare", "one", "two", "--seed", "1"], "seed=1 has no effect"),
        (["--compare", "one", "two", "--bench", "shapes++"], "one/report.json has no shapes++"),
        (["--compare", "one", "missing.json"], "missing.json"),
        (["--compare", "one", "two", "--out", "one/report.json"], "is not a folder"),
        (["--compare", "one", "two", "--csv", "no/x.csv"], "there is no folder no"),
        (["--compare", "one", "two", "seeds=1"], "did you mean 'seed'"),
        (["--model", "m"], "no benchmark named"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(
    clic_eval: Command, tmp_path: Path, words: list[str], message: str
) -> None:
    before = sorted(tmp_path.rglob("*"))
    code, out, err = clic_eval(*words)
    assert (code, out) == (2, "")
    assert message in err and err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_told_before_the_work(
    clic_eval: Command, tmp_path: Path
) -> None:
    (tmp_path / "shut").mkdir(mode=0o500)
    assert "no permission" in clic_eval("--compare", "one", "two", "--out", "shut/x")[2]


@pytest.mark.parametrize(
    "place", [("--out", "/proc/x"), ("--out", "/sys/x/y"), ("--csv", "/proc/x")]
)
def test_a_place_that_cannot_be_written_is_found_before_the_model(
    place: tuple[str, str], monkeypatch: pytest.MonkeyPatch, clic_eval: Command
) -> None:
    def load(*_: object, **__: object) -> None:
        pytest.fail("the model was loaded")

    monkeypatch.setattr("clic.cli.eval.gather", load)
    code, out, err = clic_eval(*BENCH, "--model", "m1", *place)
    assert (code, out) == (2, "") and f"cannot write {place[1]}" in err.replace("write to", "write")


def test_a_folder_under_the_name_of_a_file_is_found_before_the_model(
    monkeypatch: pytest.MonkeyPatch, clic_eval: Command, tmp_path: Path
) -> None:
    monkeypatch.setattr("clic.cli.eval.gather", lambda *_, **__: pytest.fail("too late"))
    (tmp_path / "three" / "report.csv").mkdir(parents=True)
    code, _, err = clic_eval(*BENCH, "--model", "m1", "--out", "three")
    assert code == 2 and "three/report.csv is a folder" in err


def test_what_the_command_line_holds_of_secrets_is_in_no_file(
    clic_eval: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("sys.argv", ["clic-eval", "x=https://u:s3cret@h/a?sig=s3cret"])
    assert clic_eval(*BENCH, "--model", "m1", "--out", "four")[0] == 0
    files = [path.read_text(encoding="utf-8") for path in (tmp_path / "four").iterdir()]
    assert len(files) == len(result_files.FILES) and not any("s3cret" in text for text in files)
    assert "https://h/a?..." in (tmp_path / "four" / "report.json").read_text()


def test_a_benchmark_of_ones_own_goes_all_the_ways(clic_eval: Command, tmp_path: Path) -> None:
    for number in range(2):
        Image.new("RGB", (8, 8), (90 * number, 0, 0)).save(tmp_path / f"{number}.png")
    rows = [
        {"image": f"{n}.png", "positives": [f"a {n}", f"b {n}"], "negatives": [f"c {n}", "d"]}
        for n in (0, 1)
    ]
    (tmp_path / "my.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = ["--bench", "my.jsonl", "--cache-dir", "cache"]
    code, out, _ = clic_eval(*flags, "--model", "a", "--out", "one")
    assert code == 0 and "is read as triplets: two true captions" in " ".join(out.split())
    assert (
        json.loads((tmp_path / "one/report.json").read_text())["benchmarks"]["my"]["mean"]["n"] == 2
    )
    assert len((tmp_path / "one/rows.jsonl").read_text().splitlines()) == 2
    assert "c 0" in (tmp_path / "one/report.html").read_text()
    # A saved result beside a model, which needs the file's path and not its stem alone.
    code, out, _ = clic_eval(*flags, "--compare", "one", "b")
    assert code == 0 and "bootstrap" in out
    code, out, _ = clic_eval(*flags, "--model", "a", "--text-only")
    assert code == 0 and "TOT" in out and "ITT" not in out.split("note:")[0]
    code, out, _ = clic_eval("--bench", "list:my.jsonl")
    assert code == 0 and "two true captions" in out
    (tmp_path / "1.png").unlink()
    code, _, err = clic_eval(*flags, "--model", "a")
    assert code == 2 and "1.png" in err and "--allow-missing" in err
    code, out, _ = clic_eval(*flags, "--model", "a", "--allow-missing")
    assert code == 0 and "a covered subset of 1 rows of 2" in " ".join(out.split())


def test_published_numbers_are_shown_if_asked_for(clic_eval: Command) -> None:
    words = ("--bench", "shapes-zero-shot", "--model", "m")
    assert "published" not in clic_eval(*words)[1]
    code, out, _ = clic_eval(*words, "--published")
    assert code == 0 and "published: no numbers of m are known" in out


def test_a_figure_is_written_without_out(clic_eval: Command) -> None:
    code, out, err = clic_eval("--bench", "shapes-retrieval", "--model", "a", "--figure", "f.svg")
    assert code == 0, err
    assert "wrote f.svg" in out and "Holm" not in Path("f.svg").read_text()
    for words, said in (
        (["--figure", "f.jpg"], "figure=f.jpg ends in .jpg"),
        (["--figure-kind", "radar"], "figure_kind=radar has no effect without figure=FILE"),
    ):
        code, _, err = clic_eval("--bench", "shapes-retrieval", "--model", "a", *words)
        assert code == 2 and said in err
