"""Code that the four commands share: flags, exit codes, one-line errors, a console, torchrun.

Nothing here imports torch, so ``--help`` is instant.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from clic.errors import ClicError, ConfigError, did_you_mean
from clic.io.files import DISK_ERRORS, disk_reason

if TYPE_CHECKING:
    from rich.console import Console

USER_ERROR = 2
INTERRUPTED = 130
WIDTH = 80
MODEL_FLAGS = {"clic-eval": "--model", "clic-patch": "model"}


def run_cli(name: str, body: Callable[[], int | None], debug: bool = False) -> NoReturn:
    """Run the body of a command, e.g. ``clic-eval``, and exit.

    The exit code is the one that `body` returns (0 for None), 2 with one line on stderr for a
    user's mistake or a disk error, and 130 with one line for Ctrl-C. Any other exception is a bug
    and keeps its traceback; with `debug`, mistakes keep theirs, too.
    """
    try:
        code = body() or 0
        sys.stdout.flush()
    except ClicError as error:
        if debug:
            raise
        print(f"{name}: error: {in_words_of(name, one_line(error))}", file=sys.stderr)
        code = USER_ERROR
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        code = INTERRUPTED
    except BrokenPipeError:
        drop_output()  # the reader, such as `| head`, has exited
        code = 1
    except OSError as error:
        if debug or error.errno not in DISK_ERRORS:
            raise
        print(f"{name}: error: {disk_reason(error)}", file=sys.stderr)
        code = USER_ERROR
    sys.exit(code)


def in_words_of(command: str, message: str) -> str:
    """Return a message with a scoring command's flags in place of the settings of `clic-train`.

    The code that loads models and data serves all commands, so its messages name settings. They
    identify which of `clic-patch`'s two models is meant only by the given name.
    """
    if command not in MODEL_FLAGS:
        return message
    model = MODEL_FLAGS[command]
    message = re.sub(r" \(clic-train: [^()]*\)", "", message)
    message = re.sub(r"\bmodel\.name=(?:'([^']*)')?", rf"{model} \1", message)
    message = re.sub(r"\bmodel\.pretrained=(?:'([^']*)')?", rf"{model} ARCHITECTURE:\1", message)
    return re.sub(
        r"\b(?:data|train)\.(workers|cache_dir|cache_gb|batch_size|device|precision)\b=?",
        lambda found: f"--{found.group(1).replace('_', '-')}" + " " * found.group().endswith("="),
        message,
    )


def one_line(error: BaseException) -> str:
    """Return an exception's message on one line."""
    return " ".join(str(error).split()) or type(error).__name__


def drop_output() -> None:
    """Discard all further output; otherwise Python would complain again when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def make_console() -> Console:
    """Return a console on stdout that is at most 80 columns wide."""
    from rich.console import Console

    console = Console()
    console.width = min(console.width, WIDTH)
    return console


def check_torchrun() -> None:
    """Raise `ConfigError` if WORLD_SIZE is above 1 and torchrun's other variables are not set."""
    world = os.environ.get("WORLD_SIZE", "1")
    lacking = [n for n in ("RANK", "MASTER_ADDR", "MASTER_PORT") if not os.environ.get(n)]
    if world not in ("", "1") and lacking:
        raise ConfigError(
            f"WORLD_SIZE={world}, but {lacking[0]} is not set; start the processes with torchrun, "
            "or unset WORLD_SIZE"
        )


