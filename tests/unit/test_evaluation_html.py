"""The page: self-contained, escaped, readable by a browser; the gallery shows what went wrong."""

from __future__ import annotations

import base64
import io
import re
import shutil
import subprocess
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from clic.evaluation.report import html_page, score_table
from clic.evaluation.report.comparison import Comparison, Interval
from clic.evaluation.report.report import Report
from clic.evaluation.tables.classification import Classification, ClassificationTask
from clic.evaluation.tables.failure_cards import Failure
from clic.evaluation.tables.grids import RULES, Grids
from clic.evaluation.tables.retrieval import Retrieval
from clic.evaluation.tables.table import BenchmarkTable, TableFeatures
from clic.evaluation.tables.triplets import Triplets

EVIL = "<script>document.title='owned'</script>\"'&<img src=x onerror=alert(1)>"
ONE = np.zeros(1, dtype=np.int64)
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def picture(colour: int = 0, side: int = 300) -> np.ndarray:
    return np.full((side, side * 2, 3), colour, dtype=np.uint8)


def triplet_row(n: int, negative: float, **scores: float) -> dict[str, Any]:
    scores = {"image_positive1": 0.3, "image_positive2": 0.2, "image_negative": negative, **scores}
    return {
        "benchmark": "b++", "row": n, "category": "swap_att", "image": f"image-{n:05d}",
        "captions": {"positive1": EVIL, "positive2": "two", "negative": f"false {n}"},
        "itt": negative < 0.2, "p1": negative < 0.3, "tot": True, "scores": scores,
    }  # fmt: skip


def triplet_report(negatives: list[float], name: str = "m") -> Report:
    n = len(negatives)
    zeros = np.zeros(n, dtype=np.int64)
    table = Triplets(
        tuple(picture(i) for i in range(n)), ("t",), ("swap_att",), zeros, np.arange(n), zeros,
        zeros, zeros,
    )  # fmt: skip
    form = {"swap_att": {"itt": 50.0, "tot": 100.0, "p1": 60.0, "n": n}}
    rows = [triplet_row(i, negative) for i, negative in enumerate(negatives)]
    return Report(
        name, {"source": EVIL}, {"date": "2026-01-02"}, {"b++": form}, rows, {"b++": table}
    )


@pytest.mark.parametrize(
    ("form", "told", "untold"),
    [
        (
            {"swap_att": {"itt": 50.0, "tot": 20.0, "p1": 60.0, "n": 2}},
            ["ITT, image to text", "TOT, text only", "P1: ", "chance 33 %", "chance 50 %"],
            ["R@k", "classes"],
        ),
        (
            {"add_att": {"itt": 50.0, "p1": 50.0, "n": 2}},
            ["nearer to the true caption than to the false one; chance 50 %"],
            ["ITT", "TOT", "P1"],
        ),
        (
            {"image_to_text@1": 1.0, "text_to_image@1": 2.0, "n_images": 5, "n_captions": 9},
            ["image to text R@k", "text to image R@k", "chance k / number of images"],
            ["ITT", "classes"],
        ),
        (
            {"all": {"text": 1.0, "image": 2.0, "group": 3.0, "n": 4}},
            ["text: ", "image: ", "group: ", "chance 25 %", "chance 17 %"],
            ["ITT"],
        ),
        (
            {"shape": 90.0, "colour": 80.0, "pair": 70.0, "n_images": 5},
            ["the class whose prompts are nearest is the image's; chance 1 / number of classes"],
            ["ITT", "R@k"],
        ),
        (
            {"mean": {"accuracy": 50.0, "n": 4}},
            ["accuracy: the right answer beats every other one; chance 1 / number of answers"],
            ["ITT", "R@k"],
        ),
    ],
)
def test_the_page_says_what_each_metric_is(
    form: dict[str, Any], told: list[str], untold: list[str]
) -> None:
    page = "".join(html_page.page([Report("m", {}, {}, {"b": form})]))
    explained = unescape(page.split('<ul class="explained')[1].split("</ul>")[0])
    assert all(words in explained for words in told)
    assert not any(words in explained for words in untold)


