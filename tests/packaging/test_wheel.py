"""The wheel and the editable install hold everything, and work from another directory."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

import clic

# Looked for, not imported: setuptools puts its own distutils in place of Python's.
for tool in ("pip", "setuptools"):
    if importlib.util.find_spec(tool) is None:
        pytest.skip(f"building the wheel needs {tool} here", allow_module_level=True)

ROOT = Path(__file__).resolve().parents[2]
LARGEST_WHEEL = 5_000_000  # bytes
COMMANDS = ("clic-train", "clic-eval", "clic-patch", "clic-data")
CACHES = shutil.ignore_patterns("__pycache__", "*.pyc")


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command as a stranger would: nothing of this checkout on the path, no network."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "CLIC", "COV"))}
    env |= {"PIP_NO_INDEX": "1", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
    )


def pip(*words: str | Path, cwd: Path) -> None:
    """Run this environment's pip and show what it said if it fails."""
    done = run(sys.executable, "-m", "pip", "--disable-pip-version-check", *words, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is built, copied, so that no build/ of the checkout is read or written."""
    copy = tmp_path_factory.mktemp("a checkout")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for name in ("clic", "configs"):
        shutil.copytree(ROOT / name, copy / name, ignore=CACHES)
    return copy


@pytest.fixture(scope="session")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built without network."""
    out = tmp_path_factory.mktemp("dist")
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", out, source, cwd=out)
    (path,) = out.glob("*.whl")
    return path


@pytest.fixture(scope="session", params=["wheel", "editable"])
def installed(
    request: pytest.FixtureRequest, source: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The scripts folder of an environment that holds clic and borrows its dependencies."""
    home = tmp_path_factory.mktemp(f"{request.param} environment")
    venv.create(home, with_pip=False)
    python = home / "bin" / "python"
    if request.param == "wheel":
        what: tuple[str | Path, ...] = (request.getfixturevalue("wheel"),)
    else:
        what = ("--no-build-isolation", "--editable", source)
    # A path line makes our dependencies importable without running our own .pth files, so an
    # editable clic of this environment stays out of sight.
    (site,) = home.glob("lib/python*/site-packages")
    paths = {sysconfig.get_path(name) for name in ("purelib", "platlib")}
    (site / "dependencies.pth").write_text("\n".join(sorted(paths)) + "\n", "utf-8")
    pip("--python", python, "install", "--no-deps", *what, cwd=home)
    return home / "bin"


def test_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
    info = {name for name in names if ".dist-info/" in name}
    expected = set()
    for folder, package in (("clic", "clic"), ("configs", "clic/configs")):
        files = (p for p in (ROOT / folder).rglob("*") if p.is_file())
        expected |= {
            f"{package}/{p.relative_to(ROOT / folder).as_posix()}"
            for p in files
            if p.suffix != ".pyc"
        }
    assert names - info == expected
    assert any(name.endswith("licenses/LICENSE") for name in info)
    for needed in (
        "clic/py.typed",
        "clic/configs/train.yaml",
        "clic/shapes/base/",
        "clic/evaluation/report/page.html",
        "clic/evaluation/report/published.yaml",
    ):
        assert any(name.startswith(needed) for name in names), needed


def test_wheel_is_named_after_the_version(wheel: Path) -> None:
    assert wheel.name == f"clic-{clic.__version__}-py3-none-any.whl"


def test_wheel_is_small(wheel: Path) -> None:
    assert wheel.stat().st_size < LARGEST_WHEEL


@pytest.mark.parametrize("command", COMMANDS)
def test_help_from_another_directory(installed: Path, command: str, tmp_path: Path) -> None:
    done = run(installed / command, "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert command in done.stdout
    assert "example" in done.stdout.lower()
    assert not list(tmp_path.iterdir()), "asking for help writes nothing"


def test_train_help_lists_every_experiment(installed: Path, tmp_path: Path) -> None:
    done = run(installed / "clic-train", "--help", cwd=tmp_path)
    for path in (ROOT / "configs" / "experiment").glob("*.yaml"):
        assert path.stem in done.stdout.split(), path.stem


def test_the_users_mistake_is_one_line(installed: Path, tmp_path: Path) -> None:
    done = run(installed / "clic-train", "+experiment=shpaes", cwd=tmp_path)
    assert done.returncode == 2
    assert "shapes" in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr


def test_the_model_that_ships_loads(installed: Path, tmp_path: Path) -> None:
    code = (
        "import clic; model = clic.load('shapes-base');"
        "print(clic.__file__, *model.encode_text(['a red circle']).shape)"
    )
    done = run(installed / "python", "-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    where, rows, _width = done.stdout.rsplit(maxsplit=2)
    assert rows == "1"
    assert not where.startswith(f"{ROOT}/"), "this is the checkout's, not the installed one"
