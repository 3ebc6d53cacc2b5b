"""Published numbers: the table that ships, and a report's own numbers beside them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import open_clip
import pytest

from clic.cli.eval import main
from clic.errors import ConfigError
from clic.evaluation.benchmarks.catalogue import BENCHMARKS
from clic.evaluation.report import published_numbers
from clic.evaluation.report.published_numbers import beside, beside_lines, field_lines, known_as
from clic.evaluation.report.report import Report

OPENAI = {"source": "ViT-B-32", "pretrained": "openai"}
CATEGORIES = ("replace_att", "replace_obj", "replace_rel", "swap_att", "swap_obj")
ITT = dict(zip(CATEGORIES, (65.7, 87.0, 56.5, 45.0, 45.8), strict=True))  # the paper's
ROWS = dict(zip(CATEGORIES, (788, 1652, 1406, 666, 245), strict=True))
SUGARCREPE_ROWS = {"add_obj": 2062, "add_att": 692, "replace_obj": 1652, "replace_att": 788,
                   "replace_rel": 1406, "swap_obj": 245, "swap_att": 666}  # fmt: skip


def report(model: dict[str, Any] = OPENAI, subset: str = "", **changed: float) -> Report:
    """A report with the paper's ITT, but for the categories that are changed."""
    numbers: dict[str, Any] = {c: {"itt": changed.get(c, ITT[c]), "n": ROWS[c]} for c in CATEGORIES}
    numbers["mean"] = {"itt": sum(numbers[c]["itt"] for c in CATEGORIES) / 5, "n": 4757}
    source = {
        "groups": {"mean": list(CATEGORIES)},
        **({"covered_subset": subset} if subset else {}),
    }
    return Report("m", model, {"benchmarks": {"sugarcrepe++": source}}, {"sugarcrepe++": numbers})


def test_every_number_has_its_source() -> None:
    found = published_numbers.published_numbers()
    assert len(found) > 300
    for one in found:
        assert one.benchmark in BENCHMARKS, one
        assert one.mark in ("read", "second-hand") and 0 < one.value < 100, one
        assert one.source.startswith("arXiv ") and one.table and one.averaging, one
        assert (one.mark == "second-hand") == (one.table == "not seen"), one
    places = [(one.model, one.benchmark, one.path, one.source) for one in found]
    assert len(set(places)) == len(places)


def test_printed_means_are_those_of_the_printed_categories() -> None:
    """A misread cell would show here: 7 models on 3 tables, CLoVe's 5 and VL-JEPA's 5 models."""
    checked = 0
    numbers = published_numbers.published_numbers()
    for mean in numbers:
        if mean.path[0] == "mean" and mean.averaging.startswith("mean is over the "):
            own = [
                one.value for one in numbers
                if (one.model, one.benchmark, one.source, one.table, one.path[1])
                == (mean.model, mean.benchmark, mean.source, mean.table, mean.path[1])
                and one.path[0] != "mean"
            ]  # fmt: skip
            word = {5: "five", 7: "seven"}[len(own)]
            assert word in mean.averaging
            assert sum(own) / len(own) == pytest.approx(mean.value, abs=0.101), mean
            checked += 1
    assert checked == 31


def test_means_of_one_file_are_those_of_the_categories_of_another() -> None:
    """The authors' two files and a later paper of theirs hold the same models' means and parts."""
    rows = SUGARCREPE_ROWS
    numbers = published_numbers.published_numbers()
    own: dict[tuple[str, str], dict[str, float]] = {}
    for one in numbers:
        if one.table.startswith("individual_results.csv"):
            own.setdefault((one.benchmark, one.model), {})[one.path[0]] = one.value
    checked = 0
    for one in numbers:
        parts = own.get((one.benchmark, one.model), {})
        if one.path[0] != "mean" or one.source not in ("arXiv 2406.09388", "arXiv 2410.05210"):
            continue
        if one.benchmark in ("svo-probes", "whatsup") and parts:
            assert sum(parts.values()) / len(parts) == pytest.approx(one.value, abs=0.11), one
        elif one.benchmark == "sugarcrepe" and parts:
            kinds = []
            for kind in ("add", "replace", "swap"):
                of = {name: count for name, count in rows.items() if name.startswith(kind)}
                kinds.append(sum(parts[n] * c for n, c in of.items()) / sum(of.values()))
            assert sum(kinds) / 3 == pytest.approx(one.value, abs=0.11), one
        else:
            continue
        checked += 1
    assert checked == 26


def test_models_are_known_by_their_names() -> None:
    assert known_as(OPENAI) == "CLIP ViT-B/32"
    assert known_as({"source": "ViT-B-32", "pretrained": "laion400m_e32"}) is None
    assert known_as({"source": "ViT-B-32", "pretrained": "/a/negclip.pth"}) == "NegCLIP ViT-B/32"
    assert known_as({"source": "a Python object", "name": "CLIP ViT-B/32"}) is None
    tags = {f"{name}:{tag}" for name, tag in open_clip.list_pretrained()}
    listed = published_numbers._content()["names"]
    in_tables = {one.model for one in published_numbers.published_numbers()}
    assert set(listed) <= in_tables
    for names in listed.values():
        assert {n for n in names if ":" in n and not n.startswith("hf-hub:")} <= tags
    hub = {"source": "hf-hub:nmndeep/CLIC-ViT-B-32-224-PixelProse", "pretrained": "included"}
    assert known_as(hub) == "CLIC-RedCaps ViT-B/32"


