"""`SETTING=VALUE` words as a shell leaves them: repeated settings, and braces without quotes."""

from __future__ import annotations

import re
from collections.abc import Sequence

from clic.errors import ConfigError

OPEN = ("captions.mixture", "loss.negative_weights")
"""Settings whose entries have names of the user's choice, which Hydra adds with ++ alone."""
PATTERNS = ("data.shards", "data.single_shards")
BRACE = re.compile(r"(?<!\$)\{")  # but not an interpolation's
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


def for_hydra(word: str) -> str:
    """Return a word as Hydra's grammar and its strict structures want it."""
    key = word.partition("=")[0]
    return quote_braces(f"++{word}" if key in OPEN or is_entry(key) else word)


def quote_braces(word: str) -> str:
    """Quote the brace patterns of a word's value, which Hydra's grammar refuses bare.

    Each element of a list, or of a sweep's comma-separated values, is quoted by itself.
    """
    key, equals, value = word.partition("=")
    if word.startswith("-") or not BRACE.search(value) or value.startswith(("'", '"')):
        return word
    if value.startswith("[") and value.endswith("]"):
        return f"{key}{equals}[{_quote_parts(value[1:-1])}]"
    return f"{key}{equals}{_quote_parts(value)}"


def _quote_parts(values: str) -> str:
    return ",".join(_quote(part.strip()) for part in OUTER_COMMA.split(values))


def _quote(value: str) -> str:
    is_mapping = value.startswith("{") and value.endswith("}")
    if not BRACE.search(value) or is_mapping or value.startswith(("'", '"')):
        return value
    return "'" + value.replace("'", "\\'") + "'"
