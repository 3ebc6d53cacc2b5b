"""Every shipped setting file composes, validates and trains; the command line explains itself."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import open_clip
import pytest
import torch
import yaml
from timm.models import _registry

from clic import models, runs
from clic.cli import train as command
from clic.cli import train_help
from clic.config.checks import validate
from clic.config.train_settings import Config
from clic.errors import ConfigError
from clic.models import families
from clic.parts import parse
from clic.training import train
from clic.training.metrics_log import read

sys.path.insert(0, str(Path(__file__).parents[1]))
import model_families

ROOT = Path(str(files("clic.configs")))
EXPERIMENTS = sorted(path.stem for path in (ROOT / "experiment").glob("*.yaml"))
CHOICES = sorted(
    f"{path.parent.name}={path.stem}"
    for path in ROOT.glob("*/*.yaml")
    if path.parent.name != "experiment"
)


HUB = {"hf-hub:UCSC-VLAA/ViT-L-14-CLIPS-224-Recap-DataComp-1B": "ViT-L-14-CLIPS"}
"""Architectures of the hub repositories that experiments name."""


def composed(*words: str) -> Config:
    """Return settings as the command composes them, with shards named where they must be."""
    config = command.compose(list(words))
    if config.data.source != "shapes":
        config.data.shards = "/data/shards"
    return config


def test_there_are_experiments_and_choices() -> None:
    assert {"shapes", "shapes_clip", "vitb32"} <= set(EXPERIMENTS)
    assert len(CHOICES) >= 10


# --- every file ----------------------------------------------------------------------------------


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_an_experiment_composes_and_validates(experiment: str) -> None:
    config = composed(f"+experiment={experiment}")
    validate(config)
    assert config.name == experiment


def test_the_families_recipes_have_an_experiment_each() -> None:
    assert set(EXPERIMENTS) >= {
        "vitb32", "vitb16", "vitl14", "clipa_l14", "clips_l14", "eva02_l14", "siglip2_b16",
        "clove_vitb32", "negclip_vitb32", "vitb32_single_image",
    }  # fmt: skip


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_an_experiment_trains_its_familys_towers(
    settings: Callable[..., Config],
    tiny: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    experiment: str,
) -> None:
    """Two steps of every experiment on a small random model with the towers that it names."""
    published = composed(f"+experiment={experiment}")
    folder = small_family(published, tmp_path, monkeypatch) or tiny
    extra = ["data.split=train", f"model.name={folder}"]
    if "last:" in published.model.train:
        extra.append("model.train=text.last:1")  # the small tower has no more layers
    if published.data.caption_key:
        extra.append("data.caption_key=null")  # the world has no JSON
    config = settings(f"+experiment={experiment}", "train.max_steps=2", *extra)
    run = train(config)
    assert run.name.startswith(f"{experiment}-20")
    assert runs.is_finished(run)
    assert [r["step"] for r in read(run / runs.METRICS_FILE)] == [1, 2]
    before, after = models.create(str(folder)), models.create(str(run / runs.MODEL))
    trained, hashes = parse(config.model.train), [models.identity(m) for m in (before, after)]
    for part in ("vision", "text"):
        changed = hashes[0][f"{part}_sha256"] != hashes[1][f"{part}_sha256"]
        assert changed == bool(getattr(trained, part)), part
    assert after.source.architecture == before.source.architecture


def small_family(config: Config, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path | None:
    """Return a folder with a small random model of the kind that an experiment names.

    None where that is the package's own or the user's.
    """
    name = HUB.get(config.model.name, config.model.name)
    families.register()
    if name not in open_clip.list_models():
        assert name in ("shapes-base", "models/photos-base"), "which architecture is it?"
        return None
    for tower, entry in model_families.small_towers().items():
        monkeypatch.setitem(_registry._model_entrypoints, tower, entry)
    tag = config.model.pretrained if name == config.model.name else None
    architecture = model_families.small(models.resolve(name, tag).architecture)
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "Small", architecture)
    torch.manual_seed(0)
    return models.save(models.create("Small", None), folder / "model")


@pytest.mark.parametrize("word", CHOICES)
def test_a_choice_of_a_group_composes(word: str) -> None:
    composed(word)


def test_an_experiment_is_the_default_where_it_says_so() -> None:
    assert composed() == composed("+experiment=shapes")


def test_words_win_over_the_experiment() -> None:
    config = composed("+experiment=vitb32", "train.batch_size=7", "data=shapes")
    assert (config.train.batch_size, config.data.source) == (7, "shapes")
    validate(config)


def test_the_defaults_hold_no_experiment() -> None:
    """With one, even null, `+experiment=` fails with "multiple values"."""
    entries = yaml.safe_load((ROOT / "train.yaml").read_text())["defaults"]
    groups = [next(iter(e)) if isinstance(e, dict) else e for e in entries]
    assert not any("experiment" in group for group in groups)


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("*/*.yaml")), ids=lambda p: f"{p.parent.name}/{p.stem}"
)
def test_every_file_says_what_it_is(path: Path) -> None:
    described = dict(train_help.described(path.parent.name))
    assert len(described[path.stem]) > 10


# --- the help page -------------------------------------------------------------------------------


def test_help_lists_everything_and_fits_a_terminal() -> None:
    page = train_help.help_text()
    assert all(len(line) <= 80 for line in page.splitlines())
    for experiment in EXPERIMENTS:
        (line,) = [li for li in page.splitlines() if li.split()[:1] == [experiment]]
        assert len(line.split()) > 3
    for word in CHOICES:
        assert word.split("=")[1] in page
    for name in train_help.settings():
        assert name in page
    for part in ("examples:", "--multirun", "--cfg", "torchrun"):
        assert part in page


# --- mistakes ------------------------------------------------------------------------------------


def run_main(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["clic-train", *words])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(SystemExit) as ended:
        command.main()
    captured = capsys.readouterr()
    return int(ended.value.code or 0), captured.out, captured.err


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["+experiment=shape"], ["experiment='shape'", "did you mean 'shapes'", "choices:"]),
        (["+experiment=negclip"], ["the nearest are", "vitb32_negclip", "clic-train --help"]),
        (["loss=foo"], ["loss='foo' is not known (choices: clic, clip, paraphrase, "]),
        (["+experiment=vitb23"], ["did you mean 'vitb32'"]),
        (["experiment=shapes"], ["+experiment=shapes", "plus"]),
        (["shapes"], ["'shapes' is not SETTING=VALUE", "+experiment=NAME"]),
        (["model=vitb23"], ["model='vitb23'", "did you mean 'vitb32'"]),
        (["train.max_step=3"], ["'train.max_step'", "did you mean 'train.max_steps'"]),
        (["max_steps=3"], ["'max_steps'", "did you mean train.max_steps"]),
        (["--max-steps", "3"], ["--max-steps", "without dashes"]),
        (["--multirn"], ["--multirn", "did you mean '--multirun'"]),
        (["--bench=x"], ["--bench is not known"]),
        (["train.max_steps=many"], ["train.max_steps", "many"]),
        (["train.batch_size=1.5"], ["train.batch_size", "1.5"]),
        (["model.train=txt"], ["model.train='txt'", "did you mean 'text'"]),
        (["optim.lr=-1"], ["optim.lr=-1", "0 or more"]),
        (["data=shards"], ["data.shards is not set"]),
        (["train.max_steps=[1"], ["train.max_steps"]),
        (["seed"], ["'seed' is not SETTING=VALUE"]),
        (["+seed=1", "seed=2"], ["seed is given 2 times", "keep one"]),
        (
            ["data.shards=s/0.tar", "data.shards=s/1.tar", "data.shards=s/2.tar"],
            ["data.shards is given 3 times", "'data.shards=DIR/{000..999}.tar'"],
        ),
        (
            ["data=shards", "data.shards=s/{00..02}.tar", "model.pretrained=included"],
            ["s/00.tar"],
        ),
        (["train.runs_dir=/proc/x", "train.max_steps=1"], ["train.runs_dir=/proc/x: cannot make"]),
        (["train.eval_every=1", "train.eval_bench=[shapess++]"], ["did you mean 'shapes++'"]),
        (
            ["train.eval_every=1", "train.eval_bench=[sugarcrepe]", "train.eval_on_test=true"],
            ["sugarcrepe: ", "add_att.json", "clic-data fetch sugarcrepe", "CLIC_DATA"],
        ),
        (
            ["train.eval_every=1", "train.eval_bench=[coco-retrieval]"],
            ["coco-retrieval@val: ", "dataset_coco.json", "clic-data fetch coco-retrieval"],
        ),
        *(
            (
                ["train.eval_every=1", f"train.eval_bench=[{name}]"],
                [f"train.eval_bench={name}", "chosen on the test data", "train.eval_on_test=true"],
            )
            for name in ("sugarcrepe", "winoground", "coco2017-retrieval", "imagenet")
        ),
        (
            ["train.eval_every=1", "train.eval_bench=[shapes++,sugarcrepe++]"],
            ["train.eval_bench=sugarcrepe++", "train.eval_on_test=true"],
        ),
        (
            ["train.eval_every=1", "train.eval_bench=[shapes++@test]"],
            ["train.eval_bench=shapes++@test", "leave out its @test"],
        ),
        (
            ["train.eval_every=1", "train.eval_bench=[shapes]", "train.eval_on_test=true"],
            ["train.eval_on_test=true has no effect", "shapes++@val", "leave it out"],
        ),
        (["train.eval_on_test=true"], ["train.eval_on_test=true has no effect", "eval_bench"]),
        (
            ["train.eval_every=1", "train.eval_bench=[sugarcrepe@val]"],
            ["sugarcrepe has no validation split", "coco-retrieval"],
        ),
        (
            ["train.eval_every=1", "train.eval_bench=[shapes++@vall]"],
            ["shapes++@vall", "did you mean 'val'"],
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_is_one_line_and_exit_2(
    words: list[str],
    parts: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CLIC_DATA", raising=False)
    code, out, err = run_main(words, monkeypatch, capsys)
    assert code == 2 and out == ""
    assert err.startswith("clic-train: error: ") and err.count("\n") == 1, err
    for part in parts:
        assert part in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "word", ["+experiment=foo", "+experiment=negclip", "model=vitb23", "captions=foo", "loss=foo"]
)
def test_choices_that_are_not_known_take_two_lines_of_a_terminal_at_most(
    word: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All 41 experiments would take ten, with the one that was meant somewhere in them."""
    assert len(run_main([word], monkeypatch, capsys)[2].rstrip()) <= 2 * 80


@pytest.mark.parametrize(
    "words", [["optim.lr=-1"], ["model.train=txt"], ["-m", "optim.lr=-1,-2"], ["data=shards"]]
)
def test_a_mistake_is_found_before_torch_is_loaded(tmp_path: Path, words: list[str]) -> None:
    code = (
        "import sys\n"
        "from clic.cli import train\n"
        "try:\n    train.main()\n"
        "except SystemExit as end:\n    print(end.code, 'torch' in sys.modules)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=tmp_path, capture_output=True, text=True
    )
    assert result.stdout == "2 False\n", result.stderr


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["clic-train", "--debug", "model=vitb23"])
    with pytest.raises(ConfigError):
        command.main()


def test_help_exits_well(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["clic-train", "+experiment=nonsense", "--help"])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert not ended.value.code
    assert capsys.readouterr().out.startswith("usage: clic-train")
