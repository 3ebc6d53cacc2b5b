"""Peak memory of scoring retrieval, 5,000 images by 25,000 captions, beyond the model.

    python benchmarks/eval_memory.py

It runs all of `clic.evaluate`, with a model that needs no memory: its features are sampled with the
item as seed. It prints how far the process's peak resident size rises above its size after all
imports and the making of the table.
"""

from __future__ import annotations

import argparse
import resource
import time
import zlib

import numpy as np
from PIL import Image

from clic import evaluation
from clic.evaluation.evaluation_plan import EvaluationPlan, Prepared
from clic.evaluation.tables.retrieval import Retrieval

WIDTH = 512


class Drawn:
    """Random features, with the item as seed."""

    def encode_image(self, images: list[Image.Image]) -> np.ndarray:
        """Return [N, 512]."""
        return self._features([image.tobytes() for image in images])

    def encode_text(self, captions: list[str]) -> np.ndarray:
        """Return [N, 512]."""
        return self._features([caption.encode() for caption in captions])

    def _features(self, items: list[bytes]) -> np.ndarray:
        rows = [np.random.default_rng(zlib.crc32(item)).normal(size=WIDTH) for item in items]
        return np.stack(rows).astype(np.float32)


def peak() -> float:
    """Return the peak resident size so far, in 10^9 bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def main() -> None:
    """Score, and print the peak and the seconds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--captions", type=int, default=25000)
    parser.add_argument("--rows", action="store_true", help="keep every query's outcome too")
    options = parser.parse_args()
    pixels = np.zeros((options.images, 4, 4, 3), dtype=np.uint8)
    pixels[:, 0, 0] = np.stack(np.unravel_index(np.arange(options.images), (99, 99, 99)), 1)
    table = Retrieval(
        images=tuple(pixels),
        texts=tuple(str(number) for number in range(options.captions)),
        gallery=np.arange(options.images),
        caption=np.arange(options.captions),
        owner=np.arange(options.captions) % options.images,
    )
    benchmark = evaluation.BENCHMARKS["coco2017-retrieval"]
    plan = EvaluationPlan([Prepared(benchmark, table, "", (), table.rows)])
    evaluation.run(Drawn(), evaluation.prepare("shapes-retrieval"))  # triggers lazy imports
    before, start = peak(), time.perf_counter()
    report = evaluation.run(Drawn(), plan, keep_rows=options.rows)
    numbers = report.benchmarks[benchmark.name]
    assert (numbers["n_images"], numbers["n_captions"]) == (options.images, options.captions)
    print(
        f"{options.images} images x {options.captions} captions: peak {peak() - before:.3f} GB "
        f"beyond the model, {time.perf_counter() - start:.1f} s "
        f"({report.provenance['stages']['scoring']['seconds']:.1f} s of it scoring)"
    )


if __name__ == "__main__":
    main()
