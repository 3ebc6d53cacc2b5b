"""`clic-eval`: models on benchmarks, side by side.

`_run` is the whole command: `gather` scores models and reads saved results, then the files are
written and the tables printed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, compress, count
from pathlib import Path
from typing import TYPE_CHECKING

from clic.cli.common import (
    Parser,
    add_scoring_flags,
    check_torchrun,
    is_setting,
    run_cli,
    settings_of,
    split_commas,
)
from clic.cli.describing import print_description
from clic.cli.eval_output import print_list, print_results, wanted_figures, wanted_files
from clic.config.eval_settings import (
    FIGURE_KINDS,
    EvalConfig,
    ScoringConfig,
    check,
    check_unused,
)
from clic.errors import ConfigError, DataError

if TYPE_CHECKING:
    from clic.evaluation import EvaluationPlan
    from clic.evaluation.report.comparison import Comparison
    from clic.evaluation.report.html_page import Gallery
    from clic.evaluation.report.report import Report

NAME = "clic-eval"
FALLBACK_MODEL = "ViT-B-32:openai"
WAIT_MINUTES = 180.0  # for a rank that loads more weights, decodes larger images, or scores
# Scoring settings, which have no effect on saved results.
SCORING = (
    "data", "batch_size", "workers", "device", "precision", "cache", "cache_dir", "cache_gb",
    "allow_missing", "text_only", "split", "seed",
)  # fmt: skip
DESCRIPTION = """\
Score models on compositional benchmarks, retrieval and zero-shot
classification. Each distinct image and caption is encoded once, whatever the
number of benchmarks."""
EXAMPLES = """\
examples:
  clic-eval --bench list                    all benchmarks, and which are here
  clic-eval --bench list:winoground         paper, files, rows and rule of one
  clic-eval --bench shapes++                newest finished run; needs no data
  clic-eval --bench coco-retrieval@val      its validation split, for choosing
  clic-eval --bench shapes++ --model shapes-base --model runs/shapes-1
                                            two models side by side
  clic-eval --bench shapes++ --compare shapes-base runs/shapes-1 --out results
                                            differences with 95 % intervals
  clic-eval --compare results/a results/b   the same for saved results
  clic-eval --bench sugarcrepe++ --model ViT-B-32:openai --data ~/data
  clic-eval --bench sugarcrepe++ --text-only --data ~/data
                                            the captions alone, without images
  clic-eval --bench all --model hf-hub:ORG/NAME --json all.json --rows all.jsonl
  clic-eval --bench sugarcrepe++ --model ViT-B-32:openai --published
                                            the paper's number, and the gap
  clic-eval --published-table sugarcrepe++  what papers print on a benchmark
  clic-eval --describe runs/shapes-1 --against shapes-base
                                            what a model is, which tower changed
  clic-eval --probe shapes --model runs/a   does the image tower hold colours,
                                            relations? linear probes say
  clic-eval --bench my.jsonl                one's own benchmark, see below
  clic-eval bench=shapes batch_size=128     settings (configs/eval.yaml)

one's own benchmark: a line of my.jsonl is one of
  {"image": "a.jpg", "positives": ["...", "..."], "negatives": ["..."],
   "category": "..."}                       triplets; without images TOT alone
  {"image": "a.jpg", "label": "...", "prompts": ["a photo of a {}."]}
                                            zero-shot; prompts may be left out
  {"image": "a.jpg", "captions": ["...", "..."]}
                                            retrieval
  images lie beside the file or below it; in a CSV file the texts of a list are
  the columns positive1, positive2 and so on (docs/evaluation.md)

models: ViT-B-32:openai (open_clip name and tag), local-dir:PATH,
  hf-hub:ORG/NAME, shapes-base, or the path of a run, a checkpoint, an open_clip
  folder or a Hugging Face CLIP folder.
