"""The comparisons of the layout-caption study: its parts, their rows, their jobs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from study import Job

from clic.cli.train import compose
from clic.config.checks import validate
from clic.config.train_settings import Config

LAYOUT = "+experiment=shapes_layout"
FEWER = (0, 1)  # seeds of the variations; the recipe itself has more, on two bases
Words = tuple[str, ...]


class Part(NamedTuple):
    """A question and the rows that answer it.

    Attributes:
        title: Title of its table.
        rows: Label -> words of `clic-train`; None is the base itself, untrained. A row with the
            same settings as an earlier one is left out.
        split: Split of the benchmarks.
        bases: Base models that the rows start from.
        seeds: Training seeds; None uses those of the command line.
        relations: Rows that are also shown by phrase, sentence form and position.
    """

    title: str
    rows: dict[str, Words | None]
    split: str = "test"
    bases: Words = ("base0",)
    seeds: tuple[int, ...] | None = None
    relations: Words = ()


class Base(NamedTuple):
    """A base model: a name that `clic-train` accepts, and the hash of its weights."""

    model: str
    weights: str


class Row(NamedTuple):
    """A row of a table.

    Attributes:
        label: Its printed name.
        words: Words of `clic-train`, including those added to all rows; None for the base.
        steps: Training steps; 0 for the base.
        share: `captions.layout_share`.
        held_out: `captions.layout_held_out` if captions state layouts at all.
        recipe: Whether the row has the recommended settings.
        jobs: By base, one for each seed.
    """

    label: str
    words: Words | None
    steps: int
    share: float
    held_out: Words
    recipe: bool
    jobs: dict[str, list[Job]]


def parts(recipe: Config) -> dict[str, Part]:
    """Return the parts of the study, in order.

    Args:
        recipe: The settings of `shapes_layout`. Each comparison takes its values from them, so they
            are typed only once, and the controls train for as many steps.
    """
    as_long = f"train.epochs={recipe.train.epochs}"
    lr, hard = recipe.optim.lr, recipe.loss.hard_negative_weight
    unimodal, said = recipe.loss.unimodal_weight, recipe.captions.layout_held_out
    shares = sorted({0.25, 0.5, 1.0, recipe.captions.layout_share})
    lengths = sorted({1, 2, 4, recipe.train.epochs})
    held_out = ",".join(f"'{phrase}'" for phrase in dict.fromkeys([*said, "beneath"]))
    return {
        "choice": Part(
            "Settings around the recipe, one changed at a time (one seed)",
            {
                f"learning rate {lr:g}, hard negatives {hard:g}, unimodal {unimodal:g}": (LAYOUT,),
                **{f"learning rate {v:g}": (LAYOUT, f"optim.lr={v}") for v in (7e-4, 1e-3, 1.5e-3)},
                **{
                    f"hard negatives {v:g}": (LAYOUT, f"loss.hard_negative_weight={v}")
                    for v in (0.5, 2.0)
                },
                **{f"unimodal {v:g}": (LAYOUT, f"loss.unimodal_weight={v}") for v in (1.0, 2.0)},
            },
            split="validation",
            seeds=(0,),
        ),
        "main": Part(
            "The recipe and its controls at equal steps",
            {
                "base": None,
                "plain CLIP": ("+experiment=shapes_clip", as_long),
                "CLIC": ("+experiment=shapes", as_long),
                "CLIC, layout told": (LAYOUT,),
            },
            bases=("base0", "base1"),
            relations=("base", "CLIC", "CLIC, layout told"),
        ),
        "share": Part(
            "Share of composites whose layout is told (at 1, none is joined plainly)",
            {
                "share 0": (LAYOUT, "captions.layout_share=0", "captions.layout_held_out=[]"),
                **{f"share {v:g}": (LAYOUT, f"captions.layout_share={v}") for v in shares},
            },
            seeds=FEWER,
        ),
        "negatives": Part(
            "Hard negatives of a composite",
            {
                "word swap and layout": (LAYOUT,),
                "layout alone": (LAYOUT, "captions.composite_negative=none"),
                "word swap alone": (LAYOUT, "captions.layout_negative=false"),
                "both, layout weighs 2": (
                    LAYOUT,
                    "loss.negative_weights={cross_swap:1,layout:2}",
                ),
            },
            seeds=FEWER,
        ),
        "steps": Part(
            "Length of the training",
            {f"epochs {v}": (LAYOUT, f"train.epochs={v}") for v in lengths},
            seeds=FEWER,
        ),
        "period": Part(
            "Relational captions that end with a period (the benchmarks' do not)",
            {
                f"{recipe.captions.layout_period:g} of them": (LAYOUT,),
                "all": (LAYOUT, "captions.layout_period=1"),
            },
            seeds=FEWER,
        ),
        "positives": Part(
            "True captions of a composite",
            {
                f"{recipe.captions.composite_positives}": (LAYOUT,),
                "4, all in the hard-negative term": (
                    LAYOUT,
                    "captions.composite_positives=4",
                    "loss.hard_negative_positives=null",
                ),
                "4, two in the hard-negative term": (
                    LAYOUT,
                    "captions.composite_positives=4",
                    "loss.hard_negative_positives=2",
                ),
            },
            seeds=FEWER,
        ),
        "kinds": Part(
            "Steps of single images in between, or composites alone",
            {
                "in turn": (LAYOUT,),
                "composites alone": (LAYOUT, "sampling.kinds=composite"),
            },
            seeds=FEWER,
        ),
        "phrases": Part(
            "Phrases held out of training",
            {
                ", ".join(said) or "none": (LAYOUT,),
                "with beneath": (LAYOUT, f"captions.layout_held_out=[{held_out}]"),
            },
            seeds=FEWER,
            relations=(", ".join(said) or "none", "with beneath"),
        ),
    }


def steps(config: Config) -> int:
    """Return the number of steps of a training run on the world."""
    assert config.data.samples is not None
    whole = config.train.epochs * (config.data.samples // config.train.batch_size)
    return whole if config.train.max_steps is None else min(whole, config.train.max_steps)


def make_rows(
    part: Part,
    bases: Mapping[str, Base],
    seeds: Sequence[int],
    more: Words = (),
) -> list[Row]:
    """Return the rows of a part with their jobs, leaving out those with an earlier row's settings.

    Args:
        part: The part.
        bases: Bases by name, including those of the part.
        seeds: Seeds for a part that names none.
        more: Words added to each training run.

    Raises:
        ConfigError: A row's settings are invalid.
    """
    recipe = compose([LAYOUT, *more])
    rows: list[Row] = []
    seen: list[Config] = []
    for label, words in part.rows.items():
        if words is None:
            jobs = {name: [_base_job(name, bases[name], part.split)] for name in part.bases}
            rows.append(Row(label, None, 0, 0.0, (), False, jobs))
            continue
        words = (*words, *more)
        config = compose(words)
        if config in seen:
            continue
        seen.append(config)
        validate(config)
        captions = config.captions
        jobs = {
            name: [
                _job(name, bases[name], config, words, seed, part.split)
                for seed in part.seeds or seeds
            ]
            for name in part.bases
        }
        told = tuple(captions.layout_held_out) if captions.layout_share > 0 else ()
        rows.append(
            Row(label, words, steps(config), captions.layout_share, told, config == recipe, jobs)
        )
    return rows


def _base_job(name: str, base: Base, split: str) -> Job:
    return Job(f"{name}-{base.weights[:8]}", None, None, split, base.model)


def _job(name: str, base: Base, config: Config, words: Words, seed: int, split: str) -> Job:
    """Return a job named after everything that determines it, so that equal jobs coincide."""
    digest = hashlib.sha256(json.dumps(asdict(config), sort_keys=True).encode())
    digest.update(base.weights.encode())
    run = f"{config.name}-{digest.hexdigest()[:8]}-{name}-seed{seed}"
    return Job(run, words, seed, split, base.model)


def described(part: Part, rows: Sequence[Row]) -> dict[str, Any]:
    """Return a part's entry in the JSON of results; its jobs are keys into the models."""
    return {
        "title": part.title,
        "split": part.split,
        "bases": list(part.bases),
        "relations": list(part.relations),
        "rows": [
            {
                **row._asdict(),
                "jobs": {base: [key(job) for job in jobs] for base, jobs in row.jobs.items()},
            }
            for row in rows
        ],
    }


def key(job: Job) -> str:
    """Return a job's key in the JSON of results."""
    return f"{job.name}-{job.split}"
