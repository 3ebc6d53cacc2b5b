"""The alpha of each tensor: one for all, one per tower, by rules on names, or by depth."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from clic.errors import ConfigError
from clic.models import VISION_PREFIX
from clic.patching.interpolation import check_alpha
from clic.patching.tensor_files import Layout

TOWERS = ("text", "vision")
_BLOCK = re.compile(r"\.(?:resblocks|blocks|layers?|stages)\.(\d+)\.|\.layer(\d+)\.")
"""The number of a transformer's block, or of a stage, in a tensor's name."""
_BEFORE = re.compile(r"embed|\.(?:conv|bn)\d\.|class_token|cls_token|ln_pre|norm_pre|\.stem\.")
"""Tensors outside the blocks that are applied before them; the others are applied after them."""


@dataclass(frozen=True)
class Share:
    """What a rule applied to: `tensors` with `parameters` numbers in all, and its alpha as text."""

    rule: str
    alpha: str
    tensors: int
    parameters: int


@dataclass(frozen=True)
class AlphaRules:
    """The alpha of each tensor; if several rules match a name, the last one wins.

    Attributes:
        alpha: Alpha of every tensor.
        depth: Alphas of the first and the last block of each tower, with alpha linear in the
            block's number between them. Tensors before the blocks get the first alpha; those after
            them, including logit_scale, the last. Instead of `alpha`.
        text: Alpha of everything outside the vision tower, logit_scale included.
        vision: Alpha of the vision tower.
        rules: Regular expressions, searched for in the tensors' names, and their alphas.
        extrapolate: Allow alphas below 0 and above 1.
    """

    alpha: float | None = None
    depth: tuple[float, float] | None = None
    text: float | None = None
    vision: float | None = None
    rules: tuple[tuple[str, float], ...] = ()
    extrapolate: bool = False

    @property
    def in_parts(self) -> bool:
        """Whether tensors differ in their alpha."""
        return self != AlphaRules(self.alpha, extrapolate=self.extrapolate)

    def at_each(self, alphas: Sequence[float]) -> list[AlphaRules]:
        """Return the same rules over each of several alphas.

        One of them is enough to need `extrapolate`: the others are then checked without it.
        """
        each = [replace(self, alpha=alpha) for alpha in alphas]
        if not any(one._beyond for one in each):
            return each
        return [replace(one, extrapolate=self.extrapolate and one._beyond) for one in each]

    @property
    def _given(self) -> list[float]:
        alphas = [self.alpha, self.text, self.vision, *(value for _, value in self.rules)]
        return [value for value in (*alphas, *(self.depth or ())) if value is not None]

    @property
    def _beyond(self) -> bool:
        """Whether one of the alphas is below 0 or above 1."""
        return not all(0 <= alpha <= 1 for alpha in self._given)

    def check(self) -> None:
        """Check what can be checked without the models.

        Raises:
            ConfigError: An alpha is out of range, a regular expression is invalid, there is no
                alpha at all, or a setting has no effect.
        """
        for alpha in self._given:
            check_alpha(alpha, self.extrapolate)
        if not self._given:
            raise ConfigError("there is no alpha; give one, or those of the parts")
        if self.extrapolate and not self._beyond:
            raise ConfigError("extrapolate has no effect on alphas from 0 to 1; leave it out")
        if self.depth is not None and self.alpha is not None:
            raise ConfigError("alpha has no effect beside alpha_depth; leave one out")
        for pattern, _ in self.rules:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ConfigError(
                    f"alpha={pattern}=...: {pattern!r} is no regular expression ({error})"
                ) from None

    def resolve(self, layout: Mapping[str, Layout]) -> tuple[dict[str, float], list[Share]]:
        """Return each tensor's alpha, and what each rule applied to.

        Args:
            layout: The tensors of the models.

        Raises:
            ConfigError: A rule matches no tensor, or a tensor matches no rule.
        """
        owner: dict[str, int] = {}
        alphas: dict[str, float] = {}
        rules = self._listed(list(layout))
        for number, (_, _, taken) in enumerate(rules):
            alphas.update(taken)
            owner.update(dict.fromkeys(taken, number))
        left = [name for name in layout if name not in alphas]
        if left:
            raise ConfigError(
                f"{len(left)} tensors are taken by no rule, {left[0]!r} the first; give --alpha "
                "(alpha=...) for the rest"
            )
        shares = []
        for number, (rule, alpha, taken) in enumerate(rules):
            mine = [name for name in layout if owner[name] == number]
            if not mine:
                raise ConfigError(_takes_nothing(rule, len(taken), layout))
            shares.append(Share(rule, alpha, len(mine), sum(layout[n].numel for n in mine)))
        return alphas, shares

    def _listed(self, names: Sequence[str]) -> list[tuple[str, str, dict[str, float]]]:
        """Return each rule's name, its alpha as text, and the alphas of the tensors it matches."""
        found: list[tuple[str, str, dict[str, float]]] = []
        if self.alpha is not None:
            found.append(("all", f"{self.alpha:g}", dict.fromkeys(names, self.alpha)))
        if self.depth is not None:
            first, last = self.depth
            found.append(("depth", f"{first:g} to {last:g}", by_depth(names, first, last)))
        for tower, alpha in zip(TOWERS, (self.text, self.vision), strict=True):
            if alpha is not None:
                mine = [name for name in names if tower_of(name) == tower]
                found.append((tower, f"{alpha:g}", dict.fromkeys(mine, alpha)))
        for pattern, alpha in self.rules:
            mine = [name for name in names if re.search(pattern, name)]
            found.append((pattern, f"{alpha:g}", dict.fromkeys(mine, alpha)))
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return the rules as `patch.json` records them."""
        named = {
            "alpha": self.alpha,
            "alpha_depth": None if self.depth is None else list(self.depth),
            "alpha_text": self.text,
            "alpha_vision": self.vision,
            "rules": [list(rule) for rule in self.rules],
        }
        return {"alpha": self.alpha, **{k: v for k, v in named.items() if v not in (None, [])}}


def tower_of(name: str) -> str:
    """Return the tower that a tensor belongs to: everything outside the vision tower is text."""
    return "vision" if name.startswith(VISION_PREFIX) else "text"


def by_depth(names: Sequence[str], first: float, last: float) -> dict[str, float]:
    """Return alphas that change linearly from the first to the last block of each tower.

    alpha(i) = first + (last - first) * i / (n - 1) for block i of n; a single block gets the last.

    Raises:
        ConfigError: A tower has no numbered blocks.
    """
    alphas = {}
    for tower in TOWERS:
        mine = [name for name in names if tower_of(name) == tower]
        blocks = {name: int(m[1] or m[2]) for name in mine if (m := _BLOCK.search(f".{name}"))}
        if not mine:
            continue
        if not blocks:
            raise ConfigError(
                f"alpha_depth={first:g}:{last:g}: the {tower} tower has no numbered blocks, as "
                f"{mine[0]!r}; give its alpha by rules instead"
            )
        low, high = min(blocks.values()), max(blocks.values())
        for name in mine:
            way = 0.0 if _BEFORE.search(f".{name}") else 1.0
            if name in blocks and high > low:
                way = (blocks[name] - low) / (high - low)
            elif name in blocks:
                way = 1.0
            alphas[name] = last if way == 1.0 else first + (last - first) * way
    return alphas


def _takes_nothing(rule: str, matched: int, layout: Mapping[str, Layout]) -> str:
    if matched:
        return (
            f"alpha rule {rule!r} has no effect: later rules take all of its {matched} tensors; "
            "leave it out"
        )
    examples = ", ".join(list(layout)[:: max(1, len(layout) // 3)][:3])
    return f"alpha rule {rule!r} takes no tensor; names are such as {examples}"
