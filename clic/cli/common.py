"""What the four commands share: exit codes, one-line errors and composed settings.

Nothing here imports torch, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import errno
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from clic.errors import ClicError, ConfigError, did_you_mean

if TYPE_CHECKING:
    from rich.console import Console

USER_ERROR = 2
INTERRUPTED = 130
DISK_ERRORS = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENAMETOOLONG,
    errno.EIO,
)
"""What a place can answer to a file: no permission, read-only, full, no folder, broken."""
WIDTH = 80
Config = TypeVar("Config")


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, exit code 2, and which never guesses.

    Options may not be abbreviated; description and epilogue are printed as they are written.
    """

    def __init__(self, **settings: Any) -> None:
        settings.setdefault("allow_abbrev", False)
        settings.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(**settings)

    def error(self, message: str) -> NoReturn:
        """Print one line and exit with 2."""
        self.exit(USER_ERROR, f"{self.prog}: error: {message} (see {self.prog} --help)\n")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """End the program quietly where the reader of `--help | head` has left."""
        try:
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
    """Add the flags of whatever scores models on benchmarks."""
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


def split_commas(values: Sequence[str] | None) -> list[str] | None:
    """Return the comma-separated words of a repeatable flag, None where it was not given."""
    if values is None:
        return None
    return [word.strip() for value in values for word in value.split(",") if word.strip()]


def settings_of(flags: argparse.Namespace, *lists: str) -> dict[str, Any]:
    """Return the flags that are settings, those named in `lists` split at commas."""
    given = {key: value for key, value in vars(flags).items() if key != "debug"}
    return {**given, **{key: split_commas(given[key]) for key in lists}}


def one_line(error: BaseException) -> str:
    """Return an exception's message on one line."""
    return " ".join(str(error).split()) or type(error).__name__


def check_least(least: int, **numbers: int) -> None:
    """Refuse a flag, named like the argument, whose number is below `least`."""
    for name, value in numbers.items():
        if value < least:
            raise ClicError(f"--{name.replace('_', '-')} {value} must be {least} or more")


def drop_output() -> None:
    """Print nowhere from now on; Python would complain again when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def disk_reason(error: OSError, path: str | Path | None = None) -> str:
    """Return what the disk refused to do, and why, on one line."""
    place = path or error.filename
    return (
        f"cannot read or write {place if place is not None else 'a file'}: {error.strerror}; "
        "choose another place, or mend its permissions or space"
    )


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn whatever keeps a file from being written into a mistake that is the user's to mend.

    Raises:
        ConfigError: The block raised an `OSError`.
    """
    try:
        yield
    except OSError as error:
        raise ConfigError(disk_reason(error, path)) from error


def run_cli(name: str, body: Callable[[], int | None], debug: bool = False) -> NoReturn:
    """Run a command and exit as the house does.

    0 when `body` returns None (or the code it returns), 2 with one line on stderr for a mistake
    that is the user's to mend or a disk that refuses, 130 with one line for Ctrl-C; anything else
    is a bug of ours and keeps its traceback.

    Args:
        name: The command, e.g. ``clic-eval``.
        body: The command's work.
        debug: Let the exception through with its traceback.
    """
    try:
        code = body() or 0
        sys.stdout.flush()
    except ClicError as error:
        if debug:
            raise
        print(f"{name}: error: {one_line(error)}", file=sys.stderr)
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


