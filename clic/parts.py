"""Which parts of a model train, as the setting `model.train` names them.

Nothing here imports torch, so that a mistake in the setting is reported before a model is loaded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from clic.errors import ConfigError, did_you_mean

TOWERS = ("text", "vision")
FORMS = (*TOWERS, "both", *(f"{tower}.last:N" for tower in TOWERS))
"""What each part of `model.train` may be; several are joined by `+`."""
_PART = re.compile(r"(text|vision)(?:\.last:([0-9]+))?")


@dataclass(frozen=True)
class Trained:
    """Which towers train, and how much of them.

    Attributes:
        vision: Whether anything of the vision tower trains.
        text: Whether anything outside the vision tower trains.
        last: For a tower of which only the end trains, the number of its last layers; what follows
            these layers (final norm, pooling, projection) trains with them.
    """

    vision: bool
    text: bool
    last: Mapping[str, int] = field(default_factory=dict)


def parse(train: str) -> Trained:
    """Return what `model.train` names, e.g. ``"text.last:4+vision"``.

    Raises:
        ConfigError: A part is unknown, has no layers, or names a tower that another one names.
    """
    found: dict[str, int | None] = {}
    for part in train.split("+"):
        for tower, last in _towers(part, train).items():
            if tower in found:
                raise ConfigError(f"model.train={train} names the {tower} tower twice; once is due")
            found[tower] = last
    layers = {tower: last for tower, last in found.items() if last is not None}
    return Trained(vision="vision" in found, text="text" in found, last=layers)


def _towers(part: str, train: str) -> dict[str, int | None]:
    """Return the towers that one part names, each with its number of layers, None for all."""
    if part == "both":
        return dict.fromkeys(TOWERS)
    match = _PART.fullmatch(part)
    if match is None:
        within = "" if part == train else f" (in {part!r})"
        raise ConfigError(
            f"model.train={train!r} is not known{within}{did_you_mean(part, FORMS)} "
            f"(choices: {', '.join(FORMS)}, joined by +)"
        )
    if match[2] is not None and int(match[2]) < 1:
        raise ConfigError(f"model.train={train}: {part} trains no layer; name 1 or more")
    return {match[1]: None if match[2] is None else int(match[2])}
