"""What tests of the checkout's scripts share."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
STUDIES = (
    "study",
    "study_tables",
    "shapes_report",
    "shapes_table",
    "layout_parts",
    "layout_report",
    "layout_figure",
    "layout_study",
)


@pytest.fixture(scope="package")
def studies() -> Iterator[SimpleNamespace]:
    """The modules of the studies, as attributes by their names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPTS)  # as when a script itself is run
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in STUDIES})
        for name in STUDIES:
            del sys.modules[name]
