"""`clic-eval`: models on benchmarks, side by side."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from clic.cli.common import (
    Parser,
    add_scoring_flags,
    check_writable,
    compose,
    make_console,
    refuse_torchrun,
    run_cli,
    settings_of,
)
from clic.config_eval import EvalConfig, check
from clic.errors import ConfigError

if TYPE_CHECKING:
    from clic.evaluation.report import Report

NAME = "clic-eval"
FALLBACK_MODEL = "ViT-B-32:openai"
DESCRIPTION = """\
Score models on compositional benchmarks, retrieval and zero-shot classification.
Each distinct image and caption is encoded once, whatever the number of benchmarks."""
EXAMPLES = """\
examples:
  clic-eval --bench list                        what there is, and what is installed here
  clic-eval --bench shapes++                    the newest finished run; needs no data
  clic-eval --bench shapes++ --model shapes-base --model runs/shapes-1
                                                two models side by side
  clic-eval --bench sugarcrepe++ --model ViT-B-32:openai --data ~/data
  clic-eval --bench sugarcrepe++ --text-only --data ~/data
                                                the captions alone, without COCO's images
  clic-eval --bench all --model hf-hub:ORG/NAME --json all.json --rows all.jsonl
  clic-eval bench=shapes batch_size=128         settings as key=value (configs/eval.yaml)

models: ViT-B-32:openai (open_clip name and tag), local-dir:PATH, hf-hub:ORG/NAME, shapes-base,
  or the path of a run, a checkpoint or an open_clip folder.
exit codes: 0 done, 2 a mistake in the command or in the data, 130 interrupted."""


def make_parser() -> Parser:
    """Return the command's parser; a flag that is not given is None."""
    parser = Parser(
        prog=NAME,
        usage=f"{NAME} --bench NAME[,NAME] [--model MODEL ...] [options] [key=value ...]",
        description=DESCRIPTION,
        epilog=EXAMPLES,
    )
    add = parser.add_argument
    add("--bench", metavar="A,B", action="append", help="benchmarks, groups of them, or 'list'")
    add("--model", metavar="M", action="append", help="model to score; repeat for side by side")
    add("--json", metavar="FILE", help="write the numbers with their provenance")
    add("--rows", metavar="FILE", help="write every row: outcome, scores, captions (JSON lines)")
    add_scoring_flags(parser)
    add("--text-only", action="store_const", const=True,
        help="score the captions alone (TOT); no image is looked for")  # fmt: skip
    add("--debug", action="store_true", help="show the traceback of an error")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    words = list(sys.argv[1:] if argv is None else argv)
    run_cli(NAME, lambda: _body(words), debug="--debug" in words)


def _body(words: Sequence[str]) -> None:
    flags, overrides = make_parser().parse_with_overrides(words)
    settings = compose("eval", overrides, EvalConfig, settings_of(flags, "bench"))
    if [name.lower() for name in settings.bench] == ["list"]:
        _print_list(settings.data)
        return
    if not settings.bench:
        raise ConfigError("no benchmark named; give --bench NAME (--bench list shows them)")
    check(settings)
    refuse_torchrun()
    check_writable(settings.json, settings.rows)
    reports = _evaluate(settings)
    # Files first: whatever happens to the terminal, the numbers are kept.
    written = _write(settings, reports)
    _print(reports)
    for file in written:
        print(f"wrote {file}")


def _evaluate(settings: EvalConfig) -> list[Report]:
    from clic import evaluation, inference

    plan = evaluation.prepare(
        settings.bench,
        settings.data,
        split=settings.split,
        seed=settings.seed,
        allow_missing=settings.allow_missing,
        text_only=settings.text_only,
    )
    names = settings.model or [_default_model()]
    _check_names(names[1:])
    reports: list[Report] = []
    for name in names:
        model = inference.load(
            name,
            device=settings.device,
            precision=settings.precision,
            batch_size=settings.batch_size,
        )
        report = evaluation.run(
            model,
            plan,
            batch_size=settings.batch_size,
            workers=settings.workers,
            keep_rows=settings.rows is not None,
            progress=True,
            name=name,
        )
        reports.append(report)
    return reports


def _check_names(names: Sequence[str]) -> None:
    """Find models whose turn comes later, so that a misspelt one does not waste the first one."""
    from clic import models, runs

    for name in names:
        folder = Path(name).expanduser()
        if folder.is_dir():
            runs.resolve(folder)
        else:
            models.resolve(name)


def _default_model() -> str:
    """Return the newest finished run, else the fallback, and say which."""
    from clic import runs

    newest = runs.newest_finished()
    if newest is None:
        print(f"{NAME}: no finished run under ./{runs.RUNS}, so {FALLBACK_MODEL}", file=sys.stderr)
        return FALLBACK_MODEL
    print(f"{NAME}: model {newest}, the newest finished run", file=sys.stderr)
    return str(newest)


def _write(settings: EvalConfig, reports: Sequence[Report]) -> list[str]:
    """Write the files that were asked for; return their names."""
    from clic.evaluation import report

    if settings.json is not None:
        report.write_json(settings.json, reports)
    if settings.rows is not None:
        report.write_rows(settings.rows, reports)
    return [file for file in (settings.json, settings.rows) if file is not None]


def _print(reports: Sequence[Report]) -> None:
    from clic.evaluation import report

    console = make_console()
    for line in report.legend(reports):
        console.print(line, markup=False, highlight=False)
    for table in report.tables(reports):
        console.print(table)
    for line in report.notes(reports):
        console.print(f"note: {line}", markup=False, highlight=False)


def _print_list(data: str | None) -> None:
    """Print every benchmark with what of it is installed."""
    from clic.evaluation import listing, plan

    root = Path(data).expanduser() if data is not None else plan.default_data_root()
    console = make_console()
    console.print(listing.table(root))
    for line in listing.lines(root):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
