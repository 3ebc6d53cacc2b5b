r"""The blind hand count of hard negatives in docs/negatives.md.

    python benchmarks/negatives_count.py draw --data DIR --sheet sheet.tsv --key key.json \
        [--seed N] [--exclude tests/data/negatives_count_1.tsv]
    python benchmarks/negatives_count.py score --sheet sheet.tsv --key key.json --out count.tsv
    python benchmarks/negatives_count.py recount --data DIR --count tests/data/negatives_count_1.tsv

`draw` takes one caption of each of 100 images of SugarCrepe and SugarCrepe++ and writes a sheet
of shuffled candidates: one by replace, one by swap, two by a plain WordNet co-hyponym rule for
each caption. Images whose captions are in an earlier list (``--exclude``) are left out. A reader
who has not seen the key fills in the last column: f (plausible and false), o (odd: broken, unusual
or nonsense), t (still true of the picture). `score` joins sheet and key into counts and a list of
caption ids, changed words and judgements without the captions themselves; `recount` rebuilds the
candidates from that list and the annotations.
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
from clic.captions.text import apply_edits
from clic.seeding import generator
from clic.types import Edit, HardNegative

IMAGES = 100
SEED = 4
FIELDS = ("caption", "kind", "edits", "judgement")
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


def chosen_captions(data: Path, seed: int, excluded: set[str]) -> list[tuple[str, str]]:
    """Return the (id, caption) pairs of the count: fixed by the seed, one per image.

    Images with an excluded caption are left out.
    """
    images = {
        image: captions
        for image, captions in captions_by_image(data).items()
        if excluded.isdisjoint(name for name, _ in captions)
    }
    rng = np.random.Generator(np.random.PCG64(seed))
    names = rng.permutation(sorted(images))[:IMAGES]
    return [images[name][int(rng.integers(len(images[name])))] for name in names]


def draw(arguments: argparse.Namespace) -> None:
    """Write the sheet and, apart from it, the key."""
    tag, plain = make_tagger("hanta"), PlainRule(arguments.wordnet)
    seed = arguments.seed
    excluded = {entry["caption"] for path in arguments.exclude for entry in read_list(path)}
    rows = []
    for i, (name, caption) in enumerate(chosen_captions(arguments.data, seed, excluded)):
        tokens = tag(caption)
        made: list[HardNegative | None] = [
            replace(caption, tokens, generator(seed, "count/replace", slot=i)),
            swap(caption, tokens, generator(seed, "count/swap", slot=i)),
            plain(caption, tokens, generator(seed, "count/plain", slot=2 * i)),
            plain(caption, tokens, generator(seed, "count/plain", slot=2 * i + 1)),
        ]
        rows += [(name, caption, negative) for negative in made if negative is not None]
    order = generator(seed, "count/order").permutation(len(rows))
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


def read_list(path: Path) -> list[dict]:
    """Return the entries of a list that `score` wrote."""
    header, *lines = path.read_text(encoding="utf-8").splitlines()
    if tuple(header.split("\t")) != FIELDS:
        raise SystemExit(f"{path} is no list of judgements: its columns are {header!r}")
    entries = [dict(zip(FIELDS, line.split("\t"), strict=True)) for line in lines]
    return [{**entry, "edits": json.loads(entry["edits"])} for entry in entries]


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
    lines = [
        "\t".join(
            (e["caption"], e["kind"], json.dumps(e["edits"], ensure_ascii=False), e["judgement"])
        )
        for e in key
    ]
    text = "\n".join(["\t".join(FIELDS), *lines])
    arguments.out.write_text(f"{text}\n", encoding="utf-8")
    table(key)


def recount(arguments: argparse.Namespace) -> None:
    """Print each candidate anew beside its caption and judgement, then the table."""
    entries = read_list(arguments.count)
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
        if function is draw:
            command.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"))
            command.add_argument("--seed", type=int, default=SEED)
            command.add_argument("--exclude", type=Path, nargs="*", default=[])
    arguments = parser.parse_args()
    arguments.function(arguments)


if __name__ == "__main__":
    main()
