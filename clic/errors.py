"""Errors that a user can fix, and the removal of secrets from messages and files."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

T = TypeVar("T")

HIDDEN = "..."
_SCHEME = r"[A-Za-z][A-Za-z0-9+.-]*://"
_USER = re.compile(rf"({_SCHEME})[^\s/?#'\"]*@")
# One string may list several addresses, so a query ends where the next address begins.
_QUERY = re.compile(
    rf"({_SCHEME}[^\s?#'\"]*[?#])(?!\.\.\.)(?:(?!,\s*{_SCHEME})[^\s'\"\]<>])+?"
    rf"(?=[.,:;)]*(?:[\s'\"\]<>]|$|,\s*{_SCHEME}))"
)
_NAMES = (
    r"(?:[\w.-]*[._-])?(?:token|secret|passwd|password|(?:api|access|secret|private)[_-]?key"
    r"|(?:api|access|auth|secret)token|credentials?|authorization|signature)"
)
_NAME = re.compile(_NAMES, re.IGNORECASE)
_VALUE = re.compile(rf"(\b{_NAMES}=['\"]?)[^\s'\",&;)\]}}]+", re.IGNORECASE)
_TOKEN = re.compile(
    r"\b(hf_|gh[pousr]_|github_pat_|xox[abeprs]-|AKIA|ASIA)[A-Za-z0-9]{16}[\w-]*"
    r"|\b(sk-)[\w-]{32,}|\b(eyJ)[\w-]+\.[\w-]+\.[\w-]*|\b(Bearer )\S+"
)
"""Tokens of Hugging Face, GitHub, Slack, AWS and OpenAI, and JSON web tokens."""


def redact(value: Any) -> Any:
    """Return a string, or a list or mapping of strings, with possible secrets replaced.

    Secrets are the user, password and query of an address, the value of a setting named like a
    token, key or password, and anything that looks like a well-known kind of token.
    """
    if isinstance(value, str):
        text = _QUERY.sub(rf"\1{HIDDEN}", _USER.sub(r"\1", value))
        return _TOKEN.sub(rf"\1\2\3\4{HIDDEN}", _VALUE.sub(rf"\1{HIDDEN}", text))
    if isinstance(value, Mapping):
        return {
            key: HIDDEN if one and _NAME.fullmatch(str(key)) else redact(one)
            for key, one in value.items()
        }
    if isinstance(value, list | tuple):
        return [redact(one) for one in value]
    return value


class ClicError(Exception):
    """A mistake in a setting, a file or a command line.

    The message names the setting or file, its value and the remedy. The commands print it without
    a traceback and exit with 2; any other exception is a bug. Possible secrets are removed.
    """

    def __init__(self, *words: object) -> None:
        super().__init__(*map(redact, words))


class ConfigError(ClicError):
    """A setting has a value that cannot work or has no effect."""


class DataError(ClicError):
    """A data file is missing, broken or of the wrong format."""


class UnavailableError(DataError):
    """Data is temporarily unavailable (server down, disk full); samples must not be replaced."""


class ModelError(ClicError):
    """A model cannot be found or loaded."""


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """Return `"; did you mean 'x' or 'y'?"`, or an empty string if nothing is close."""
    near = difflib.get_close_matches(name, list(choices), n=2, cutoff=0.7)
    return f"; did you mean {' or '.join(repr(n) for n in near)}?" if near else ""


def unknown_choice(what: str, name: str, choices: Sequence[str]) -> ConfigError:
    """Return the error for `what`, which is none of the choices, with the nearest of them."""
    hint = did_you_mean(name, choices)
    return ConfigError(f"{what} is not known{hint} (choices: {', '.join(choices)})")


def no_effect(setting: str, value: object, because: str, remedy: str) -> ConfigError:
    """Return the error for a setting that has no effect with another one, with the remedy."""
    shown = str(value).lower() if isinstance(value, bool) else value
    return ConfigError(f"{setting}={shown} has no effect with {because}; {remedy}")


def pick(table: Mapping[str, T], name: str, setting: str) -> T:
    """Return `table[name]`, or raise an error that names the setting and the choices.

    Raises:
        ConfigError: `name` is not a key of `table`.
    """
    if name in table:
        return table[name]
    choices = ", ".join(sorted(table))
    hint = did_you_mean(name, table)
    raise ConfigError(f"{setting}={name!r} is not known{hint} (choices: {choices})")


class Choices(dict[str, T]):
    """A table of a setting's choices; looking up any other name raises `ConfigError`, like `pick`.

    Args:
        setting: Name of the setting, for the message.
        table: The value of each choice.
    """

    def __init__(self, setting: str, table: Mapping[str, T]) -> None:
        super().__init__(table)
        self.setting = setting

    def __missing__(self, name: str) -> T:
        return pick(self, name, self.setting)
