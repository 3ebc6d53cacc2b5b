"""Errors that are the user's to mend: one line with the cause and the remedy, exit code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

T = TypeVar("T")


class ClicError(Exception):
    """A mistake in a setting, a file or a command line.

    The message names the setting or file, its value and what to do; the command lines print it
    without a traceback and exit with 2. Anything else that is raised is a bug.
    """


class ConfigError(ClicError):
    """A setting has a value that cannot work, or one that would have no effect."""


class DataError(ClicError):
    """A data file is missing, broken or not what its name promises."""


class UnavailableError(DataError):
    """Data cannot be had just now: a server is gone, a disk is full; no sample may stand in."""


class ModelError(ClicError):
    """A model cannot be found, or its weights do not fit its architecture."""


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """Return `"; did you mean 'x' or 'y'?"`, or the empty string where nothing is near."""
    near = difflib.get_close_matches(name, list(choices), n=2, cutoff=0.7)
    return f"; did you mean {' or '.join(repr(n) for n in near)}?" if near else ""


def pick(table: Mapping[str, T], name: str, setting: str) -> T:
    """Return `table[name]`, or raise an error that names the setting and the choices.

    Raises:
        ConfigError: `name` is not a key of `table`.
    """
    try:
        return table[name]
    except KeyError:
        choices = ", ".join(sorted(table))
        hint = did_you_mean(name, table)
        raise ConfigError(f"{setting}={name!r} is not known{hint} (choices: {choices})") from None
