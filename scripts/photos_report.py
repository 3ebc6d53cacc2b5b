"""Write the results of photos_study.py as Markdown: a table for each part, and its differences."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import photos_figure
import study
from study_tables import cell, joined, made_by, row, summarise

from clic.evaluation.report.comparison import bootstrap
from clic.evaluation.report.paired_rows import Observed, Series
from clic.io.files import write_whole
from clic.seeding import generator

RESAMPLES = 2000
ALL, COVERED = "text/sugarcrepe++", "sugarcrepe++"
CATEGORIES = ("replace_att", "replace_obj", "replace_rel", "swap_att", "swap_obj")
# Column heading -> paths in the measures, shown in one cell.
COLUMNS = {
    "TOT replace att / obj / rel": tuple(f"{ALL}/{name}/tot" for name in CATEGORIES[:3]),
    "TOT swap att / obj": tuple(f"{ALL}/{name}/tot" for name in CATEGORIES[3:]),
    "TOT mean": (f"{ALL}/mean/tot",),
    "ITT replace / swap": (f"{COVERED}/replace/itt", f"{COVERED}/swap/itt"),
    "p1 replace / swap": (f"{COVERED}/replace/p1", f"{COVERED}/swap/p1"),
    "BLA": ("bla/mean/accuracy",),
    "Flickr8k R@1 i2t / t2i": (
        "flickr8k-retrieval/image_to_text@1",
        "flickr8k-retrieval/text_to_image@1",
    ),
    "COCO R@1 i2t / t2i": (
        "coco2017-retrieval/image_to_text@1",
        "coco2017-retrieval/text_to_image@1",
    ),
}
# Numbers whose difference from the control is shown: benchmark, name, metric.
COMPARED = (
    (ALL, "mean", "tot"),
    (ALL, "swap_att", "tot"),
    (ALL, "swap_obj", "tot"),
    (COVERED, "mean", "itt"),
    (COVERED, "swap", "itt"),
    (COVERED, "mean", "p1"),
    ("bla", "mean", "accuracy"),
    ("flickr8k-retrieval", "image_to_text@1", ""),
    ("flickr8k-retrieval", "text_to_image@1", ""),
    ("coco2017-retrieval", "image_to_text@1", ""),
    ("coco2017-retrieval", "text_to_image@1", ""),
)


def differences(
    control: Sequence[Mapping[str, Observed]], models: Sequence[Mapping[str, Observed]]
) -> dict[str, list[float]]:
    """Return each compared number's difference from the control and the ends of its interval.

    Each resample draws rows, with the outcomes of all seeds of both sides, so the interval is that
    of the mean over these seeds; the deviation shows how far another seed may fall.

    Args:
        control: Outcomes by benchmark, one entry per seed; without any there are no differences.
        models: The same for the models to compare with it.
    """
    found: dict[str, list[float]] = {}
    if len(models) == 1:  # the base, which has no seed: its outcomes are paired with each seed's
        models = list(models) * len(control)
    seeds = min(len(control), len(models))  # those that both have
    control, models = control[:seeds], models[:seeds]
    for bench, name, metric in COMPARED if control else ():
        path = (name, metric)
        pair = [pooled([one[bench] for one in group]) for group in (control, models)]
        if not all(one.has(path) for one in pair):
            continue
        drawn = generator(0, f"bootstrap/{bench}")
        ((interval,),) = bootstrap(pair, [path], drawn, RESAMPLES).values()
        found["/".join(filter(None, (bench, name, metric)))] = [round(v, 2) for v in interval]
    return found


def pooled(observed: Sequence[Observed]) -> Observed:
    """Return one record of several models' outcomes, all of them observations of the same rows."""
    first = observed[0]
    series = {
        path: Series(
            np.concatenate([one.series[path].unit for one in observed]),
            np.concatenate([one.series[path].right for one in observed]),
        )
        for path in first.series
    }
    return Observed(first.units, series, first.means, first.digest)


