"""Imports point down: a module imports from lower layers and from its own package only."""

from __future__ import annotations

import ast
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Every module or sub-package that lies directly in clic/, with its layer. A new one is put here
# first: choosing its layer is choosing what it may know of.
LAYERS = {
    # L0: records, settings and process groups.
    "config": 0,
    "distributed": 0,
    "errors": 0,
    "heartbeat": 0,
    "parts": 0,
    "seeding": 0,
    "types": 0,
    # L1: files as such, and pure parts, which know neither runs nor settings.
    "captions": 1,
    "images": 1,
    "io": 1,
    "losses": 1,
    "metrics": 1,
    "shapes": 1,
    # L2: what a run's folder and a result hold.
    "provenance": 2,
    "runs": 2,
    # The checks of the settings read the registries of what they check.
    "config.checks": 2,
    "config.method_checks": 2,
    "config.needless": 2,
    "config.overrides": 2,
    "config.reference": 2,
    # L3: models in and out.
    "models": 3,
    # L4: samples into batches.
    "data": 4,
    # L5: what is asked of models that exist.
    "evaluation": 5,
    # L6: the loop; and models between models, chosen by evaluation.
    "training": 6,
    "patching": 6,
    # L7: the command lines.
    "cli": 7,
}
# L1 and the models take plain arguments; settings are unpacked above them.
WITHOUT_SETTINGS = {"captions", "images", "io", "losses", "metrics", "shapes", "models"}
# What the others of its layer may use.
SHARED = {"io", "provenance", "runs", "config.checks", "config.method_checks", "config.needless"}


class Import(NamedTuple):
    """One import of something in clic."""

    line: int
    target: str


def imports(source: str, module: str, is_package: bool) -> Iterator[Import]:
    """Yield every import of clic in `source`, those in functions and TYPE_CHECKING included."""
    package = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            # In `from clic import losses` the name is the module.
            targets = [f"{base}.{a.name}" for a in node.names] if base == "clic" else [base]
        else:
            continue
        yield from (Import(node.lineno, t) for t in targets if t.split(".")[0] == "clic")


def part_of(module: str) -> str:
    """Return the entry of the table that a module belongs to, "" for `clic` itself."""
    names = module.split(".")[1:]
    return ".".join(names[:2]) if ".".join(names[:2]) in LAYERS else ".".join(names[:1])


def violation(part: str, target: str) -> str | None:
    """Return why the part `part` may not import `target`, or None where it may.

    Args:
        part: Name directly under clic, e.g. ``"losses"``.
        target: Dotted name that is imported, e.g. ``"clic.types"``.
    """
    other = part_of(target)
    if other == part:
        return None
    if part not in LAYERS:
        return f"{part} has no layer in the table"
    if other not in LAYERS:
        return f"{target} is no module of the table (import the module that defines the name)"
    mine, theirs = LAYERS[part], LAYERS[other]
    arrow = f"{part} (L{mine}) imports {target} (L{theirs})"
    if theirs > mine:
        return f"{arrow}: a lower layer imports a higher one"
    if part in WITHOUT_SETTINGS and other == "config":
        return f"{arrow}: {part} knows no settings"
    # The modules of L0 are one part: they hold no logic that could tangle.
    if theirs == mine and mine > 0 and other not in SHARED:
        return f"{arrow}: parts of one layer do not import each other"
    return None


def modules(package: Path = ROOT / "clic") -> dict[str, Path]:
    """Return every module of the package by its dotted name."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = ["clic", *path.relative_to(package).with_suffix("").parts]
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def test_every_part_has_a_layer() -> None:
    on_disk = {part_of(name) for name in modules() if "." in name}
    assert on_disk == set(LAYERS), "give the new part a layer, or take the removed one out"


def test_imports_point_down() -> None:
    bad = []
    for name, path in modules().items():
        if name == "clic":
            continue
        part = part_of(name)
        for found in imports(path.read_text("utf-8"), name, path.name == "__init__.py"):
            if why := violation(part, found.target):
                bad.append(f"{path.relative_to(ROOT)}:{found.line}: {why}")
    assert not bad, "\n" + "\n".join(bad)


def test_the_face_imports_lazily() -> None:
    """`import clic` loads nothing heavy: clic/__init__.py imports inside functions."""
    tree = ast.parse((ROOT / "clic/__init__.py").read_text("utf-8"))
    eager = [n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)]
    text = "\n".join(ast.unparse(node) for node in eager)
    assert not list(imports(text, "clic", is_package=True)), text


def test_file_and_class_names_stand_once() -> None:
    """One name for one thing: a traceback's `plan.py`, or a `Source`, says which it is."""
    counts = runpy.run_path(str(ROOT / "scripts/structure.py"))["static_counts"]()
    assert counts["class names that stand more than once"] == "0"
    assert counts["file names that stand more than once"] == "0"


def test_there_is_no_utils() -> None:
    assert not [name for name in modules() if name.split(".")[-1] in ("utils", "util", "helpers")]


@pytest.mark.parametrize(
    ("module", "source", "targets"),
    [
        ("clic.images", "import clic.types", ["clic.types"]),
        ("clic.images", "import numpy, os.path", []),
        ("clic.images", "from clic import losses", ["clic.losses"]),
        ("clic.losses.objectives", "from . import clip", ["clic.losses"]),
        ("clic.losses.objectives", "from .clip import x", ["clic.losses.clip"]),
        ("clic.losses.objectives", "from ..types import Batch", ["clic.types"]),
        ("clic.images", "def f():\n    import clic.data", ["clic.data"]),
        ("clic.images", "if TYPE_CHECKING:\n    from clic.data import x", ["clic.data"]),
        ("clic.images", "from clicker import x", []),
    ],
)
def test_imports_are_found(module: str, source: str, targets: list[str]) -> None:
    assert [found.target for found in imports(source, module, is_package=False)] == targets


@pytest.mark.parametrize(
    ("part", "target", "allowed"),
    [
        ("losses", "clic.types", True),
        ("losses", "clic.losses.objectives", True),
        ("losses", "clic.captions", False),
        ("losses", "clic.config", False),
        ("losses", "clic.training", False),
        ("distributed", "clic.errors", True),
        ("types", "clic.losses", False),
        ("data", "clic.captions.tagging", True),
        ("data", "clic.config", True),
        ("data", "clic.training.checkpoint", False),
        ("evaluation", "clic.runs", True),
        ("runs", "clic.evaluation", False),
        ("shapes", "clic.runs", False),
        ("training", "clic.data", True),
        ("cli", "clic.training", True),
        ("training", "clic.cli", False),
        ("cli", "clic", False),
    ],
)
def test_the_rule(part: str, target: str, allowed: bool) -> None:
    assert (violation(part, target) is None) == allowed
