"""ARO (arXiv 2210.01936): who does what, which attribute belongs to what, and word order.

VG-Relation and VG-Attribution show a part of an image. COCO-Order and Flickr30k-Order set a caption
against four shuffles of it. The published code draws new shuffles in each run (tokens from spaCy
and NLTK, global random state). Here a shuffle depends only on the caption and its position: this
package's tagger splits it into words and a seeded generator orders them, so all runs agree.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from clic.evaluation.benchmarks.benchmark import Benchmark, of_files
from clic.evaluation.benchmarks.caption_retrieval import (
    COCO_2014,
    FLICKR_IMAGES,
    FLICKR_PHOTOS,
    KARPATHY_COCO,
    KARPATHY_COCO_IMAGES,
    KARPATHY_FLICKR,
    karpathy,
    read_karpathy,
)
from clic.evaluation.benchmarks.reading import GridBuilder, Record, read_rows
from clic.evaluation.encode.image_sources import Crop
from clic.evaluation.files.file_sources import Archive, File, drive
from clic.evaluation.tables.grids import Grids

if TYPE_CHECKING:
    from clic.types import Token

RELATION = "aro/visual_genome_relation.json"
ATTRIBUTION = "aro/visual_genome_attribution.json"
IMAGES = "aro/images"
LEAST_ROWS = 25
"""Pairs of attributes with fewer rows are left out of the mean."""

# The published mean leaves these relations out, because they have few rows or hardly change their
# meaning when the two sides are swapped. The list is from the paper's notebook.
_LEFT_OUT = """
adjusting, attached to, between, bigger than, biting, boarding, brushing, chewing, cleaning,
climbing, close to, coming from, coming out of, contain, crossing, dragging, draped over, drinking,
drinking from, driving, driving down, driving on, eating from, eating in, enclosing, exiting,
facing, filled with, floating in, floating on, flying, flying above, flying in, flying over,
flying through, full of, going down, going into, going through, grazing in, growing in, growing on,
guiding, hanging from, hanging in, hanging off, hanging over, higher than, holding onto, hugging,
in between, jumping off, jumping on, jumping over, kept in, larger than, leading, leaning over,
leaving, licking, longer than, looking in, looking into, looking out, looking over,
looking through, lying next to, lying on top of, making, mixed with, mounted on, moving,
on the back of, on the edge of, on the front of, on the other side of, opening, painted on,
parked at, parked beside, parked by, parked in, parked in front of, parked near, parked next to,
perched on, petting, piled on, playing, playing in, playing on, playing with, pouring,
reaching for, reading, reflected on, riding on, running in, running on, running through,
seen through, sitting behind, sitting beside, sitting by, sitting in front of, sitting near,
sitting next to, sitting under, skiing down, skiing on, sleeping in, sleeping on, smiling at,
sniffing, splashing, sprinkled on, stacked on, standing against, standing around, standing behind,
standing beside, standing in front of, standing near, standing next to, staring at, stuck in,
surrounding, swimming in, swinging, talking to, topped with, touching, traveling down,
traveling on, tying, typing on, underneath, wading in, waiting for, walking across, walking by,
walking down, walking next to, walking through, working in, working on, worn on, wrapped around,
wrapped in, by, of, near, next to, with, beside, on the side of, around
"""
LEFT_OUT = frozenset(" ".join(name.split()) for name in _LEFT_OUT.split(","))


def load_relation(data_root: Path) -> Grids:
    """Return VG-Relation: `mean` is over the relations, `all` over the rows."""
    builder = GridBuilder(data_root / RELATION)
    for row in read_rows(data_root / RELATION):
        _add(builder, _category(row.text("relation_name")), row)
    left_out = {_category(name) for name in LEFT_OUT}
    return _with_mean(builder, [name for name in builder.counts() if name not in left_out])


def load_attribution(data_root: Path) -> Grids:
    """Return VG-Attribution: `mean` is over the pairs of attributes with 25 rows or more."""
    builder = GridBuilder(data_root / ATTRIBUTION)
    for row in read_rows(data_root / ATTRIBUTION):
        first, second, *_ = row.texts(row.get("attributes"), 2, "attributes")
        _add(builder, f"{first}_{second}", row)
    counts = builder.counts()
    return _with_mean(builder, [name for name, count in counts.items() if count >= LEAST_ROWS])


def _category(relation: str) -> str:
    return f"relation_{relation.replace(' ', '_')}"


def _add(builder: GridBuilder, category: str, row: Record) -> None:
    file = row.image(row.path.parent / "images", row.text("image_path"))
    left, top, width, height = (row.number(f"bbox_{side}") for side in ("x", "y", "w", "h"))
    captions = [row.text("true_caption"), row.text("false_caption")]
    builder.add(category, [Crop(file, (left, top, left + width, top + height))], captions)


def _with_mean(builder: GridBuilder, kept: list[str]) -> Grids:
    return builder.table("choice", groups={"mean": kept} if kept else None, overall="all")


TAGGER = "hanta"
MAX_WORDS = 30
NOUNS = ("NOUN", "PROPN")
ADJECTIVES = ("ADJ",)
_PUNCTUATION = re.compile(r'[.!"()*#:;~]')
_SPACES = re.compile(r"\s{2,}")
Shuffle: TypeAlias = "Callable[[Sequence[Token], np.random.Generator], list[str]]"


def load_order(file: str, images: str, data_root: Path) -> Grids:
    """Return each caption of a Karpathy file's test split with its four shuffles.

    COCO-Order has 25,010 rows, Flickr30k-Order 5,000.
    """
    from clic.captions.tagging import make_tagger

    path, tagger = data_root / file, make_tagger(TAGGER)
    builder = GridBuilder(path, ["five_options"])
    gallery = read_karpathy(path, data_root / images)
    rows = [(image, caption) for image, captions in gallery for caption in captions]
    for number, (image, caption) in enumerate(rows):
        options = perturbations(tagger(caption), number)
        builder.add("five_options", [image], [plain(caption), *map(plain, options)])
    return builder.table("choice")


def perturbations(tokens: Sequence[Token], number: int) -> list[str]:
    """Return the four false captions of the caption at a position.

    They permute nouns among themselves and adjectives among themselves; all other words; the words
    within each group of three; and the order of these groups. A shuffle that happens to equal the
    caption ties with it, so the row counts as wrong.
    """
    from clic import seeding

    random = seeding.generator(0, "order", slot=number)
    return [" ".join(shuffle(tokens, random)) for shuffle in SHUFFLES]


def plain(caption: str) -> str:
    """Return a caption as in the published code: lower case, little punctuation, 30 words."""
    text = _SPACES.sub(" ", _PUNCTUATION.sub(" ", caption.lower()))
    return " ".join(text.strip("\n ").split(" ")[:MAX_WORDS])


def _nouns_and_adjectives(tokens: Sequence[Token], random: np.random.Generator) -> list[str]:
    words = _permuted([token.text for token in tokens], _where(tokens, NOUNS), random)
    return _permuted(words, _where(tokens, ADJECTIVES), random)


def _all_but_nouns_and_adjectives(
    tokens: Sequence[Token], random: np.random.Generator
) -> list[str]:
    kept = set(_where(tokens, NOUNS + ADJECTIVES))
    others = [i for i in range(len(tokens)) if i not in kept]
    return _permuted([token.text for token in tokens], others, random)


def _within_threes(tokens: Sequence[Token], random: np.random.Generator) -> list[str]:
    return [word for three in _threes(tokens) for word in random.permutation(three).tolist()]


def _threes_shuffled(tokens: Sequence[Token], random: np.random.Generator) -> list[str]:
    threes = _threes(tokens)
    return [word for i in random.permutation(len(threes)) for word in threes[i]]


SHUFFLES: tuple[Shuffle, ...] = (
    _nouns_and_adjectives,
    _all_but_nouns_and_adjectives,
    _within_threes,
    _threes_shuffled,
)


def _where(tokens: Sequence[Token], tags: Sequence[str]) -> list[int]:
    return [i for i, token in enumerate(tokens) if token.pos in tags]


def _permuted(words: list[str], where: list[int], random: np.random.Generator) -> list[str]:
    """Return the words with those at the given positions permuted."""
    result = list(words)
    for i, j in zip(where, random.permutation(len(where)), strict=True):
        result[i] = words[where[j]]
    return result


def _threes(tokens: Sequence[Token]) -> list[list[str]]:
    words = [token.text for token in tokens]
    return [words[i : i + 3] for i in range(0, len(words), 3)]


_ARO = "Yuksekgonul et al. 2023, arXiv 2210.01936"
_CHOICE = "the right option beats every other one"

_SHUFFLES = (
    "the shuffles are fixed, and of this package's own words and tags; the published code draws "
    "them anew with spaCy and NLTK, so numbers differ by its noise"
)

ARO_RELATION = Benchmark(
    name="aro-relation",
    title="ARO VG-Relation",
    about="who does what to whom, on a part of an image",
    load=of_files(load_relation),
    citation=_ARO,
    licence="MIT; images of Visual Genome, CC BY 4.0",
    rule=_CHOICE,
    annotations=(File(drive("1kX2iCHEv0CADL8dSO1nMdW-V0NqIAiP3"), RELATION),),
    images=(
        Archive(
            drive("1qaPlrwhGNMrR3a11iopZUT_GPP_LrgP9"),
            name="aro/vgr_vga_images.zip",
            into="aro",
            gives=IMAGES,
        ),
    ),
    rows=23_937,
)

ARO_ATTRIBUTION = replace(
    ARO_RELATION,
    name="aro-attribution",
    title="ARO VG-Attribution",
    about="which attribute belongs to which thing",
    load=of_files(load_attribution),
    annotations=(File(drive("13tWvOrNOLHxl3Rm9cR3geAdHx2qR3-Tw"), ATTRIBUTION),),
    rows=28_748,
)

COCO_ORDER = Benchmark(
    name="coco-order",
    title="ARO COCO-Order",
    about="a caption among four shuffles of it",
    load=of_files(partial(load_order, KARPATHY_COCO, KARPATHY_COCO_IMAGES)),
    citation=_ARO,
    licence="CC BY 4.0",
    rule=_CHOICE,
    annotations=(karpathy(KARPATHY_COCO),),
    images=(COCO_2014,),
    rows=25_010,
    differs=_SHUFFLES,
)

FLICKR30K_ORDER = replace(
    COCO_ORDER,
    name="flickr30k-order",
    title="ARO Flickr30k-Order",
    load=of_files(partial(load_order, KARPATHY_FLICKR, FLICKR_IMAGES)),
    licence="research only, after a sign-up",
    annotations=(karpathy(KARPATHY_FLICKR),),
    images=(FLICKR_PHOTOS,),
    rows=5000,
)
