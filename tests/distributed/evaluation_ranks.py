"""What each rank of an evaluation does; `test_evaluation_ranks.py` runs and checks it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from clic import distributed, evaluation
from clic.errors import ClicError
from clic.evaluation.encode import encoding
from clic.evaluation.encode.distributed_encoding import EncodingOptions
from clic.evaluation.encode.feature_cache import FeatureCache

BENCHES = ["shapes++", "shapes-retrieval"]
BATCH = 100


class Noisy:
    """Features depend on the batch, as rounding does; what was encoded is kept by name."""

    image_tower_key = text_tower_key = "noisy"

    def __init__(self) -> None:
        self.weights = np.random.default_rng(0).normal(size=(256, 8))
        self.images: list[int] = []
        self.texts: list[str] = []

    def text_key(self, text: str) -> tuple[int, ...]:
        return tuple(text.encode())

    def encode_image(self, images: list[Image.Image]) -> np.ndarray:
        data = [image.tobytes() for image in images]
        self.images += [hash(pixels) for pixels in data]
        return self._features(data)

    def encode_text(self, texts: list[str]) -> np.ndarray:
        self.texts += texts
        return self._features([text.encode() for text in texts])

    def _features(self, items: list[bytes]) -> np.ndarray:
        counts = [np.bincount(np.frombuffer(data, np.uint8), minlength=256) for data in items]
        features = np.stack(counts) @ self.weights
        return features + 1e-3 * features.sum(0)


def score(folder: Path | None, all_ranks: bool) -> dict[str, Any]:
    """Return the numbers, and how often this process encoded what."""
    model = Noisy()
    report = evaluation.evaluate(
        model,
        BENCHES,
        split="validation",
        batch_size=BATCH,
        keep_rows=True,
        cache=None if folder is None else FeatureCache(folder),
        all_ranks=all_ranks,
    )
    return {
        "benchmarks": report.benchmarks,
        "images": len(model.images),
        "texts": len(model.texts),
        "distinct": [len(set(model.images)), len(set(model.texts))],
        "rows": len(list(report.rows)),
        "stages": report.provenance["stages"],
        "ranks": report.provenance["ranks"],
    }


def failing_share() -> str:
    """Return what this rank hears when an image of rank 1's batch is broken."""
    refs = [np.full((4, 4, 3), n, dtype=np.uint8) for n in range(3)]
    broken: list[Any] = [*refs, Path("nowhere.jpg")]
    try:
        encoding.encode_images(Noisy(), broken, EncodingOptions(2, all_ranks=True), False)
    except ClicError as error:
        return str(error)
    return "nothing"


def main(folder: Path) -> None:
    """Score twice on all ranks, the second time from the cache."""
    found = {
        "cold": score(folder / "cache", all_ranks=True),
        "warm": score(folder / "cache", all_ranks=True),
        "failure": failing_share(),
    }
    (folder / f"rank-{distributed.rank()}.json").write_text(json.dumps(found))