exit codes: 0 done, 2 a mistake in the command or in the data, 130 interrupted."""


def make_parser() -> Parser:
    """Return the command's parser; a flag that is not given is None."""
    parser = Parser(
        prog=NAME,
        usage=f"{NAME} --bench NAME[,NAME] [--model M ... | --compare M M ...]\n"
        "                 [options] [key=value ...]\n"
        f"       {NAME} --describe MODEL [--against BASE] [--json FILE]",
        description=DESCRIPTION,
        epilog=EXAMPLES,
    )
    add = parser.add_argument
    add("--bench", metavar="A,B", action="append", help="benchmarks, groups of them, one's own "
        "(.jsonl, .csv, .tar, a folder with a card.yaml), or 'list'")  # fmt: skip
    add("--model", metavar="M", action="append", help="model to score; repeat for side by side")
    add("--compare", metavar="M", action="extend", nargs="+",
        help="models, or saved results: differences to the first with a paired "
        "bootstrap 95 %% interval")  # fmt: skip
    add("--probe", metavar="P", help="linear probes of the image tower: shapes, or a .jsonl of "
        "images with labels")  # fmt: skip
    add("--describe", metavar="M", help="print what a model is: architecture, activation, "
        "preprocessing, tokenizer, context, hashes")  # fmt: skip
    add("--against", metavar="M", help="with --describe: what differs from this model")
    files = parser.add_argument_group(
        "files",
        "percentages are unrounded in JSON and CSV, and have one decimal in tables;\n"
        "every file records where its numbers come from",
    )
    add = files.add_argument
    add("--out", metavar="DIR", help="write all of the following into DIR, as report.* and "
        "rows.jsonl; --compare and --model can read it")  # fmt: skip
    add("--json", metavar="FILE", help="the numbers with their provenance")
    add("--rows", metavar="FILE", help="every row: outcome, scores, captions (JSON lines)")
    add("--csv", metavar="FILE", help="a line for each number, for pandas and spreadsheets")
    add("--markdown", metavar="FILE", help="tables for a README or an issue")
    add("--latex", metavar="FILE", help="booktabs tables for a paper, the best value bold")
    add("--html", metavar="FILE", help="one page: bars, tables, the worst failures with images")
    add("--figure", metavar="FILE", action="append", help="dots with intervals, as .png, .svg or "
        ".pdf; significant differences are marked")  # fmt: skip
    add("--figure-kind", metavar="KIND", choices=FIGURE_KINDS, help="dots (default) or radar")
    add = parser.add_argument
    add_scoring_flags(parser)
    add("--text-only", action="store_const", const=True,
        help="score the captions alone (TOT), without looking for images")  # fmt: skip
    add("--published", action="store_const", const=True,
        help="what papers print of the model, if it is known, and the difference")  # fmt: skip
    add("--published-table", metavar="B", help="print what papers print on a benchmark, and end")
    add("--debug", action="store_true", help="show the traceback of an error")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    words = list(sys.argv[1:] if argv is None else argv)
    run_cli(NAME, lambda: _body(words), debug="--debug" in words)


def _body(words: Sequence[str]) -> None:
    flags, overrides = make_parser().parse_with_overrides(words)
    if flags.compare is not None:  # it consumes all words that follow
        overrides += [word for word in flags.compare if is_setting(word)]
        flags.compare = [word for word in flags.compare if not is_setting(word)]
    if flags.published_table is not None:
        from clic.evaluation.report import published_numbers

        print("\n".join(published_numbers.field_lines(flags.published_table)))
        return
    del flags.published_table
    if not overrides and print_list(split_commas(flags.bench) or [], flags.data):
        return  # without Hydra, which takes as long as the list
    from clic.config.overrides import compose

    settings = compose("eval", overrides, EvalConfig, settings_of(flags, "bench"))
    if print_list(settings.bench, settings.data):
        return
    if settings.describe is not None or settings.against is not None:
        print_description(settings)
        return
    check(settings)
    if settings.probe is not None:
        from clic.cli.probing import print_probes

        print_probes(settings)
        return
    from clic import distributed

    check_torchrun()
    device = distributed.choose_device(settings.device)
    with distributed.process_group(device, WAIT_MINUTES):
        _run(settings)


def _run(settings: EvalConfig) -> None:
    from clic import distributed
    from clic.evaluation.report import result_files

    wanted, figures = wanted_files(settings), wanted_figures(settings)
    results = gather(
        settings,
        keep_rows=bool(wanted["rows"]),
        with_gallery=bool(wanted["html"]),
        with_intervals=bool(figures),
    )
    if not distributed.is_main():
        return
    # The files come first, so that a closed terminal does not lose the numbers.
    written = result_files.write(wanted, results.reports, results.comparison, results.galleries)
    if results.intervals is not None:
        written += result_files.write_figures(
            figures,
            results.reports,
            results.intervals,
            settings.figure_kind,
            marked=results.comparison is not None,
        )
    print_results(results, settings.published)
    for file in written:
        print(f"wrote {file}")


@dataclass
class Results:
    """The models' numbers, and what was computed from their rows.

    Attributes:
        reports: One for each model.
        comparison: Differences to the first model, with `--compare`.
        intervals: The same, with or without the flag, if a figure is drawn.
        galleries: Each model's worst failures, if a page is written.
    """

    reports: list[Report] = field(default_factory=list)
    comparison: Comparison | None = None
    intervals: Comparison | None = None
    galleries: list[Gallery] = field(default_factory=list)


def gather(
    settings: EvalConfig, *, keep_rows: bool, with_gallery: bool, with_intervals: bool = False
) -> Results:
    """Score the models, read saved results, and compare them if `--compare` is given.

    Args:
        settings: The command's settings.
        keep_rows: Whether rows will be written; otherwise they are dropped after use.
        with_gallery: Whether an HTML page will be written.
        with_intervals: Whether a figure will be drawn.

    Raises:
        ConfigError: A setting is wrong or has no effect.
        DataError: Data or a result is missing or broken, or results do not fit each other.
        ModelError: A model does not exist.
    """
    from clic import distributed
    from clic.evaluation.report import comparison, html_page
    from clic.io.terminal import progress_bar

    main, comparing = distributed.is_main(), bool(settings.compare)  # only rank 0 has rows
    observing = main and (comparing or with_intervals)
    needs_rows = observing or (main and (keep_rows or with_gallery))
    results, observed = Results(), []
    for report in _reports(settings, needs_rows):
        report.name = _unused_name(report.name, [one.name for one in results.reports])
        if observing:
            observed.append(comparison.observe_report(report))
        if main and with_gallery:
            results.galleries.append(html_page.worst_failures(report))
        if not keep_rows:
            report.rows, report.tables = (), {}
        results.reports.append(report)
    if observing:
        with progress_bar("intervals", len(results.reports[0].benchmarks)) as advance:
            results.intervals = comparison.compare(results.reports, observed, advance=advance)
    if comparing:
        results.comparison = results.intervals
    return results


