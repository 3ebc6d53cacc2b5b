"""False captions per second on one core: from tags at hand, from stored tags, and tagging inline.

    OMP_NUM_THREADS=1 python benchmarks/negatives_speed.py [--captions FILE] [--wordnet DIR]

The file has one caption per line; without a file, captions are the distinct true ones of
SugarCrepe++ below $CLIC_TEST_DATA. Each is used once in a round, all ways take turns, and the
result is the best of the rounds in CPU time. "tags" starts from tokens, "stored" from a sample's
parsed JSON (hash, tokens and all), "inline" from the text alone; cross_swap needs the tags of two
captions. The tagger's caches are warm, as they are after the first minute of a run.

The published generators parse with spaCy's en_core_web_sm, which is not on PyPI. If it is not
installed, their rules are timed with our tagger, inline, and the table says so: `published swap`
(two random spans of a kind, exchanged without a check) and, if WordNet 3.0's dict folder and
lemminflect are available, `published replace` (a co-hyponym of a word, inflected).
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import random
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from clic.captions import cross_swap, make_tagger, replace, swap
from clic.captions.phrases import noun_phrases
from clic.captions.tagging import MODEL
from clic.cli.common import make_console
from clic.data.shards.records import annotate, stored_tokens
from clic.errors import DataError
from clic.seeding import generator
from clic.types import Token

Make = Callable[[int, np.random.Generator], object]


def main() -> None:
    """Time every way and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--captions", type=Path, help="true captions, one a line")
    parser.add_argument("--count", type=int, default=4000, help="captions in a round (4000)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds (5)")
    parser.add_argument(
        "--wordnet", type=Path, help="WordNet 3.0's dict folder, for published replace"
    )
    parser.add_argument("--json", type=Path, help="file for the numbers")
    flags = parser.parse_args()
    captions = read_captions(flags.captions)[: flags.count]
    published = make_tagger("spacy" if find_spec(MODEL) else "hanta")
    ways = ours(captions) | theirs(captions, published, flags.wordnet)
    results = measure(ways, len(captions), flags.rounds)
    report(results, len(captions), published.name)
    if flags.json is not None:
        flags.json.write_text(json.dumps(results, indent=1) + "\n", "utf-8")


def read_captions(path: Path | None) -> list[str]:
    """Return distinct captions in lower case, shuffled once, so that neighbours share no image."""
    if path is not None:
        found: Iterable[str] = path.read_text("utf-8").splitlines()
    else:
        folder = Path(os.environ.get("CLIC_TEST_DATA", "")) / "sugarcrepe_pp"
        files = sorted(folder.glob("*.json"))
        if not files:
            raise DataError("no captions: give --captions, or set CLIC_TEST_DATA")
        rows = [row for file in files for row in json.loads(file.read_text("utf-8"))]
        found = [row[name] for row in rows for name in ("caption", "caption2")]
    captions = list(dict.fromkeys(c.strip().lower() for c in found if c.strip()))
    random.Random(0).shuffle(captions)
    return captions


def ours(captions: Sequence[str]) -> dict[tuple[str, str], Make]:
    """Return functions that make negative number i, by generator and source of its tags."""
    tagger = make_tagger("hanta")
    tokens = [tagger(caption) for caption in captions]
    records = [json.loads(json.dumps(annotate([caption], tagger))) for caption in captions]

    def stored(i: int) -> tuple[Token, ...]:
        found = stored_tokens(records[i], [captions[i]])
        assert found is not None
        return found[0]

    sources: dict[str, Callable[[int], tuple[Token, ...]]] = {
        "tags": tokens.__getitem__,
        "stored": stored,
        "inline": lambda i: tagger(captions[i]),
    }

    def one(make: Any, source: Callable[[int], tuple[Token, ...]]) -> Make:
        return lambda i, rng: make(captions[i], source(i), rng)

    def two(source: Callable[[int], tuple[Token, ...]]) -> Make:
        return lambda i, rng: cross_swap(
            (captions[i], captions[i - 1]), (source(i), source(i - 1)), rng
        )

    ways: dict[tuple[str, str], Make] = {}
    for name, source in sources.items():
        ways["cross_swap", name] = two(source)
        ways["swap", name] = one(swap, source)
        ways["replace", name] = one(replace, source)
    return ways


def theirs(
    captions: Sequence[str], tagger: Callable[[str], tuple[Token, ...]], wordnet: Path | None
) -> dict[tuple[str, str], Make]:
    """Return the published rules with a tagger that runs inline, as theirs does."""
    draws = random.Random(0)
    ways: dict[tuple[str, str], Make] = {
        ("published swap", "inline"): lambda i, rng: published_swap(
            captions[i], tagger(captions[i]), draws
        )
    }
    if wordnet is not None:
        sys.path.insert(0, str(Path(__file__).resolve().parent))
        from negatives_baseline import PlainRule

        rule = PlainRule(wordnet)
        ways["published replace", "inline"] = lambda i, rng: rule(
            captions[i], tagger(captions[i]), rng
        )
    return ways


def published_swap(caption: str, tokens: Sequence[Token], draws: random.Random) -> str | None:
    """Exchange two random nouns, adjectives, verbs, adverbs or noun phrases."""
    spans = [
        [(t.start, t.end) for t in tokens if t.pos == pos] for pos in ("NOUN", "ADJ", "VERB", "ADV")
    ]
    spans.append([(tokens[p.first].start, tokens[p.last - 1].end) for p in noun_phrases(tokens)])
    enough = [group for group in spans if len(group) > 1]
    if not enough:
        return None
    (a, b), (c, d) = sorted(draws.sample(draws.choice(enough), 2))
    return caption[:a] + caption[c:d] + caption[b:c] + caption[a:b] + caption[d:]


def measure(
    ways: dict[tuple[str, str], Make], count: int, rounds: int
) -> dict[str, dict[str, float]]:
    """Return negatives per second of CPU time, the best of the rounds, and the yield in percent."""
    best: dict[tuple[str, str], float] = dict.fromkeys(ways, float("inf"))
    made: dict[tuple[str, str], int] = {}
    gc.collect()
    gc.freeze()
    for number in range(rounds):
        for way, make in ways.items():
            rng = generator(number, "negatives_speed")
            start = time.process_time()
            made[way] = sum(make(i, rng) is not None for i in range(count))
            best[way] = min(best[way], time.process_time() - start)
    results: dict[str, dict[str, float]] = {}
    for (generator_name, source), seconds in best.items():
        row = results.setdefault(generator_name, {})
        row[source] = count / seconds
        row["yield"] = 100 * made[generator_name, source] / count
    return results


def report(results: dict[str, dict[str, float]], count: int, published: str) -> None:
    """Print the table."""
    from rich.table import Table

    table = Table(title=f"negatives a second on one core, {count:,} captions")
    for name in ("generator", "tags", "stored", "inline", "yield"):
        table.add_column(name, justify="left" if name == "generator" else "right")
    for name, row in results.items():
        rates = [
            f"{row[source]:,.0f}" if source in row else ""
            for source in ("tags", "stored", "inline")
        ]
        table.add_row(name, *rates, f"{row['yield']:.1f} %")
    console = make_console()
    console.print(table)
    console.print(f"published rules over {published} tags; {platform.machine()}, "
                  f"Python {platform.python_version()}", soft_wrap=True)  # fmt: skip


if __name__ == "__main__":
    main()
