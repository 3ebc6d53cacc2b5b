"""The scripts answer a mistake with one line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
BASH = shutil.which("bash") or "bash"


def run(script: str, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a script of the checkout with some variables changed."""
    return subprocess.run(
        [BASH, str(ROOT / "scripts" / script), *words],
        env=os.environ | env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.mark.parametrize("path", sorted((ROOT / "scripts").glob("*.sh")), ids=lambda p: p.name)
def test_bash_can_read_it(path: Path) -> None:
    subprocess.run([BASH, "-n", str(path)], check=True, timeout=600)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_gpu_check_without_a_gpu() -> None:
    done = run("gpu_check.sh", CLIC_PYTHON=sys.executable)
    assert done.returncode == 2
    assert "no GPU" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_gpu_check_refuses_what_it_does_not_know() -> None:
    done = run("gpu_check.sh", "--fast")
    assert done.returncode == 2
    assert "--fast" in done.stderr


@pytest.mark.parametrize(
    ("files", "parts"),
    [
        ([], ["there are no wheels", "pip wheel --wheel-dir"]),
        (["a.tar.gz"], ["there are no wheels", "pip wheel --wheel-dir"]),
        (["a.whl", "antlr4-python3-runtime-4.9.3.tar.gz"], ["is a source", "pip wheel", "4.9.3"]),
        (["a.whl", "b-1.zip"], ["b-1.zip is a source", "pip wheel"]),
    ],
)
def test_gpu_check_wants_wheels_and_says_how_to_build_them(
    tmp_path: Path, files: list[str], parts: list[str]
) -> None:
    python = tmp_path / "python"  # which says that there is a GPU
    python.write_text("#!/bin/sh\nexit 0\n", "utf-8")
    python.chmod(0o755)
    folder = tmp_path / "wheels"
    folder.mkdir()
    for name in files:
        (folder / name).touch()
    done = run("gpu_check.sh", str(folder), CLIC_PYTHON=str(python))
    assert done.returncode == 2
    assert all(part in done.stderr for part in parts)
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("script", ["demo.sh", "test.sh", "gpu_check.sh"])
@pytest.mark.parametrize("word", ["-h", "--help"])
def test_help_is_printed_before_anything_is_made(script: str, word: str, tmp_path: Path) -> None:
    done = run(script, word, CLIC_PYTHON=str(tmp_path / "no-python"))
    assert (done.returncode, done.stderr) == (0, "")
    assert f"bash scripts/{script}" in done.stdout
    lines = done.stdout.splitlines()
    assert "set -euo" not in done.stdout
    assert all(len(line) <= 100 and not line.startswith("#") for line in lines)


SCRIPTS = (
    "build_lexicon",
    "build_shapes_base",
    "layout_study",
    "noisy_recognition",
    "shapes_table",
)
# Each script as `python script.py WORD` runs it, in one process, as torch takes seconds to import.
CALLS = """
import contextlib, io, json, runpy, sys
from pathlib import Path

found = []
for path in sys.argv[1:]:
    sys.path.insert(0, str(Path(path).parent))
    for word in ("--help", "--fastt"):
        sys.argv, code = [path, word], None
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                runpy.run_path(path, run_name="__main__")
            except SystemExit as ended:
                code = ended.code
        found.append([path, word, code, out.getvalue(), err.getvalue()])
print(json.dumps(found))
"""


def test_every_python_script_has_help_and_names_a_wrong_flag(tmp_path: Path) -> None:
    paths = [str(ROOT / "scripts" / f"{script}.py") for script in SCRIPTS]
    words = [sys.executable, "-c", CALLS, *paths]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert len(found) == 2 * len(SCRIPTS)
    for path, word, code, out, err in found:
        if word == "--help":
            assert (code, err) == (0, ""), path
            assert "usage: " in out, path
        else:
            assert code == 2 and "error: " in err and "Traceback" not in err, path
    assert list(tmp_path.iterdir()) == []


def test_noisy_recognition_names_a_model_that_there_is_not() -> None:
    words = [sys.executable, str(ROOT / "scripts/noisy_recognition.py"), "/no/model"]
    done = subprocess.run([*words, "--noise", "0"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "/no/model" in done.stderr and len(done.stderr.splitlines()) == 1


def test_the_demo_takes_no_words() -> None:
    done = run("demo.sh", "--quick")
    assert done.returncode == 2
    assert "--quick was given" in done.stderr and len(done.stderr.splitlines()) == 1


def test_what_the_help_of_gpu_check_tells_builds_sources_too() -> None:
    done = run("gpu_check.sh", "--help")
    assert "pip wheel --wheel-dir" in done.stdout and "pip download" not in done.stdout


def test_the_demo_says_what_its_columns_are() -> None:
    """Carry out the demo's lines that do."""
    text = (ROOT / "scripts/demo.sh").read_text("utf-8")
    code = text.split('"$PYTHON" -c \'from clic.evaluation')[1].split("'\n")[0]
    words = [sys.executable, "-c", f"from clic.evaluation{code}"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    for metric in ("ITT, ", "TOT, ", "P1: ", "image to text R@k"):
        (line,) = [line for line in done.stdout.splitlines() if line.strip().startswith(metric)]
        assert "chance" in line


def test_an_old_python_is_refused(tmp_path: Path) -> None:
    old = tmp_path / "python3.8"
    old.write_text('#!/bin/sh\n[ "$1" = -V ] && echo "Python 3.8.10"\nexit 1\n', "utf-8")
    old.chmod(0o755)
    done = run("demo.sh", CLIC_PYTHON=str(old))
    assert done.returncode == 2
    assert "Python 3.8.10" in done.stderr and ">= 3.10" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_an_environment_of_somebody_else_is_not_cleared(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "environment.sh", tmp_path / "scripts")
    theirs = tmp_path / ".venv" / "pyvenv.cfg"
    theirs.parent.mkdir()
    theirs.write_text("uv = 0.9", "utf-8")
    command = 'set -euo pipefail; source "$0/scripts/environment.sh"; use_environment'
    done = subprocess.run(
        [BASH, "-c", command, str(tmp_path)], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 2
    assert "was not made by this script" in done.stderr
    assert theirs.read_text("utf-8") == "uv = 0.9"


@pytest.mark.parametrize("code", [0, 3])
def test_a_long_installation_says_that_it_works(tmp_path: Path, code: int) -> None:
    """The stand-in for pip ends when its heartbeat has been heard."""
    stub = tmp_path / "python"
    stub.write_text(
        '#!/bin/sh\ncase "$*" in\n'
        '  *"pip install"*)\n'
        f'    until grep -q "still installing" "{tmp_path}/out"; do sleep 0.02; done\n'
        f"    exit {code};;\n"
        f"  *prefix*) echo {tmp_path};;\n"
        "esac\n",
        "utf-8",
    )
    stub.chmod(0o755)
    command = f'set -euo pipefail; source "{ROOT}/scripts/environment.sh"; use_environment'
    with open(tmp_path / "out", "wb") as out:
        environment = {**os.environ, "CLIC_PYTHON": str(stub), "HEARTBEAT": "0.05"}
        done = subprocess.run([BASH, "-c", command], stdout=out, env=environment, timeout=600)
    assert done.returncode == code
    assert "still installing (" in (tmp_path / "out").read_text("utf-8")


def table(*words: object) -> subprocess.CompletedProcess[str]:
    script = str(ROOT / "scripts" / "reproduce_table.py")
    return subprocess.run(
        [sys.executable, script, *map(str, words)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_the_table_of_published_models_on_miniatures(tiny: Path, tmp_path: Path) -> None:
    """Two are evaluated and compared, one that is missing is left out, none is done again."""
    out = tmp_path / "out"
    words = ["--bench", "shapes++", "--out", out, f"base={tiny}", f"mine={tiny}", "no/such-model"]
    done = table(*words, "--", "--device", "cpu", "--text-only")
    assert done.returncode == 0, done.stderr
    assert "left out, see above: no/such-model" in done.stderr
    assert done.stdout.count("published: no numbers of") == 2
    assert len(list((out / "table").iterdir())) > 2
    kept = out / "mine" / "published.txt"
    before = kept.stat().st_mtime_ns
    assert table(*words[:-1]).returncode == 0
    assert kept.stat().st_mtime_ns == before
    done = table("--out", tmp_path / "other", "no/such")
    assert done.returncode == 2 and "none of the 1 models could be evaluated" in done.stderr
