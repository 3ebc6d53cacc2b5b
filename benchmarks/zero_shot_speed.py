"""Zero-shot classification and retrieval: the usual loops against ours, interleaved in one run.

    OMP_NUM_THREADS=1 CLIC_TEST_DATA=DIR python benchmarks/zero_shot_speed.py

Classification has 1,000 classes of 80 prompts each (ImageNet's, which come with open_clip) and one
small image for each class. The usual way is `open_clip.build_zero_shot_classifier` with ten classes
at a time, then images in batches and the argmax.

Retrieval has 1,000 images and 5,000 captions: Flickr8k's test split in DIR, or made-up ones. The
usual way is CLIP_benchmark's: batches of images with all of their captions, each caption tokenized
to 77 and encoded as it comes, then all scores at once, and recall by `topk`.

Ours is all of `clic.evaluate`, without a cache. Both must give the same numbers. The towers are
small with random weights, to keep runs short; prompts and captions are real, so that the text they
share is, too. The result is the ratio of medians of CPU time.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from PIL import Image

from clic import evaluation, models
from clic.evaluation.benchmarks.flickr8k import FLICKR8K
from clic.models.encoder import Encoder

SIDE = 32
ARCHITECTURE = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": SIDE, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}
BATCH = 64
KS = (1, 5, 10)
WORDS = (
    "a", "the", "two", "man", "dog", "red", "blue", "runs", "sits", "on", "in", "near", "grass",
    "water", "ball", "with", "and", "of", "black",
)  # fmt: skip
Numbers = dict[str, float]
Items = list[tuple[Path, list[str]]]
Answers = tuple[Numbers, list[str]]
"""The numbers and, for classification, each image's predicted class."""


