"""Train the shapes experiments over seeds, evaluate them, and write the table of results.

Each (experiment, seed) is one `clic-train` and one `clic-eval`, as a user would type them. Results
of an earlier call are reused only if they were made by the same code, settings, torch and number of
threads: their names contain the hash. Comments and layout do not count.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import shapes_report
import study
from study_tables import summarise

EXPERIMENTS = (
    "shapes",
    "shapes_clip",
    "shapes_negclip",
    "shapes_clove",
    "shapes_paper",
    "shapes_no_hard_negative",
    "shapes_no_unimodal",
    "shapes_no_alternation",
)
BENCH = "shapes++,shapes-retrieval,shapes-zero-shot"
BASE = "base"


def main() -> int:
    """Run the missing jobs and write the two files."""
    options = parse()
    options.runs.mkdir(parents=True, exist_ok=True)
    sources = study.Sources(study.hash_source(study.EVALUATION_ONLY), study.hash_source())
    setup = study.Setup(
        options.runs, options.threads, options.jobs,
        (study.Evaluation("", ("--bench", BENCH)),), sources,
        ("shapes++/swap_att/itt", "shapes++/swap_att/tot"),
    )  # fmt: skip
    jobs = make_jobs(options.experiments, options.seeds, options.split)
    try:
        results = study.run_all(list(jobs), setup)
    except KeyboardInterrupt:
        return study.interrupted("shapes_table")
    if len(results) < len(jobs):
        return 1
    by_model: dict[str, list[study.Result]] = {}
    for result in results:
        by_model.setdefault(jobs[result.job], []).append(result)
    write({name: summary(group) for name, group in by_model.items()}, options)
    return 0


def parse() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(prog="shapes_table", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--experiments", nargs="+", default=list(EXPERIMENTS), metavar="NAME")
    add("--split", default="test", choices=["validation", "test"], help="what is reported: test")
    study.add_options(parser)
    add("--out", type=Path, help="path of the two files, without ending (default: RUNS/table)")
    options = parser.parse_args()
    study.check_options(parser, options)
    options.out = (options.out or options.runs / "table").resolve()
    return options


def make_jobs(experiments: Sequence[str], seeds: Sequence[int], split: str) -> dict[study.Job, str]:
    """Return the jobs, each with the model that it is a run of; the base is not trained."""
    jobs = {study.Job(BASE, None, None, split): BASE}
    for seed in seeds:
        for name in experiments:
            jobs[study.Job(f"{name}-seed{seed}", (f"+experiment={name}",), seed, split)] = name
    return jobs


def summary(results: Sequence[study.Result]) -> dict[str, Any]:
    """Return the summary of a model's runs, and their origin."""
    return {
        "n": len(results),
        "measures": summarise([result.measures for result in results]),
        "runs": [result.record for result in results],
    }


def write(models: dict[str, Any], options: argparse.Namespace) -> None:
    """Write the table as JSON and as Markdown, and print where."""
    about = {"split": options.split, **study.about(options.seeds, options.threads)}
    table = {"about": about, "models": models}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    as_json = study.with_ending(options.out, ".json")
    as_markdown = study.with_ending(options.out, ".md")
    # Paths are relative to the checkout, whose location means nothing elsewhere.
    content = json.dumps(table, indent=2).replace(f"{study.CHECKOUT}/", "")
    as_json.write_text(content + "\n", "utf-8")
    as_markdown.write_text(shapes_report.markdown(table), "utf-8")
    print(f"\n{as_markdown.read_text('utf-8')}\nwritten: {as_markdown} and {as_json}")


if __name__ == "__main__":
    sys.exit(main())
