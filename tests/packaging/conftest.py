"""What tests of the checkout's scripts and recipes share."""

from __future__ import annotations

import importlib
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "scripts"
STUDIES = (
    "study",
    "study_tables",
    "shapes_report",
    "shapes_table",
    "layout_parts",
    "layout_report",
    "layout_figure",
    "layout_study",
    "photos_figure",
    "photos_report",
    "photos_study",
)


@pytest.fixture(scope="package")
def studies() -> Iterator[SimpleNamespace]:
    """The modules of the studies, as attributes by their names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPTS)  # as when a script itself is run
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in STUDIES})
        for name in STUDIES:
            del sys.modules[name]


@pytest.fixture(scope="session")
def recipe() -> Callable[[str], str]:
    """Return a section of CONTRIBUTING by its title."""
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    return lambda title: text.split(f"## {title}\n")[1].split("\n## ")[0]


@pytest.fixture(scope="module")
def copied_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package and its settings, to carry a recipe out on."""
    tree = tmp_path_factory.mktemp("tree")
    shutil.copytree(ROOT / "clic", tree / "clic", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "configs", tree / "configs")
    # As the package is built: the settings are its part `clic.configs`.
    (tree / "clic" / "configs").symlink_to(tree / "configs")
    return tree
