"""`clic-eval` as a user types it: outputs, defaults, mistakes."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from clic import models, runs
from clic.cli import common
from clic.cli.eval import main
from clic.config import overrides
from clic.config.eval_settings import EvalConfig
from clic.config.patch_settings import PatchConfig
from clic.errors import ConfigError, ModelError

Command = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize("command", ["eval", "patch", "train", "data"])
def test_help_waits_for_no_large_package_and_has_examples(command: str) -> None:
    script = (
        "import sys\n"
        f"from clic.cli.{command} import main\n"
        f"sys.argv = ['clic-{command}', '--help']\n"
        "try:\n"
        "    main()\n"
        "except SystemExit:\n"
        "    large = {'torch', 'open_clip', 'torchvision', 'transformers', 'hydra', 'matplotlib'}\n"
        "    sys.exit(sorted(large & sys.modules.keys()) or None)\n"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "examples:" in shown.stdout
    if command != "data":
        assert max(map(len, shown.stdout.splitlines())) <= 80


def test_the_list_waits_for_no_large_package(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from clic.cli.eval import main\n"
        "sys.argv = ['clic-eval', '--bench', 'list']\n"
        "try:\n"
        "    main()\n"
        "except SystemExit:\n"
        "    large = {'torch', 'open_clip', 'torchvision', 'transformers', 'hydra', 'pyarrow'}\n"
        "    sys.exit(sorted(large & sys.modules.keys()) or None)\n"
    )
    shown = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path
    )
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "sugarcrepe++" in shown.stdout


def test_one_model(clic_eval: Command, tmp_path: Path) -> None:
    code, out, err = clic_eval(
        "--bench", "shapes-retrieval,shapes-zero-shot", "--model", "m",
        "--json", "out.json", "--rows", "rows.jsonl", "--batch-size", "100",
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert "image to text" in out and "R@1" in out
    assert max(map(len, out.splitlines())) <= 80
    form = json.loads((tmp_path / "out.json").read_text())
    assert set(form) == {"model", "provenance", "benchmarks"}
    assert form["model"]["weights_sha256"] == "0" * 64
    assert form["benchmarks"]["shapes-retrieval"]["n_images"] == 500
    assert form["provenance"]["settings"]["batch_size"] == 100
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert len(rows) == 1000 + 3000
    assert {row["model"] for row in rows} == {"m"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.json", "rows.jsonl"]


def test_the_numbers_are_kept_when_the_reader_of_the_table_has_left(
    clic_eval: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leave(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("clic.cli.eval.print_results", leave)
    with pytest.raises(ZeroDivisionError):
        main(["--bench", "shapes-retrieval", "--model", "m", "--json", "out.json"])
    assert json.loads((tmp_path / "out.json").read_text())["benchmarks"]


def test_models_side_by_side(clic_eval: Command, tmp_path: Path) -> None:
    code, out, _ = clic_eval(
        "--bench", "shapes++", "--model", "first", "--model", "second", "--json", "two.json"
    )
    assert code == 0
    assert "A  first" in out and "B  second" in out and "B - A" in out
    assert max(map(len, out.splitlines())) <= 80
    first, second = json.loads((tmp_path / "two.json").read_text())["reports"]
    assert [form["model"]["name"] for form in (first, second)] == ["first", "second"]
    difference = (
        second["benchmarks"]["shapes++"]["mean"]["itt"]
        - first["benchmarks"]["shapes++"]["mean"]["itt"]
    )
    assert f"{difference:+.1f}" in out


def test_text_only(clic_eval: Command, tmp_path: Path) -> None:
    code, out, err = clic_eval("--bench", "shapes", "--model", "m", "--text-only", "--json", "a")
    assert (code, err) == (0, "")
    assert "TOT" in out and "shapes-retrieval: left out, text_only leaves images out" in out
    assert max(map(len, out.splitlines())) <= 80
    numbers = json.loads((tmp_path / "a").read_text())["benchmarks"]
    assert set(numbers) == {"shapes++"}
    assert set(numbers["shapes++"]["mean"]) == {"tot", "n"}


@pytest.mark.parametrize(("name", "schema"), [("eval", EvalConfig), ("patch", PatchConfig)])
def test_the_file_and_the_schema_have_the_same_defaults(name: str, schema: type) -> None:
    assert overrides.compose(name, [], schema) == schema()


def test_flags_and_words_are_the_same_settings(clic_eval: Command, tmp_path: Path) -> None:
    clic_eval("--bench", "shapes-retrieval", "--model", "m", "--seed", "5", "--json", "a.json")
    clic_eval("bench=shapes-retrieval", "model=[m]", "seed=5", "json=b.json")
    first, second = (json.loads((tmp_path / name).read_text()) for name in ("a.json", "b.json"))
    assert first["benchmarks"] == second["benchmarks"]
    assert first["provenance"]["settings"] == second["provenance"]["settings"]


def test_without_a_model_the_newest_finished_run_is_taken(
    clic_eval: Command, loaded: list[str], tmp_path: Path
) -> None:
    _, _, err = clic_eval("--bench", "shapes-retrieval")
    assert loaded == ["ViT-B-32:openai"]
    assert "no finished run" in err
    model = tmp_path / "runs" / "shapes-1" / runs.MODEL
    model.mkdir(parents=True)
    for name in (runs.OPEN_CLIP_CONFIG, runs.OPEN_CLIP_WEIGHTS):
        (model / name).touch()
    _, _, err = clic_eval("--bench", "shapes-retrieval")
    assert loaded[1:] == ["runs/shapes-1"]
    assert "runs/shapes-1" in err


def test_a_later_model_is_looked_for_before_the_first_is_scored(
    clic_eval: Command, loaded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def resolve(name: str) -> None:
        raise ModelError(f"no model {name}")

    monkeypatch.setattr(models, "resolve", resolve)
    code, _, err = clic_eval("--bench", "shapes", "--model", "a", "--model", "b")
    assert (code, loaded) == (2, [])
    assert "no model b" in err


def test_missing_data_ends_before_the_model_is_loaded(
    clic_eval: Command, loaded: list[str], tmp_path: Path
) -> None:
    code, out, err = clic_eval("--bench", "sugarcrepe++", "--model", "m", "--data", "here")
    assert (code, out, loaded) == (2, "", [])
    assert err.startswith("clic-eval: error: sugarcrepe++: ")
    assert str(tmp_path / "here" / "sugarcrepe_pp" / "replace_att.json") in err
    assert "get it with: clic-data fetch sugarcrepe++ --data here (or name" in err
    assert err.count("\n") == 1


def test_the_data_folder_is_taken_from_the_environment(
    clic_eval: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLIC_DATA", str(tmp_path / "elsewhere"))
    assert str(tmp_path / "elsewhere" / "coco") in clic_eval("--bench", "coco2017-retrieval")[2]


def test_list(clic_eval: Command, loaded: list[str]) -> None:
    code, out, _ = clic_eval("--bench", "list")
    assert (code, loaded) == (0, [])
    for name in ("shapes++", "sugarcrepe++", "coco2017-retrieval", "built in", "missing"):
        assert name in out
    assert "clic-data fetch NAME --data data" in out
    assert max(len(line) for line in out.splitlines() if not line.startswith("  ")) <= 80


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no benchmark named"),
        (["--bench", "sugarcrep"], "did you mean 'sugarcrepe'"),
        (["--benhc", "shapes"], "unknown option --benhc; did you mean '--bench'"),
        (["--bench"], "expected one argument"),
        (["shapes"], "'shapes' is neither an option nor a key=value"),
        (["bench=shapes", "batchsize=3"], "did you mean 'batch_size'"),
        (["bench=shapes", "model.pretrained=null"], "setting 'model.pretrained' is not known"),
        (["--modle", "x"], "unknown option --modle; did you mean '--model'? ("),
        (["bench=shapes", "batch_size=x"], "batch_size"),
        (["bench=shapes", "batch_size=0"], "batch_size=0"),
        (["--bench", "shapes", "bench=all"], "given twice"),
        (["--bench", "shapes", "--split", "tset"], "did you mean 'test'"),
        (["--bench", "shapes", "--precision", "fp8"], "precision='fp8'"),
        (["--bench", "shapes", "--json", "no/such/folder.json"], "there is no folder no/such"),
        (["--bench", "shapes", "--json", "."], "is a folder"),
        (["--bench", "shapes", "--json", "a", "--rows", "a"], "a is named twice"),
        (["bench=[shapes", "seed=1"], "bench"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(
    clic_eval: Command, loaded: list[str], words: list[str], message: str
) -> None:
    code, out, err = clic_eval(*words)
    assert (code, out, loaded) == (2, "", [])
    assert err.startswith("clic-eval: error: ")
    assert message in err
    assert err.count("\n") == 1


def test_debug_shows_the_traceback(loaded: list[str]) -> None:
    with pytest.raises(ConfigError):
        main(["--bench", "nothing", "--debug"])


def test_half_of_torchrun_is_refused(clic_eval: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    code, _, err = clic_eval("--bench", "shapes")
    assert code == 2
    assert "WORLD_SIZE=4" in err and "RANK is not set" in err


def test_ctrl_c_is_one_line_and_130(capsys: pytest.CaptureFixture[str]) -> None:
    def body() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as stopped:
        common.run_cli("clic-x", body)
    assert stopped.value.code == 130
    assert capsys.readouterr().err == "clic-x: interrupted\n"


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_refuses_is_one_line(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    def body() -> None:
        raise OSError(number, os.strerror(number), "some/file")

    with pytest.raises(SystemExit) as stopped:
        common.run_cli("clic-x", body)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"clic-x: error: cannot read or write some/file: {os.strerror(number)}")
    assert error.count("\n") == 1


def test_bugs_keep_their_traceback() -> None:
    def body() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        common.run_cli("clic-x", body)
