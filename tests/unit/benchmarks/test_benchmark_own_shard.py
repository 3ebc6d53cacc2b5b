"""One's own benchmark as a WebDataset shard, and as a folder with a card that can be given away."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from clic import evaluation
from clic.errors import ConfigError, DataError
from clic.evaluation.benchmarks import catalogue
from clic.evaluation.benchmarks.own_card import LARGEST, read_card
from clic.evaluation.benchmarks.own_rows import read_own_rows
from clic.evaluation.report.report import benchmark_facts, notes

Paint = Callable[..., None]
Member = tuple[str, "bytes | int | dict[str, Any] | str"]
CARD = {"name": "my-bench", "licence": "CC BY 4.0", "citation": "A. Uthor 2026", "source": "made"}


def red(value: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (6, 6), (value, 0, 0)).save(file, "PNG")
    return file.getvalue()


def shard(path: Path, *members: Member, mode: str = "w") -> Path:
    """Write a tar; a number is an image of that red, an object is JSON, a text is text."""
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in members:
            if isinstance(content, int):
                content = red(content)
            elif isinstance(content, dict):
                content = json.dumps(content).encode()
            elif isinstance(content, str):
                content = content.encode()
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


TRIPLETS: tuple[Member, ...] = (
    ("a/0001.jpg", 40),
    ("a/0001.json", {"positives": ["x 41", "y 39"], "negatives": ["z 60"], "category": "one"}),
    ("a/0002.json", {"positives": ["x 70", "y 71"], "negatives": ["z 79"], "category": "two"}),
    ("a/0002.png", 80),
)


def numbers(model: Any, name: Path | str) -> Any:
    report = evaluation.evaluate(model, [str(name)])
    return next(iter(report.benchmarks.values()))


def test_a_shard_is_scored_as_the_file_of_its_rows(
    tmp_path: Path, angle_model: Any, paint: Paint
) -> None:
    tar = shard(tmp_path / "mine.tar", *TRIPLETS)
    found = numbers(angle_model, tar)
    assert found["one"] == {"itt": 100.0, "tot": 100.0, "p1": 100.0, "n": 1}
    assert found["two"]["itt"] == 0.0 and found["mean"]["itt"] == 50.0
    rows = [dict(content) for _, content in TRIPLETS if isinstance(content, dict)]
    for row, value in zip(rows, (40, 80), strict=True):
        paint(tmp_path / f"{value}.png", value)
        row["image"] = f"{value}.png"
    (tmp_path / "lines.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert numbers(angle_model, tmp_path / "lines.jsonl") == found


def test_a_text_is_a_caption(tmp_path: Path, angle_model: Any) -> None:
    tar = shard(
        tmp_path / "t.tar", ("1.jpg", 40), ("1.txt", "a dog 41\n"), ("2.jpg", 80), ("2.txt", "b 79")
    )
    found = numbers(angle_model, tar)
    assert found["image_to_text@1"] == found["text_to_image@1"] == 100.0
    assert (found["n_images"], found["n_captions"]) == (2, 2)


def test_labels_and_the_cache(tmp_path: Path, angle_model: Any) -> None:
    members = [
        member
        for n, (value, label) in enumerate(((40, "dog 41"), (80, "cat 79"), (80, "dog 41")))
        for member in ((f"{n}.png", value), (f"{n}.json", {"label": label, "prompts": ["{}"]}))
    ]
    tar = shard(tmp_path / "l.tar", *members)
    assert numbers(angle_model, tar)["accuracy"] == pytest.approx(200 / 3)
    report = evaluation.evaluate(angle_model, [str(tar)], keep_rows=True)
    assert [row["image"] for row in report.rows][:2] == ["l.tar[0.png]", "l.tar[1.png]"]


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ([("1.jpg", 40)], "row '1' has neither .json nor .txt"),
        ([("1.json", "{")], "row '1' has a .json that cannot be read"),
        ([("1.json", "[1]")], "row '1' has a .json that is no object"),
        ([("1.txt", b"\xff")], "row '1' has a .txt that cannot be read"),
        ([("1.jpg", 1), ("1.png", 2), ("1.txt", "a")], "row '1' has 2 images"),
        ([("1.json", {"image": "/etc/passwd", "captions": ["a"]})], "names an 'image'"),
        ([], "holds no samples"),
    ],
)
def test_broken_samples_are_named(tmp_path: Path, members: list[Member], said: str) -> None:
    tar = shard(tmp_path / "b.tar", *members)
    with pytest.raises(DataError, match=said):
        list(read_own_rows(tar))


def test_what_is_no_plain_tar(tmp_path: Path) -> None:
    packed = shard(tmp_path / "packed.tar", *TRIPLETS, mode="w:gz")
    (tmp_path / "text.tar").write_text("no tar at all")
    for path in (packed, tmp_path / "text.tar"):
        with pytest.raises(DataError, match="cannot be read as a shard"):
            catalogue.select([str(path)])


def test_links_in_a_shard_are_passed_over(tmp_path: Path, angle_model: Any) -> None:
    tar = shard(
        tmp_path / "t.tar", ("1.jpg", 40), ("1.txt", "a 41"), ("2.jpg", 80), ("2.txt", "b 79")
    )
    with tarfile.open(tar, "a") as archive:
        link = tarfile.TarInfo("3.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    assert numbers(angle_model, tar)["n_images"] == 2


# Cards


def carded(folder: Path, card: dict[str, Any] | str | None = None) -> Path:
    folder.mkdir(parents=True)
    shard(folder / "rows.tar", *TRIPLETS)
    text = card if isinstance(card, str) else "\n".join(
        f"{key}: {value}" for key, value in (CARD if card is None else card).items()
    )  # fmt: skip
    (folder / "card.yaml").write_text(text)
    return folder


def test_a_folder_is_given_away_with_its_card(
    tmp_path: Path, angle_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.move(carded(tmp_path / "here"), tmp_path / "there")
    monkeypatch.chdir(tmp_path)
    report = evaluation.evaluate(angle_model, ["there"])
    assert list(report.benchmarks) == ["my-bench"]
    facts = benchmark_facts([report])["my-bench"]
    assert "A. Uthor 2026; from made" in facts and "CC BY 4.0" in facts
    (note,) = [note for note in notes([report]) if "is read as" in note]
    assert note.startswith(f"my-bench: {tmp_path / 'there'} is read as triplets")
    assert catalogue.for_choosing(["there"], on_test=False) == ["there"]
    digest = report.provenance["benchmarks"]["my-bench"]["sha256"]
    again = evaluation.evaluate(angle_model, [str(tmp_path / "there")])
    assert again.provenance["benchmarks"]["my-bench"]["sha256"] == digest


def test_a_card_beside_a_file(tmp_path: Path, angle_model: Any) -> None:
    shard(tmp_path / "mine.tar", *TRIPLETS)
    (tmp_path / "mine.yaml").write_text("\n".join(f"{k}: {v}" for k, v in CARD.items()))
    (found,) = catalogue.select([str(tmp_path / "mine.tar")])
    assert (found.name, found.licence) == ("my-bench", "CC BY 4.0")


def test_the_card_names_one_of_several_files(tmp_path: Path) -> None:
    folder = carded(tmp_path / "two")
    (folder / "other.csv").write_text("image,label\na.jpg,dog\n")
    with pytest.raises(DataError, match=r"holds other\.csv, rows\.tar; name it as rows: in card"):
        catalogue.select([str(folder)])
    (folder / "card.yaml").write_text(
        "\n".join(f"{k}: {v}" for k, v in CARD.items()) + "\nrows: rows.tar"
    )
    assert catalogue.select([str(folder)])[0].name == "my-bench"


@pytest.mark.parametrize(
    ("card", "said"),
    [
        ({**CARD, "name": "a/b"}, "the name 'a/b' should be letters"),
        ({**CARD, "rows": "../x.tar"}, r"rows='\.\./x\.tar' should be a file of the folder"),
        ({**CARD, "rows": "none.tar"}, "names the rows none.tar, and there is no such file"),
        ({**CARD, "license": "MIT"}, "the field 'license', which is not known.*'licence'"),
        ({k: v for k, v in CARD.items() if k != "source"}, "needs a text 'source'"),
        ({**CARD, "licence": 4}, "needs a text 'licence'"),
        ("- a list", "should hold fields"),
        ("a: [", "cannot be read as YAML"),
        ("!!python/object/apply:os.system ['true']", "cannot be read as YAML"),
    ],
)  # fmt: skip
def test_broken_cards_are_told(tmp_path: Path, card: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        catalogue.select([str(carded(tmp_path / "it", card))])


def test_a_card_resolves_nothing(tmp_path: Path) -> None:
    card = {**CARD, "source": "${oc.env:HOME}"}
    (found,) = catalogue.select([str(carded(tmp_path / "it", card))])
    assert found.citation.endswith("from ${oc.env:HOME}")


def test_a_known_name_is_taken(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"reported as cola, .*change its card"):
        catalogue.select([str(carded(tmp_path / "it", {**CARD, "name": "cola"}))])
    (tmp_path / "bare").mkdir()
    with pytest.raises(ConfigError, match=r"a folder holds a card\.yaml"):
        catalogue.select([str(tmp_path / "bare")])


def test_a_card_whose_aliases_would_grow_without_bound_is_refused(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    (tmp_path / "card.yaml").write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"card\.yaml cannot be read as YAML \(it has an alias"):
        read_card(tmp_path / "card.yaml")
    (tmp_path / "card.yaml").write_text(json.dumps(CARD) + " " * LARGEST)
    with pytest.raises(DataError, match=f"it has more than {LARGEST} bytes"):
        read_card(tmp_path / "card.yaml")


@pytest.mark.parametrize(
    "members",
    [
        # The features of an image are kept under its name: the second would get those of the first.
        (("1.png", 40), ("1.txt", "x 41"), ("2.txt", "y"), ("1.png", 90), ("1.txt", "z 91")),
        (("1.png", 40), ("1.png", 90), ("1.txt", "x 41")),
    ],
)
def test_a_sample_comes_once(tmp_path: Path, members: tuple[Member, ...]) -> None:
    with pytest.raises(DataError, match=r"'1' has a \.png that comes twice, or apart from"):
        list(read_own_rows(shard(tmp_path / "twice.tar", *members)))
