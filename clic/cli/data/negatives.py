"""`clic-data negatives`."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clic.cli.common import DataCommand, Parser, check_least, make_console, split_commas
from clic.errors import ConfigError, DataError, pick

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from clic.types import HardNegative, Token


def _arguments(parser: Parser) -> None:
    add = parser.add_argument
    add("--caption", metavar="TEXT", action="append", help="a true caption; repeatable")
    add("--file", metavar="FILE", type=Path, help="file with a true caption per line (- for stdin)")
    add("--kinds", metavar="K", action="append", help="swap, replace, cross_swap (all that apply)")
    add("--n", metavar="N", type=int, default=4, help="false captions of each kind (4)")
    add("--seed", metavar="N", type=int, default=0, help="random seed (0)")
    add("--tagger", metavar="T", default="hanta", help="hanta or spacy (hanta)")
    add("--json", action="store_true", help="print a line of JSON per caption instead of a table")


def negatives(flags: argparse.Namespace, words: Sequence[str]) -> None:
    """Show how captions are tagged, and false captions of each kind made from them.

    With two captions or more, cross_swap joins each with the next one, and the
    last with the first.
    """
    check_least(1, n=flags.n)
    check_least(0, seed=flags.seed)
    from clic.captions.tagging import TAGGERS, make_tagger

    captions = _captions(flags)
    kinds = _kinds(split_commas(flags.kinds), len(captions))
    pick(TAGGERS, flags.tagger, "--tagger")
    tagger = make_tagger(flags.tagger)
    console = make_console()
    following = [*captions[1:], captions[0]]
    without: list[str] = []
    for number, (caption, other) in enumerate(zip(captions, following, strict=True)):
        tokens = tagger(caption)
        pair = (tokens, tagger(other) if "cross_swap" in kinds else ())
        found = list(_negatives((caption, other), pair, kinds, flags, number))
        if not found:
            without.append(caption)
        if flags.json:
            print(json.dumps(_record(caption, tokens, found)))
        else:
            if number:
                console.print()
            console.print(_table(caption, tokens, found, kinds))
    if without:
        print(_note(without, len(captions)), file=sys.stderr)


def _note(without: Sequence[str], count: int) -> str:
    from clic.captions.negatives import FOREIGN
    from clic.captions.text import is_foreign

    proportion = f"{len(without):,} of {count:,} captions ({len(without) / count:.0%})"
    note = f"note: no false caption was found for {proportion}"
    if foreign := sum(map(is_foreign, without)):
        note += f"; {foreign:,} of them are not in Latin script, and {FOREIGN}"
    return note


def _captions(flags: argparse.Namespace) -> list[str]:
    captions = list(flags.caption or ())
    if flags.file is not None:
        for line in re.split(r"\r\n|\r|\n", _read(flags.file)):
            bare = line.strip().strip("\ufeff").strip()  # concatenated files have BOMs inside
            captions += [bare] if bare else []
    try:
        "".join(captions).encode()
    except UnicodeEncodeError as error:
        raise ConfigError("--caption is not valid UTF-8; give it in UTF-8") from error
    if not all(caption.strip() for caption in captions):
        raise ConfigError("--caption is empty; give a sentence")
    if not captions:
        raise ConfigError("no caption is given; give one with --caption, or a file with --file")
    return captions


def _read(path: Path) -> str:
    """Return the text of a file or of stdin."""
    from clic.data.shards.records import decode_text

    try:
        if str(path) != "-":
            data = path.read_bytes()
        elif hasattr(sys.stdin, "buffer"):
            data = sys.stdin.buffer.read()
        else:
            data = sys.stdin.read().encode()
    except OSError as error:
        raise DataError(f"--file {path} cannot be read: {error.strerror}") from error
    return decode_text(data, f"--file {path}")


def _kinds(names: Sequence[str] | None, count: int) -> list[str]:
    from clic.captions import GENERATORS

    known = [*GENERATORS, "cross_swap"]
    for name in names or ():
        pick(dict.fromkeys(known), name, "--kinds")
        if name == "cross_swap" and count < 2:
            raise ConfigError("--kinds cross_swap joins two captions, but one is given; give two")
    return list(dict.fromkeys(names or [name for name in known if name in GENERATORS or count > 1]))


def _negatives(
    captions: tuple[str, str],
    tokens: tuple[tuple[Token, ...], tuple[Token, ...]],
    kinds: Sequence[str],
    flags: argparse.Namespace,
    number: int,
) -> Iterator[HardNegative]:
    """Yield false captions of the first caption, or of both joined for `cross_swap`."""
    from clic.captions import GENERATORS, cross_swap
    from clic.captions.negatives import distinct_negatives
    from clic.seeding import generator

    draws = {name: partial(make, captions[0], tokens[0]) for name, make in GENERATORS.items()}
    draws["cross_swap"] = partial(cross_swap, captions, tokens)
    for kind in kinds:
        rng = generator(flags.seed, f"hard_negatives/{kind}", slot=number)
        yield from distinct_negatives(partial(draws[kind], rng), flags.n)


def _record(caption: str, tokens: Sequence[Token], found: Sequence[HardNegative]) -> dict[str, Any]:
    made = []
    for negative in found:
        edits = [edit._asdict() for edit in negative.edits]
        made.append({"kind": negative.kind, "text": negative.text, "edits": edits})
    return {"caption": caption, "tokens": list(map(list, tokens)), "negatives": made}


def _table(
    caption: str, tokens: Sequence[Token], found: Sequence[HardNegative], kinds: Sequence[str]
) -> RenderableType:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, expand=False)
    table.add_column("caption", style="dim", no_wrap=True)
    table.add_column(Text(caption), overflow="fold")
    tags = "  ".join(f"{t.text}/{t.pos}" for t in tokens)
    table.add_row("tags", Text(tags or "none"), end_section=True)
    for kind in kinds:
        shown = [_marked(caption, made) for made in found if made.kind == kind] or [Text("none")]
        for number, text in enumerate(shown, 1):
            table.add_row(kind if number == 1 else "", text, end_section=number == len(shown))
    return table


def _marked(caption: str, negative: HardNegative) -> Text:
    """Return a false caption with its changes highlighted."""
    from rich.text import Text

    if negative.kind == "cross_swap":
        return Text(negative.text)  # its edits belong to two captions, joined in random order
    text, position = Text(), 0
    for edit in negative.edits:
        text.append(caption[position : edit.span[0]])
        text.append(edit.new, style="bold red")
        position = edit.span[1]
    return text.append(caption[position:])


NEGATIVES = DataCommand(
    negatives,
    _arguments,
    (
        'clic-data negatives --caption "a dog chases a red ball"',
        'clic-data negatives --caption "a dog on a bed" --caption "two cats"',
        "clic-data negatives --file captions.txt --n 2 --json > out.jsonl",
    ),
)