def join(table: dict[str, Any], out: Path, order: Mapping[str, Sequence[str]]) -> None:
    """Write the JSON of results, keeping rows of earlier calls with the same base and precision.

    This allows the study to be run part by part and row by row. Each row records its commit.

    Args:
        table: The results of this call.
        out: Path of OUT.json.
        order: The labels of each part's rows, in display order.
    """
    path = study.with_ending(out, ".json")
    earlier = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    about = earlier.get("about", {})
    if all(about.get(name) == table["about"][name] for name in ("base", "words", "precision")):
        for part, kept in earlier["parts"].items():
            mine = table["parts"].setdefault(part, {**kept, "rows": {}})
            rows = {**kept["rows"], **mine["rows"]}
            mine["rows"] = {label: rows[label] for label in order[part] if label in rows}
        table["about"]["note"] = about.get("note")
    table["parts"] = {part: table["parts"][part] for part in order if part in table["parts"]}
    write_whole(path, json.dumps(table, indent=1) + "\n")


def write(out: Path) -> int:
    """Write the tables and the figure from the JSON of results, and print where."""
    path = study.with_ending(out, ".json")
    table = json.loads(path.read_text("utf-8"))
    tables = out.with_name(f"{out.name}_tables.md")
    tables.write_text(markdown(table), "utf-8")
    written = [str(path), str(tables)]
    figure = out.parent / "img" / f"{out.name}.png"
    if photos_figure.draw(table, figure):
        written.append(str(figure))
    print(f"\n{tables.read_text('utf-8')}\nwritten: {', '.join(written)}")
    return 0


def _text(about: Mapping[str, Any]) -> list[str]:
    """Return the option that names the base's text tower, if it is not MiniLM."""
    text = about.get("text", "minilm")
    return [] if text == "minilm" else [f"--text {text}"]


def markdown(table: Mapping[str, Any]) -> str:
    """Return the Markdown file."""
    about = table["about"]
    lines = [
        "Percent, mean over n seeds ± sample standard deviation (of several numbers in a cell the "
        "largest). TOT is of all 4,757 rows of SugarCrepe++, without images; ITT and p1 are of a "
        "covered subset, the rows whose photo is at hand. Made by "
        f"`{' '.join(['bash scripts/photos_study.sh', *_text(about)])}`.",
        "",
        made_by(about),
    ]
    if about.get("note"):
        lines += ["", about["note"]]
    if about["words"]:
        words = " ".join(f"`{word}`" for word in about["words"])
        lines += ["", f"**Not the study itself: every training was given {words}.**"]
    for part in table["parts"].values():
        lines += ["", f"## {part['title']}", ""]
        lines += [row(["", "n", *COLUMNS]), "|---|" + "--:|" * (1 + len(COLUMNS))]
        for label, shown in part["rows"].items():
            measures = summarise([model["measures"] for model in shown["models"]])
            cells = [
                cell(measures[paths[0]]) if len(paths) == 1 else joined(measures, paths)
                for paths in COLUMNS.values()
            ]
            lines.append(row([label, str(len(shown["models"])), *cells]))
        lines += compared(part)
    return "\n".join(lines) + "\n"


def compared(part: Mapping[str, Any]) -> list[str]:
    """Return a part's table of differences from the control; empty without a control."""
    rows = {
        label: shown["differences"]
        for label, shown in part["rows"].items()
        if any(low or high for _, low, high in shown["differences"].values())  # not the control
    }
    paths = list(dict.fromkeys(path for found in rows.values() for path in found))
    if not paths:
        return []
    lines = [
        "",
        "Difference to photos_clip in points, with its paired bootstrap 95 % interval:",
        "",
    ]
    lines += [row(["", *rows]), "|---|" + "--:|" * len(rows)]
    for path in paths:
        cells = ["{:+.1f} [{:+.1f}, {:+.1f}]".format(*found[path]) for found in rows.values()]
        lines.append(row([path, *cells]))
    return lines