def small_model(folder: Path) -> models.ClipModel:
    """Return a CLIP with small towers and random weights."""
    statistics = {"mean": [0.5] * 3, "std": [0.5] * 3}
    preprocess = {**statistics, "interpolation": "bicubic", "resize_mode": "squash"}
    config = {"model_cfg": ARCHITECTURE, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    clip = models.create(str(folder), pretrained=None)
    with torch.no_grad():  # random towers hardly distinguish images; spread their features
        for parameter in clip.model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(3)
    clip.model.eval()
    return clip


def batches(clip: models.ClipModel, items: Items) -> Iterator[tuple[torch.Tensor, list[list[str]]]]:
    """Yield images, preprocessed by open_clip's transform, with their texts."""
    from open_clip.transform import PreprocessCfg, image_transform_v2

    preprocess = image_transform_v2(PreprocessCfg(**clip.model.visual.preprocess_cfg), False)
    for start in range(0, len(items), BATCH):
        part = items[start : start + BATCH]
        pixels = [preprocess(Image.open(path).convert("RGB")) for path, _ in part]
        yield torch.stack(pixels), [texts for _, texts in part]


def usual_classification(clip: models.ClipModel, items: Items, names: list[str]) -> Answers:
    """Return the accuracy from open_clip's own loop."""
    with torch.no_grad():
        classifier = open_clip.build_zero_shot_classifier(
            clip.model, clip.tokenizer, names, open_clip.OPENAI_IMAGENET_TEMPLATES, 10
        )
        right, answers = 0, []
        for pixels, labels in batches(clip, items):
            logits = F.normalize(clip.model.encode_image(pixels), dim=-1) @ classifier
            found = logits.argmax(dim=1).tolist()
            answers += [names[i] for i in found]
            right += sum(names[i] == own for i, (own,) in zip(found, labels, strict=True))
    return {"accuracy": 100 * right / len(items)}, answers


def usual_retrieval(clip: models.ClipModel, items: Items) -> Answers:
    """Return recall at 1, 5 and 10 both ways as CLIP_benchmark computes it."""
    images, texts, owner = [], [], []
    with torch.no_grad():
        for number, (pixels, captions) in enumerate(batches(clip, items)):
            flat = [caption for own in captions for caption in own]
            owner += [number * BATCH + i for i, own in enumerate(captions) for _ in own]
            images.append(F.normalize(clip.model.encode_image(pixels), dim=-1))
            texts.append(F.normalize(clip.model.encode_text(clip.tokenizer(flat)), dim=-1))
        scores = torch.cat(texts) @ torch.cat(images).T
        positive = torch.zeros_like(scores, dtype=torch.bool)
        positive[torch.arange(len(scores)), owner] = True
        numbers = {}
        for name, own, pairs in (
            ("image_to_text", scores.T, positive.T), ("text_to_image", scores, positive)
        ):  # fmt: skip
            for k in KS:
                top = own.topk(k, dim=1).indices
                numbers[f"{name}@{k}"] = 100 * float(pairs.gather(1, top).any(1).float().mean())
    return numbers, []


def write_classes(folder: Path, count: int, rng: np.random.Generator) -> tuple[Path, Items]:
    """Write an image for each class, and the benchmark's file; return both."""
    names = list(open_clip.IMAGENET_CLASSNAMES[:count])
    file, items = folder / "classes.jsonl", []
    with file.open("w") as lines:
        for number, name in enumerate(names):
            path = folder / f"{number}.png"
            Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(path)
            prompts = [template(name) for template in open_clip.OPENAI_IMAGENET_TEMPLATES]
            row = {"image": path.name, "label": name, "prompts": prompts}
            lines.write(json.dumps(row) + "\n")
            items.append((path, [name]))
    return file, items


def captions(folder: Path, count: int, rng: np.random.Generator) -> tuple[str, Items]:
    """Return Flickr8k's test split below the data folder, else made-up captions: file and items."""
    root = os.environ.get("CLIC_TEST_DATA")
    if root:
        table = FLICKR8K.load(Path(root), "test", 0)
        items = [
            (path, [table.texts[i] for i in table.caption[table.owner == n]])
            for n, path in enumerate(table.images[:count])
        ]
    else:
        items = []
        for number in range(count):
            path = folder / f"photo-{number}.jpg"
            Image.fromarray(rng.integers(0, 256, (224, 224, 3), dtype=np.uint8)).save(path)
            items.append((path, [" ".join(rng.choice(WORDS, 11)) for _ in range(5)]))
    for number, (path, _) in enumerate(items):  # beside the file, where a user's own images lie
        link = folder / f"photo-{number}.jpg"
        if not link.exists():
            link.symlink_to(path)
    file = folder / "captions.jsonl"
    rows = [{"image": f"photo-{n}.jpg", "captions": own} for n, (_, own) in enumerate(items)]
    file.write_text("\n".join(map(json.dumps, rows)))
    return str(file), items


def ours(clip: models.ClipModel, file: str) -> Answers:
    """Return the same from `clic.evaluate`, which also records each row's outcome."""
    report = evaluation.evaluate(Encoder(clip), [file], workers=1, keep_rows=True)
    answers = [row["predicted"] for row in report.rows if "predicted" in row]
    return next(iter(report.benchmarks.values())), answers


def compare(
    name: str, rounds: int, usual: Callable[[], Answers], own: Callable[[], Answers]
) -> None:
    """Time both in turn, check that they agree, and print the medians and their ratio."""
    seconds: dict[str, list[float]] = {"usual": [], "ours": []}
    for _ in range(rounds):
        found = {}
        for way, call in (("usual", usual), ("ours", own)):
            start = time.process_time()
            found[way] = call()
            seconds[way].append(time.process_time() - start)
        (numbers, answers), (own_numbers, own_answers) = found["usual"], found["ours"]
        assert answers == own_answers, "an image is taken for another class"
        for key, value in numbers.items():
            assert abs(own_numbers[key] - value) < 1e-3, (key, value, own_numbers[key])
    middle = {way: median(times) for way, times in seconds.items()}
    print(f"{name}: {numbers}")
    print(
        f"  usual {middle['usual']:.1f} s, ours {middle['ours']:.1f} s of CPU time: "
        f"{middle['usual'] / middle['ours']:.1f}x (medians of {rounds})"
    )


def main() -> None:
    """Time both tasks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--images", type=int, default=1000, help="of retrieval, 5 captions each")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "model").mkdir()
        clip = small_model(folder / "model")
        print(f"small towers, {torch.get_num_threads()} thread(s), torch {torch.__version__}")
        file, items = write_classes(folder, options.classes, rng)
        names = [own for _, (own,) in items]
        compare(
            f"zero-shot, {options.classes} classes x 80 prompts",
            options.rounds,
            lambda: usual_classification(clip, items, names),
            lambda: ours(clip, str(file)),
        )
        listed, photos = captions(folder, options.images, rng)
        compare(
            f"retrieval, {len(photos)} x {sum(len(own) for _, own in photos)}",
            options.rounds,
            lambda: usual_retrieval(clip, photos),
            lambda: ours(clip, listed),
        )


if __name__ == "__main__":
    main()
