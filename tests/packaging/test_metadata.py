"""pyproject.toml agrees with what lies in the checkout."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

import clic

ROOT = Path(__file__).resolve().parents[2]


def pyproject() -> dict[str, Any]:
    """Return pyproject.toml, read with the standard library's parser where there is one."""
    try:
        import tomllib
    except ModuleNotFoundError:  # Python 3.10: setuptools and pytest bring it
        tomllib = pytest.importorskip("tomli")
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def test_packages_are_those_on_disk() -> None:
    found = {".".join(p.parent.relative_to(ROOT).parts) for p in ROOT.glob("clic/**/__init__.py")}
    assert set(pyproject()["tool"]["setuptools"]["packages"]) == found | {"clic.configs"}
    modules = {".".join(p.parent.relative_to(ROOT).parts) for p in ROOT.glob("clic/**/*.py")}
    assert modules == found, "a folder with modules lacks its __init__.py"


def test_commands_exist() -> None:
    commands = pyproject()["project"]["scripts"]
    assert sorted(commands) == ["clic-data", "clic-eval", "clic-patch", "clic-train"]
    for target in commands.values():
        module, function = target.split(":")
        path = ROOT / module.replace(".", "/")
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        tree = ast.parse(path.read_text("utf-8"))
        assert function in {n.name for n in tree.body if isinstance(n, ast.FunctionDef)}, target


def test_version_has_a_changelog_entry() -> None:
    assert f"## [{clic.__version__}]" in (ROOT / "CHANGELOG.md").read_text("utf-8")
