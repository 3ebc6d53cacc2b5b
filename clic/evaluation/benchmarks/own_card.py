"""The card of a user's own benchmark: its name, where it comes from, and how it may be used.

A card is a YAML file: `card.yaml` in the benchmark's folder, or `my.yaml` beside `my.jsonl`. It may
come from anyone, so every field is checked.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from pathlib import Path

from clic.errors import DataError, did_you_mean

CARD = "card.yaml"
ENDING = ".yaml"
LONGEST = 500  # characters of a field
LARGEST = 1 << 16  # bytes of a card
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")


@dataclass(frozen=True)
class BenchmarkCard:
    """What is shown about a benchmark wherever its numbers appear.

    Attributes:
        name: The name under which it is reported.
        licence: Licence of its rows and images.
        citation: Paper, or authors and year.
        source: Where it comes from, or how it was made.
        rows: The file of the folder that contains its rows; empty if it is the only one.
    """

    name: str
    licence: str
    citation: str
    source: str
    rows: str = ""


def read_card(path: Path) -> BenchmarkCard:
    """Return the card in a YAML file.

    Raises:
        DataError: It cannot be read, lacks a field, or has one that is not a text or is unknown.
    """
    import yaml  # type: ignore[import-untyped]  # comes with omegaconf
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"it has more than {LARGEST} bytes")
        text = path.read_text(encoding="utf-8")
        # A few nested aliases can expand without bound when they are resolved.
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise ValueError("it has an alias, *; write its text instead")
        made = OmegaConf.create(text)
        content = OmegaConf.to_container(made, resolve=False)  # `${...}` is kept verbatim
    except (OSError, ValueError, yaml.YAMLError, OmegaConfBaseException, RecursionError) as error:
        said = str(error).splitlines()[0]
        raise DataError(f"{path} cannot be read as YAML ({said}); mend it") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} should hold fields: name, licence, citation, source")
    known = [field.name for field in fields(BenchmarkCard)]
    for key in content:
        if key not in known:
            raise DataError(
                f"{path} has the field {key!r}, which is not known"
                f"{did_you_mean(str(key), known)} (fields: {', '.join(known)})"
            )
    for name in known[:-1]:
        value = content.get(name)
        if not isinstance(value, str) or not value.strip() or len(value) > LONGEST:
            raise DataError(f"{path} needs a text {name!r} of at most {LONGEST} characters")
    card = BenchmarkCard(**{str(k): " ".join(str(v).split()) for k, v in content.items()})
    if not NAME.fullmatch(card.name):
        raise DataError(
            f"{path}: the name {card.name!r} should be letters, digits and _ . + - alone"
        )
    return card


def is_carded(folder: Path) -> bool:
    """Return whether a folder is a benchmark with a card."""
    return (folder / CARD).is_file()


def card_of(path: Path) -> BenchmarkCard | None:
    """Return the card in a folder, or beside a file of rows; None if there is none.

    Raises:
        DataError: It is broken.
    """
    card = path / CARD if path.is_dir() else path.with_suffix(ENDING)
    return read_card(card) if card.is_file() else None


def rows_of(folder: Path, card: BenchmarkCard, endings: tuple[str, ...]) -> Path:
    """Return the file of rows in a benchmark's folder.

    Raises:
        DataError: There is none, there are several and the card names none, or it is elsewhere.
    """
    if card.rows:
        path = folder / card.rows
        if Path(card.rows).name != card.rows or path.suffix.lower() not in endings:
            raise DataError(
                f"{folder / CARD}: rows={card.rows!r} should be a file of the folder that ends in "
                f"{', '.join(endings)}"
            )
        if not path.is_file():
            raise DataError(
                f"{folder / CARD} names the rows {card.rows}, and there is no such file"
            )
        return path
    found = sorted(f for f in folder.iterdir() if f.is_file() and f.suffix.lower() in endings)
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "none"
        raise DataError(
            f"{folder} should hold one file of rows ({', '.join(endings)}) and holds {names}; name "
            f"it as rows: in {CARD}"
        )
    return found[0]
