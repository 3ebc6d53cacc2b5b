"""ARO's VG-Relation and VG-Attribution (arXiv 2210.01936), each row on its part of an image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clic.evaluation.benchmarks.reading import (
    GridBuilder,
    number_field,
    read_list,
    text_field,
    texts_of,
)
from clic.evaluation.cases import Grids
from clic.evaluation.refs import Crop, image_file

RELATION = "aro/visual_genome_relation.json"
ATTRIBUTION = "aro/visual_genome_attribution.json"
IMAGES = "aro/images"
LEAST_ROWS = 25
"""Pairs of attributes with fewer rows do not enter the mean."""

# The published mean leaves these relations out: swapping their two sides changes little, or they
# have few rows. The list is the one of the paper's notebook.
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
    path = data_root / RELATION
    builder = GridBuilder(path)
    for number, row in enumerate(read_list(path)):
        name = text_field(row, "relation_name", path, number)
        _add(builder, f"relation_{name.replace(' ', '_')}", row, path, number)
    out = {f"relation_{name.replace(' ', '_')}" for name in LEFT_OUT}
    kept = [name for name in builder.category_names if name not in out]
    return builder.table("choice", groups={"mean": kept} if kept else None, overall="all")


def load_attribution(data_root: Path) -> Grids:
    """Return VG-Attribution: `mean` is over the pairs of attributes with 25 rows or more."""
    path = data_root / ATTRIBUTION
    builder = GridBuilder(path)
    for number, row in enumerate(read_list(path)):
        names = row.get("attributes") if isinstance(row, dict) else None
        pair = texts_of(names, 2, "attributes", path, number)
        _add(builder, f"{pair[0]}_{pair[1]}", row, path, number)
    kept = [name for name, count in builder.counts().items() if count >= LEAST_ROWS]
    return builder.table("choice", groups={"mean": kept} if kept else None, overall="all")


def _add(builder: GridBuilder, category: str, row: Any, path: Path, number: int) -> None:
    file = image_file(path.parent / "images", text_field(row, "image_path", path, number), path)
    left, top, width, height = (
        number_field(row, f"bbox_{side}", path, number) for side in ("x", "y", "w", "h")
    )
    captions = [text_field(row, f"{which}_caption", path, number) for which in ("true", "false")]
    builder.add(category, [Crop(file, (left, top, left + width, top + height))], captions)
