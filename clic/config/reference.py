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
from clic.config.eval_settings import PRECISIONS, EvalConfig
from clic.config.method_checks import MIXABLE
from clic.config.patch_settings import METHODS, PatchConfig
from clic.config.train_settings import Config
from clic.parts import FORMS

GENERAL = "general"
"""Name of the group for settings outside any group, such as `seed`."""
_COMMANDS = {EvalConfig: "clic-eval", PatchConfig: "clic-patch"}
_OTHER_RANGES = {
    "model.train": f"{', '.join(FORMS)}, joined by +",
    "optim.layer_decay": "above 0 to 1",
    "train.ema": "from 0 to below 1",
    "optim.betas": "two numbers from 0 to below 1",
    "optim.eps": "above 0",
    "data.mix": "two or more sources, each weight above 0",
    "captions.mixture": f"{', '.join(MIXABLE)}; each weight 0 or more, two of them above 0",
    "loss.negative_weights": "each weight above 0",
}
_SCORING_RANGES = {
    "batch_size": "1 or more",
    "workers": "1 or more",
    "cache_gb": "above 0",
    "precision": ", ".join(PRECISIONS),
    "split": "test, validation, train",
    "alpha": "each from 0 to 1, or beyond with `extrapolate`",
    "alpha_text": "as `alpha`",
    "alpha_vision": "as `alpha`",
    "alpha_depth": "as `alpha`",
    "sweep": "as `alpha`",
    "max_drop": "0 or more",
    "method": ", ".join(METHODS),
    "weights": "one for each model",
    "density": "above 0, at most 1",
    "draw_seed": "0 or more",
}


@dataclass(frozen=True)
class Setting:
    """One setting as a page shows it, each part as text."""

    name: str
    type: str
    default: str
    range: str
    meaning: str


def groups() -> dict[str, type]:
    """Return the schema of each group of `clic-train`, `general` first."""
    nested = {f.name: _nested(f) for f in fields(Config)}
    return {GENERAL: Config} | {name: schema for name, schema in nested.items() if schema}


def _nested(field: Field[Any]) -> type | None:
    made: Any = field.default_factory
    return made if is_dataclass(made) and isinstance(made, type) else None


def settings_of_group(schema: type, group: str = "") -> Iterator[Setting]:
    """Yield the settings of a schema in the order of its fields, without those of nested groups.

    `group` is the prefix of their names. The schema's docstring must have an `Attributes` section.
    """
    found: dict[str, str] = {}  # the meaning of each setting
    for one in schema.__mro__:
        text = textwrap.dedent((one.__doc__ or "").partition("Attributes:")[2])
        entries = re.split(r"^(\w+): ", text, flags=re.MULTILINE)[1:]
        for name, meaning in zip(entries[::2], entries[1::2], strict=True):
            found.setdefault(name, " ".join(meaning.split()))
    for f in fields(schema):
        if _nested(f) is None:
            name = f"{group}.{f.name}" if group else f.name
            kind = str(f.type).replace(" | None", " or null").replace("Any", "any")
            made = f.default if f.default_factory is MISSING else f.default_factory()
            default = made if isinstance(made, str) else json.dumps(made)
            yield Setting(name, kind, default, _range(name, schema), found[f.name])


def _range(name: str, schema: type) -> str:
    if schema in _COMMANDS:
        return _SCORING_RANGES.get(name, "")
    if name in _OTHER_RANGES:
        return _OTHER_RANGES[name]
    if name in CHOICES:
        return ", ".join(CHOICES[name])
    if name in RANGES:
        least, most = RANGES[name]
        return f"{least} or more" if most is None else f"from {least} to {most}"
    return ""


def group_text(group: str, width: int = 79) -> str:
    """Return the text that `clic-train --help GROUP` prints for one of `groups()`."""
    schema, indent = groups()[group], " " * 4
    wrapper = textwrap.TextWrapper(
        width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )
    lines = textwrap.wrap(f"{group}: {_summary(schema)}", width)
    for one in settings_of_group(schema, "" if group == GENERAL else group):
        facts = f"{one.type}, default {one.default or repr('')}"
        facts += f"; {one.range}" if one.range else ""
        lines += ["", one.name, *wrapper.wrap(f"({facts})"), *wrapper.wrap(one.meaning)]
    return "\n".join(lines)


def page() -> str:
    """Return the content of docs/settings.md."""
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
