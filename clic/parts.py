"""Which parts of a model train, as the setting `model.train` names them.

Nothing here imports torch, so that a mistake in the setting is reported before a model is loaded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from clic.errors import ConfigError, did_you_mean

TOWERS = ("text", "vision")
FORMS = (
    *TOWERS, "both", *(f"{tower}.last:N" for tower in TOWERS),
    *(f"lora:{towers}" for towers in (*TOWERS, "both")), "re:PATTERN",
)  # fmt: skip
"""The forms of a part of `model.train`; parts are joined by `+`, with `re:PATTERN` last."""
_PART = re.compile(r"(text|vision)(?:\.last:([0-9]+))?")
_PATTERN = re.compile(r"(?:^|\+)re:")


@dataclass(frozen=True)
class Trained:
    """Which towers train, and how much of them.

    Attributes:
        vision: Whether anything of the vision tower trains.
        text: Whether anything outside the vision tower trains.
        last: The number of last layers that train, for each tower that trains only its end; the
            modules after these layers (final norm, pooling, projection) train with them.
        lora: The towers that train only adapters.
        pattern: Regular expression for the names of further parameters that train; with one,
            `vision` and `text` are true until the model is known.
        whole: The towers that train as a whole.
    """

    vision: bool
    text: bool
    last: Mapping[str, int] = field(default_factory=dict)
    lora: frozenset[str] = frozenset()
    pattern: str | None = None
    whole: frozenset[str] = field(default=frozenset(), compare=False)


def parse(train: str) -> Trained:
    """Parse `model.train`, e.g. ``"text.last:4+vision"``.

    Raises:
        ConfigError: A part is unknown, has no layers, or names a tower that another one names.
    """
    named, pattern = train, None
    if match := _PATTERN.search(train):
        named, pattern = train[: match.start()], _checked(train[match.end() :], train)
    found: dict[str, int | None] = {}
    lora: set[str] = set()
    for part in named.split("+") if named or pattern is None else ():
        own = part.removeprefix("lora:")
        for tower, last in _towers(own, part, train).items():
            if tower in found:
                raise ConfigError(f"model.train={train} names the {tower} tower twice; once is due")
            found[tower] = last
            if own != part:
                lora.add(tower)
    layers = {tower: last for tower, last in found.items() if last is not None}
    return Trained(
        vision="vision" in found or pattern is not None,
        text="text" in found or pattern is not None,
        last=layers,
        lora=frozenset(lora),
        pattern=pattern,
        whole=frozenset(found.keys() - layers.keys() - lora),
    )


def _checked(pattern: str, train: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ConfigError(
            f"model.train={train}: {pattern!r} is no regular expression ({error})"
        ) from error
    if not pattern:
        raise ConfigError(f"model.train={train}: re: needs a pattern, e.g. re:text.*ln_")
    return pattern


def _towers(own: str, part: str, train: str) -> dict[str, int | None]:
    """Return the towers that one part names, each with its number of layers, None for all.

    `own` is the part without `lora:`, which applies only to whole towers.
    """
    if own == "both":
        return dict.fromkeys(TOWERS)
    match = _PART.fullmatch(own)
    if match is None or (match[2] is not None and own != part):
        within = "" if part == train else f" (in {part!r})"
        raise ConfigError(
            f"model.train={train!r} is not known{within}{did_you_mean(part, FORMS)} "
            f"(choices: {', '.join(FORMS)}, joined by +)"
        )
    if match[2] is not None and int(match[2]) < 1:
        raise ConfigError(f"model.train={train}: {part} trains no layer; name 1 or more")
    return {match[1]: None if match[2] is None else int(match[2])}
