"""`clic-patch`: models between a base and a fine-tuned one, and sweeps over them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from clic.cli.common import (
    Parser,
    add_scoring_flags,
    check_unused,
    make_console,
    refuse_torchrun,
    run_cli,
    settings_of,
)
from clic.cli.eval import prepare, score
from clic.config.eval_settings import PatchConfig, check, parse_alpha, parse_sweep
from clic.config.overrides import compose
from clic.errors import ConfigError
from clic.io.files import check_writable

if TYPE_CHECKING:
    from clic.evaluation.report.report import Report

NAME = "clic-patch"
SWEEP_SETTINGS = (
    "bench", "data", "batch_size", "workers", "device", "precision", "allow_missing", "split",
    "seed",
)  # fmt: skip
DESCRIPTION = """\
Write models between a base (alpha 0) and the one fine-tuned from it (alpha 1):
(1 - alpha) * base + alpha * tuned, or evaluate a whole sweep of them."""
EXAMPLES = """\
examples:
  clic-patch --alpha 0.5                      from the newest finished run
  clic-patch --run runs/shapes-1 --alpha 0.25,0.5,0.75
  clic-patch --sweep 0:1:0.25 --bench shapes  writes sweep.json and sweep.png
  clic-patch --sweep 0,0.5,1 --bench sugarcrepe++ --data ~/data
  clic-patch --base ViT-B-32:openai --tuned tuned/ --alpha 0.6 --out patched/
  clic-patch --alpha 1 --to hf --out hf/      for transformers' CLIPModel
  clic-patch alpha=0.5 run=runs/shapes-1      settings (configs/patch.yaml)

Without --out, models go to RUN/patched/alpha-0.50/. With --out DIR a single
alpha is written to DIR itself, several to DIR/alpha-0.50/ and so on.
exit codes: 0 done, 2 a mistake in the command or the models, 130 interrupted."""


class Pair(NamedTuple):
    """The two models to interpolate.

    Attributes:
        base: Model of alpha 0.
        tuned: Model of alpha 1.
        folder: Folder of a sweep's files.
        label: The tuned model's name in titles.
    """

    base: str
    tuned: str
    folder: Path
    label: str


def make_parser() -> Parser:
    """Return the command's parser; a flag that is not given is None."""
    parser = Parser(
        prog=NAME,
        usage=f"{NAME} --alpha A[,A] [options] [key=value ...]\n"
        f"       {NAME} --sweep 0:1:0.25 --bench B [options] [key=value ...]",
        description=DESCRIPTION,
        epilog=EXAMPLES,
    )
    add = parser.add_argument
    add("--alpha", metavar="A", action="append", help="write this model; repeat, or use commas")
    add("--run", metavar="RUN", help="a finished run (default: the newest under ./runs)")
    add("--base", metavar="M", help="model of alpha 0, instead of the run's")
    add("--tuned", metavar="M", help="model of alpha 1; needs --base and --out, and no run")
    add("--out", metavar="DIR", help="folder to write to (default: the run's own)")
    add("--to", metavar="F", help="hf: write a folder for CLIPModel of transformers")
    add("--sweep", metavar="S", action="append", help="evaluate alphas: 0:1:0.25, or a list")
    add("--bench", metavar="A,B", action="append", help="benchmarks of the sweep")
    add_scoring_flags(parser)
    add("--debug", action="store_true", help="show the traceback of an error")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    words = list(sys.argv[1:] if argv is None else argv)
    run_cli(NAME, lambda: _body(words), debug="--debug" in words)


def _body(words: Sequence[str]) -> None:
    flags, overrides = make_parser().parse_with_overrides(words)
    given = settings_of(flags, "alpha", "sweep", "bench")
    settings = compose("patch", overrides, PatchConfig, given)
    alphas = [parse_alpha(text) for text in settings.alpha]
    swept = parse_sweep(settings.sweep)
    _check(settings)
    refuse_torchrun()
    pair = _pair(settings)
    if swept:
        _sweep(settings, pair, swept)
    if alphas:
        _write_models(settings, pair, alphas)