def test_every_metric_of_every_rule_has_its_words() -> None:
    metrics = {"itt", "tot", "p1", "accuracy", "image_to_text", "text_to_image"}
    for shape, rule in ((1, "choice"), (2, "winoground"), (2, "bivlc"), (2, "cola")):
        metrics |= set(RULES[rule](torch.rand(3, shape, 2)))
    assert metrics <= set(score_table.EXPLAINED)
    assert all("chance" in words for words in score_table.EXPLAINED.values())


def only(row: dict[str, Any], table: BenchmarkTable | None) -> Failure:
    tables = {} if table is None else {"b": table}
    report = Report("m", {}, {}, {}, [{**row, "benchmark": "b"}], tables)
    return html_page.worst_failures(report)["b"].failures[0]


def test_the_worst_come_first_and_what_is_right_does_not() -> None:
    found = html_page.worst_failures(triplet_report([0.1, 0.25, 0.9, 0.2, 0.35]))["b++"].failures
    assert [failure.texts[2].text for failure in found] == [
        "false 2",
        "false 4",
        "false 1",
        "false 3",
    ]
    assert found[0].verdict == "the false caption beats both true ones, by 0.700"
    assert found[2].verdict == "the false caption beats the second true one, by 0.050"
    assert found[3].verdict == "the false caption beats the second true one, in a tie"
    assert found[0].texts[0].scores == (0.3,) and found[0].texts[0].is_true
    assert found[2].outcomes == {"itt": False, "p1": True, "tot": True}
    assert html_page.worst_failures(triplet_report([0.1]))["b++"].failures == []


def test_the_gallery_is_limited_and_its_pictures_are_small() -> None:
    found = html_page.worst_failures(triplet_report([0.5 + i / 100 for i in range(30)]))[
        "b++"
    ].failures
    assert len(found) == html_page.LIMIT == 24
    assert found[0].texts[2].text == "false 29"
    uri = found[0].pictures[0].uri
    assert uri is not None and uri.startswith("data:image/png;base64,")
    shown = Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))
    assert shown.size == (224, 112)
    assert shown.getpixel((5, 5)) == (29, 29, 29)  # of its own row


def test_photographs_become_jpeg(tmp_path: Path) -> None:
    file = tmp_path / "x.png"
    Image.fromarray(picture(9)).save(file)
    table = Triplets((file,), ("t",), ("c",), ONE, ONE, ONE, None, ONE)
    row = triplet_row(0, 0.9)
    failure = only({**row, "category": "c"}, table)
    assert failure.pictures[0].uri is not None
    assert failure.pictures[0].uri.startswith("data:image/jpeg;base64,")


def test_without_images_it_is_the_text_comparison() -> None:
    row = triplet_row(0, 0.0)
    scores = {"positive1_positive2": 0.5, "positive1_negative": 0.6, "positive2_negative": 0.2}
    failure = only({**row, "scores": scores}, None)
    assert failure.verdict.endswith("as the true ones to each other, by 0.100")
    assert failure.pictures == ()


GRID = {"category": "c", "images": ["one", "two"], "captions": ["x", "y"]}


def grid(images: int, captions: int) -> Grids:
    return Grids(
        tuple(picture(i) for i in range(images)), ("x", "y"), ("c",), ONE,
        np.arange(images)[None], np.arange(captions)[None], "choice",
    )  # fmt: skip


def test_two_images_and_two_captions() -> None:
    row = {**GRID, "text": True, "image": False, "group": False, "scores": [[0.3, 0.2], [0.4, 0.5]]}
    failure = only(row, grid(2, 2))
    assert failure.verdict == "wrong for caption 1, by 0.100"
    assert [text.scores for text in failure.texts] == [(0.3, 0.4), (0.2, 0.5)]
    assert [one.label for one in failure.pictures] == ["image 1", "image 2"]
    # By Cola's rule images do not choose: only captions count.
    cola = {**GRID, "accuracy": True, "scores": [[0.3, 0.35], [0.1, 0.5]]}
    assert html_page.margin(cola) == pytest.approx(0.15)


