"""What CONTRIBUTING tells to do for a benchmark is enough: carried out on a copy of the tree."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]

READER = '''
"""A choice of two captions for each photo."""

from pathlib import Path

from clic.evaluation.benchmarks.benchmark import Benchmark, of_files
from clic.evaluation.benchmarks.reading import GridBuilder, read_rows
from clic.evaluation.files.file_sources import File
from clic.evaluation.tables.grids import Grids


def load_twos(data_root: Path) -> Grids:
    path = data_root / "twos/rows.json"
    builder = GridBuilder(path)
    for row in read_rows(path):
        image = row.image(data_root / "twos", row.text("photo"))
        captions = [row.text("true"), row.text("false")]
        builder.add(row.text("kind"), [image], captions)
    return builder.table("choice", overall="all")


TWOS = Benchmark(
    name="twos",
    title="Twos",
    about="a choice of two captions",
    load=of_files(load_twos),
    citation="Nobody 2020",
    licence="MIT",
    rule="the true caption beats the false one",
    annotations=(File("https://example.org/rows.json", "twos/rows.json"),),
    rows=2,
)
'''


@pytest.fixture(scope="module")
def tree(copied_tree: Path, recipe: Callable[[str], str]) -> Path:
    """A copy of the tree with a benchmark `twos`, in the places that CONTRIBUTING names."""
    told = recipe("Adding a benchmark")

    def place(named: str) -> Path:
        assert f"`{named}`" in told, f"CONTRIBUTING does not name {named}"
        return copied_tree / named.replace("<name>", "twos")

    def insert(path: Path, after: str, new: str) -> None:
        head, tail = path.read_text("utf-8").split(after, 1)
        path.write_text(f"{head}{after}{new}{tail}", "utf-8")

    place("clic/evaluation/benchmarks/<name>.py").write_text(READER, "utf-8")
    catalogue = place("clic/evaluation/benchmarks/catalogue.py")
    assert "`_LISTED`" in told and "`GROUPS`" in told
    insert(catalogue, "from clic.evaluation.benchmarks import (\n", "    twos,\n")
    insert(catalogue, "_LISTED = (\n", "    twos.TWOS,\n")
    insert(catalogue, '    "compositional": (\n', '        "twos",\n')
    return copied_tree


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with the benchmark's two rows."""
    folder = tmp_path / "data" / "twos"
    folder.mkdir(parents=True)
    rows = [
        {"photo": "a.png", "true": "a red circle", "false": "a blue circle", "kind": "colour"},
        {"photo": "a.png", "true": "a red circle", "false": "a red circle", "kind": "tie"},
    ]
    (folder / "rows.json").write_text(json.dumps(rows), "utf-8")
    Image.new("RGB", (32, 32), (255, 0, 0)).save(folder / "a.png")
    return tmp_path / "data"


def run(tree: Path, where: Path, command: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run one of the copy's commands."""
    return subprocess.run(
        [sys.executable, "-m", f"clic.cli.{command}", *words],
        cwd=where,
        env=os.environ | {"PYTHONPATH": str(tree), "HOME": str(where)},
        capture_output=True,
        text=True,
    )


def test_the_places_that_contributing_names_are_there(recipe: Callable[[str], str]) -> None:
    named = re.findall(r"`([\w/]+/(?:[\w]+\.\w+)?)`", recipe("Adding a benchmark"))
    assert len(named) > 6
    assert not [path for path in named if not (ROOT / path).exists()]


def test_a_benchmark_that_is_added_as_told_scores(tree: Path, tmp_path: Path, data: Path) -> None:
    done = run(
        tree, tmp_path, "eval", "--bench", "twos", "--model", "shapes-base", "--data", str(data),
        "--json", "twos.json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    numbers = json.loads((tmp_path / "twos.json").read_text("utf-8"))["benchmarks"]["twos"]
    assert set(numbers) == {"colour", "tie", "all"}
    assert numbers["tie"] == {"accuracy": 0.0, "n": 1}


def test_a_benchmark_that_is_added_is_listed_with_its_command(tree: Path, tmp_path: Path) -> None:
    done = run(tree, tmp_path, "eval", "--bench", "list")
    assert done.returncode == 0, done.stderr
    assert "twos" in done.stdout
    done = run(tree, tmp_path, "eval", "--bench", "list:twos")
    assert "https://example.org/rows.json" in done.stdout
    assert "clic-data fetch twos" in done.stdout


def test_a_broken_row_of_a_benchmark_that_is_added_is_named(
    tree: Path, tmp_path: Path, data: Path
) -> None:
    (data / "twos/rows.json").write_text('[{"photo": "a.png", "true": "x"}]', "utf-8")
    done = run(
        tree, tmp_path, "eval", "--bench", "twos", "--model", "shapes-base", "--data", str(data)
    )
    assert done.returncode == 2
    for part in ("rows.json", "row 0", "'false'", "download"):
        assert part in done.stderr
