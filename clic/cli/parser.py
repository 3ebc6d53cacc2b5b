"""The command lines' parser, and the flags that several commands have."""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from clic.cli.common import USER_ERROR, WIDTH, drop_output
from clic.errors import ClicError, did_you_mean


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, exit code 2, and which never guesses.

    Options may not be abbreviated; description and epilogue are printed as they are written.
    """

    def __init__(self, **settings: Any) -> None:
        width = min(shutil.get_terminal_size().columns, WIDTH) - 2
        page = partial(argparse.RawDescriptionHelpFormatter, width=width)
        super().__init__(**{"allow_abbrev": False, "formatter_class": page, **settings})

    def error(self, message: str) -> NoReturn:
        self.exit(USER_ERROR, f"{self.prog}: error: {message} (see {self.prog} --help)\n")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        try:  # end quietly if the reader of `--help | head` has left
            sys.stdout.flush()
        except BrokenPipeError:
            drop_output()
        super().exit(status, message)

    def parse_with_overrides(self, argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
        """Return the flags and the remaining ``key=value`` words.

        An unknown flag, or a word that is no ``key=value``, ends the program with 2.
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
    add("--data", metavar="DIR", help="the benchmarks' files (default: $CLIC_DATA, then ./data)")
    add("--batch-size", metavar="N", type=int, help="images, or texts, at a time (64)")
    add("--workers", metavar="N", type=int, help="threads that decode images (the cores)")
    add("--device", metavar="D", help="auto, cpu, cuda or cuda:N (auto)")
    add("--precision", metavar="P", help="auto (fp16 on CUDA, else fp32), fp32, bf16 or fp16")
    add("--no-cache", dest="cache", action="store_const", const=False,
        help="neither read nor keep features on disk")  # fmt: skip
    add("--cache-dir", metavar="DIR", help="where features are kept ($CLIC_CACHE, ~/.cache/clic)")
    add("--cache-gb", metavar="N", type=float, help="their size; the least used go first (10)")
    add("--split", metavar="S", help="shapes benchmarks: test or validation (test)")
    add("--seed", metavar="N", type=int, help="shapes benchmarks: their seed (0)")
    add("--allow-missing", action="store_const", const=True,
        help="leave out rows whose image is missing or broken, and count the rest")  # fmt: skip


def is_setting(word: str) -> bool:
    """Return whether a word is a key=value setting rather than a path that looks like one."""
    return re.match(r"[a-z_]+=", word) is not None and not Path(word).exists()


def split_commas(values: Sequence[str] | None) -> list[str] | None:
    """Return the comma-separated words of a repeatable flag, None where it was not given."""
    if values is None:
        return None
    return [word.strip() for value in values for word in value.split(",") if word.strip()]


def settings_of(flags: argparse.Namespace, *lists: str) -> dict[str, Any]:
    """Return the flags that are settings, those named in `lists` split at commas."""
    given = {key: value for key, value in vars(flags).items() if key != "debug"}
    return {**given, **{key: split_commas(given[key]) for key in lists}}


def check_least(least: int, **numbers: int) -> None:
    """Refuse a flag, named like the argument, whose number is below `least`."""
    for name, value in numbers.items():
        if value < least:
            raise ClicError(f"--{name.replace('_', '-')} {value} must be {least} or more")