def test_a_choice_among_captions_and_among_images() -> None:
    one_image = {**GRID, "images": ["one"], "accuracy": False, "scores": [[0.1, 0.4]]}
    assert only(one_image, grid(1, 2)).verdict == "a false caption beats the true one, by 0.300"
    one_caption = {**GRID, "captions": ["x"], "accuracy": False, "scores": [[0.1], [0.2]]}
    failure = only(one_caption, grid(2, 1))
    assert failure.verdict == "another image is nearer to the caption, by 0.100"
    assert [one.label for one in failure.pictures] == ["right", "wrong"]


def test_retrieval_shows_the_worst_of_both_directions() -> None:
    table = Retrieval(
        (picture(1), picture(2)), ("x", "y"), np.arange(2), np.arange(2), np.arange(2)
    )
    scores = {"match": 0.1, "top": 0.2}
    found = [
        {"direction": "image_to_text", "image": "image-00000", "rank": 2, "top": "y"},
        {"direction": "image_to_text", "image": "image-00001", "rank": 1, "top": "y"},
        {"direction": "text_to_image", "caption": "x", "image": "image-00000", "rank": 2,
         "top": "image-00001"},
        {"direction": "text_to_image", "caption": "y", "image": "image-00001", "rank": 1,
         "top": "image-00001"},
    ]  # fmt: skip
    rows = [{"benchmark": "b", **row, "scores": scores} for row in found]
    first, second = html_page.worst_failures(Report("m", {}, {}, {}, rows, {"b": table}))[
        "b"
    ].failures
    assert [text.text for text in first.texts] == ["x", "y"]
    assert first.verdict == "the best match (0.100) is at rank 2"
    assert [one.label for one in second.pictures] == ["right: 0.100", "found: 0.200"]
    assert len({one.uri for one in second.pictures}) == 2


def test_images_of_one_name_in_several_folders_are_told_apart(tmp_path: Path) -> None:
    """As Caltech-101's, which has an image_0001.jpg of every class."""
    places = tuple(tmp_path / name / "image_0001.jpg" for name in ("ant", "bass"))
    for place in places:
        place.parent.mkdir()
        Image.fromarray(picture(40 if "ant" in str(place) else 200)).save(place)
    table = Retrieval(places, ("x", "y"), np.arange(2), np.arange(2), np.arange(2))
    vectors = torch.eye(2)
    rows = list(table.outcomes(TableFeatures(vectors, vectors.flip(0))))  # each finds the other
    names = ["ant/image_0001.jpg", "bass/image_0001.jpg"]
    assert [row["image"] for row in rows] == 2 * names
    assert [row["top"] for row in rows[2:]] == names[::-1]
    units = {one.unit for one in Retrieval.observations(rows, {"image_to_text@1": 0.0}, {})}
    assert units == set(names)
    found = table.illustrate(Retrieval.failure(rows[2], 2))
    assert len({one.uri for one in found.pictures}) == 2


def test_classification_names_both_classes() -> None:
    task = ClassificationTask(np.array([1]), ONE, ("cat", "dog"), (ONE, ONE))
    table = Classification((picture(1), picture(2)), ("p",), {"pets": task})
    row = {
        "task": "pets", "image": "image-00001", "target": "cat", "predicted": "dog",
        "right": False, "scores": {"target": 0.1, "predicted": 0.4},
    }  # fmt: skip
    failure = only(row, table)
    assert failure.verdict == "taken for dog, by 0.300"
    assert [(text.text, text.is_true) for text in failure.texts] == [("cat", True), ("dog", False)]


