"""`clic-data`: tools for image-text data, before, during and after a run."""

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
_MODULES = (pack, verify, annotate, negatives, preview, shapes, index, neighbours, fetch)
COMMANDS: dict[str, ModuleType] = {m.__name__.rpartition(".")[2]: m for m in _MODULES}


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
    parser = Parser(prog="clic-data", description=__doc__, epilog=_examples(*_MODULES))
    common = Parser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of a mistake")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
    for name, command in COMMANDS.items():
        doc = str(command.__doc__)
        help, epilog = doc.split("\n", 1)[0].rstrip("."), _examples(command)
        command.add_arguments(
            commands.add_parser(name, parents=[common], help=help, description=doc, epilog=epilog)
        )
    return parser, dict(commands.choices)


def _examples(*commands: ModuleType) -> str:
    return "examples:\n" + "".join(f"  {line}\n" for c in commands for line in c.EXAMPLES)
