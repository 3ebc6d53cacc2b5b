"""Which folder a run takes: new, continued, or refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from clic import runs
from clic.config.train_settings import Config
from clic.errors import ConfigError, ModelError
from clic.training import run_folder as folder
from clic.training.run_folder import RunFolder, choose, claim, differences, lock_run, write_config


def make_run(
    config: Config, name: str, *, steps: tuple[int, ...] = (), finished: bool = False, age: int = 0
) -> Path:
    """Make what an earlier start of a run left, `age` seconds ago."""
    path = Path(config.train.runs_dir) / name
    path.mkdir(parents=True)
    write_config(path, config)
    for step in steps:
        folder = path / runs.CHECKPOINTS / runs.step_folder(step)
        folder.mkdir(parents=True)
        (folder / runs.COMPLETE).touch()
    if finished:
        (path / runs.MODEL).mkdir()
        for file in (runs.OPEN_CLIP_CONFIG, runs.OPEN_CLIP_WEIGHTS):
            (path / runs.MODEL / file).touch()
    time = (path / runs.CONFIG_FILE).stat().st_mtime - age
    os.utime(path / runs.CONFIG_FILE, (time, time))
    return path


def test_a_new_run_is_named_after_experiment_and_time(settings: Callable[..., Config]) -> None:
    place = choose(settings("+experiment=shapes_clip"))
    assert place.path.name.startswith("shapes_clip-20")
    assert place.checkpoint is None and not place.continued
    assert not place.path.exists() and not place.path.parent.exists()


def test_the_newest_unfinished_run_of_equal_settings_is_continued(
    settings: Callable[..., Config],
) -> None:
    config = settings()
    make_run(config, "shapes-1", steps=(5,), age=20)
    newer = make_run(config, "shapes-2", steps=(5, 10), age=10)
    make_run(config, "shapes-3", finished=True)
    make_run(settings("seed=7"), "shapes-4")
    place = choose(config)
    assert place == RunFolder(newer, newer / "checkpoints" / "step-000010", continued=True)


def test_runs_of_other_experiments_are_left_alone(settings: Callable[..., Config]) -> None:
    make_run(settings("+experiment=shapes_clip"), "shapes_clip-1")
    make_run(settings("name=shapes-other"), "shapes-other-1")
    assert not choose(settings()).continued


def test_a_run_without_checkpoint_starts_again_in_its_folder(
    settings: Callable[..., Config],
) -> None:
    path = make_run(settings(), "shapes-1")
    assert choose(settings()) == RunFolder(path, None, continued=True)


def test_a_checkpoint_cut_off_is_ignored(settings: Callable[..., Config]) -> None:
    path = make_run(settings(), "shapes-1", steps=(5, 10))
    (path / "checkpoints" / "step-000010" / runs.COMPLETE).unlink()
    assert choose(settings()).checkpoint == path / "checkpoints" / "step-000005"


HOLD = """
import os, sys
from pathlib import Path
from clic.training.run_folder import lock_run