class Checker(HTMLParser):
    """Notes tags, attributes that load something, texts, and whether tags are closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.loaded: list[str] = []
        self.without_alt = 0
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append(tag)
        self.loaded += [str(given[name]) for name in ("src", "href", "srcset") if name in given]
        self.without_alt += tag == "img" and not given.get("alt")
        assert not [name for name in given if name.startswith("on")]
        if tag not in ("meta", "img", "br", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture
def page() -> str:
    reports = [triplet_report([0.9, 0.25], EVIL), triplet_report([0.1, 0.3], "runs/tuned")]
    compared = Comparison(
        (EVIL, "runs/tuned"), {"b++": {("swap_att", "itt"): [Interval(9.96, 1.04, 20.0)]}}
    )
    return "".join(
        html_page.page(reports, compared, [html_page.worst_failures(one) for one in reports])
    )


def test_the_page_is_whole_escaped_and_loads_nothing(page: str) -> None:
    checker = Checker()
    checker.feed(page)
    assert checker.open == []
    assert "script" not in checker.tags and "link" not in checker.tags
    assert checker.without_alt == 0
    assert all(x.startswith(("data:image/", "#")) for x in checker.loaded), checker.loaded
    assert EVIL in checker.text  # shown as it is
    assert "url(" not in page and "@import" not in page and "http" not in page.split("<body>")[1]
    assert checker.tags.count("img") == 3
    text = " ".join(checker.text)
    assert "+10.0" in text and "[1.0, 20.0]" in text
    assert "paired bootstrap 95 % interval" in text
    # Row 0 is wrong for the first model alone, row 1 for both.
    assert text.count("B is right.") == 1
    assert text.count("B is wrong too.") == 1 and text.count("A is wrong too.") == 1


def grids_report(rights: dict[str, list[bool]], name: str = "m") -> Report:
    """A report of choices between two captions, in categories; image 1.jpg has two rows."""
    rows = [
        {"benchmark": "g", "row": n, "category": category, "images": [f"{max(n, 1)}.jpg"],
         "captions": [f"true {n}", EVIL], "accuracy": right,
         "scores": [[0.3 if right else 0.1, 0.2]]}
        for n, (category, right) in enumerate(
            (category, one) for category, own in rights.items() for one in own
        )
    ]  # fmt: skip
    form = {c: {"accuracy": 0.0, "n": len(own)} for c, own in rights.items()}
    source = {"sha256": "1", "rows": len(rows), "missing_images": [], "broken_images": [],
              "rows_of_the_whole": len(rows)}  # fmt: skip
    return Report(name, {}, {"benchmarks": {"g": source}}, {"g": form}, rows)


def page_of(*reports: Report) -> str:
    galleries = [html_page.worst_failures(report) for report in reports]
    return "".join(html_page.page(reports, None, galleries))


def test_a_gallery_is_filtered_by_category_and_by_who_is_wrong() -> None:
    # Of A's three failures B gets the second right.
    a = grids_report({"one": [False, False], "two": [False]}, "A")
    b = grids_report({"one": [False, True], "two": [False]}, "B")
    text = page_of(a, b)
    first = text.split("worst failures: A")[1].split("worst failures: B")[0]
    kinds = re.findall(r'<article class="card ([^"]*)">', first)
    assert sorted(kinds) == ["c0 alone", "c0 shared", "c1 shared"]
    labels = re.findall(r"<label [^>]*>([^<]*)</label>", first)
    assert labels == ["all", "one", "two", "all", "this model alone", "others too"]
    identifiers = re.findall(r' id="([^"]*)"', text)
    assert len(set(identifiers)) == len(identifiers)
    for target in re.findall(r'for="([^"]*)"', text):
        assert target in identifiers
    for rule in (*(f".f{n}:checked ~ .gallery > :not(.c{n})" for n in range(html_page.LIMIT)),
                 ".only:checked ~ .gallery > :not(.alone)",
                 ".both:checked ~ .gallery > :not(.shared)"):  # fmt: skip
        assert rule in text
    alone = page_of(grids_report({"one": [False, False]}))
    assert "<label" not in alone and '<article class="card c0">' in alone


def test_an_image_shows_its_other_rows() -> None:
    text = page_of(grids_report({"one": [True, False], "two": [False]}))
    assert text.count("1 other row of this image") == 1  # row 2 has an image of its own
    others = text.split("1 other row of this image")[1].split("</ul>")[0]
    assert " ".join(unescape(others).split()).endswith(
        '<li><span class="right">right</span> <strong>one</strong> true 0</li>'
    )
    many = grids_report({"one": [False] * 2})
    many.rows = [{**row, "images": ["1.jpg"]} for row in [many.rows[0]] * 9]  # type: ignore[index]
    shown = page_of(many)
    assert "8 other rows of this image" in shown and "and 2 more: in the rows file" in shown


def test_no_script_comes_from_data() -> None:
    """The whole head is the same for every report but for its title, and nothing runs."""

    def head(report: Report) -> str:
        start = page_of(report).split("</head>")[0]
        return re.sub(r"<title>.*?</title>", "", start, flags=re.DOTALL)

    one, other = grids_report({"one": [False]}), grids_report({EVIL: [False, False]}, EVIL)
    assert head(one) == head(other) and "script" not in head(one)
    body = page_of(other).split("</head>")[1]
    assert "<script" not in body and not re.search(r"<[^>]+\son\w+=", body)
    assert "default-src 'none'" in unescape(head(one)) and "script-src" not in head(one)


@pytest.mark.slow
@pytest.mark.parametrize("width", [400, 1200])
def test_a_browser_filters_without_a_script(tmp_path: Path, width: int) -> None:
    """The page is shorter with the filter on: the other category's cards are gone."""
    text = page_of(grids_report({"one": [False] * 5, "two": [False]}))

    def ink(name: str, shown: str) -> int:
        file = tmp_path / f"{name}.png"
        browse(tmp_path, shown, f"--screenshot={file}", f"--window-size={width},3200")
        pixels = np.asarray(Image.open(file).convert("L"))
        return int((pixels < 140).sum())

    filtered = text.replace('-category-any" checked', '-category-any"').replace(
        '-category-f1"', '-category-f1" checked'
    )
    assert filtered != text and ink("some", filtered) < 0.75 * ink("all", text)


