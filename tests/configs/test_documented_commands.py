"""Every command line of README.md and docs/ parses: its flags, settings and experiments exist."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clic.cli import data, eval, patch, train
from clic.cli.common import is_setting, settings_of
from clic.config import eval_settings, patch_settings
from clic.config.checks import validate
from clic.config.overrides import compose
from clic.config.patch_settings import check_patch

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```bash\n(.*?)^```", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`(clic-(?:data|train|eval|patch) [^`]+)`")
MODULE = re.compile(r"^torchrun .*-m clic\.cli\.(\w+)")
SWEEP_FLAGS = ("-m", "--multirun", "--cfg", "job")


def commands(page: Path) -> list[str]:
    """Return the command lines of a page's blocks, without comments."""
    blocks = BLOCK.findall(page.read_text(encoding="utf-8"))
    lines = [line for block in blocks for line in block.replace("\\\n", " ").split("\n")]
    lines = [MODULE.sub(r"clic-\1", line.strip()) for line in lines]
    split = [shlex.join(shlex.split(line, comments=True)) for line in lines if "clic-" in line]
    return [line for line in split if line.startswith("clic-") and "..." not in line]


def mentions(page: Path) -> list[str]:
    """Return the commands within a page's sentences, which may lack what they are given."""
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    return [" ".join(found.split()) for found in INLINE.findall(text)]


def found_by(find: Callable[[Path], list[str]]) -> list[Any]:
    return [pytest.param(line, id=f"{page.stem}: {line}") for page in PAGES for line in find(page)]


COMMANDS, MENTIONS = found_by(commands), found_by(mentions)


def test_the_pages_have_commands() -> None:
    stems = [str(param.id).partition(":")[0] for param in COMMANDS]
    assert len(COMMANDS) > 70 and stems.count("recipes") >= 6 and stems.count("data") > 20
    assert len(MENTIONS) > 40


@pytest.mark.parametrize("line", MENTIONS)
def test_a_command_that_is_mentioned_exists(line: str) -> None:
    name, *words = shlex.split(line.replace("...", ""))
    flags = [word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)]
    if name == "clic-train":
        _check_settings([word for word in words if re.match(r"\+?[\w.]+=[^<]", word)])
        assert set(flags) <= {"--help", *train.HYDRA_FLAGS}
        return
    if name == "clic-data":
        assert words[0] in data.COMMANDS
    parser = {
        "clic-data": lambda: data._parsers()[1][words[0]],
        "clic-eval": eval.make_parser,
        "clic-patch": patch.make_parser,
    }[name]()
    known = {option for action in parser._actions for option in action.option_strings}
    assert set(flags) <= known


@pytest.mark.parametrize("line", COMMANDS)
def test_a_documented_command_parses(line: str) -> None:
    name, *words = shlex.split(line)
    if name == "clic-data":
        flags, rest = data._parsers()[0].parse_known_args(words)
        assert not rest or data.COMMANDS[flags.command].takes_settings, rest
        _check_settings([word for word in rest if is_setting(word)])
    elif name == "clic-train":
        train.check_words(words)
        _check_settings([word for word in words if word not in SWEEP_FLAGS])
    elif name == "clic-eval":
        flags, settings = eval.make_parser().parse_with_overrides(words)
        if flags.published_table is None:
            del flags.published_table
            compose("eval", settings, eval_settings.EvalConfig, settings_of(flags, "bench"))
    else:
        flags, settings = patch.make_parser().parse_with_overrides(words)
        given = settings_of(flags, "sweep", "bench", "select", "report", "weights")
        given["alpha"] = patch._split_alphas(given["alpha"])
        check_patch(compose("patch", settings, patch_settings.PatchConfig, given))


def _check_settings(words: list[str]) -> None:
    """Compose the settings of a run, without Hydra's own and lists that a sweep goes through."""
    own = [word for word in words if not word.startswith("hydra/") and "hydra." not in word]
    single = [re.sub(r"^(seed=\d+),.*", r"\1", word) for word in own]
    config = train.compose([word for word in single if "${" not in word])
    if config.data.shards or config.data.source == "shapes":
        validate(config)
