"""The help page of `clic-train`, and the names of its settings, groups and experiments."""

from __future__ import annotations

import textwrap
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from clic.config.train_settings import Config
from clic.losses.registry import OBJECTIVES

CONFIGS = "clic.configs"
USAGE = """usage: clic-train [+experiment=NAME] [GROUP=CHOICE ...] [SETTING=VALUE ...]
                  [-m] [--debug]

Fine-tune a CLIP-like model so that it understands composition. Without an
experiment it trains the small model of the embedded world, in about a minute
on a laptop's CPU.

examples:
  clic-train +experiment=shapes
  clic-train +experiment=vitb32 data.shards=/data/laion train.run_name=first
  clic-train +experiment=vitb32 data=shapes model.pretrained=null \\
      train.max_steps=2 train.batch_size=8
  clic-train -m +experiment=shapes seed=0,1,2
  torchrun --nproc-per-node 4 -m clic.cli.train +experiment=vitb32 \\
      data.shards=/data/laion

A run that was stopped or killed is continued by the same command.
"""
OPTIONS = """options:
  -h, --help           this page
  --help GROUP         the settings of a group, as in clic-train --help optim
  --debug              show the traceback of a mistake
  -m, --multirun       one run for each combination of comma-separated values;
                       name them, as in 'train.run_name=first-${seed}'
  --cfg job            print all settings with their values and stop
  --config-dir DIR     also look for settings and experiments of your own in DIR
"""


def help_text() -> str:
    """Return the page that `--help` prints, with a line for each experiment and group."""
    lines = [USAGE, "experiments:"]
    for name, line in described("experiment"):
        lines += wrapped(name, line)
    lines += ["", "groups (clic-train model=vitb16 optim=clove ...):"]
    for group in groups():
        if group != "experiment":
            named = f"  {group + '=':<11}{', '.join(choices(group))}"
            lines += textwrap.wrap(named, 79, subsequent_indent=" " * 13)
    lines += ["", "objectives (loss.composite=NAME, loss.single=NAME):"]
    for name, entry in OBJECTIVES.items():
        needs = f"; needs {' and '.join(entry.needs)}" if entry.needs else ""
        only = "" if len(entry.kinds) > 1 else f"; {entry.kinds[0]} only"
        lines += wrapped(name, f"{entry.about}{needs}{only}")
    lines += ["", OPTIONS.rstrip(), "", "settings (clic-train --cfg job prints their values):"]
    lines += textwrap.wrap(", ".join(settings()), 79, initial_indent="  ", subsequent_indent="  ")
    return "\n".join(lines)


def wrapped(name: str, line: str) -> list[str]:
    """Return the lines for a name and its meaning, 79 columns wide."""
    first, rest = f"  {name:<24} ", " " * 27
    return textwrap.wrap(
        line, 79, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False
    )


def _config_root() -> Path:
    from importlib.resources import files

    return Path(str(files(CONFIGS)))


def groups() -> list[str]:
    """Return the config groups that ship with the package."""
    return sorted(p.name for p in _config_root().iterdir() if p.is_dir() and any(p.glob("*.yaml")))


def choices(group: str) -> list[str]:
    """Return the names of a group's files."""
    return sorted(path.stem for path in (_config_root() / group).glob("*.yaml"))


def described(group: str) -> list[tuple[str, str]]:
    """Return the name of each file of a group, with its first comment that is not Hydra's."""
    found = []
    for name in choices(group):
        text = (_config_root() / group / f"{name}.yaml").read_text(encoding="utf-8")
        comments = [line.lstrip("# ") for line in text.splitlines() if line.startswith("#")]
        found.append((name, next((c for c in comments if not c.startswith("@package")), "")))
    return found


def settings(schema: Any = Config, prefix: str = "") -> list[str]:
    """Return the dotted names of all settings."""
    names: list[str] = []
    instance = schema() if isinstance(schema, type) else schema
    for f in fields(instance):
        value = getattr(instance, f.name)
        name = prefix + f.name
        names += settings(value, f"{name}.") if is_dataclass(value) else [name]
    return names