def test_one_model_has_no_letters() -> None:
    report = triplet_report([0.9])
    text = "".join(html_page.page([report], None, [html_page.worst_failures(report)]))
    assert "<strong>A</strong>" not in text
    assert "The 1 worst failures" not in text and "The worst failure" in text


def browser() -> str:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser ({', '.join(BROWSERS)}) on this machine")
    return found


def browse(tmp_path: Path, page: str, *words: str) -> str:
    """Return what a headless browser prints of a page."""
    file = tmp_path / "report.html"
    file.write_text(page, encoding="utf-8")
    command = [
        browser(), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        "--disable-background-networking", "--disable-sync", "--no-first-run", "--hide-scrollbars",
        f"--user-data-dir={tmp_path / 'profile'}", *words, file.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
    return done.stdout


def test_a_browser_shows_the_page_and_runs_nothing_of_it(tmp_path: Path, page: str) -> None:
    shown = browse(tmp_path, page, "--dump-dom")
    assert "<title>owned</title>" not in shown
    checker = Checker()
    checker.feed(shown)
    assert "script" not in checker.tags
    assert EVIL in checker.text
    assert checker.tags.count("article") == 3


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 500])
def test_a_browser_paints_bars_in_the_models_colours(tmp_path: Path, page: str, width: int) -> None:
    file = tmp_path / "page.png"
    browse(tmp_path, page, f"--screenshot={file}", f"--window-size={width},1400")
    pixels = np.asarray(Image.open(file).convert("RGB"))
    assert pixels.shape[1] == width
    for colour in ((0x8B, 0x91, 0x9C), (0x28, 0x67, 0xC7)):  # --m0, --m1
        assert (pixels == colour).all(-1).sum() > 300
    # Nothing is cut off at the right: the page's margin is empty.
    assert (pixels[:, -4:] == pixels[0, -1]).all()
