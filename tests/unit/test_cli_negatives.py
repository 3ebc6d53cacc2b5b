"""`clic-data negatives`: tables that fit a terminal, lines of JSON, and mistakes in one line."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from clic.captions.text import apply_edits
from clic.cli.data import main
from clic.types import Edit


def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["clic-data", "negatives", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    captured = capsys.readouterr()
    return int(ended.value.code or 0), captured.out, captured.err


def test_a_table_of_one_caption(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    caption = "a red circle is above a blue square [bold]"
    code, out, _ = run(monkeypatch, capsys, "--caption", caption, "--n", "2")
    assert code == 0
    assert all(len(line) <= 80 for line in out.splitlines())
    lines = {
        line.split()[0]: " ".join(line.split()[1:]) for line in out.splitlines() if line.strip()
    }
    assert lines["caption"] == caption
    assert lines["tags"].startswith("a/DET red/ADJ circle/NOUN is/AUX above/ADP")
    assert "[bold]" in lines["swap"] and "cross_swap" not in lines
    assert {"caption", "tags", "swap", "replace"} <= set(lines)


def test_lines_of_json_from_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    captions = ["a red circle is above a blue square", "two dogs chase a cat", "…"]
    (tmp_path / "in.txt").write_text("\n\n".join(captions) + "\n", "utf-8")
    words = ("--file", str(tmp_path / "in.txt"), "--json", "--n", "3")
    code, out, _ = run(monkeypatch, capsys, *words)
    assert code == 0
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["caption"] for row in rows] == captions
    assert rows[1]["tokens"][0] == ["two", 0, 3, "NUM", "two"]
    kinds = [{made["kind"] for made in row["negatives"]} for row in rows]
    assert kinds == [
        {"swap", "swap_attributes", "replace", "cross_swap"}, {"swap", "replace"}, set(),
    ]  # fmt: skip
    for row in rows[:2]:
        texts = [(made["kind"], made["text"]) for made in row["negatives"]]
        assert len(set(texts)) == len(texts)
        for made in row["negatives"]:
            if made["kind"] != "cross_swap":
                edits = [Edit(e["caption"], tuple(e["span"]), e["old"], e["new"])
                         for e in made["edits"]]  # fmt: skip
                assert apply_edits(row["caption"], edits) == made["text"]
    assert run(monkeypatch, capsys, *words)[1] == out
    assert run(monkeypatch, capsys, *words, "--seed", "5")[1] != out


def test_captions_from_stdin(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("a dog\n"))
    code, out, _ = run(monkeypatch, capsys, "--file", "-", "--kinds", "swap,replace")
    assert code == 0 and out.count("swap") == 1 and "none" in out


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]
)
def test_byte_order_marks_of_a_file_are_no_words(
    encoding: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = "a red dog near a blue caf\u00e9\r\n\r\n\ufeffa man\u2028in a hat\r"
    mark = "\ufeff" if encoding.endswith("e") else ""
    (tmp_path / "in.txt").write_bytes((mark + text).encode(encoding))
    words = ("--json", "--n", "2", "--file")
    code, out, _ = run(monkeypatch, capsys, *words, str(tmp_path / "in.txt"))
    assert code == 0 and "ufeff" not in out
    captions = [json.loads(line)["caption"] for line in out.splitlines()]
    assert captions == ["a red dog near a blue caf\u00e9", "a man\u2028in a hat"]
    data = (tmp_path / "in.txt").read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), "utf-8"))
    assert run(monkeypatch, capsys, *words, "-")[1] == out


@pytest.mark.parametrize(
    ("encoding", "says"),
    [
        ("cp1252", "is not UTF-8 (invalid start byte at byte 7)"),
        ("utf-16-le", "UTF-8, e.g. by iconv -f utf-16le"),
        ("utf-16-be", "UTF-8, e.g. by iconv -f utf-16be"),
    ],
)
def test_a_file_in_another_encoding_is_named_with_the_remedy(
    encoding: str,
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "in.txt").write_bytes("the man\u2019s caf\u00e9\n".encode(encoding))
    code, out, err = run(monkeypatch, capsys, "--file", str(tmp_path / "in.txt"))
    assert code == 2 and not out and err.count("\n") == 1
    assert f"--file {tmp_path / 'in.txt'}" in err and says in err and "iconv -f" in err


def test_captions_of_another_script_are_counted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    captions = (
        "\u4e00\u53ea\u7ea2\u8272\u7684\u72d7",
        "\u0431\u0435\u043b\u044b\u0439 \u043f\u0451\u0441",
        "!",
        "a red dog",
    )
    words = [word for caption in captions for word in ("--caption", caption)]
    kinds = ("--kinds", "swap,replace")
    code, out, err = run(monkeypatch, capsys, "--json", *words, *kinds)
    assert code == 0 and len(out.splitlines()) == 4
    assert err.startswith(
        "note: no false caption was found for 3 of 4 captions (75%); 2 of them are"
    )
    assert "not in Latin script" in err and err.count("\n") == 1
    assert run(monkeypatch, capsys, "--caption", "a red dog", *kinds)[2] == ""


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ([], "no caption is given"),
        (["--caption", " "], "--caption is empty"),
        (["--caption", "a caf\udce9"], "--caption is not valid UTF-8"),
        (["--caption", "a dog", "--kinds", "swop"], "did you mean 'swap'"),
        (["--caption", "a dog", "--kinds", "cross_swap"], "give two"),
        (["--caption", "a dog", "--n", "0"], "--n 0"),
        (["--caption", "a dog", "--seed", "-1"], "--seed -1"),
        (["--caption", "a dog", "--tagger", "spaci"], "did you mean 'spacy'"),
        (["--file", "/no/such/file"], "/no/such/file cannot be read"),
    ],
)
def test_mistakes(
    words: list[str],
    part: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, _, err = run(monkeypatch, capsys, *words)
    assert code == 2 and part in err and err.count("\n") == 1
