"""The output of `clic-eval`: what it prints, and the files that it was asked to write."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from clic.cli.common import make_console
from clic.config.eval_settings import EvalConfig
from clic.errors import ConfigError
from clic.io.files import check_folder, check_writable

if TYPE_CHECKING:
    from clic.cli.eval import Results


def wanted_files(settings: EvalConfig) -> dict[str, list[Path]]:
    """Return the files to write by kind, after checking that they can be written."""
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


def wanted_figures(settings: EvalConfig) -> list[Path]:
    """Return the figures to draw, after checking that they can be written."""
    if not settings.figure:
        return []
    from clic.evaluation.report.score_figure import check_figure

    files = [Path(name).expanduser() for name in settings.figure]
    for file in files:
        check_figure(file)
        if file.is_dir():
            raise ConfigError(f"figure={file} is a folder; name a file")
    check_writable(*settings.figure)
    return files


def print_results(results: Results, with_published: bool) -> None:
    from clic.evaluation.report import comparison, published_numbers, report, terminal_tables

    console = make_console()
    for line in report.legend(results.reports):
        console.print(line, markup=False, highlight=False)
    for table in terminal_tables.tables(results.reports, results.comparison):
        console.print(table)
    if results.comparison is not None:
        console.print(comparison.interval_note(results.comparison), markup=False, highlight=False)
    for one in results.reports if with_published else []:
        for line in published_numbers.beside_lines(one):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
    for line in report.warnings(results.reports):
        console.print(f"warning: {line}", style="bold red", markup=False, highlight=False)
    for line in report.notes(results.reports):
        console.print(f"note: {line}", markup=False, highlight=False)
    for line in report.timings(results.reports):
        console.print(line, style="dim", markup=False, highlight=False)


def print_list(bench: list[str], data: str | None) -> bool:
    """Print the output of `--bench list` or `list:NAME`; return False if it is neither."""
    from clic.evaluation import evaluation_plan
    from clic.evaluation.report import listing

    pages = listing.wanted(bench)
    if pages is None:
        return False
    root = Path(data).expanduser() if data is not None else evaluation_plan.default_data_root()
    console = make_console()
    if not pages:
        console.print(listing.table(root))
    lines = [line for name in pages for line in listing.page(name, root)] or listing.lines(root)
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return True
