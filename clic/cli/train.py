"""`clic-train`: compose the settings with Hydra, train, print where the result is."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from clic.cli.common import INTERRUPTED, drop_output, run_cli
from clic.cli.seed_table import last_numbers
from clic.cli.train_help import CONFIGS, choices, groups, help_text, settings
from clic.config.checks import validate
from clic.config.overrides import check_repeats, for_hydra, given, hydra_mistakes, is_entry
from clic.config.train_settings import Config
from clic.errors import ClicError, ConfigError, did_you_mean

HYDRA_FLAGS = ("-m", "--multirun", "--cfg", "-c", "--config-dir", "-cd", "--resolve", "--info")
WITH_VALUE = ("--cfg", "-c", "--config-dir", "-cd")
LISTED = 80
"""Most characters of choices that a message lists in full; beyond that it names the nearest."""
NEAREST = 3
BENCHES = {"shapes": "shapes++", "shards": "sugarcrepe++", "stream": "sugarcrepe++"}
"""Benchmark to suggest after training on each data source."""
RELATIONS = {"shapes": "shapes-relations", "shards": "whatsup", "stream": "whatsup"}
"""Benchmark to suggest in addition if captions stated a layout."""


def main() -> None:
    """Run `clic-train`."""
    words = sys.argv[1:]
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    if {"-h", "--help"} & set(words):
        run_cli("clic-train", lambda: print(_help(words)), debug)
    run_cli("clic-train", lambda: _train(words), debug)


def _help(words: Sequence[str]) -> str:
    """Return the help page, or that of the group of settings named after `--help`."""
    place = next(i for i, word in enumerate(words) if word in ("-h", "--help"))
    group = words[place + 1] if place + 1 < len(words) else ""
    if not group or "=" in group or group.startswith("-"):
        return help_text()
    from clic.config import reference

    known = reference.groups()
    if group not in known:
        hint = did_you_mean(group, known)
        raise ConfigError(f"--help {group}: no such group{hint} (choices: {', '.join(known)})")
    return reference.group_text(group)


def check_words(words: Sequence[str]) -> None:
    """Raise `ConfigError` for misspelt flags, settings and choices, naming the nearest ones."""
    own_configs = any(word.startswith(("--config-dir", "-cd")) for word in words)
    flags_done = iter(words)
    for word in flags_done:
        if word in WITH_VALUE:
            next(flags_done, None)
        elif word.startswith("-"):
            _check_flag(word)
        elif "=" not in word and not word.startswith("~"):
            raise ConfigError(
                f"{word!r} is not SETTING=VALUE{did_you_mean(word, choices('experiment'))} "
                "(an experiment is chosen as +experiment=NAME)"
            )
        elif not own_configs:
            _check_override(word)


def _check_flag(word: str) -> None:
    name = word.split("=")[0]
    if name not in HYDRA_FLAGS:
        known = (*HYDRA_FLAGS, "--help", "--debug")
        raise ConfigError(
            f"option {name} is not known{did_you_mean(name, known)}; settings are written without "
            f"dashes, e.g. train.max_steps=100 (see clic-train --help)"
        )


def _check_override(word: str) -> None:
    key, _, value = word.partition("=")
    name = key.lstrip("+~").split("@")[0]
    if name.startswith("hydra"):
        return
    if name == "experiment" and not key.startswith("+"):
        raise ConfigError(f"write +experiment={value} (with the plus sign)")
    known = choices(name) if name in groups() else settings()
    if name in groups():
        for choice in value.split(","):
            if choice not in known:
                raise ConfigError(f"{name}={choice!r} is not known{_instead(choice, known)}")
        return
    is_group = any(setting.startswith(f"{name}.") for setting in known)
    if name not in known and not is_entry(name) and not is_group:
        last = [k for k in known if k.split(".")[-1] == name.split(".")[-1]]
        hint = did_you_mean(name, known) if not last else f"; did you mean {' or '.join(last)}?"
        raise ConfigError(f"setting {name!r} is not known{hint} (see clic-train --help)")


def _instead(name: str, choices: Sequence[str]) -> str:
    """Return the choices that may have been meant: all of them or, of many, the nearest."""
    every, hint = ", ".join(choices), did_you_mean(name, choices)
    if len(every) <= LISTED:
        return f"{hint} (choices: {every})"
    near = difflib.get_close_matches(name, choices, n=NEAREST, cutoff=0.3)
    if near and not hint:
        hint = f"; the nearest are {', '.join(near)}"
    return f"{hint} (all {len(choices)} choices: clic-train --help)"


def _register_schema() -> None:
    from hydra.core.config_store import ConfigStore

    ConfigStore.instance().store(name="schema", node=Config)


def _train(words: Sequence[str]) -> int | None:
    check_words(words)
    check_repeats(words)
    import hydra
    from omegaconf import OmegaConf

    from clic.cli import sweeping

    _register_schema()
    sweeping.install()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let exceptions through instead of printing them
    codes: list[int] = []
    mistakes: list[ClicError | OSError] = []

    @hydra.main(version_base="1.3", config_path=f"pkg://{CONFIGS}", config_name="train")
    def job(composed: Any) -> sweeping.JobOutcome:
        sys.argv = ["clic-train", *words]  # as the run's provenance should record it

        finished: list[Path] = []

        def run() -> int:
            config = OmegaConf.to_object(composed)
            assert isinstance(config, Config)
            return _run(config, finished.append, given(words))

        if sweeping.in_multirun():
            outcome = sweeping.attempt(
                lambda: (run(), _numbers(finished)), skip=INTERRUPTED in codes
            )
            codes.append(outcome.code)
            return outcome
        try:
            codes.append(run())
        except (ClicError, OSError) as error:  # Hydra would print its own line before ours
            mistakes.append(error)
        return sweeping.JobOutcome(0)

    sweep = bool({"-m", "--multirun", "hydra.mode=MULTIRUN"} & set(words))
    sys.argv = ["clic-train", *(for_hydra(word, sweep=sweep) for word in words)]
    with hydra_mistakes():
        job()
    if mistakes:
        raise mistakes[0]
    return max(codes, default=0)


def compose(words: Sequence[str]) -> Config:
    """Return the settings that `clic-train WORDS` would train with.

    Raises:
        ConfigError: A word is not understood.
    """
    check_words(words)
    import hydra
    from omegaconf import OmegaConf

    _register_schema()
    with hydra_mistakes(), hydra.initialize_config_module(CONFIGS, version_base="1.3"):
        overrides = [for_hydra(word) for word in words]
        config = OmegaConf.to_object(hydra.compose("train", overrides=overrides))
    assert isinstance(config, Config)
    return config


def _numbers(runs: Sequence[Path]) -> dict[str, float]:
    """Return the last numbers of the finished run, if there is one."""
    if not runs:
        return {}
    from clic.runs import METRICS_FILE
    from clic.training.metrics_log import read

    return last_numbers(read(runs[0] / METRICS_FILE))


def _run(
    config: Config,
    finished: Callable[[Path], None] = lambda run: None,
    given: Collection[str] = (),
) -> int:
    """Train; return the exit code, and call `finished` with the run. `given`: see `validate`."""
    validate(config, given)  # before torch and open_clip, whose imports take seconds
    if "torch" not in sys.modules and int(os.environ.get("RANK", "0")) == 0:
        try:
            print("loading torch and open_clip", flush=True)
        except BrokenPipeError:
            drop_output()
    from clic import distributed
    from clic.io.terminal import say
    from clic.training import train

    try:
        run = train(config, _evaluator(config) if config.train.eval_every else None)
    except KeyboardInterrupt:
        return INTERRUPTED  # the trainer has printed where it stopped
    finished(run)
    if distributed.is_main() and int(os.environ.get("RANK", "0")) == 0:
        source = config.data.source
        bench = BENCHES[source]
        if config.captions.layout_share:
            bench += f",{RELATIONS[source]}"
        say(f"\nfinished {run}")
        say(f"  clic-eval --bench {bench} --model {run}")
        say(f"  clic-patch --alpha 0.5 --run {run}")
    return 0


def _evaluator(config: Config) -> Any:
    """Return the function that scores the model during training, on validation splits."""
    from clic import evaluation
    from clic.evaluation.benchmarks import catalogue
    from clic.models import ClipModel
    from clic.models.encoder import Encoder
    from clic.training.run_folder import flat

    # Before training, so that a misspelt name or missing file does not end the run half-way.
    chosen = catalogue.for_choosing(config.train.eval_bench, config.train.eval_on_test)
    plan = evaluation.prepare(chosen)
    own_files = [one.benchmark.name for one in plan.prepared if one.benchmark.own_file is not None]

    def score(clip: ClipModel) -> dict[str, float]:
        numbers = evaluation.run(Encoder(clip), plan).to_dict()["benchmarks"]
        told = {
            name if "@" in name or name in own_files else f"{name}@test": own
            for name, own in numbers.items()
        }
        return flat(told, "/")

    return score


if __name__ == "__main__":
    main()
