"""Every setting with its type, default, range and meaning, read from the dataclasses' docstrings.

`clic-train --help GROUP` prints a group; scripts/settings_page.py writes docs/settings.md.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from typing import Any

from clic.config.checks import CHOICES, RANGES
from clic.config.eval_settings import PRECISIONS, EvalConfig, PatchConfig
from clic.config.train_settings import Config

GENERAL = "general"
"""Name of the group of the settings that stand in no group, such as `seed`."""
_COMMANDS = {EvalConfig: "clic-eval", PatchConfig: "clic-patch"}
_OTHER_RANGES = {
    "optim.betas": "two numbers from 0 to below 1",
    "optim.eps": "above 0",
    "data.mix": "two or more sources, each weight above 0",
    "captions.mixture": "swap, replace; each weight 0 or more, two of them above 0",
    "loss.negative_weights": "each weight above 0",
}
_SCORING_RANGES = {
    "batch_size": "1 or more",
    "workers": "1 or more",
    "cache_gb": "above 0",
    "precision": ", ".join(PRECISIONS),
    "split": "test, validation, train",
    "alpha": "each from 0 to 1",
    "sweep": "each from 0 to 1",
}


@dataclass(frozen=True)
class Setting:
    """What a page says of one setting, each part as text."""

    name: str
    type: str
    default: str
    range: str
    meaning: str


def groups() -> dict[str, type]:
    """Return the schema of each group of `clic-train`, `general` first."""
    found: dict[str, type] = {GENERAL: Config}
    for f in fields(Config):
        if (schema := _nested(f)) is not None:
            found[f.name] = schema
    return found


def _nested(field: Field[Any]) -> type | None:
    made: Any = field.default_factory
    return made if is_dataclass(made) and isinstance(made, type) else None


def settings_of_group(schema: type, group: str = "") -> Iterator[Setting]:
    """Yield the settings of a schema in the order of its fields, those of nested groups left out.

    Args:
        schema: A dataclass whose docstring has a section `Attributes`.
        group: Prefix of the settings' names.
    """
    meanings = _meanings(schema)
    for f in fields(schema):
        if _nested(f) is not None:
            continue
        name = f"{group}.{f.name}" if group else f.name
        kind = str(f.type).replace(" | None", " or null").replace("Any", "any")
        yield Setting(name, kind, _default(f), _range(name, schema), meanings[f.name])


def _meanings(schema: type) -> dict[str, str]:
    found: dict[str, str] = {}
    for one in schema.__mro__:
        text = textwrap.dedent((one.__doc__ or "").partition("Attributes:")[2])
        entries = re.split(r"^(\w+): ", text, flags=re.MULTILINE)[1:]
        for name, meaning in zip(entries[::2], entries[1::2], strict=True):
            found.setdefault(name, " ".join(meaning.split()))
    return found


def _default(field: Field[Any]) -> str:
    made = field.default_factory() if field.default_factory is not MISSING else field.default
    return made if isinstance(made, str) else json.dumps(made)


def _range(name: str, schema: type) -> str:
    if schema in _COMMANDS:
        return _SCORING_RANGES.get(name, "")
    if name in CHOICES:
        return ", ".join(CHOICES[name])
    if name in RANGES:
        least, most = RANGES[name]
        return f"{least} or more" if most is None else f"from {least} to {most}"
    return _OTHER_RANGES.get(name, "")


def group_text(group: str, width: int = 79) -> str:
    """Return what `clic-train --help GROUP` prints of one of `groups()`."""
    schema = groups()[group]
    lines = textwrap.wrap(f"{group}: {_summary(schema)}", width)
    for one in settings_of_group(schema, "" if group == GENERAL else group):
        facts = f"{one.type}, default {one.default or repr('')}"
        facts += f"; {one.range}" if one.range else ""
        lines += ["", one.name]
        for text in (f"({facts})", one.meaning):
            lines += textwrap.wrap(
                text, width, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False
            )
    return "\n".join(lines)


def page() -> str:
    """Return docs/settings.md."""
    parts = [
        "# Settings",
        "`scripts/settings_page.py` writes this page from the dataclasses in `clic/config/`. "
        "`clic-train --help GROUP` prints one of its groups. Defaults are those of the "
        "dataclasses; `configs/` and the experiments set others, which `clic-train --cfg job` "
        "prints. The checks of clic/config also refuse settings that have no effect together.",
        "",
        "# clic-train",
    ]
    for group, schema in groups().items():
        parts += _section(group, schema, "" if group == GENERAL else group)
    for schema, command in _COMMANDS.items():
        parts += ["", f"# {command}", *_section("", schema, "")]
    return "\n".join(parts) + "\n"


def _section(title: str, schema: type, group: str) -> list[str]:
    lines = ["", f"## {title}"] if title else []
    lines += [_summary(schema), "", "| setting | type | default | range | meaning |"]
    lines.append("|---|---|---|---|---|")
    for one in settings_of_group(schema, group):
        cells = (f"`{one.name}`", one.type, f"`{one.default}`", one.range, one.meaning)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return lines


def _summary(schema: type) -> str:
    return (schema.__doc__ or "").strip().splitlines()[0]
