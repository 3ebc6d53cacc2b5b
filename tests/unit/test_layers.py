"""Imports point down: a module imports from lower layers and from its own package only."""

from __future__ import annotations

import ast
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
    "config_eval": 0,
    "distributed": 0,
    "errors": 0,
    "locks": 0,
    "seeding": 0,
    "types": 0,
    # L1: pure parts, which know neither runs nor settings.
    "captions": 1,
    "images": 1,
    "losses": 1,
    "metrics": 1,
    "models": 1,
    "shapes": 1,
    # L2: files; and the checks of settings, which read what the parts of L1 can do.
    "checkpoint": 2,
    "data": 2,
    "download": 2,
    "evaluation": 2,
    "inference": 2,
    "optim": 2,
    "patching": 2,
    "provenance": 2,
    "runs": 2,
    "validation": 2,
    # L3: the loop.
    "training": 3,
    # L4: the command lines.
    "cli": 4,
}
# Common ground that the rest of L2 may use: a run's layout, and what a result records.
SHARED = {"download", "provenance", "runs"}
# L1 takes plain arguments; settings are unpacked above it.
SETTINGS = {"config", "config_eval", "validation"}


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


def violation(part: str, target: str) -> str | None:
    """Return why the part `part` may not import `target`, or None where it may.

    Args:
        part: Name directly under clic, e.g. ``"losses"``.
        target: Dotted name that is imported, e.g. ``"clic.types"``.
    """
    other = target.split(".")[1] if "." in target else ""
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
    if mine == 1 and other in SETTINGS:
        return f"{arrow}: L1 knows no settings"
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
    on_disk = {name.split(".")[1] for name in modules() if "." in name}
    assert on_disk == set(LAYERS), "give the new part a layer, or take the removed one out"


def test_imports_point_down() -> None:
    bad = []
    for name, path in modules().items():
        if name == "clic":
            continue
        part = name.split(".")[1]
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
        ("data", "clic.checkpoint", False),
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
