"""`clic-patch`: models between a base and a fine-tuned one, and sweeps over them."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from clic.cli.common import (
    Parser,
    add_scoring_flags,
    is_setting,
    make_console,
    refuse_torchrun,
    run_cli,
    settings_of,
    split_commas,
)
from clic.cli.patch_sweep import sweep_and_write
from clic.config.overrides import compose
from clic.config.patch_settings import (
    PatchConfig,
    check_patch,
    parse_alpha,
    parse_alphas,
    parse_depth,
    parse_sweep,
)
from clic.errors import ConfigError

if TYPE_CHECKING:
    from clic.patching.alpha_rules import AlphaRules

NAME = "clic-patch"
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
  clic-patch --sweep 0:1:0.05 --select shapes@val --report shapes --keep-best
  clic-patch --soup runs/a runs/b runs/c --method ties --base M --out ties/
  clic-patch --alpha-text 0.6 --alpha-vision 0 --alpha logit_scale=1 --out new/
  clic-patch --alpha 1 --to hf --out hf/      for transformers (or --to onnx)
  clic-patch --alpha 1 --card --results r.json --out hub/   with a model card
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
        f"       {NAME} --sweep 0:1:0.25 --bench B [options] [key=value ...]\n"
        f"       {NAME} --soup M M [M ...] --out DIR [options] [key=value ...]",
        description=DESCRIPTION,
        epilog=EXAMPLES,
    )
    add = parser.add_argument
    add("--alpha", metavar="A", action="append", help="write this model; repeat, or use commas; "
        "'REGEX=A' for the tensors in whose names it is found, the last match wins")  # fmt: skip
    add("--alpha-text", metavar="A", type=float, help="alpha of all but the vision tower")
    add("--alpha-vision", metavar="A", type=float, help="alpha of the vision tower")
    add("--alpha-depth", metavar="A:B", help="alpha from the first to the last block")
    add("--extrapolate", action="store_const", const=True, help="alphas below 0 and above 1")
    add("--run", metavar="RUN", help="a finished run (default: the newest under ./runs)")
    add("--base", metavar="M", help="model of alpha 0, instead of the run's")
    add("--tuned", metavar="M", help="model of alpha 1; needs --base and --out, and no run")
    add("--out", metavar="DIR", help="folder to write to (default: the run's own)")
    add("--to", metavar="F", help="hf: a folder for transformers; onnx: a file of each tower")
    add("--card", action="store_const", const=True, help="write a model card (README.md), too")
    add("--results", metavar="FILE", help="report of clic-eval --json for the card")
    add("--sweep", metavar="S", action="append", help="evaluate alphas: 0:1:0.25, or a list")
    add("--bench", metavar="A,B", action="append", help="benchmarks of the sweep")
    add("--select", metavar="A,B", action="append", help="choose an alpha by these, e.g. "
        "shapes++@val,shapes-retrieval@val; NAME/category/metric takes another number")  # fmt: skip
    add(
        "--report", metavar="A,B", action="append", help="report the choice on these, and no others"
    )
    add("--max-drop", metavar="P", type=float, help="points that the choice may lose on each "
        "retrieval and classification benchmark of --select (1)")  # fmt: skip
    add("--keep-best", action="store_const", const=True, help="write the chosen model")
    add("--soup", metavar="M", action="extend", nargs="+", help="make one model of these; --out")
    add("--method", metavar="W", help="of a soup: uniform, weights, greedy, task, ties, dare, "
        "stock, slerp (uniform); greedy needs --select, task to stock need --base")  # fmt: skip
    add("--weights", metavar="W,W", action="append", help="of the soup's models")
    add("--scale", metavar="L", type=float, help="factor of the combined difference (1)")
    add("--density", metavar="D", type=float, help="share of each difference that stays "
        "(ties 0.2, dare 0.1)")  # fmt: skip
    add("--draw-seed", metavar="N", type=int, help="seed of what dare drops (0)")
    add_scoring_flags(parser)
    add("--debug", action="store_true", help="show the traceback of an error")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    words = list(sys.argv[1:] if argv is None else argv)
    run_cli(NAME, lambda: _body(words), debug="--debug" in words)


def _body(words: Sequence[str]) -> None:
    flags, overrides = make_parser().parse_with_overrides(words)
    if flags.soup is not None:  # it consumes all words that follow
        overrides += [word for word in flags.soup if is_setting(word)]
        flags.soup = [word for word in flags.soup if not is_setting(word)]
    given = settings_of(flags, "sweep", "bench", "select", "report", "weights")
    given["alpha"] = _split_alphas(given["alpha"])
    settings = compose("patch", overrides, PatchConfig, given)
    check_patch(settings)
    if settings.soup:
        refuse_torchrun()
        _write_soup(settings)
        return
    alphas, rules = _rules(settings)
    swept = parse_sweep(settings.sweep, settings.extrapolate)
    refuse_torchrun()
    pair = _pair(settings)
    if swept:
        sweep_and_write(settings, pair.base, pair.tuned, pair.folder, pair.label)
    if alphas or not swept:
        _write_models(settings, pair, rules.at_each(alphas) or [rules])


def _split_alphas(values: Sequence[str] | None) -> list[str] | None:
    """Return the words of `--alpha`: numbers split at commas, rules whole, commas included."""
    if values is None:
        return None
    parts = [[value] if "=" in value else split_commas([value]) or [] for value in values]
    return [word for words in parts for word in words]


def _rules(settings: PatchConfig) -> tuple[list[float], AlphaRules]:
    """Return the alphas of the models to write, and the rules that all of them share."""
    from clic.patching.alpha_rules import AlphaRules

    beyond = settings.extrapolate
    alphas, rules = parse_alphas(settings.alpha, beyond)
    for name in ("alpha_text", "alpha_vision"):
        if (alpha := getattr(settings, name)) is not None:
            parse_alpha(str(alpha), name, beyond)
    depth = parse_depth(settings.alpha_depth, beyond)
    towers = settings.alpha_text, settings.alpha_vision
    return alphas, AlphaRules(None, depth, *towers, tuple(rules), beyond)


def _pair(settings: PatchConfig) -> Pair:
    """Return the two models: those named, or those of a run.

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
    return Pair(settings.base or runs.base_of(run), str(tuned), out or run, run.name)


