"""Run the study behind docs/layout.md: train, evaluate, write its tables and its figure.

Each model is one `clic-train` and one `clic-eval`, as a user would type them; parts share equal
models. Results of an earlier call are reused only if they were made by the same code, settings,
base model, torch and number of threads: their names contain the hash.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import layout_figure
import layout_parts
import layout_report
import study
from layout_parts import LAYOUT, Base, Part

from clic import runs, shapes
from clic.cli.train import compose
from clic.errors import ClicError

BENCH = "shapes++,shapes-retrieval,shapes-zero-shot,shapes-relations"
BUILDER = study.CHECKOUT / "scripts" / "build_shapes_base.py"
# A run's name contains its composed settings, so the files that they come from do not count.
IN_THE_NAME = (
    "configs/captions",
    "configs/data",
    "configs/experiment",
    "configs/loss",
    "configs/model",
    "configs/optim",
    "configs/train.yaml",
)


def main() -> int:
    """Run the missing jobs, and write tables and figure."""
    options = parse()
    if options.only_report:
        return report(options.out)
    try:
        return run(options)
    except KeyboardInterrupt:
        return study.interrupted("layout_study")
    except (ClicError, study.CommandError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def parse() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(
        prog="layout_study",
        description=__doc__.splitlines()[0],
        epilog="Tables and figure hold the parts of this call alone; finished models are reused.",
    )
    names = list(layout_parts.parts(compose([LAYOUT])))
    add = parser.add_argument
    add("--parts", nargs="+", default=names, choices=names, metavar="PART",
        help=f"of {', '.join(names)} (default: all)")  # fmt: skip
    study.add_options(parser)
    add("--words", nargs="+", default=[], metavar="SETTING=VALUE",
        help="added to every training, e.g. train.max_steps=20 for a quick look")  # fmt: skip
    add("--out", type=Path, help="path of OUT.json and OUT_tables.md; the figure is img/NAME.png "
        "beside them (default: RUNS/layout)")  # fmt: skip
    add("--only-report", action="store_true", help="tables and figure from OUT.json, no run")
    options = parser.parse_args()
    study.check_options(parser, options)
    options.out = (options.out or options.runs / "layout").resolve()
    if options.only_report and not study.with_ending(options.out, ".json").is_file():
        parser.error(f"there is no {options.out}.json; name it with --out, or leave --only-report")
    return options


def run(options: argparse.Namespace) -> int:
    """Run the missing jobs and write all results."""
    options.runs.mkdir(parents=True, exist_ok=True)
    more = tuple(options.words)
    chosen = layout_parts.parts(compose([LAYOUT]))
    chosen = {name: chosen[name] for name in dict.fromkeys(options.parts)}
    without = (*study.EVALUATION_ONLY, *IN_THE_NAME)
    sources = study.Sources(study.hash_source(without), study.hash_source(IN_THE_NAME))
    setup = study.Setup(
        options.runs, options.threads, options.jobs,
        (study.Evaluation("", ("--bench", BENCH)),), sources,
        ("shapes++/swap_att/tot", "shapes++/replace_rel/tot"),
    )  # fmt: skip
    # Check the settings first, because building the second base takes minutes.
    unbuilt = {name: Base(name, "") for name in ("base0", "base1")}
    for part in chosen.values():
        layout_parts.make_rows(part, unbuilt, options.seeds, more)
    bases = find_bases(chosen, setup)
    rows = {
        name: layout_parts.make_rows(part, bases, options.seeds, more)
        for name, part in chosen.items()
    }
    jobs = {
        layout_parts.key(job): job
        for part in rows.values()
        for row in part
        for group in row.jobs.values()
        for job in group
    }
    print(f"{len(jobs)} models to train and evaluate, {setup.jobs} at a time", flush=True)
    results = study.run_all(list(jobs.values()), setup)
    if len(results) < len(jobs):
        return 1
    table = {
        "about": {
            **study.about(options.seeds, options.threads),
            "words": list(more),
            "bases": {name: base.weights for name, base in bases.items()},
            "relations": {name: list(found) for name, found in shapes.RELATION_GROUPS.items()},
        },
        "parts": {name: layout_parts.described(part, rows[name]) for name, part in chosen.items()},
        "models": {layout_parts.key(result.job): model(result) for result in results},
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    study.with_ending(options.out, ".json").write_text(dumps(table), "utf-8")
    return report(options.out)


def find_bases(chosen: Mapping[str, Part], setup: study.Setup) -> dict[str, Base]:
    """Return the bases of some parts; build the second one if it is missing."""
    found = {}
    for name in dict.fromkeys(name for part in chosen.values() for name in part.bases):
        if name == "base0":
            model, folder = study.BASE_MODEL, shapes.base_folder()
        else:
            folder = build_base(int(name.removeprefix("base")), setup)
            model = str(folder)
        weights = (folder / runs.OPEN_CLIP_WEIGHTS).read_bytes()
        found[name] = Base(model, hashlib.sha256(weights).hexdigest())
    return found


def build_base(seed: int, setup: study.Setup) -> Path:
    """Return the folder of another base of the world, building it if it is missing."""
    digest = hashlib.sha256(setup.sources.training.encode() + study.read_source(BUILDER))
    folder = setup.runs / f"base-seed{seed}-{digest.hexdigest()[:10]}"
    if runs.is_open_clip_folder(folder):
        return folder
    print(f"building {folder} (about 3 minutes)", flush=True)
    partial = study.with_ending(folder, ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    log = study.with_ending(folder, ".log")
    words = ["--seed", str(seed), "--out", str(partial)]
    study.run_command(BUILDER.name, log, 1, [str(BUILDER)], words)
    partial.rename(folder)
    return folder


def model(result: study.Result) -> dict[str, Any]:
    """Return a model's entry in the results: what it is, and its measures."""
    return {
        "run": result.record["run"],
        "seed": result.job.seed,
        "words": result.job.words,
        "weights": result.record["model"]["weights_sha256"],
        "reused": result.record["reused"],
        "measures": {path: round(value, 4) for path, value in result.measures.items()},
    }


def dumps(table: Mapping[str, Any]) -> str:
    """Return the results as JSON with a line for each model."""
    head = json.dumps({name: table[name] for name in ("about", "parts")}, indent=2)
    models = ",\n".join(
        f"    {json.dumps(name)}: {json.dumps(model)}" for name, model in table["models"].items()
    )
    return f'{head[:-2]},\n  "models": {{\n{models}\n  }}\n}}\n'


def report(out: Path) -> int:
    """Write tables and figure from the JSON of results, and print where."""
    table = json.loads(study.with_ending(out, ".json").read_text("utf-8"))
    tables = study.with_ending(out, "_tables.md")
    tables.write_text(layout_report.markdown(table), "utf-8")
    written = [str(study.with_ending(out, ".json")), str(tables)]
    figure = out.parent / "img" / f"{out.name}.png"
    if layout_figure.draw(table, figure):
        written.append(str(figure))
    print(f"\n{tables.read_text('utf-8')}\nwritten: {', '.join(written)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
