"""`clic-data`: tools for image-text data, before, beside and after a run."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import NoReturn

from clic.cli.common import run_cli
from clic.cli.data import (
    annotate,
    fetch,
    index,
    negatives,
    neighbours,
    pack,
    preview,
    shapes,
    verify,
)
from clic.cli.parser import Parser
from clic.errors import did_you_mean

# Each module of this package is one command: its docstring is the help text, `EXAMPLES` are its
# examples, `add_arguments(parser)` adds its arguments and `run(flags, words)` does the work. With
# `TAKES_SETTINGS`, `words` may have settings such as data.shards=DIR.
COMMANDS: dict[str, ModuleType] = {
    "pack": pack,
    "verify": verify,
    "annotate": annotate,
    "negatives": negatives,
    "preview": preview,
    "shapes": shapes,
    "index": index,
    "neighbours": neighbours,
    "fetch": fetch,
}


def main() -> None:
    """Run `clic-data`."""
    parser, commands = _parser()
    flags, words = parser.parse_known_args(sys.argv[1:])
    if flags.command is None:
        run_cli("clic-data", parser.print_help)
    command = COMMANDS[flags.command]
    if words and not getattr(command, "TAKES_SETTINGS", False):
        _refuse(commands[flags.command], words[0])
    run_cli("clic-data", lambda: command.run(flags, words), flags.debug)


def _refuse(parser: Parser, word: str) -> NoReturn:
    name = word.split("=")[0]
    known = [option for action in parser._actions for option in action.option_strings]
    parser.error(f"{word!r} is not understood{did_you_mean(name, known)}")


def _parser() -> tuple[Parser, dict[str, Parser]]:
    """Return the parser and the parsers of its commands."""
    examples = "".join(f"  {line}\n" for c in COMMANDS.values() for line in c.EXAMPLES)
    parser = Parser(prog="clic-data", description=__doc__, epilog=f"examples:\n{examples}")
    common = Parser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of a mistake")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
    for name, command in COMMANDS.items():
        doc = str(command.__doc__)
        command.add_arguments(
            commands.add_parser(
                name,
                parents=[common],
                help=doc.split("\n", 1)[0].rstrip("."),
                description=doc,
                epilog="examples:\n" + "".join(f"  {line}\n" for line in command.EXAMPLES),
            )
        )
    return parser, dict(commands.choices)