def _write_soup(settings: PatchConfig) -> None:
    from clic.patching.soups import run_soup

    made = run_soup(settings)
    for step in made.steps:
        what = "taken" if step.taken else "left out"
        print(f"{what}: {step.model}, {step.alone:.1f} alone, {step.together:.1f} in the soup")
    print(f"wrote {made.folder}")


def _write_models(settings: PatchConfig, pair: Pair, wanted: Sequence[AlphaRules]) -> None:
    from clic import models, patching, runs
    from clic.models import exporting, onnx_writing
    from clic.patching import model_card

    if settings.to == "hf":  # refuse before any work is done
        exporting.check_fits(models.resolve(runs.source_of(pair.tuned)))
    if settings.to == "onnx":
        onnx_writing.check_installed()
    reports = model_card.read_results(settings.results)
    if reports and len(wanted) > 1:
        raise ConfigError(
            f"--results {settings.results} is of one model's weights, and {len(wanted)} models are "
            "to be written; give one alpha"
        )
    if settings.out is None and wanted[0].in_parts:
        raise ConfigError("a model whose parts differ in alpha needs --out DIR")
    for rules in wanted:
        name = "" if rules.alpha is None else runs.alpha_folder(rules.alpha)
        if settings.out is None:
            out = pair.folder / runs.PATCHED / name
        else:
            out = pair.folder / name if len(wanted) > 1 else pair.folder
        cards: list[str] = []

        def make_card(new: Path, out: Path = out, cards: list[str] = cards) -> None:
            if settings.card:
                cards.append(model_card.text(new, settings.to, reports, out))

        patching.patch_by_rules(pair.base, pair.tuned, rules, out, make_card)
        if rules.in_parts:
            _print_parts(out)
        if settings.to is not None:
            writer = exporting if settings.to == "hf" else onnx_writing
            writer.convert(out, [patching.RECORD_FILE])
        for card in cards:
            model_card.write(out, card)
        print(f"wrote {out}")


def _print_parts(model: Path) -> None:
    """Print what each rule applied to."""
    from rich.markup import escape

    from clic.evaluation.report.terminal_tables import new_table
    from clic.patching import RECORD_FILE

    table = new_table("alpha of the parts", "rule")
    for column in ("alpha", "tensors", "parameters"):
        table.add_column(column, justify="right")
    for share in json.loads((model / RECORD_FILE).read_text(encoding="utf-8"))["parts"]:
        counts = (f"{share[name]:,}" for name in ("tensors", "parameters"))
        table.add_row(escape(share["rule"]), share["alpha"], *counts)
    make_console().print(table)


if __name__ == "__main__":
    main()
