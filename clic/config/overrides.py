"""Compose a command's settings from its file, its flags and its ``key=value`` words.

Words are read as the shell passes them: repeated settings are refused; values need no quotes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from clic.config.train_settings import Config
from clic.errors import ConfigError, did_you_mean

Schema = TypeVar("Schema")


def compose(
    config_name: str,
    words: Sequence[str],
    schema: type[Schema],
    flags: Mapping[str, Any] | None = None,
) -> Schema:
    """Compose ``configs/<config_name>.yaml`` with overrides into a schema dataclass.

    `words` are ``key=value`` overrides; for a list setting ``key=a,b`` means ``key=[a,b]``. `flags`
    are settings that were given as flags; None means not given.

    Raises:
        ConfigError: A setting is unknown, has the wrong type, or was given as both.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_module
    from omegaconf import OmegaConf

    given = {key: value for key, value in (flags or {}).items() if value is not None}
    words = [for_hydra(word, schema) for word in words]
    _check_keys(words, schema, given)
    with hydra_mistakes(f"{config_name}."):
        with initialize_config_module("clic.configs", version_base="1.3"):
            # The file's settings are in a node named after it, because a bare `model=M` would
            # choose from the group configs/model.
            overrides = [f"{config_name}.{word}" for word in words]
            composed = hydra_compose(config_name, overrides=overrides)[config_name]
        settings = OmegaConf.merge(OmegaConf.structured(schema), composed, given)
        result = OmegaConf.to_object(settings)
    assert isinstance(result, schema)
    return result


@contextmanager
def hydra_mistakes(prefix: str = "") -> Iterator[None]:
    """Turn Hydra's and OmegaConf's exceptions in the block into a `ConfigError`; see `reason`."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(reason(error, prefix)) from error


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


def reason(error: Exception, prefix: str = "") -> str:
    """Return the useful part of a Hydra or OmegaConf message on one line: setting and error.

    `prefix` is the part of the settings' names that the user did not write.
    """
    override = getattr(error, "override", None)
    if override is not None:
        key, _, value = str(override).removeprefix(prefix).partition("=")
        return (
            f"'{key}={value}' cannot be read; check its brackets and quotes, and write a text with "
            f"signs of its own in two pairs of quotes, \"{key}='TEXT'\", as the shell takes one"
        )
    cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
    if "Ambiguous value for argument" in str(cause):
        key = str(cause).split("'")[1].partition("=")[0].removeprefix(prefix)
        return (
            f"{key} has commas: [A,B] is a list, -m trains with each of A,B in turn, and a text "
            f"with commas is written in two pairs of quotes, \"{key}='TEXT'\""
        )
    key = str(getattr(cause, "full_key", None) or "").removeprefix(prefix)
    if not key and (found := re.search(r"full_key: (\S+)", str(cause))):
        key = found.group(1).removeprefix(prefix)
    text = re.sub(r"\s+(full_key|object_type|reference_type)[:=]\s*\S*", " ", str(cause))
    return " ".join((f"{key}: {text}" if key else text).split()) or type(error).__name__


OPEN = ("captions.mixture", "loss.negative_weights")
"""Settings with entries named by the user, which Hydra adds only with ++."""
PATTERNS = ("data.shards", "data.single_shards")
UNREADABLE, COMMAS = object(), object()
"""Results of parsing a value that Hydra cannot read, or that it reads as several values."""
OUTER_COMMA = re.compile(r",(?![^{}]*\})")


def given(words: Sequence[str]) -> set[str]:
    """Return the names of the settings that the words set."""
    own = [word for word in words if "=" in word and not word.startswith(("-", "~"))]
    return {word.partition("=")[0].lstrip("+") for word in own}


def check_repeats(words: Sequence[str]) -> None:
    """Raise `ConfigError` for a setting given twice, of which Hydra would use the last."""
    found: dict[str, list[str]] = {}
    for word in words:
        if "=" in word and not word.startswith(("-", "~")):
            found.setdefault(word.partition("=")[0].lstrip("+"), []).append(word)
    for key, same in found.items():
        if len(same) > 1:
            remedy = "keep one"
            if key in PATTERNS:
                remedy = f"quote a pattern for the shell, as in '{key}=DIR/{{000..999}}.tar'"
            raise ConfigError(
                f"{key} is given {len(same)} times, from {same[0]!r} to {same[-1]!r}; {remedy}"
            )


def is_entry(key: str) -> bool:
    """Return whether `key` is an entry of an open setting; `validate` checks its name."""
    return key.startswith(tuple(f"{setting}." for setting in OPEN))


def for_hydra(word: str, schema: type = Config, sweep: bool = False) -> str:
    """Return ``SETTING=VALUE``, as the shell passes it, in Hydra's grammar.

    Paths and patterns need no quotes for Hydra, a text may look like a number, and a list needs no
    brackets. `schema` defines the settings; in a `sweep`, commas separate the values of a multirun.
    """
    key, equals, value = word.partition("=")
    if not equals or word.startswith(("-", "~")):
        return word
    if key in OPEN or is_entry(key):
        key = f"++{key}"
    return f"{key}={_readable(value, _kind(key.lstrip('+'), schema), sweep)}"


def _kind(name: str, schema: type) -> str:
    """Return `text` or `list` for settings that contain text, the empty string for others."""
    kind: object = schema
    for part in name.split("."):
        found = [f for f in fields(kind) if f.name == part] if is_dataclass(kind) else []
        if not found:
            return ""
        kind = found[0].default_factory if is_dataclass(found[0].default_factory) else found[0].type
    if name in PATTERNS or str(kind) in ("str", "str | None"):
        return "text"
    return "list" if str(kind) == "list[str]" else ""


def _readable(value: str, kind: str, sweep: bool = False) -> str:
    if kind == "list" and value not in ("", "null") and not value.startswith(("[", "${")):
        value = f"[{value}]"
    parsed = _parse(value)
    if parsed is COMMAS and not sweep:
        return _quote(value) if kind == "text" and _lies_on_disk(value) else value
    if parsed is not UNREADABLE:
        number = kind == "text" and isinstance(parsed, bool | int | float)
        return _quote(value) if number else value
    if value.startswith("[") and value.endswith("]"):
        return f"[{_readable_parts(value[1:-1])}]"
    parts = OUTER_COMMA.split(value)
    if len(parts) > 1 and (sweep or not _lies_on_disk(value)):
        return _readable_parts(value)
    return _quote(value)


def _readable_parts(values: str) -> str:
    return ",".join(_readable(part.strip(), "") for part in OUTER_COMMA.split(values))


def _parse(value: str) -> object:
    """Return what Hydra reads from a value: `UNREADABLE` if its grammar does not allow it."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import Sweep
    from hydra.errors import HydraException

    try:
        override = OverridesParser.create().parse_override(f"key={value}")
    except HydraException:
        return UNREADABLE
    if isinstance(override._value, Sweep):
        return COMMAS if getattr(override._value, "simple_form", False) else None
    return override.value()


def _lies_on_disk(value: str) -> bool:
    """Return whether a value with commas is an existing path, up to the first pattern character."""
    literal = re.split(r"[{*?\[]", value)[0]
    if literal != value:
        literal = literal.rpartition("/")[0]
    whole = not OUTER_COMMA.search(value[len(literal) :])
    return bool(literal) and whole and Path(literal).expanduser().exists()


def _quote(value: str) -> str:
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", value)
    return "'" + re.sub(r"(\\+)$", r"\1\1", escaped) + "'"
