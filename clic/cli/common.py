"""What the four commands share: exit codes, one-line errors, a console, torchrun.

Nothing here imports torch, so that ``--help`` answers at once.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

from clic.errors import ClicError, ConfigError
from clic.io.files import DISK_ERRORS, disk_reason

if TYPE_CHECKING:
    from rich.console import Console

USER_ERROR = 2
INTERRUPTED = 130
WIDTH = 80
MODEL_FLAGS = {"clic-eval": "--model", "clic-patch": "model"}


def run_cli(name: str, body: Callable[[], int | None], debug: bool = False) -> NoReturn:
    """Run the body of a command, e.g. ``clic-eval``, and exit.

    The exit code is 0 when `body` returns None (or the code that it returns), 2 with one line on
    stderr for a user's mistake or a disk that refuses, and 130 with one line for Ctrl-C. Any other
    exception is a bug and keeps its traceback; with `debug` a mistake keeps its own, too.
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
        drop_output()  # the reader (`| head`) has left
        code = 1
    except OSError as error:
        if debug or error.errno not in DISK_ERRORS:
            raise
        print(f"{name}: error: {disk_reason(error)}", file=sys.stderr)
        code = USER_ERROR
    sys.exit(code)


def in_words_of(command: str, message: str) -> str:
    """Return a message with a scoring command's flags in place of the settings of `clic-train`.

    The code that loads models and data serves all commands, and names the settings. It cannot tell
    which of `clic-patch`'s two models is meant, except by the name that was given.
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
    """Print nothing from now on; Python would complain again when it flushes at exit."""
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