def refuse_torchrun() -> None:
    """Raise `ConfigError` under torchrun, where each process would do the whole work again."""
    world = os.environ.get("WORLD_SIZE", "1")
    if world not in ("", "1"):
        raise ConfigError(
            f"WORLD_SIZE={world}: evaluation runs on one process; start it without torchrun"
        )


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line with exit code 2.

    Options cannot be abbreviated; description and epilogue are printed verbatim.
    """

    def __init__(self, **settings: Any) -> None:
        width = min(shutil.get_terminal_size().columns, WIDTH) - 2
        page = partial(argparse.RawDescriptionHelpFormatter, width=width)
        super().__init__(**{"allow_abbrev": False, "formatter_class": page, **settings})

    def error(self, message: str) -> NoReturn:
        self.exit(USER_ERROR, f"{self.prog}: error: {message} (see {self.prog} --help)\n")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        try:  # exit quietly if the reader has exited, as in `--help | head`
            sys.stdout.flush()
        except BrokenPipeError:
            drop_output()
        super().exit(status, message)

    def parse_with_overrides(self, argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
        """Return the flags and the remaining ``key=value`` words.

        An unknown flag, or a word that is not ``key=value``, exits the program with 2.
        """
        flags, words = self.parse_known_args(list(argv))
        known = [option for action in self._actions for option in action.option_strings]
        for word in words:
            if word.startswith("-"):
                name = word.split("=")[0]
                self.error(f"unknown option {name}{did_you_mean(name, known)}")
            if "=" not in word:
                self.error(f"{word!r} is neither an option nor a key=value setting")
        return flags, words


def add_scoring_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the commands that score models on benchmarks."""
    add = parser.add_argument
    add("--data", metavar="DIR", help="the benchmarks' files (default: $CLIC_DATA, else ./data)")
    add("--batch-size", metavar="N", type=int, help="images, or texts, at a time (64)")
    add("--workers", metavar="N", type=int, help="threads that decode images (one for each core)")
    add("--device", metavar="D", help="auto, cpu, cuda or cuda:N (auto)")
    add("--precision", metavar="P", help="auto (fp16 on CUDA, else fp32), fp32, bf16 or fp16")
    add("--no-cache", dest="cache", action="store_const", const=False,
        help="neither read nor keep features on disk")  # fmt: skip
    add("--cache-dir", metavar="DIR", help="where features are kept ($CLIC_CACHE, ~/.cache/clic)")
    add("--cache-gb", metavar="N", type=float, help="size limit; the least used go first (10)")
    add("--split", metavar="S", help="split of the shapes benchmarks: test or validation (test)")
    add("--seed", metavar="N", type=int, help="seed of the shapes benchmarks (0)")
    add("--allow-missing", action="store_const", const=True,
        help="leave out rows whose image is missing or broken, and count the rest")  # fmt: skip


def is_setting(word: str) -> bool:
    """Return whether a word is a key=value setting rather than a path that looks like one."""
    return re.match(r"[a-z_]+=", word) is not None and not Path(word).exists()


def split_commas(values: Sequence[str] | None) -> list[str] | None:
    """Return the comma-separated words of a repeatable flag, None if it was not given."""
    if values is None:
        return None
    return [word.strip() for value in values for word in value.split(",") if word.strip()]


def settings_of(flags: argparse.Namespace, *lists: str) -> dict[str, Any]:
    """Return the flags that are settings, with those named in `lists` split at commas."""
    given = {key: value for key, value in vars(flags).items() if key != "debug"}
    return {**given, **{key: split_commas(given[key]) for key in lists}}


class DataCommand(NamedTuple):
    """A command of `clic-data`; the docstring of `run` is the text of its help page.

    Attributes:
        run: Called with the flags and the remaining words, if it accepts settings; returns the exit
            code.
        add_arguments: Adds the command's arguments to its parser.
        examples: Command lines for the help pages.
        takes_settings: Whether the command accepts words such as data.shards=DIR.
    """

    run: Callable[[argparse.Namespace, Sequence[str]], int | None]
    add_arguments: Callable[[Parser], None]
    examples: tuple[str, ...]
    takes_settings: bool = False


def check_least(least: int, **numbers: int | None) -> None:
    """Raise `ClicError` if a number is below `least`; each is named after its flag."""
    for name, value in numbers.items():
        if value is not None and value < least:
            raise ClicError(f"--{name.replace('_', '-')} {value} must be {least} or more")
