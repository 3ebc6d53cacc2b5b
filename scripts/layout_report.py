"""Write the results of layout_study.py as Markdown, with one or more tables for each part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from study_tables import joined, made_by, row, summarise, triplet

# Columns of the tables: heading -> a triplet category, or paths in clic-eval's JSON.
COLUMNS: dict[str, str | tuple[str, ...]] = {
    "swap_att": "shapes++/swap_att",
    "swap_noun": "shapes++/swap_noun",
    "swap_phrase": "shapes++/swap_phrase",
    "replace_rel": "shapes++/replace_rel",
    "replace_obj": "shapes++/replace_obj",
    "R@1 i2t / t2i": ("shapes-retrieval/image_to_text@1", "shapes-retrieval/text_to_image@1"),
    "zero-shot shape / colour / pair": (
        "shapes-zero-shot/shape",
        "shapes-zero-shot/colour",
        "shapes-zero-shot/pair",
    ),
}
RELATIONS = "shapes-relations"
GROUPS = {"phrases": "phrase", "forms": "form of sentence", "positions": "position"}


def markdown(table: Mapping[str, Any]) -> str:
    """Return the Markdown file: a section for each part of the study."""
    about = table["about"]
    lines = [
        "Percent: ITT / TOT / p1 of the triplets, mean over n models, which differ in seed or "
        "base; in brackets the largest sample standard deviation of the cell. Made by "
        "`bash scripts/layout_study.sh`.",
        "",
        made_by(about),
    ]
    if about["words"]:
        words = " ".join(f"`{word}`" for word in about["words"])
        lines += ["", f"**Not the study itself: every training was given {words}.**"]
    for name, part in table["parts"].items():
        lines += ["", f"## {name}", "", f"{part['title']}; {part['split']} split."]
        many = len(part["bases"]) > 1
        for bases in [part["bases"], *([base] for base in part["bases"] if many)]:
            title = "Both bases together" if len(bases) > 1 else f"From {bases[0]} alone"
            lines += ["", f"### {title}", ""] if many else [""]
            lines += compact(table, part, bases)
        lines += by_relation(table, part)
    return "\n".join(lines) + "\n"


def compact(table: Mapping[str, Any], part: Mapping[str, Any], bases: Sequence[str]) -> list[str]:
    """Return the lines of a table with a row for each row of a part."""
    lines = [row(["", "steps", "n", *COLUMNS]), "|---|" + "--:|" * (2 + len(COLUMNS))]
    for shown in part["rows"]:
        n, measures = measured(table, shown, bases)
        cells = [
            triplet(measures, what) if isinstance(what, str) else joined(measures, what)
            for what in COLUMNS.values()
        ]
        label = f"**{shown['label']}** (the recipe)" if shown["recipe"] else shown["label"]
        lines.append(row([label, str(shown["steps"]), str(n), *cells]))
    return lines


def by_relation(table: Mapping[str, Any], part: Mapping[str, Any]) -> list[str]:
    """Return a table for phrases, one for sentence forms and one for positions.

    Their rows are the categories of `shapes-relations`, their columns the rows that the part names.
    """
    shown = [each for each in part["rows"] if each["label"] in part["relations"]]
    measures = [measured(table, each, part["bases"])[1] for each in shown]
    lines = []
    for group, categories in table["about"]["relations"].items() if shown else ():
        heading = GROUPS.get(group, group)
        lines += ["", f"### {RELATIONS} by {heading}", ""]
        lines += [row([heading, *(each["label"] for each in shown)])]
        lines += ["|---|" + "--:|" * len(shown)]
        marked = False
        for category in [*categories, group]:
            cells = []
            for each, found in zip(shown, measures, strict=True):
                # Categories of phrases are named after one of their phrases.
                held_out = category.replace("_", " ") in each["held_out"]
                marked = marked or held_out
                cells.append(triplet(found, f"{RELATIONS}/{category}") + " †" * held_out)
            name = "mean" if category == group else category.replace("_", " ")
            lines.append(row([name, *cells]))
        if marked:
            lines += ["", "† The phrase was held out of training."]
    return lines


def measured(
    table: Mapping[str, Any], shown: Mapping[str, Any], bases: Sequence[str]
) -> tuple[int, dict[str, dict[str, Any]]]:
    """Return the number of models of a row and their measures, over all of some bases."""
    keys = [key for base in bases for key in shown["jobs"][base]]
    return len(keys), summarise([table["models"][key]["measures"] for key in keys])
