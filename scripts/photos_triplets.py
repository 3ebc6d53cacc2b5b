"""Make triplets from Flickr8k's development captions, for choosing settings and alphas.

    python scripts/photos_triplets.py --data FLICKR8K --out dev-triplets.jsonl
    clic-eval --model RUN --bench dev-triplets.jsonl

Put the file beside FLICKR8K's folder or above it, because `clic-eval` reads images from below the
file.

A triplet is a caption, another true one and a false one, which one of clic's generators makes from
the first (`swap_att`, `swap_obj` or `replace`). The other true one is the photo's caption that
shares the most words with the first (`people`) or a paraphrase of it by rules (`rules`). The same
seed makes the same file. With `--fluency` and a file of counts of other captions (`clic-data
count`), parts are swapped only if the false caption reads well, which leaves fewer rows. These
triplets are not SugarCrepe++: no person has looked at them, and some false captions are odd or
still true.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clic.captions.fluency import Fluency, Fluent
from clic.captions.negatives import single_negative
from clic.captions.paraphrases import nearest_caption, paraphrase
from clic.captions.tagging import make_tagger
from clic.captions.text import normalized
from clic.errors import ClicError
from clic.evaluation.benchmarks.flickr8k import read_split
from clic.io.files import write_whole
from clic.seeding import generator

CATEGORIES = {"swap_att": "swap_attributes", "swap_obj": "swap", "replace": "replace"}


def triplets(
    folder: Path, split: str, out: Path, seed: int, fluent: Fluent | None = None
) -> Iterator[dict[str, Any]]:
    """Yield the rows: at most one per photo for each category and kind of paraphrase."""
    tag = make_tagger("hanta")
    for number, (photo, found) in enumerate(read_split(folder, split)):
        captions = [caption.lower() for caption in found]
        done: set[str] = set()
        for place, caption in enumerate(captions):
            tokens = tag(caption)
            others = captions[:place] + captions[place + 1 :]
            step = number * 10 + place
            rules = paraphrase(caption, tokens, generator(seed, "triplets/paraphrase", step))
            seconds = {"people": nearest_caption(caption, others), "rules": rules}
            for category, kind in CATEGORIES.items():
                drawn = generator(seed, f"triplets/{category}", step)
                false = single_negative(caption, tokens, drawn, {kind: 1.0}, captions, fluent)
                for source, second in seconds.items():
                    name = f"{category}_{source}"
                    if false is None or second is None or name in done:
                        continue
                    if normalized(second) == normalized(false.text):
                        continue
                    done.add(name)
                    yield {
                        "image": os.path.relpath(photo.absolute(), out.parent),
                        "positives": [caption, second],
                        "negatives": [false.text],
                        "category": name,
                    }


def main() -> int:
    """Write the file and print how many rows of each category it has."""
    parser = argparse.ArgumentParser(prog="photos_triplets", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="Flickr8k's folder")
    parser.add_argument("--split", default="val", choices=["train", "val"])
    parser.add_argument("--out", type=Path, required=True, help="JSON lines file to write")
    parser.add_argument("--fluency", type=Path, help="file of counts of other captions")
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    try:
        fluent = Fluent(Fluency.load(flags.fluency, "--fluency")) if flags.fluency else None
        rows = list(triplets(flags.data, flags.split, flags.out.absolute(), flags.seed, fluent))
    except ClicError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    write_whole(flags.out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    counts: dict[str, int] = {}
    for row in rows:
        counts[row["category"]] = counts.get(row["category"], 0) + 1
    print(f"{flags.out}: " + ", ".join(f"{n} {name}" for name, n in sorted(counts.items())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
