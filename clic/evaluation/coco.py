"""Retrieval on COCO's val2017 (arXiv 1405.0312, captions arXiv 1504.00325), as CLIC reports it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from clic.errors import DataError
from clic.evaluation.cases import Interner, Retrieval
from clic.evaluation.refs import image_file

CAPTIONS = "coco/annotations/captions_val2017.json"
IMAGES = "coco/val2017"
CAPTIONS_PER_IMAGE = 5


def load_coco2017(data_root: Path) -> Retrieval:
    """Return val2017's images, each with its first five captions in the order of their ids.

    A few images have six or seven captions; five is what the papers count.

    Raises:
        DataError: The annotation file is broken, or an image has no caption.
    """
    path = data_root / CAPTIONS
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        files = {entry["id"]: str(entry["file_name"]) for entry in content["images"]}
        notes = sorted((a["id"], a["image_id"], str(a["caption"])) for a in content["annotations"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not COCO's caption file ({error!r}); download it") from error
    captions: dict[int, list[str]] = {number: [] for number in files}
    for _, image, caption in notes:
        if image not in captions:
            raise DataError(f"{path}: a caption names image {image}, which the file does not list")
        captions[image].append(caption)
    texts = Interner()
    caption_index: list[int] = []
    owner: list[int] = []
    for position, (number, own) in enumerate(captions.items()):
        if not own:
            raise DataError(f"{path}: image {files[number]} has no caption; download it again")
        chosen = own[:CAPTIONS_PER_IMAGE]
        caption_index += [texts.add(caption) for caption in chosen]
        owner += [position] * len(chosen)
    return Retrieval(
        images=tuple(image_file(data_root / IMAGES, name, path) for name in files.values()),
        texts=tuple(texts.items),
        gallery=np.arange(len(files)),
        caption=np.array(caption_index, dtype=np.int64),
        owner=np.array(owner, dtype=np.int64),
    )