def test_the_papers_own_numbers_agree() -> None:
    lines = beside(report())
    assert [one.published.path[0] for one in lines] == [*CATEGORIES, "mean"]
    assert all(one.agrees and abs(one.difference) < 0.05 for one in lines)


def test_one_row_agrees_and_two_do_not() -> None:
    # A row of 245 is 0.41 points, and a fifth of that in the mean of five categories.
    one = {one.published.path[0]: one for one in beside(report(swap_obj=45.8 + 0.45))}
    assert one["swap_obj"].within == pytest.approx(0.05 + 100 / 245)
    assert one["swap_obj"].agrees and one["mean"].agrees
    assert one["mean"].within == pytest.approx(0.05 + 20 / 245)
    two = {one.published.path[0]: one for one in beside(report(swap_obj=45.8 + 0.87))}
    assert not two["swap_obj"].agrees and two["swap_att"].agrees
    assert not two["mean"].agrees


@pytest.mark.parametrize(
    ("weights", "compared", "agreeing", "most_rows_apart"),
    [
        ("openai", 21, 9, 6.9),
        ("negclip.pth", 21, 5, 33.7),
        ("clove_without_patching.pt", 7, 5, 4.5),
    ],
)
def test_the_rule_on_what_papers_print_of_the_same_weights(
    weights: str, compared: int, agreeing: int, most_rows_apart: float
) -> None:
    """What one paper prints of SugarCrepe stands for a report, and is set beside the others'."""
    identity = {"source": "ViT-B-32", "pretrained": weights}
    papers: dict[str, dict[str, float]] = {}
    for one in published_numbers.published_numbers():
        if one.model == known_as(identity) and one.benchmark == "sugarcrepe":
            papers.setdefault(one.source, {})[one.path[0]] = one.value
    verdicts, apart = [], [0.0]
    for source, own in papers.items():
        numbers = {c: {"itt": own[c], "n": n} for c, n in SUGARCREPE_ROWS.items() if c in own}
        for one in beside(Report("m", identity, {"benchmarks": {}}, {"sugarcrepe": numbers})):
            if one.published.source != source:
                verdicts.append(one.verdict)
                rows = SUGARCREPE_ROWS[one.published.path[0]]
                apart.append(abs(one.difference) / 100 * rows)
    # Each two papers meet twice, once from either side.
    assert (len(verdicts), verdicts.count("yes")) == (2 * compared, 2 * agreeing)
    assert set(verdicts) == {"yes", "no"}
    assert max(apart) == pytest.approx(most_rows_apart, abs=0.1)


def test_lines_tell_the_difference_and_the_source() -> None:
    lines = list(beside_lines(report(swap_att=40.0)))
    assert lines[0] == "published numbers of CLIP ViT-B/32, known by its name (m):"
    (changed,) = [line for line in lines if "swap_att" in line]
    assert changed.split() == [
        "sugarcrepe++",
        "itt",
        "swap_att",
        "40.0",
        "45.0",
        "-5.0",
        "no",
        "[1]",
    ]
    assert "  [1] arXiv 2510.16540, Tab. 12 (read; mean is over the five categories)" in lines
    assert not any("need not agree" in line for line in lines)
    subset = "a covered subset of 900 rows of 1,000"
    lines = list(beside_lines(report(subset=subset)))
    assert f"  sugarcrepe++ is {subset} here, so its numbers need not agree" in lines
    (unknown,) = beside_lines(report({"source": "mine"}))
    assert unknown.startswith("published: no numbers of m are known")


def test_retrieval_counts_queries() -> None:
    numbers = {"image_to_text@1": 50.13, "text_to_image@1": 30.0, "n_images": 5000,
               "n_captions": 25010}  # fmt: skip
    own = Report("m", OPENAI, {"benchmarks": {}}, {"coco-retrieval": numbers})
    first, second = beside(own)
    assert first.within == pytest.approx(0.05 + 100 / 5000) and first.agrees
    assert second.within == pytest.approx(0.05 + 100 / 25010) and not second.agrees


def test_the_field_is_printed_best_first() -> None:
    lines = field_lines("SugarCrepePP")
    assert lines[0] == "sugarcrepe++ itt"
    assert lines[3].split() == [
        "READ-CLIP",
        "ViT-B/32",
        "72.2",
        "90.1",
        "57.5",
        "66.2",
        "62.9",
        "69.8",
    ]
    means = [float(line.split()[-1]) for line in lines[3:10]]
    assert means == sorted(means, reverse=True)
    heads = [line for line in field_lines("retrieval") if not line.startswith(" ")]
    assert list(dict.fromkeys(heads)) == ["coco-retrieval", "", "flickr30k-retrieval"]
    with pytest.raises(ConfigError, match="no published numbers on it are kept; some are on sugar"):
        field_lines("bla")


def test_the_command_prints_the_field_without_torch(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from clic.cli.eval import main\n"
        "sys.argv = ['clic-eval', '--published-table', 'half-truths']\n"
        "try:\n"
        "    main()\n"
        "except SystemExit:\n"
        "    sys.exit('torch' in sys.modules)\n"
    )
    shown = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path
    )
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "CS-CLIP ViT-B/32" in shown.stdout and "76.4" in shown.stdout


def test_an_unknown_benchmark_ends_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--published-table", "sugarcrape"])
    assert stopped.value.code == 2
    assert "did you mean 'sugarcrepe'" in capsys.readouterr().err
