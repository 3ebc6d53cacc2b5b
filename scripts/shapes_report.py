"""Write the results of shapes_table.py as Markdown: a short table, then every measure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from study_tables import cell, made_by, row, triplet

CATEGORIES = ("swap_att", "swap_noun", "swap_phrase", "replace_att", "replace_obj", "replace_rel")
# Title of each part of the Markdown file, and its columns: heading -> path in clic-eval's JSON.
TABLES: dict[str, dict[str, str]] = {
    "ITT: both true captions beat the false one for the image": {
        name: f"shapes++/{name}/itt" for name in CATEGORIES
    },
    "TOT: the true captions are nearer to each other than to the false one": {
        name: f"shapes++/{name}/tot" for name in CATEGORIES
    },
    "Positive 1 alone beats the false caption for the image": {
        name: f"shapes++/{name}/p1" for name in CATEGORIES
    },
    "Retrieval (500 scenes) and zero-shot classification": {
        "image to text R@1": "shapes-retrieval/image_to_text@1",
        "text to image R@1": "shapes-retrieval/text_to_image@1",
        "shape": "shapes-zero-shot/shape",
        "colour": "shapes-zero-shot/colour",
        "pair": "shapes-zero-shot/pair",
    },
}

# Rows of the short table: a triplet category, or label -> path in clic-eval's JSON.
IN_SHORT = {
    "image to text R@1": "shapes-retrieval/image_to_text@1",
    "text to image R@1": "shapes-retrieval/text_to_image@1",
    "zero-shot shape": "shapes-zero-shot/shape",
    "zero-shot colour": "shapes-zero-shot/colour",
    "zero-shot pair": "shapes-zero-shot/pair",
}
HEADINGS = {
    "base": "base",
    "shapes_clip": "plain CLIP (control)",
    "shapes_negclip": "NegCLIP",
    "shapes_clove": "CLoVe",
    "shapes": "**CLIC**",
}


def in_short(models: Mapping[str, Any]) -> list[str]:
    """Return the lines of the short table: a column per method, ITT / TOT / p1 in a cell."""
    names = [name for name in HEADINGS if name in models]
    lines = [row(["", *(HEADINGS[name] for name in names)]), "|---|" + "--:|" * len(names)]
    for category in CATEGORIES:
        cells = [triplet(models[name]["measures"], f"shapes++/{category}") for name in names]
        lines.append(row([category, *cells]))
    for label, path in IN_SHORT.items():
        lines.append(row([label, *(cell(models[name]["measures"][path]) for name in names)]))
    return lines


def markdown(table: Mapping[str, Any]) -> str:
    """Return the Markdown file: one part for each of `TABLES`, a row for each model."""
    about = table["about"]
    lines = [
        f"Percent on the {about['split']} split: mean ± sample standard deviation over seeds "
        f"{', '.join(map(str, about['seeds']))}; the base model is one model.",
        "",
        made_by(about),
    ]
    lines += ["", "### In short: ITT / TOT / p1, and the largest of their deviations", ""]
    lines += in_short(table["models"])
    for title, columns in TABLES.items():
        lines += ["", f"### {title}", "", row(["model", "n", *columns])]
        lines += ["|---|--:|" + "--:|" * len(columns)]
        for name, model in table["models"].items():
            cells = [cell(model["measures"][path]) for path in columns.values()]
            lines.append(row([name, str(model["n"]), *cells]))
    return "\n".join(lines) + "\n"
