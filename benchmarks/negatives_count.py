"""The blind hand count of hard negatives in docs/negatives.md.

    python benchmarks/negatives_count.py draw --data DIR --sheet sheet.tsv --key key.json
    python benchmarks/negatives_count.py score --sheet sheet.tsv --key key.json --out count.json
    python benchmarks/negatives_count.py recount --data DIR --count docs/data/negatives_count.json

`draw` takes one caption of each of 100 images of SugarCrepe and SugarCrepe++ and writes a sheet
of shuffled candidates: one by replace, one by swap, two by a plain WordNet co-hyponym rule for
each caption. A reader who has not seen the key fills the last column: f (plausible and false),
o (odd: broken, unusual or nonsense), t (still true of the picture). `score` joins sheet and key
into counts and a list of caption ids, changed words and judgements without the captions
themselves; `recount` rebuilds the candidates from that list and the annotations.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
from negatives_baseline import PlainRule

from clic.captions import make_tagger, replace, swap
from clic.captions.edits import apply_edits
from clic.seeding import generator
from clic.types import Edit, HardNegative

IMAGES = 100
SEED = 4
NAMES = {"f": "plausible and false", "o": "odd", "t": "still true"}


def captions_by_image(data: Path) -> dict[str, list[tuple[str, str]]]:
    """Return (id, caption) of the positives of each image; an id is file/row/field."""
    images: dict[str, list[tuple[str, str]]] = {}
    seen = set()
    for path in sorted([*data.glob("sugarcrepe/*.json"), *data.glob("sugarcrepe_pp/*.json")]):
        rows = json.loads(path.read_text(encoding="utf-8"))
        for number, row in rows.items() if isinstance(rows, dict) else enumerate(rows):
            for field in ("caption", "caption2"):
                text = row.get(field, "").strip()
                if text and text not in seen:
                    seen.add(text)
                    name = f"{path.parent.name}/{path.stem}/{number}/{field}"
                    images.setdefault(row["filename"], []).append((name, text))
    return images


def chosen_captions(data: Path) -> list[tuple[str, str]]:
    """Return the (id, caption) of the count: fixed by the seed, one an image."""
    images = captions_by_image(data)
    rng = np.random.Generator(np.random.PCG64(SEED))
    names = rng.permutation(sorted(images))[:IMAGES]
    return [images[name][int(rng.integers(len(images[name])))] for name in names]


def draw(arguments: argparse.Namespace) -> None:
    """Write the sheet and, apart from it, the key."""
    tag, plain = make_tagger("hanta"), PlainRule(arguments.wordnet)
    rows = []
    for i, (name, caption) in enumerate(chosen_captions(arguments.data)):
        tokens = tag(caption)
        made: list[HardNegative | None] = [
            replace(caption, tokens, generator(SEED, "count/replace", slot=i)),
            swap(caption, tokens, generator(SEED, "count/swap", slot=i)),
            plain(caption, tokens, generator(SEED, "count/plain", slot=2 * i)),
            plain(caption, tokens, generator(SEED, "count/plain", slot=2 * i + 1)),
        ]
        rows += [(name, caption, negative) for negative in made if negative is not None]
    order = generator(SEED, "count/order").permutation(len(rows))
    key = []
    with open(arguments.sheet, "w", encoding="utf-8", newline="") as file:
        sheet = csv.writer(file, delimiter="\t")
        sheet.writerow(["number", "caption", "candidate", "judgement"])
        for number, j in enumerate(order, start=1):
            name, caption, negative = rows[j]
            sheet.writerow([number, caption, negative.text, ""])
            edits = [[*edit.span, edit.old, edit.new] for edit in negative.edits]
            key.append({"caption": name, "kind": negative.kind, "edits": edits})
    arguments.key.write_text(json.dumps(key), encoding="utf-8")
    print(f"wrote {len(key)} candidates to {arguments.sheet}, the key to {arguments.key}")


def score(arguments: argparse.Namespace) -> None:
    """Join judgements and key, write the list, print the table."""
    key = json.loads(arguments.key.read_text(encoding="utf-8"))
    with open(arguments.sheet, encoding="utf-8", newline="") as file:
        sheet = list(csv.DictReader(file, delimiter="\t"))
    for row in sheet:
        judgement = row["judgement"].strip().lower()
        if judgement not in NAMES:
            raise SystemExit(f"row {row['number']}: judgement {judgement!r} is not one of f, o, t")
        key[int(row["number"]) - 1]["judgement"] = judgement
    key.sort(key=lambda entry: (entry["kind"], entry["caption"]))
    lines = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in key)
    arguments.out.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    table(key)


def recount(arguments: argparse.Namespace) -> None:
    """Print each candidate anew beside its caption and judgement, then the table."""
    entries = json.loads(arguments.count.read_text(encoding="utf-8"))
    captions = dict(pair for pairs in captions_by_image(arguments.data).values() for pair in pairs)
    for entry in entries:
        caption = captions[entry["caption"]]
        edits = [Edit(0, (start, end), old, new) for start, end, old, new in entry["edits"]]
        print(entry["kind"], entry["judgement"], caption, apply_edits(caption, edits), sep="\t")
    table(entries)


def table(entries: list[dict]) -> None:
    """Print a Markdown table of judgements by kind."""
    counts = Counter((entry["kind"], entry["judgement"]) for entry in entries)
    print("| generator | n | " + " | ".join(NAMES.values()) + " |")
    print("|---|---|" + "---|" * len(NAMES))
    for kind in ("replace", "swap", "plain"):
        numbers = [counts[kind, judgement] for judgement in NAMES]
        print(f"| {kind} | {sum(numbers)} | " + " | ".join(map(str, numbers)) + " |")


def main() -> None:
    """Parse the command line and run the command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(required=True)
    for name, function, options in (
        ("draw", draw, ("data", "sheet", "key")),
        ("score", score, ("sheet", "key", "out")),
        ("recount", recount, ("data", "count")),
    ):
        command = commands.add_parser(name, help=(function.__doc__ or "").strip())
        command.set_defaults(function=function)
        for option in options:
            command.add_argument(f"--{option}", type=Path, required=True)
        command.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"))
    arguments = parser.parse_args()
    arguments.function(arguments)


if __name__ == "__main__":
    main()
