"""Patching that is killed, or finds the disk full, at any moment leaves no half model."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from clic import patching, runs
from clic.errors import ConfigError, ModelError
from clic.patching.tensor_files import TensorFiles, open_tensors
from clic.seeding import generator

CONFIG = {"model_cfg": {"embed_dim": 4}, "preprocess_cfg": {}}
SIZE = 400_000
KILLED = """
import os, signal, sys
from clic import patching
from clic.patching import tensor_files

*words, moment = sys.argv[1:]
left, write = [int(moment)], tensor_files.TensorWriter.write

def counted(self, name, start, values):
    left[0] -= values.nbytes
    if left[0] < 0:
        self._file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    write(self, name, start, values)

tensor_files.TensorWriter.write = counted
patching.patch(words[0], words[1], 0.5, words[2])
"""


def everything(folder: Path) -> dict[str, bytes]:
    """Return the content of every file that is not hidden."""
    files = (path for path in folder.rglob("*") if path.is_file())
    names = {str(path.relative_to(folder)): path for path in files}
    return {name: path.read_bytes() for name, path in names.items() if not name.startswith(".")}


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """Two models of several pieces each."""
    made = []
    for number, name in enumerate(("base", "tuned")):
        drawn = torch.from_numpy(generator(number, "weights").random((2, SIZE), dtype="float32"))
        folder = tmp_path / name
        folder.mkdir()
        save_file({"a": drawn[0].clone(), "b": drawn[1].clone()}, folder / runs.OPEN_CLIP_WEIGHTS)
        (folder / runs.OPEN_CLIP_CONFIG).write_text(json.dumps(CONFIG))
        made.append(folder)
    return made[0], made[1]


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let the system refuse what makes a file larger than `size` bytes, as a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("earlier", [False, True], ids=["new", "over an earlier one"])
def test_a_kill_leaves_no_half_model(
    earlier: bool, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    if earlier:
        patching.patch(*pair, 0.25, out)
    before = everything(tmp_path)
    moments = generator(int(earlier), "moments").integers(0, 2 * SIZE * 4, size=2)
    for moment in moments.tolist():
        words = [sys.executable, "-c", KILLED, *map(str, pair), str(out), str(moment)]
        assert subprocess.run(words, check=False).returncode == -signal.SIGKILL
        assert everything(tmp_path) == before
    patching.patch(*pair, 0.5, out)
    mixed = load_file(out / runs.OPEN_CLIP_WEIGHTS)
    one, other = (load_file(folder / runs.OPEN_CLIP_WEIGHTS)["b"] for folder in pair)
    assert torch.equal(mixed["b"], 0.5 * one + 0.5 * other)


def test_a_full_disk_leaves_no_half_model(pair: tuple[Path, Path], tmp_path: Path) -> None:
    earlier = patching.patch(*pair, 0.25, tmp_path / "earlier")
    before = everything(tmp_path)
    for moment in generator(0, "moments").integers(0, 2 * SIZE * 4, size=12).tolist():
        for out in (earlier, tmp_path / "out"):
            refused = pytest.raises(ConfigError, match=rf"cannot write {out} \(.*; free space")
            with largest_file(moment), refused:
                patching.patch(*pair, 0.5, out)
            assert everything(tmp_path) == before
    assert {path.name for path in tmp_path.iterdir()} == {"base", "tuned", "earlier"}


def test_a_file_that_becomes_shorter_while_it_is_read(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = pair[1] / runs.OPEN_CLIP_WEIGHTS
    chunk = TensorFiles.chunk

    def shorten(self: TensorFiles, name: str, start: int, stop: int) -> torch.Tensor:
        if start and file.stat().st_size > SIZE:
            file.write_bytes(file.read_bytes()[:SIZE])
        return chunk(self, name, start, stop)

    monkeypatch.setattr(TensorFiles, "chunk", shorten)
    with pytest.raises(ModelError, match=r"tuned/.* became shorter while it was read"):
        patching.patch(*pair, 0.5, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_tensor_in_two_files_is_refused(tmp_path: Path) -> None:
    for name in "ab":
        save_file({"w": torch.ones(2)}, tmp_path / name)
    twice = pytest.raises(ModelError, match="'w' is in another file of the model, too")
    with twice, open_tensors([tmp_path / "a", tmp_path / "b"]):
        pass