def _check(settings: PatchConfig) -> None:
    if not settings.alpha and not settings.sweep:
        raise ConfigError("nothing to do; give --alpha 0.5, or --sweep 0:1:0.25 --bench NAME")
    if settings.sweep and not settings.bench:
        raise ConfigError("--sweep needs --bench NAME (clic-eval --bench list shows them)")
    if settings.to not in (None, "hf"):
        raise ConfigError(f"to={settings.to} is not known (choices: hf)")
    if settings.to and not settings.alpha:
        raise ConfigError(f"to={settings.to} has no effect without --alpha; leave it out")
    check(settings)
    if not settings.sweep:
        check_unused(settings, SWEEP_SETTINGS, " without --sweep")


def _pair(settings: PatchConfig) -> Pair:
    """Return the two models: the named ones, or those of a run.

    Raises:
        ConfigError: Settings contradict each other, or there is no run.
    """
    from clic import runs

    out = None if settings.out is None else Path(settings.out).expanduser()
    if settings.tuned is not None:
        if settings.base is None or out is None:
            raise ConfigError("--tuned needs --base and --out; give all three, or --run RUN")
        if settings.run is not None:
            raise ConfigError("--run has no effect beside --base and --tuned; leave one out")
        return Pair(settings.base, settings.tuned, out, settings.tuned)
    given = None if settings.run is None else Path(settings.run).expanduser()
    run = given or runs.newest_finished()
    if run is None:
        raise ConfigError(
            f"there is no finished run under ./{runs.RUNS}; make one with clic-train, "
            "name one with --run, or give --base, --tuned and --out"
        )
    if settings.run is None:
        print(f"{NAME}: run {run}, the newest finished one", file=sys.stderr)
    tuned = runs.resolve(run)
    if tuned != run / runs.MODEL:
        raise ConfigError(
            f"run={run} is a model and not a run; give it as --tuned, with --base, --out"
        )
    return Pair(settings.base or runs.base_of(run), str(tuned), out or run, str(run))


def _write_models(settings: PatchConfig, pair: Pair, alphas: Sequence[float]) -> None:
    from clic import models, patching, runs
    from clic.models import exporting

    if settings.to is not None:  # refused before the work
        exporting.check_fits(models.resolve(runs.source_of(pair.tuned)))
    for alpha in sorted(set(alphas)):
        if settings.out is None:
            out = pair.folder / runs.PATCHED / runs.alpha_folder(alpha)
        elif len(set(alphas)) == 1:
            out = pair.folder
        else:
            out = pair.folder / runs.alpha_folder(alpha)
        patching.patch(pair.base, pair.tuned, alpha, out)
        if settings.to is not None:
            exporting.convert(out, [patching.RECORD_FILE])
        print(f"wrote {out}")


def _sweep(settings: PatchConfig, pair: Pair, alphas: Sequence[float]) -> None:
    from clic import patching, runs
    from clic.evaluation.report import alpha_sweep, report, result_files

    plan = prepare(settings, settings.bench)
    reports: list[Report] = []

    def score_folder(model: Path) -> dict[str, Any]:
        done = score(settings, plan, str(model), name=model.name.replace("-", " "))
        reports.append(done)
        # The folder from which it was loaded is temporary.
        source = f"between {pair.base} and {pair.tuned}"
        return {**done.to_dict(), "model": {**done.model, "name": done.name, "source": source}}

    _make_folder(pair.folder)
    results = patching.sweep(pair.base, pair.tuned, alphas, score_folder, pair.folder)
    # The files come first, so that a closed terminal does not lose the numbers.
    content = {"base": pair.base, "tuned": pair.tuned, "alphas": results}
    result_files.write_object(pair.folder / runs.SWEEP_FILE, content)
    picture = pair.folder / runs.SWEEP_PICTURE
    alpha_sweep.draw(results, f"{pair.label}: between base and fine-tuned", picture)
    console = make_console()
    for table in alpha_sweep.tables(results):
        console.print(table)
    for line in report.notes(reports):
        console.print(f"note: {line}", markup=False, highlight=False)
    print(f"wrote {pair.folder / runs.SWEEP_FILE} and {picture}")


def _make_folder(folder: Path) -> None:
    """Make the folder of a sweep's files now, not after hours of evaluation."""
    from clic import runs

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"cannot make {folder} ({error.strerror}); choose another --out"
        ) from None
    check_writable(str(folder / runs.SWEEP_FILE))


if __name__ == "__main__":
    main()
