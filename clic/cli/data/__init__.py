"""`clic-data`: tools for image-text data, before, during and after a run."""

from __future__ import annotations

import inspect
import sys

from clic.cli.common import DataCommand, Parser, run_cli
from clic.cli.data import caption, count, fetch, negatives, pack, preview, shard_tools
from clic.errors import did_you_mean

COMMANDS: dict[str, DataCommand] = {
    "pack": pack.PACK,
    "verify": shard_tools.VERIFY,
    "annotate": shard_tools.ANNOTATE,
    "count": count.COUNT,
    "caption": caption.CAPTION,
    "negatives": negatives.NEGATIVES,
    "preview": preview.PREVIEW,
    "shapes": pack.SHAPES,
    "index": shard_tools.INDEX,
    "neighbours": shard_tools.NEIGHBOURS,
    "fetch": fetch.FETCH,
}


def main() -> None:
    """Run `clic-data`."""
    parser, parsers = _parsers()
    flags, words = parser.parse_known_args(sys.argv[1:])
    if flags.command is None:
        run_cli("clic-data", parser.print_help)
    command = COMMANDS[flags.command]
    if words and not command.takes_settings:
        own = parsers[flags.command]
        known = [option for action in own._actions for option in action.option_strings]
        hint = did_you_mean(words[0].split("=")[0], known)
        own.error(f"{words[0]!r} is not understood{hint}")
    run_cli("clic-data", lambda: command.run(flags, words), flags.debug)


def _parsers() -> tuple[Parser, dict[str, Parser]]:
    """Return the parser and the parsers of its commands."""
    parser = Parser(prog="clic-data", description=__doc__, epilog=_examples(*COMMANDS.values()))
    common = Parser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of a mistake")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
    for name, command in COMMANDS.items():
        text = inspect.getdoc(command.run) or ""
        own = commands.add_parser(
            name,
            parents=[common],
            help=text.split("\n", 1)[0].rstrip("."),
            description=text,
            epilog=_examples(command),
        )
        command.add_arguments(own)
    return parser, dict(commands.choices)


def _examples(*commands: DataCommand) -> str:
    return "examples:\n" + "".join(f"  {line}\n" for c in commands for line in c.examples)
