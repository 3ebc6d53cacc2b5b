"""`clic-eval`: models on benchmarks, side by side."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from clic.cli.common import check_torchrun, make_console, run_cli
from clic.cli.eval_results import Results, gather
from clic.cli.parser import Parser, add_scoring_flags, settings_of
from clic.config.eval_settings import EvalConfig, check
from clic.config.overrides import compose
from clic.errors import ConfigError
from clic.io.files import check_folder, check_writable

NAME = "clic-eval"
FALLBACK_MODEL = "ViT-B-32:openai"
WAIT_MINUTES = 180.0  # for a rank with more to do: other models' weights, larger images, scoring
DESCRIPTION = """\
Score models on compositional benchmarks, retrieval and zero-shot
classification. Each distinct image and caption is encoded once, whatever the
number of benchmarks."""
EXAMPLES = """\
examples:
  clic-eval --bench list                    what there is, and what is here
  clic-eval --bench list:winoground         all of one: paper, files, rows, rule
  clic-eval --bench shapes++                the newest finished run; no data
  clic-eval --bench coco-retrieval@val      its validation split, to choose by
  clic-eval --bench shapes++ --model shapes-base --model runs/shapes-1
                                            two models side by side
  clic-eval --bench shapes++ --compare shapes-base runs/shapes-1 --out results
                                            differences with 95 % intervals
  clic-eval --compare results/a results/b   the same of what --out wrote before
  clic-eval --bench sugarcrepe++ --model ViT-B-32:openai --data ~/data
  clic-eval --bench sugarcrepe++ --text-only --data ~/data
                                            the captions alone, without images
  clic-eval --bench all --model hf-hub:ORG/NAME --json all.json --rows all.jsonl
  clic-eval bench=shapes batch_size=128     settings (configs/eval.yaml)

models: ViT-B-32:openai (open_clip name and tag), local-dir:PATH,
  hf-hub:ORG/NAME, shapes-base, or the path of a run, a checkpoint, an open_clip
  folder or a Hugging Face CLIP folder.
exit codes: 0 done, 2 a mistake in the command or in the data, 130 interrupted."""


def make_parser() -> Parser:
    """Return the command's parser; a flag that is not given is None."""
    parser = Parser(
        prog=NAME,
        usage=f"{NAME} --bench NAME[,NAME] [--model M ... | --compare M M ...]\n"
        "                 [options] [key=value ...]",
        description=DESCRIPTION,
        epilog=EXAMPLES,
    )
    add = parser.add_argument
    add("--bench", metavar="A,B", action="append", help="benchmarks, groups of them, or 'list'")
    add("--model", metavar="M", action="append", help="model to score; repeat for side by side")
    add("--compare", metavar="M", action="extend", nargs="+",
        help="models, or results written before: differences to the first with a paired "
        "bootstrap 95 %% interval")  # fmt: skip
    files = parser.add_argument_group(
        "files",
        "percentages are unrounded in JSON and CSV, and have one decimal in tables;\n"
        "every file says where its numbers come from",
    )
    add = files.add_argument
    add("--out", metavar="DIR", help="write all of the following into DIR, as report.* and "
        "rows.jsonl; --compare and --model read it again")  # fmt: skip
    add("--json", metavar="FILE", help="the numbers with their provenance")
    add("--rows", metavar="FILE", help="every row: outcome, scores, captions (JSON lines)")
    add("--csv", metavar="FILE", help="a line for each number, for pandas and spreadsheets")
    add("--markdown", metavar="FILE", help="tables for a README or an issue")
    add("--latex", metavar="FILE", help="booktabs tables for a paper, the best value bold")
    add("--html", metavar="FILE", help="one page: bars, tables, the worst failures with images")
    add = parser.add_argument
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
    if flags.compare is not None:  # which takes all words that follow
        overrides += [word for word in flags.compare if _is_setting(word)]
        flags.compare = [word for word in flags.compare if not _is_setting(word)]
    settings = compose("eval", overrides, EvalConfig, settings_of(flags, "bench"))
    if _print_list(settings.bench, settings.data):
        return
    from clic import distributed

    check(settings)
    check_torchrun()
    device = distributed.choose_device(settings.device)
    with distributed.process_group(device, WAIT_MINUTES):
        _run(settings)


def _run(settings: EvalConfig) -> None:
    from clic import distributed
    from clic.evaluation.report import result_files

    wanted = _wanted(settings)
    results = gather(
        settings,
        _default_model,
        keep_rows=bool(wanted["rows"]),
        with_gallery=bool(wanted["html"]),
    )
    if not distributed.is_main():
        return
    # Files first: whatever happens to the terminal, the numbers are kept.
    written = result_files.write(wanted, results.reports, results.comparison, results.galleries)
    _print(results)
    for file in written:
        print(f"wrote {file}")


def _is_setting(word: str) -> bool:
    """Return whether a word is a key=value setting, and no path that looks like one."""
    return re.match(r"[a-z_]+=", word) is not None and not Path(word).exists()


def _wanted(settings: EvalConfig) -> dict[str, list[Path]]:
    """Return the files to write, by kind, checked before the work that they are written after."""
    from clic.evaluation.report import result_files

    named = {kind: getattr(settings, kind) for kind in result_files.FILES}
    check_writable(*named.values())
    if settings.out is not None:
        check_folder(settings.out)
    found = result_files.files(settings.out, named)
    for file in (path for paths in found.values() for path in paths):
        if file.is_dir():
            raise ConfigError(f"{file} is a folder; remove it, or name another place")
    return found


def _default_model() -> str:
    """Return the newest finished run, else the fallback, and say which."""
    from clic import runs

    newest = runs.newest_finished()
    if newest is None:
        print(f"{NAME}: no finished run under ./{runs.RUNS}, so {FALLBACK_MODEL}", file=sys.stderr)
        return FALLBACK_MODEL
    print(f"{NAME}: model {newest}, the newest finished run", file=sys.stderr)
    return str(newest)


def _print(results: Results) -> None:
    from clic.evaluation.report import comparison, report, terminal_tables

    console = make_console()
    for line in report.legend(results.reports):
        console.print(line, markup=False, highlight=False)
    for table in terminal_tables.tables(results.reports, results.comparison):
        console.print(table)
    if results.comparison is not None:
        console.print(comparison.interval_note(results.comparison), markup=False, highlight=False)
    for line in report.notes(results.reports):
        console.print(f"note: {line}", markup=False, highlight=False)
    for line in report.timings(results.reports):
        console.print(line, style="dim", markup=False, highlight=False)


def _print_list(bench: list[str], data: str | None) -> bool:
    """Print what `--bench list` or `list:NAME` asks for; return False where it is neither."""
    from clic.evaluation import evaluation_plan
    from clic.evaluation.report import listing

    pages = listing.wanted(bench)
    if pages is None:
        return False
    root = Path(data).expanduser() if data is not None else evaluation_plan.default_data_root()
    console = make_console()
    if not pages:
        console.print(listing.table(root))
    told = [line for name in pages for line in listing.page(name, root)] or listing.lines(root)
    for line in told:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return True


if __name__ == "__main__":
    main()
