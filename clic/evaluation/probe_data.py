"""The data of linear probes: scenes of the world of shapes, or a user's own labelled images."""

from __future__ import annotations

from pathlib import Path

from clic.errors import ConfigError, DataError
from clic.evaluation.benchmarks.own_rows import own_image, read_own_rows
from clic.evaluation.benchmarks.reading import Record
from clic.evaluation.linear_probe import ProbeData, ProbeQuestion, answers_of
from clic.seeding import generator

WORLD = "shapes"
IMAGES = 3000
KEYS = ("image", "labels", "split")
SPLITS = ("train", "test")
COLOUR = "which colour has the"
PLACE = "where is the"
PRESENT = "is there anything"


def load_probe(name: str, seed: int = 0) -> ProbeData:
    """Return the questions of `shapes`, or of a JSON lines file.

    Raises:
        ConfigError: The name is neither.
        DataError: The file is broken.
    """
    if name == WORLD:
        return world_probe(seed)
    path = Path(name).expanduser()
    if path.suffix.lower() != ".jsonl" or not path.is_file():
        raise ConfigError(
            f"probe={name}: name {WORLD}, or a file of JSON lines (.jsonl) that exists, with rows "
            '{"image": "a.jpg", "labels": {"colour": "red"}}'
        )
    return own_probe(path)


def world_probe(seed: int = 0, count: int = IMAGES) -> ProbeData:
    """Return questions about scenes of two things that differ in colour and in shape.

    They ask for each shape's colour (binding: a probe that knows both colours but not which shape
    has which is right half of the time), for its position (relations), and for each colour whether
    it is there at all.

    Args:
        seed: Seed of the scenes.
        count: Number of scenes.
    """
    from clic.shapes import SceneImages
    from clic.shapes.scenes import COLOURS, SHAPES, relation, sample_pair

    purpose = "shapes/test/probe"
    rng = generator(seed, purpose)
    scenes = tuple(sample_pair(rng, distinct=True) for _ in range(count))
    colours: dict[str, dict[int, str]] = {shape: {} for shape in SHAPES}
    places: dict[str, dict[int, str]] = {shape: {} for shape in SHAPES}
    there: dict[str, dict[int, str]] = {colour: {} for colour in COLOURS}
    for number, scene in enumerate(scenes):
        first, second = scene.things
        for thing, other in ((first, second), (second, first)):
            colours[thing.shape][number] = thing.colour
            places[thing.shape][number] = relation(thing, other)
        for colour in COLOURS:
            there[colour][number] = str(colour in (first.colour, second.colour))
    questions = [
        *(ProbeQuestion(f"{PRESENT} {c}", "colours that are there", there[c]) for c in COLOURS),
        *(ProbeQuestion(f"{COLOUR} {s}", "colours of shapes", colours[s], 50.0) for s in SHAPES),
        *(ProbeQuestion(f"{PLACE} {s}", "relations of shapes", places[s]) for s in SHAPES),
    ]
    return ProbeData(WORLD, SceneImages(scenes, purpose, seed), tuple(questions))


def own_probe(path: Path) -> ProbeData:
    """Return the questions of a file with `{"image": "a.jpg", "labels": {"colour": "red"}}` lines.

    If every row has `"split": "train"` or `"test"`, the probe is fitted on the former and tested on
    the latter; otherwise, it is cross-validated.

    Raises:
        DataError: The file cannot be read, or a row is broken.
    """
    rows = list(read_own_rows(path))
    labels = [_labels(row) for row in rows]
    splits = [row.get("split") for row in rows]
    if any(split is not None for split in splits):
        for row, split in zip(rows, splits, strict=True):
            if split not in SPLITS:
                raise row.error(f"has the split {split!r}; give every row train or test, or none")
    unlabelled = next((row for row, own in zip(rows, labels, strict=True) if not own), None)
    if unlabelled is not None:
        raise unlabelled.error("has no labels")
    test = frozenset(number for number, split in enumerate(splits) if split == "test")
    images = [own_image(row) for row in rows]
    missing = [image for image in images if isinstance(image, Path) and not image.is_file()]
    if missing:
        raise DataError(f"{path}: {len(missing)} images are missing, the first is {missing[0]}")
    return ProbeData(path.stem, images, answers_of(labels), test or None)


def _labels(row: Record) -> dict[str, str]:
    for key in row.value:
        if key not in KEYS:
            raise row.error(f"has the key {key!r}; its keys are {', '.join(KEYS)}")
    labels = row.get("labels")
    if not isinstance(labels, dict):
        raise row.error('has no "labels"; write {"question": "answer"}')
    for question, answer in labels.items():
        if not isinstance(answer, str | int | bool) or not str(answer).strip():
            raise row.error(f"has the label {answer!r} for {question!r}; give a text or a number")
    return {question: str(answer) for question, answer in labels.items()}