lock = lock_run(Path(sys.argv[1]))
if sys.argv[2:] == ["fork"] and not os.fork():
    sys.stdin.read()
    os._exit(0)
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def other_process(run: Path, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process that holds a run until its stdin is closed."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run), *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == b"held\n"
        yield other


def test_a_run_that_another_process_trains_is_skipped(
    settings: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "PATIENCE", 0.3)
    path = make_run(settings(), "shapes-1")
    with other_process(path) as other:
        assert not choose(settings()).continued
        with pytest.raises(ConfigError, match=f"{path} is being trained by another process"):
            claim(RunFolder(path, continued=True), settings())
        other.communicate()
    assert choose(settings()).continued  # the lock went with the process


@pytest.mark.parametrize("words", [(), ("train.run_name=shapes-1",)], ids=["auto", "named"])
def test_a_run_whose_process_is_about_to_end_is_waited_for(
    settings: Callable[..., Config], monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.setattr(folder, "PATIENCE", 600.0)  # the process may take its time to end
    path = make_run(settings(*words), "shapes-1", steps=(5,))
    with other_process(path) as other:
        assert other.stdin is not None
        timer = threading.Timer(0.5, other.stdin.close)
        timer.start()
        assert choose(settings(*words)).path == path
        timer.join()


@pytest.mark.parametrize("words", [(), ("train.run_name=shapes-1",)], ids=["auto", "named"])
def test_a_run_that_ends_well_meanwhile_is_not_continued(
    settings: Callable[..., Config], monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    config = settings(*words)
    path = make_run(config, "shapes-1")

    def end_well(run: Path, deadline: float) -> bool:
        (run / runs.MODEL).mkdir()
        for file in (runs.OPEN_CLIP_CONFIG, runs.OPEN_CLIP_WEIGHTS):
            (run / runs.MODEL / file).touch()
        return True

    monkeypatch.setattr(folder, "_is_free", end_well)
    if words:
        with pytest.raises(ConfigError, match="is a finished run"):
            choose(config)
    else:
        assert choose(config).path != path


def test_runs_of_other_settings_are_not_waited_for(
    settings: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_run(settings("seed=1"), "shapes-1")
    monkeypatch.setattr(folder.time, "sleep", lambda seconds: pytest.fail("it waits"))
    lock = lock_run(path)
    assert lock is not None
    assert not choose(settings()).continued
    lock.close()


def test_forked_children_do_not_keep_a_run(settings: Callable[..., Config]) -> None:
    """Loader workers outlive a killed run by seconds."""
    path = make_run(settings(), "shapes-1")
    with other_process(path, "fork") as other:
        other.send_signal(signal.SIGKILL)
        other.wait()
        lock = lock_run(path)
        assert lock is not None  # the child still waits for its stdin
        lock.close()


def test_resume_never_begins_anew(settings: Callable[..., Config]) -> None:
    make_run(settings(), "shapes-1", steps=(5,))
    assert not choose(settings("train.resume=never")).continued


@pytest.mark.parametrize(
    "word",
    ["train.save_every=7", "train.log_every=3", "data.workers=1", "wandb.enabled=true"],
)
def test_settings_that_do_not_change_the_training_may_change(
    settings: Callable[..., Config], word: str
) -> None:
    path = make_run(settings(), "shapes-1")
    assert choose(settings(word)).path == path


@pytest.mark.parametrize(
    "word", ["seed=1", "optim.lr=0.5", "train.max_steps=3", "train.batch_size=2", "data.samples=32"]
)
def test_other_settings_are_another_run(settings: Callable[..., Config], word: str) -> None:
    path = make_run(settings(), "shapes-1")
    assert choose(settings(word)).path != path


# --- named runs ----------------------------------------------------------------------------------


def test_a_named_run_is_made_then_continued(settings: Callable[..., Config]) -> None:
    config = settings("train.run_name=first")
    place = choose(config)
    assert place.path == Path(config.train.runs_dir) / "first" and not place.continued
    path = make_run(config, "first", steps=(5,))
    assert choose(config) == RunFolder(path, path / "checkpoints" / "step-000005", continued=True)


def test_a_finished_named_run_is_refused(settings: Callable[..., Config]) -> None:
    config = settings("train.run_name=first")
    make_run(config, "first", finished=True)
    with pytest.raises(ConfigError, match=r"train\.run_name=first: .* is a finished run; choose"):
        choose(config)


def test_a_named_run_of_other_settings_is_refused_with_their_names(
    settings: Callable[..., Config],
) -> None:
    make_run(settings("train.run_name=first"), "first")
    with pytest.raises(ConfigError, match=r"first was started with other settings") as error:
        choose(settings("train.run_name=first", "seed=3", "optim.lr=0.5"))
    assert "optim.lr: 0.0015 -> 0.5" in str(error.value) and "seed: 0 -> 3" in str(error.value)


def test_resume_never_does_not_write_into_a_named_run(settings: Callable[..., Config]) -> None:
    config = settings("train.run_name=first", "train.resume=never")
    assert not choose(config).continued
    make_run(config, "first")
    with pytest.raises(ConfigError, match=r"train\.run_name=first: .* exists; choose another"):
        choose(config)


def test_a_named_run_that_another_process_trains_is_told_before_its_checkpoints(
    settings: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "PATIENCE", 0.3)
    config = settings("train.run_name=first")
    path = make_run(config, "first", steps=(5,))
    with (
        other_process(path),
        pytest.raises(ConfigError, match=f"{path} is being trained by another process"),
    ):
        choose(config)


def test_a_folder_that_is_no_run_is_left_alone(settings: Callable[..., Config]) -> None:
    config = settings("train.run_name=first")
    (Path(config.train.runs_dir) / "first").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"first exists; choose another name, or remove"):
        choose(config)


# --- from a checkpoint ---------------------------------------------------------------------------


def test_a_checkpoint_begins_a_new_run(
    settings: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_run(settings(), "shapes-1", steps=(5,))
    monkeypatch.chdir(path.parent)
    place = choose(settings("train.resume=shapes-1/checkpoints/step-000005"))
    assert place.checkpoint == path / "checkpoints" / "step-000005"
    assert place.path != path and not place.continued


def test_a_checkpoint_does_not_begin_a_run_that_exists(settings: Callable[..., Config]) -> None:
    path = make_run(settings(), "shapes-1", steps=(5,))
    checkpoint = path / "checkpoints" / "step-000005"
    with pytest.raises(ConfigError, match=r"train\.run_name=shapes-1: .* exists"):
        choose(settings(f"train.resume={checkpoint}", "train.run_name=shapes-1"))


@pytest.mark.parametrize("name", ["shapes-1", "shapes-1/checkpoints/step-000006", "nowhere"])
def test_what_is_no_checkpoint(settings: Callable[..., Config], name: str) -> None:
    config = settings()
    make_run(config, "shapes-1", steps=(5,))
    resume = f"{config.train.runs_dir}/{name}"
    with pytest.raises(ModelError, match=f"train.resume={resume} is not a complete checkpoint"):
        choose(settings(f"train.resume={resume}"))


# --- taking the folder ---------------------------------------------------------------------------


def test_runs_that_start_in_the_same_second_get_folders_of_their_own(
    settings: Callable[..., Config],
) -> None:
    config = settings()
    first, second = choose(config), choose(config)
    second.path = first.path
    locks = [claim(first, config), claim(second, config)]
    assert first.path != second.path
    assert first.path.is_dir() and second.path.is_dir()
    for lock in locks:
        lock.close()


def test_a_named_folder_that_appears_meanwhile_is_refused(
    settings: Callable[..., Config],
) -> None:
    config = settings("train.run_name=first")
    place = choose(config)
    place.path.mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"train\.run_name=first: .* exists"):
        claim(place, config)


def test_runs_that_cannot_be_made(settings: Callable[..., Config], tmp_path: Path) -> None:
    config = settings("train.runs_dir=/proc/nowhere")
    with pytest.raises(ConfigError, match=r"^train\.runs_dir=/proc/nowhere: cannot make .*choose"):
        claim(choose(config), config)


def test_a_lock_is_held_once(tmp_path: Path) -> None:
    lock = lock_run(tmp_path)
    assert lock is not None and lock_run(tmp_path) is None
    lock.close()
    again = lock_run(tmp_path)
    assert again is not None
    again.close()


def test_differences_of_equal_settings_are_none(settings: Callable[..., Config]) -> None:
    words = ("optim.grad_clip=1", "data.split=train", "optim.betas=[0.9,0.95]")
    path = make_run(settings(*words), "shapes-1")
    assert differences(path, settings(*words)) == []
    assert json.dumps(differences(path, settings()))


def test_settings_are_kept_without_secrets_and_an_address_may_be_signed_anew(
    settings: Callable[..., Config],
) -> None:
    words = ["data=shards", "train.run_name=signed"]
    config = settings(*words, "data.shards='https://u:s3cret@h.org/a.tar?sig=s3cret'")
    run = make_run(config, "signed", steps=(5,))
    kept = (run / runs.CONFIG_FILE).read_text(encoding="utf-8")
    assert "s3cret" not in kept and "https://h.org/a.tar?..." in kept
    assert choose(settings(*words, "data.shards='https://h.org/a.tar?sig=another'")).continued
    with pytest.raises(
        ConfigError, match=r"h.org/a\.tar\?\.\.\. -> https://h\.org/b\.tar\?\.\.\."
    ) as e:
        choose(settings(*words, "data.shards='https://h.org/b.tar?sig=s3cret'"))
    assert "s3cret" not in str(e.value)


def test_settings_kept_with_an_address_by_an_earlier_version_are_the_same(
    settings: Callable[..., Config],
) -> None:
    words = ["data=shards", "train.run_name=old"]
    config = settings(*words, "data.shards='https://h.org/a.tar?sig=1'")
    run = make_run(config, "old", steps=(5,))
    kept = (run / runs.CONFIG_FILE).read_text(encoding="utf-8")
    (run / runs.CONFIG_FILE).write_text(kept.replace("?...", "?sig=1"), encoding="utf-8")
    assert choose(settings(*words, "data.shards='https://h.org/a.tar?sig=2'")).continued


# --- what an earlier version, or a crash, has left -----------------------------------------------


def forget(run: Path, *names: str) -> None:
    """Take settings, or whole groups of them, out of a run's file: it is older than they are."""
    settings = yaml.safe_load((run / runs.CONFIG_FILE).read_text())
    for name in names:
        group, _, key = name.partition(".")
        del (settings[group] if key else settings)[key or group]
    (run / runs.CONFIG_FILE).write_text(yaml.safe_dump(settings))


@pytest.mark.parametrize(
    "names",
    [("data.decode",), ("sampling.replacement", "loss.negative_weights"), ("compose",)],
    ids=" ".join,
)
def test_a_setting_younger_than_the_run_has_its_default(
    settings: Callable[..., Config], names: tuple[str, ...]
) -> None:
    config = settings("compose.fit=squash")
    path = make_run(config, "shapes-1", steps=(5,))
    forget(path, *names)
    assert differences(path, config) == []
    assert choose(config).path == path


def test_another_value_of_such_a_setting_is_still_another_run(
    settings: Callable[..., Config],
) -> None:
    path = make_run(settings(), "shapes-1", steps=(5,))
    forget(path, "data.decode")
    assert differences(path, settings("data.decode=exact")) == ["data.decode: fast -> exact"]


@pytest.mark.parametrize("text", ["{", "- 1\n", "", "a: \x00", "${x"])
def test_settings_that_cannot_be_read_do_not_stop_other_runs(
    settings: Callable[..., Config], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = settings()
    path = make_run(config, "shapes-1", steps=(5,))
    (path / runs.CONFIG_FILE).write_text(text)
    assert choose(config).path != path
    assert f"WARNING: {path / runs.CONFIG_FILE} " in capsys.readouterr().out
    with pytest.raises(ConfigError, match=r"config\.yaml (cannot be read|holds no settings).*fix"):
        choose(settings("train.run_name=shapes-1"))


def damage(checkpoint: Path) -> None:
    (checkpoint / runs.OPEN_CLIP_WEIGHTS).write_bytes(b"cut")


def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(
    settings: Callable[..., Config], capsys: pytest.CaptureFixture[str]
) -> None:
    path = make_run(settings(), "shapes-1", steps=(5, 10, 15))
    for step in (10, 15):
        damage(path / runs.CHECKPOINTS / runs.step_folder(step))
    assert choose(settings()).checkpoint == path / "checkpoints" / "step-000005"
    out = capsys.readouterr().out
    assert out.count("is damaged: open_clip_model.safetensors") == 2
    assert "step-000015 is damaged" in out and "going back to step-000005" in out


@pytest.mark.parametrize("words", [(), ("train.run_name=shapes-1",)], ids=["auto", "named"])
def test_a_run_whose_checkpoints_are_all_damaged_does_not_begin_anew(
    settings: Callable[..., Config], words: tuple[str, ...]
) -> None:
    path = make_run(settings(*words), "shapes-1", steps=(5,))
    damage(path / "checkpoints" / "step-000005")
    with pytest.raises(ModelError, match=r"no checkpoint of .*shapes-1 is intact.*resume=never"):
        choose(settings(*words))


def test_a_damaged_checkpoint_that_was_named_is_refused(settings: Callable[..., Config]) -> None:
    path = make_run(settings(), "shapes-1", steps=(5,)) / "checkpoints" / "step-000005"
    damage(path)
    with pytest.raises(ModelError, match=f"checkpoint {path} is damaged"):
        choose(settings(f"train.resume={path}"))