def _unused_name(name: str, taken: Sequence[str]) -> str:
    """Return the name, with a number appended if another model already has it."""
    numbered = (f"{name} ({number})" for number in count(2))
    return next(free for free in chain([name], numbered) if free not in taken)


def _reports(settings: EvalConfig, with_rows: bool) -> Iterator[Report]:
    """Yield the models' reports one by one, after checking everything that can be checked first."""
    from clic.evaluation.benchmarks import catalogue
    from clic.evaluation.report import result_files

    if settings.compare and settings.model:
        raise ConfigError("name the models either with --compare or with --model, not both")
    names = settings.compare or settings.model
    saved = [result_files.is_saved(name) for name in names]
    benches = [b.name for b in catalogue.select(settings.bench)] if settings.bench else []

    def load() -> list[list[Report]]:
        found = compress(names, saved)
        return [result_files.load(name, benches, with_rows) for name in found]

    loaded = load()
    if not benches and loaded:
        benches = _common_benchmarks(list(chain.from_iterable(loaded)))
        loaded = load()
    if not benches:
        raise ConfigError("no benchmark named; give --bench NAME (--bench list shows them)")
    if settings.compare and sum(map(len, loaded)) + saved.count(False) < 2:
        raise ConfigError(
            f"compare={settings.compare[0]} is a single model; name at least two, the first of "
            "which the others are compared with"
        )
    if names and all(saved):
        check_unused(settings, SCORING, ": all results were scored before")
        yield from chain.from_iterable(loaded)
        return
    # Prefer the given names: a benchmark's name does not show where the user's own file lies.
    plan = prepare(settings, settings.bench or benches)
    if not names:
        names, saved = [_default_model()], [False]
    _check_models([name for name, done in zip(names[1:], saved[1:], strict=True) if not done])
    read = iter(loaded)
    for name, done in zip(names, saved, strict=True):
        if done:
            yield from next(read)
        else:
            yield score(settings, plan, name, keep_rows=with_rows, all_ranks=True)


def _common_benchmarks(reports: Sequence[Report]) -> list[str]:
    """Return the benchmarks that every result has."""
    found = [b for b in reports[0].benchmarks if all(b in r.benchmarks for r in reports)]
    if not found:
        have = "; ".join(f"{r.name}: {', '.join(r.benchmarks) or 'none'}" for r in reports)
        raise DataError(f"the results have no benchmark in common ({have})")
    return found


def _check_models(names: Sequence[str]) -> None:
    """Resolve all models before the first is scored, so that a misspelt name wastes no work."""
    from clic import models, runs

    for name in names:
        folder = Path(name).expanduser()
        if folder.is_dir():
            runs.resolve(folder)
        else:
            models.resolve(name)


def prepare(settings: ScoringConfig, benches: Sequence[str]) -> EvaluationPlan:
    """Find and read the benchmarks' files, as the settings specify."""
    from clic import evaluation

    return evaluation.prepare(
        benches,
        settings.data,
        split=settings.split,
        seed=settings.seed,
        allow_missing=settings.allow_missing,
        text_only=isinstance(settings, EvalConfig) and settings.text_only,
    )


def score(
    settings: ScoringConfig,
    plan: EvaluationPlan,
    model: str,
    *,
    name: str | None = None,
    keep_rows: bool = False,
    all_ranks: bool = False,
) -> Report:
    """Load a model and score it as the settings specify; `name` is its name in tables."""
    from clic import evaluation, runs
    from clic.models import encoder

    loaded = encoder.load(
        model,
        device=settings.device,
        precision=settings.precision,
        batch_size=settings.batch_size,
    )
    scored = evaluation.run(
        loaded,
        plan,
        batch_size=settings.batch_size,
        workers=settings.workers,
        keep_rows=keep_rows,
        progress=True,
        name=name or model,
        cache=evaluation.FeatureCache.of(settings),
        all_ranks=all_ranks,
    )
    if chosen := runs.chosen_by(model):
        scored.provenance["chosen_by"] = chosen
    return scored


def _default_model() -> str:
    """Return the newest finished run, or else the fallback, and print which one it is."""
    from clic import runs

    newest = runs.newest_finished()
    if newest is None:
        print(
            f"{NAME}: no finished run under ./{runs.RUNS}, using {FALLBACK_MODEL}", file=sys.stderr
        )
        return FALLBACK_MODEL
    print(f"{NAME}: model {newest}, the newest finished run", file=sys.stderr)
    return str(newest)


if __name__ == "__main__":
    main()
