"""`SETTING=VALUE` words as a shell leaves them: repeated settings, and values without quotes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path

from clic.config import Config
from clic.errors import ConfigError

OPEN = ("captions.mixture", "loss.negative_weights")
"""Settings whose entries have names of the user's choice, which Hydra adds with ++ alone."""
PATTERNS = ("data.shards", "data.single_shards")
UNREADABLE, COMMAS = object(), object()
"""What Hydra may make of a value, beside reading it: nothing, or several values."""
OUTER_COMMA = re.compile(r",(?![^{}]*\})")


def check_repeats(words: Sequence[str]) -> None:
    """Refuse a setting that is given twice, of which Hydra would take the last.

    Raises:
        ConfigError: A setting is repeated.
    """
    given: dict[str, list[str]] = {}
    for word in words:
        if "=" in word and not word.startswith(("-", "~")):
            given.setdefault(word.partition("=")[0].lstrip("+"), []).append(word)
    for key, same in given.items():
        if len(same) > 1:
            remedy = "keep one"
            if key in PATTERNS:
                remedy = f"quote a pattern for the shell, as in '{key}=DIR/{{000..999}}.tar'"
            raise ConfigError(
                f"{key} is given {len(same)} times, from {same[0]!r} to {same[-1]!r}; {remedy}"
            )


def is_entry(key: str) -> bool:
    """Return whether `key` is an entry of a setting that takes any: `validate` knows which."""
    return key.startswith(tuple(f"{setting}." for setting in OPEN))


def for_hydra(word: str, schema: type = Config, sweep: bool = False) -> str:
    """Return a word as Hydra's grammar and its strict structures want it.

    Paths and patterns need no quotes of Hydra's, a text may look like a number, and a list no
    brackets.

    Args:
        word: `SETTING=VALUE` as the shell leaves it.
        schema: Dataclass of the settings.
        sweep: Whether commas part the values of a multirun.
    """
    key, equals, value = word.partition("=")
    if not equals or word.startswith(("-", "~")):
        return word
    if key in OPEN or is_entry(key):
        key = f"++{key}"
    return f"{key}={_readable(value, _kind(key.lstrip('+'), schema), sweep)}"


def _kind(name: str, schema: type) -> str:
    """Return `text` or `list` for settings that hold texts, the empty string for others."""
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
    """Return what Hydra reads from a value: `UNREADABLE` where its grammar has no place for it."""
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
    """Return whether a path with commas is one: it exists, up to the first sign of a pattern."""
    literal = re.split(r"[{*?\[]", value)[0]
    if literal != value:
        literal = literal.rpartition("/")[0]
    whole = not OUTER_COMMA.search(value[len(literal) :])
    return bool(literal) and whole and Path(literal).expanduser().exists()


def _quote(value: str) -> str:
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", value)
    return "'" + re.sub(r"(\\+)$", r"\1\1", escaped) + "'"
