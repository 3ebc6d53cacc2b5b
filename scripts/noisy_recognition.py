"""Zero-shot recognition of single things under pixel noise, where accuracy is below its ceiling.

    python scripts/noisy_recognition.py shapes-base runs/NAME ...

Without noise every model here names nearly all of them, so a loss would not show. The noise is
Gaussian and the same for every model; its deviation is in units of 8-bit pixels.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

import clic
from clic import shapes
from clic.cli.common import run_cli
from clic.models.encoder import Encoder
from clic.seeding import generator
from clic.shapes import WorldClassification


def main() -> None:
    """Print a table: a row for each model, a column for each amount of noise."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--noise", nargs="+", type=float, default=[0.0, 15.0, 18.0, 20.0])
    parser.add_argument("--split", default="test", choices=["validation", "test"])
    options = parser.parse_args()
    tasks = shapes.zero_shot(options.split)
    seen = {noise: noisy(tasks, noise) for noise in options.noise}
    print(f"| {' / '.join(tasks)} | {' | '.join(f'noise {noise:g}' for noise in seen)} |")
    print("|---|" + "--:|" * len(seen))
    for name in options.models:
        model = clic.load(name)
        classes = {task: class_features(model, tasks[task].class_prompts) for task in tasks}
        cells = []
        for images in seen.values():
            features = np.asarray(model.encode_image(images))
            right = (accuracy(features, classes[task], tasks[task].targets) for task in tasks)
            cells.append(" / ".join(f"{100 * share:.1f}" for share in right))
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def noisy(tasks: Mapping[str, WorldClassification], deviation: float) -> list[Image.Image]:
    """Return the images, which the tasks share, with noise of the given standard deviation."""
    rng = generator(0, "noisy_recognition")
    images = next(iter(tasks.values())).images
    found = []
    for image in images:
        pixels = image + rng.normal(0, 1, image.shape) * deviation
        found.append(Image.fromarray(np.clip(pixels.round(), 0, 255).astype(np.uint8)))
    return found


def class_features(model: Encoder, prompts: Sequence[Sequence[str]]) -> np.ndarray:
    """Return the mean of each class's prompts, [C, D], unit norm."""
    means = [np.asarray(model.encode_text(list(texts))).mean(0) for texts in prompts]
    return np.stack([mean / np.linalg.norm(mean) for mean in means])


def accuracy(features: np.ndarray, classes: np.ndarray, targets: Sequence[int]) -> float:
    """Return the share of images whose nearest class is the right one."""
    return float(((features @ classes.T).argmax(1) == np.asarray(targets)).mean())


if __name__ == "__main__":
    run_cli("noisy_recognition", main)