def compose(
    config_name: str,
    words: Sequence[str],
    schema: type[Config],
    flags: Mapping[str, Any] | None = None,
) -> Config:
    """Compose ``configs/<config_name>.yaml`` with overrides into a schema dataclass.

    Args:
        config_name: Name of the file under ``clic.configs``, without its ending.
        words: ``key=value`` overrides; for a list setting ``key=a,b`` means ``key=[a,b]``.
        schema: Dataclass that the settings must fit.
        flags: Settings that were given as flags, those that are None left out.

    Raises:
        ConfigError: A setting is unknown, has the wrong type, or was given both ways.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_module
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    given = {key: value for key, value in (flags or {}).items() if value is not None}
    words = [_as_list(word, schema) for word in words]
    _check_keys(words, schema, given)
    try:
        with initialize_config_module("clic.configs", version_base="1.3"):
            # The file's settings lie in a node of its own name, because a bare `model=M` would
            # choose from the group configs/model.
            overrides = [f"{config_name}.{word}" for word in words]
            composed = hydra_compose(config_name, overrides=overrides)[config_name]
        settings = OmegaConf.merge(OmegaConf.structured(schema), composed, given)
        result = OmegaConf.to_object(settings)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_reason(error, f"{config_name}.")) from error
    if not isinstance(result, schema):
        raise TypeError(f"{config_name}: composed {type(result)}, expected {schema}")
    return result


def _as_list(word: str, schema: type) -> str:
    """Write ``bench=a,b`` as ``bench=[a,b]``, which Hydra would take for a sweep."""
    key, value = word.split("=", 1)
    lists = {f.name for f in fields(schema) if "list" in str(f.type)}
    if key in lists and value and value != "null" and not value.startswith("["):
        return f"{key}=[{value}]"
    return word


def _check_keys(words: Sequence[str], schema: type, given: Mapping[str, Any]) -> None:
    known = [f.name for f in fields(schema)]
    for word in words:
        key = word.split("=", 1)[0]
        if key not in known:
            choices = ", ".join(known)
            raise ConfigError(
                f"setting {key!r} is not known{did_you_mean(key, known)} (settings: {choices})"
            )
        if key in given:
            raise ConfigError(f"{key} is given twice, as a flag and as {word!r}; keep one")


def _reason(error: Exception, prefix: str) -> str:
    """Return the part of a Hydra or OmegaConf message that helps, on one line."""
    override = getattr(error, "override", None)
    if override is not None:
        word = str(override).removeprefix(prefix)
        return f"{word!r} cannot be read as a key=value setting; check quotes and brackets"
    cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
    text = re.sub(r"\s+(full_key|object_type|reference_type)[:=]\s*\S*", " ", str(cause))
    key = str(getattr(cause, "full_key", None) or "").removeprefix(prefix)
    return " ".join((f"{key}: {text}" if key else text).split()) or type(error).__name__


def make_console() -> Console:
    """Return a console on stdout that is at most 80 columns wide."""
    from rich.console import Console

    console = Console()
    console.width = min(console.width, WIDTH)
    return console


def check_torchrun() -> None:
    """Fail where WORLD_SIZE promises other processes that nothing could find.

    Raises:
        ConfigError: WORLD_SIZE is above 1, and what else torchrun sets is not set.
    """
    world = os.environ.get("WORLD_SIZE", "1")
    lacking = [n for n in ("RANK", "MASTER_ADDR", "MASTER_PORT") if not os.environ.get(n)]
    if world not in ("", "1") and lacking:
        raise ConfigError(
            f"WORLD_SIZE={world}, but {lacking[0]} is not set; start the processes with torchrun, "
            "or unset WORLD_SIZE"
        )


def refuse_torchrun() -> None:
    """Fail under torchrun, where each process would do the whole work again.

    Raises:
        ConfigError: WORLD_SIZE is above 1.
    """
    world = os.environ.get("WORLD_SIZE", "1")
    if world not in ("", "1"):
        raise ConfigError(
            f"WORLD_SIZE={world}: evaluation runs on one process; start it without torchrun"
        )


def check_writable(*paths: str | None) -> None:
    """Fail before the work where a file could not be written after it.

    Raises:
        ConfigError: A file's folder does not exist, or the path is a folder.
    """
    files = [Path(path).expanduser() for path in paths if path is not None]
    for file in files:
        if file.is_dir():
            raise ConfigError(f"{file} is a folder; name a file in it")
        if files.count(file) > 1:
            raise ConfigError(f"{file} is named twice; give each output a file of its own")
        if not file.parent.is_dir():
            raise ConfigError(f"cannot write {file}: there is no folder {file.parent}; make it")
        special = file.exists() and not file.is_file()  # written into, where files are replaced
        if not os.access(file if special else file.parent, os.W_OK):
            raise ConfigError(f"cannot write {file}: no permission; choose another file")


def check_folder(path: str) -> None:
    """Fail before the work where a folder could not be made, or written to, after it.

    Raises:
        ConfigError: The path is a file, or there is no permission.
    """
    folder = Path(path).expanduser().absolute()
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    if not existing.is_dir():
        raise ConfigError(f"cannot write to {path}: {existing} is no folder; name another one")
    if not os.access(existing, os.W_OK):
        raise ConfigError(f"cannot write to {path}: no permission in {existing}; name another one")
