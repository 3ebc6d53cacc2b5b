"""Run the study behind docs/photos.md: train on photographs, evaluate, write its tables.

Each model is one `clic-train` and one `clic-eval` as a user would type them. Results of an earlier
call are reused only if they were made by the same code, settings, base, torch and number of
threads. The base (scripts/build_photo_base.py) and the shards are made if they are missing.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import photos_report
import study
import torch
from pretrained_texts import TOWERS

from clic import runs
from clic.errors import ClicError
from clic.evaluation.report import result_files
from clic.evaluation.report.comparison import observe_report
from clic.evaluation.report.paired_rows import Observed
from clic.io.processes import cpu_has_bf16

EXPERIMENT = "+experiment=photos_"
BUILDER = study.CHECKOUT / "scripts" / "build_photo_base.py"
TEXTS = study.CHECKOUT / "scripts" / "pretrained_texts.py"
TRAINING = "captions_train.csv"
BEST = (f"{EXPERIMENT}best",)
# Evaluations of a table: TOT on all rows, without images, and what the available photos cover.
EVALUATIONS = (
    ("text/", ("--bench", "sugarcrepe++", "--text-only")),
    ("", ("--bench", "sugarcrepe++,bla,flickr8k-retrieval,coco2017-retrieval", "--allow-missing")),
)
CONTROL = "photos_clip"
TOT = "text/sugarcrepe++"
Words = tuple[str, ...]
# Epochs over the photos that so many steps need, if one is not enough.
STEPS: Mapping[int, Words] = {
    30: (), 60: (), 240: ("train.epochs=2",), 480: ("train.epochs=4",), 960: ("train.epochs=8",)
}  # fmt: skip
LONG = ("train.max_steps=480", *STEPS[480])


class Row(NamedTuple):
    """A model of the study, trained with each seed.

    Attributes:
        words: Words of `clic-train`; None for the base itself.
        alpha: Alpha of `clic-patch`.
        shards: How many shards of 1,000 photos it trains on; None for all six.
    """

    words: Words | None
    alpha: float = 1.0
    shards: int | None = None


class Part(NamedTuple):
    """A question, and the models that answer it, by the label of their row.

    They are compared with the part's own `photos_clip`, or else with that of the recipes.
    """

    title: str
    rows: dict[str, Row]


PARTS = {
    "recipes": Part(
        "The recipes, each as many steps from the same base",
        {
            "base": Row(None),
            **{
                f"photos_{name}": Row((f"{EXPERIMENT}{name}",))
                for name in ("best", "clip", "negclip", "clic", "clove", "layout")
            },
            "photos_clove, patched at 0.6": Row((f"{EXPERIMENT}clove",), 0.6),
        },
    ),
    "patched": Part(
        "photos_best between its base (alpha 0) and itself (alpha 1)",
        {f"alpha {alpha}": Row(BEST, alpha) for alpha in (0.25, 0.5, 0.75)},
    ),
    "long": Part(
        "480 steps: photos_best and its control, as many steps",
        {
            "photos_clip": Row((f"{EXPERIMENT}clip", *LONG)),
            "photos_best": Row((*BEST, *LONG)),
            **{f"photos_best, alpha {a}": Row((*BEST, *LONG), a) for a in (0.5, 0.75)},
        },
    ),
    "ablations": Part(
        "photos_best with one thing left out",
        {
            "paraphrases by rules alone": Row((*BEST, "captions.paraphrase=rules")),
            "no term between texts": Row((*BEST, "loss=softmax_negatives")),
            "no distillation": Row((*BEST, "train.distill_weight=0")),
            "distillation alone, at the same rate": Row(
                (f"{EXPERIMENT}clip", "optim.lr=1.0e-3", "train.distill_weight=20")
            ),
            "no swapped captions": Row(
                (
                    *BEST, "captions.single_negative=replace", "~captions.mixture.replace",
                    "~captions.mixture.swap", "~captions.mixture.swap_attributes",
                )
            ),
            "no replaced words": Row((*BEST, "~captions.mixture.replace")),
            "the first caption of a photo alone": Row((*BEST, "captions.single_caption=first")),
            "the whole text tower": Row((*BEST, "model.train=text")),
        },
    ),
    "steps": Part(
        "photos_best over the number of steps",
        {
            f"{steps} steps": Row((*BEST, f"train.max_steps={steps}", *epochs))
            for steps, epochs in STEPS.items()
        },
    ),
    "photos": Part(
        "photos_best over the number of training photos, at equal steps",
        {
            f"{count},000 photos": Row((*BEST, f"train.epochs={epochs}"), shards=count)
            for count, epochs in ((1, 6), (3, 2))
        },
    ),
}  # fmt: skip


def main() -> int:
    """Run the missing jobs, and write the tables."""
    options = parse()
    if options.only_report:
        return photos_report.write(options.out)
    try:
        return run(options)
    except KeyboardInterrupt:
        return study.interrupted("photos_study")
    except (ClicError, study.CommandError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def parse() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(prog="photos_study", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--data", type=Path, default=os.environ.get("CLIC_DATA", "data"),
        help="where flickr8k, sugarcrepe_pp, bla and coco lie (default: $CLIC_DATA)")  # fmt: skip
    add("--parts", nargs="+", default=list(PARTS), choices=list(PARTS), metavar="PART",
        help=f"of {', '.join(PARTS)} (default: all)")  # fmt: skip
    add("--rows", nargs="+", metavar="ROW", help="only these rows of the parts (default: all)")
    add("--text", choices=list(TOWERS), default="minilm",
        help="text tower of the base (default minilm)")  # fmt: skip
    # bf16 takes half the time of fp32 on machines that have it; no SugarCrepe++ number of the base
    # moves by more than 0.1.
    native = torch.cuda.is_available() or cpu_has_bf16()
    add("--precision", choices=("fp32", "bf16"), default="bf16" if native else "fp32",
        help="of training and evaluation (default: bf16 where the machine has it)")  # fmt: skip
    study.add_options(parser)
    add("--words", nargs="+", default=[], metavar="SETTING=VALUE",
        help="added to every training, e.g. train.max_steps=5 for a quick look")  # fmt: skip
    add("--out", type=Path, help="path of OUT.json and OUT_tables.md (default: RUNS/photos)")
    add("--only-report", action="store_true", help="tables from OUT.json, no run")
    options = parser.parse_args()
    study.check_options(parser, options)
    options.data = Path(options.data).resolve()
    default = "photos" if options.text == "minilm" else f"photos-{options.text}"
    options.out = (options.out or options.runs / default).resolve()
    if options.only_report and not study.with_ending(options.out, ".json").is_file():
        parser.error(f"there is no {options.out}.json; name it with --out, or leave --only-report")
    return options


def run(options: argparse.Namespace) -> int:
    """Run the missing jobs and write all results."""
    options.runs.mkdir(parents=True, exist_ok=True)
    sources = study.Sources(
        study.hash_source((*study.EVALUATION_ONLY, "configs/experiment")), study.hash_source()
    )
    flags = ("--data", str(options.data), "--precision", options.precision, "--batch-size", "128")
    evaluations = tuple(study.Evaluation(p, (*f, *flags)) for p, f in EVALUATIONS)
    setup = study.Setup(
        options.runs, options.threads, options.jobs, evaluations, sources,
        tuple(f"{TOT}/{name}/tot" for name in ("swap_att", "swap_obj", "mean")),
    )  # fmt: skip
    base = find_base(options, setup)
    shards = find_shards(options)
    jobs = {
        part: {
            label: make_jobs(row, options, base, shards)
            for label, row in PARTS[part].rows.items()
            if options.rows is None or label in options.rows
        }
        for part in dict.fromkeys(options.parts)
    }
    flat = [job for rows in jobs.values() for group in rows.values() for job in group]
    print(f"{len(dict.fromkeys(flat))} models to evaluate, {setup.jobs} at a time", flush=True)
    results = {result.job: result for result in study.run_all(flat, setup)}
    if len(results) < len(set(flat)):
        return 1
    observed = {job: observations(job, results[job], setup) for job in set(flat)}
    controls = {
        part: [observed[job] for job in {**jobs.get("recipes", {}), **rows}.get(CONTROL, ())]
        for part, rows in jobs.items()
    }
    about = study.about(options.seeds, options.threads)
    table = {
        "about": {
            **about,
            "words": list(options.words),
            "text": options.text,
            "precision": options.precision,
            "base": hashlib.sha256((base / runs.OPEN_CLIP_WEIGHTS).read_bytes()).hexdigest(),
        },
        "parts": {
            part: {
                "title": PARTS[part].title,
                "rows": {
                    label: {
                        "made": {name: about[name] for name in ("commit", "date")},
                        "models": [model(results[job]) for job in group],
                        "differences": photos_report.differences(
                            controls[part], [observed[job] for job in group]
                        ),
                    }
                    for label, group in rows.items()
                },
            }
            for part, rows in jobs.items()
        },
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    photos_report.join(table, options.out, {name: list(part.rows) for name, part in PARTS.items()})
    return photos_report.write(options.out)


def make_jobs(row: Row, options: argparse.Namespace, base: Path, shards: Path) -> list[study.Job]:
    """Return a row's jobs, one for each seed; the base is one job."""
    if row.words is None:
        return [study.Job(base.name, None, None, "", str(base))]
    source = study.quote(shards)
    if row.shards is not None:
        first = [study.quote(shards / f"{number:05d}.tar") for number in range(row.shards)]
        source = f"[{','.join(first)}]"
    common = (f"data.shards={source}", f"train.precision={options.precision}", *options.words)
    words = (word.removeprefix("+experiment=").replace("=", "-") for word in row.words)
    name = "-".join(words).replace("~", "without-")
    settings = hashlib.sha256(repr((row.words, common, base.name)).encode()).hexdigest()[:6]
    return [
        study.Job(
            f"{name}-{settings}-seed{seed}", (*row.words, *common), seed, "", str(base), row.alpha
        )
        for seed in options.seeds
    ]


