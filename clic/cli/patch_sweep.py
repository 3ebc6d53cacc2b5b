"""`clic-patch --sweep`: a sweep's scores as files, tables and figures, and the chosen alpha."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from clic.cli.common import make_console
from clic.config.patch_settings import PatchConfig, parse_sweep
from clic.errors import ConfigError
from clic.io.files import check_folder, check_writable

if TYPE_CHECKING:
    from clic.patching.choice import AlphaChoice
    from clic.patching.search import Sweep


def sweep_and_write(settings: PatchConfig, base: str, tuned: str, folder: Path, label: str) -> None:
    """Score the models of a sweep, then write its files and print its tables.

    Args:
        settings: The command's settings.
        base: Model of alpha 0.
        tuned: Model of alpha 1.
        folder: Where the files go; created only once there is something to write.
        label: The tuned model's name in titles.
    """
    from clic.patching.search import run_sweep

    _check_places(settings, folder)
    found = run_sweep(settings, base, tuned, folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"cannot make {folder} ({error.strerror}); choose another --out"
        ) from None
    # The files come first, so that a closed terminal does not lose the numbers.
    written = _write(found, folder, label)
    _print(found)
    for path in written:
        print(f"wrote {path}")
    if found.best is not None:
        print(f"wrote {found.best}")


def _check_places(settings: PatchConfig, folder: Path) -> None:
    """Check before hours of evaluation that the folders can be written to."""
    from clic import runs
    from clic.patching.folders import check_replaceable
    from clic.patching.search import best_folder

    check_folder(str(folder))
    if folder.is_dir():
        check_writable(str(folder / runs.SWEEP_FILE))
    if settings.keep_best:
        for alpha in parse_sweep(settings.sweep, settings.extrapolate):
            check_replaceable(best_folder(folder, alpha))


def _write(found: Sweep, folder: Path, label: str) -> list[Path]:
    """Write every file of a sweep and return their paths; skip a figure that would be empty."""
    from clic import runs
    from clic.evaluation.report import alpha_sweep, formats, result_files
    from clic.patching.trade_off import draw_trade_off

    numbers, table = folder / runs.SWEEP_FILE, folder / runs.SWEEP_TABLE
    result_files.write_object(numbers, found.to_dict())
    result_files.write_text(table, [formats.csv_text(found.reports)])
    lines = folder / runs.SWEEP_PICTURE
    title = f"{label}: between base and fine-tuned"
    pictures = [lines, lines.with_suffix(".svg")]
    for picture in pictures:
        alpha_sweep.draw(found.results, title, picture)
    curves = [curve for curve in found.curves if curve.drawable]
    if curves:
        figure = folder / runs.TRADE_OFF_PICTURE
        both = [figure, figure.with_suffix(".svg")]
        draw_trade_off(curves, title, both)
        pictures += both
    return [numbers, table, *pictures]


def _print(found: Sweep) -> None:
    from clic.evaluation.report import alpha_sweep, report

    console = make_console()
    for table in alpha_sweep.tables(found.results):
        console.print(table)
    for line in report.notes(found.reports):
        console.print(f"note: {line}", markup=False, highlight=False)
    if found.choice is not None:
        for line in sentences(found.choice):
            console.print(line, markup=False, highlight=False)


def sentences(choice: AlphaChoice) -> list[str]:
    """Return lines that describe a choice: its alpha, rule, certainty and cost."""
    by_alpha = {point.alpha: point for point in choice.points}
    chosen, base = by_alpha[choice.alpha], by_alpha.get(0.0)
    by = ", ".join(measure.label for measure in choice.select)
    limit = ""
    if chosen.kept is not None:
        limit = f" with at most {choice.max_drop:g} points lost on each preserved benchmark"
    lines = [f"chosen: alpha {choice.alpha:g}, the largest gain{limit}, by {by}"]
    if base is not None:
        gain = f"{chosen.composed - base.composed:+.1f} composed"
        lost = "" if chosen.kept is None else f", at most {chosen.drop:.1f} lost of what is kept"
        lines.append(f"  there, against alpha 0: {gain}{lost}")
    lines.append(
        f"  {100 * choice.certainty:.0f} % of the resamples of its rows choose the same; 95 % of "
        f"them choose {choice.low:g} to {choice.high:g}"
    )
    if choice.hindsight is not None:
        on = ", ".join(measure.label for measure in choice.report)
        reported = {point.alpha: point for point in choice.report_points}
        mine, other = reported[choice.alpha], reported[choice.hindsight]
        kept = "" if mine.kept is None else f", {mine.kept:.1f} kept"
        lines.append(f"  reported on {on}: {mine.composed:.1f} composed{kept}")
        lines.append(
            f"  the reported rows themselves would choose alpha {choice.hindsight:g} "
            f"({other.composed:.1f} composed): {choice.lost:.1f} points lost by not looking at them"
        )
    return lines
