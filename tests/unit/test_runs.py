"""A run's folder: which is newest, what a path means, where its base is."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from clic import runs
from clic.errors import DataError, ModelError


def model(folder: Path, time: float | None = None) -> Path:
    folder.mkdir(parents=True)
    for name in (runs.OPEN_CLIP_CONFIG, runs.OPEN_CLIP_WEIGHTS):
        (folder / name).write_text("{}")
    if time is not None:
        os.utime(folder / runs.OPEN_CLIP_WEIGHTS, (time, time))
    return folder


def test_the_newest_finished_run(tmp_path: Path) -> None:
    assert runs.newest_finished(tmp_path / "none") is None
    (tmp_path / "unfinished" / runs.MODEL).mkdir(parents=True)
    assert runs.newest_finished(tmp_path) is None
    model(tmp_path / "old" / runs.MODEL, time=1000)
    model(tmp_path / "new" / runs.MODEL, time=2000)
    model(tmp_path / "older" / runs.MODEL, time=500)
    assert runs.newest_finished(tmp_path) == tmp_path / "new"


def test_what_a_path_means(tmp_path: Path) -> None:
    run = tmp_path / "run"
    final = model(run / runs.MODEL)
    patched = model(run / runs.PATCHED / runs.alpha_folder(0.5))
    checkpoint = model(run / runs.CHECKPOINTS / runs.step_folder(20))
    assert runs.resolve(run) == final
    assert runs.resolve(str(final)) == final
    assert runs.resolve(patched) == patched
    with pytest.raises(ModelError, match="not completely written"):
        runs.resolve(checkpoint)
    (checkpoint / runs.COMPLETE).touch()
    assert runs.resolve(checkpoint) == checkpoint


def test_unfinished_runs_name_their_newest_checkpoint(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / runs.CONFIG_FILE).touch()
    with pytest.raises(ModelError, match=r"has not finished.*; finish it"):
        runs.resolve(run)
    for step in (20, 100):
        model(run / runs.CHECKPOINTS / runs.step_folder(step))
    (run / runs.CHECKPOINTS / "step-000020" / runs.COMPLETE).touch()
    with pytest.raises(ModelError, match=r"newest checkpoint .*step-000020"):
        runs.resolve(run)


def test_paths_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="holds no model"):
        runs.resolve(tmp_path)
    (tmp_path / "shapes-1").mkdir()
    with pytest.raises(ModelError, match="did you mean 'shapes-1'"):
        runs.resolve(tmp_path / "shape-1")


def test_the_base_of_a_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"provenance\.json cannot be read"):
        runs.base_of(tmp_path)
    file = tmp_path / runs.PROVENANCE_FILE
    file.write_text("{")
    with pytest.raises(DataError, match="no valid JSON"):
        runs.base_of(tmp_path)
    file.write_text("[]")
    with pytest.raises(DataError, match="JSON object"):
        runs.base_of(tmp_path)
    file.write_text("{}")
    with pytest.raises(DataError, match="does not name the run's base"):
        runs.base_of(tmp_path)
    file.write_text(json.dumps({"base": "ViT-B-32:openai"}))
    assert runs.base_of(tmp_path) == "ViT-B-32:openai"
    file.write_text(json.dumps({"base": str(tmp_path / "elsewhere")}))
    with pytest.raises(DataError, match=r"elsewhere, which no longer exists.*--base"):
        runs.base_of(tmp_path)
    model(tmp_path / runs.BASE)
    assert runs.base_of(tmp_path) == str(tmp_path / runs.BASE)


@pytest.mark.parametrize(
    ("alpha", "name"),
    [(0, "alpha-0.00"), (0.5, "alpha-0.50"), (1, "alpha-1.00"), (0.125, "alpha-0.125")],
)
def test_names_of_patched_folders_never_collide(alpha: float, name: str) -> None:
    assert runs.alpha_folder(alpha) == name


def test_a_models_name_is_made_plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "tuned"
    folder.mkdir()
    (folder / runs.OPEN_CLIP_CONFIG).write_text("{}")
    (folder / runs.OPEN_CLIP_WEIGHTS).write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    for name in ("tuned", "tuned/", "local-dir:tuned", str(folder)):
        assert runs.source_of(name) == f"local-dir:{folder}"
    assert runs.source_of("ViT-B-32:openai") == "ViT-B-32:openai"
    with pytest.raises(ModelError, match="nowhere"):
        runs.source_of("local-dir:nowhere")