def find_base(options: argparse.Namespace, setup: study.Setup) -> Path:
    """Return the folder of the base, building it if it is missing."""
    sources = study.read_source(BUILDER) + study.read_source(TEXTS)
    digest = hashlib.sha256(sources).hexdigest()[:10]
    folder: Path = options.runs / f"photos-base-{options.text}-{digest}"
    if not runs.is_open_clip_folder(folder):
        print(f"building {folder} (minutes; MPNet five times as long as MiniLM)", flush=True)
        log = study.with_ending(folder, ".log")
        words = ["--data", str(options.data / "flickr8k"), "--out", str(folder)]
        words += ["--text", options.text, "--threads", str(setup.threads)]
        study.run_command(BUILDER.name, log, setup.threads, [str(BUILDER)], words)
    return folder


def find_shards(options: argparse.Namespace) -> Path:
    """Return the folder of Flickr8k's training shards, packing them if they are missing."""
    folder: Path = options.runs / "flickr8k-train"
    print(f"packing {folder}", flush=True)  # already packed shards are kept
    words = ["pack", str(options.data / "flickr8k" / TRAINING), str(folder)]
    words += ["--resize-short", "224", "--tags", "hanta"]
    study.clic_command("data", study.with_ending(folder, ".log"), options.threads, words)
    return folder


def observations(job: study.Job, result: study.Result, setup: study.Setup) -> dict[str, Observed]:
    """Return a model's outcomes by benchmark, under the names of its measures."""
    run = setup.runs / result.record["run"]
    found = {}
    for evaluation in setup.evaluations:
        (report,) = result_files.load(str(study.report_file(run, job, evaluation, setup)))
        for bench, observed in observe_report(report).items():
            found[evaluation.prefix + bench] = observed
    return found


def model(result: study.Result) -> Mapping[str, Any]:
    """Return a model's entry in the results: what it is, and its measures."""
    return {
        "run": result.record["run"],
        "seed": result.job.seed,
        "words": result.job.words,
        "alpha": result.job.alpha,
        "weights": result.record["model"]["weights_sha256"],
        "measures": {path: round(value, 4) for path, value in result.measures.items()},
    }


if __name__ == "__main__":
    sys.exit(main())
