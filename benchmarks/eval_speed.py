"""SugarCrepe++ on ViT-B/32: the published way against ours, interleaved in one run.

    OMP_NUM_THREADS=1 CLIC_TEST_DATA=DIR python benchmarks/eval_speed.py

DIR contains SugarCrepe++'s annotations as `sugarcrepe_pp/*.json`; without it captions with the same
statistics are made up. The images are synthetic JPEGs of 640 x 480, and the weights are random. A
random subset of the images is scored, with all of their rows.

The published way opens, transforms and encodes a row's image alone and its three captions alone (77
tokens each), takes six cosines and compares. Ours is all of `clic.evaluate`: reading the
annotations, hashing the weights, encoding, scoring, and its cache, which is empty (cold); contains
the images, because only text weights have changed (images cached); or contains everything. Counts
must be equal. The result is the ratio of medians of CPU time (of wall-clock time on a GPU).

For the full set, published costs scale with rows, and ours with distinct images and with the tree
nodes of distinct captions, both of which are counted; fixed costs are taken as they are.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from clic import evaluation, models
from clic.evaluation.encode.feature_cache import FeatureCache
from clic.models.encoder import Encoder
from clic.models.text_encoder import pack

CATEGORIES = {
    "replace_att": 788, "replace_obj": 1652, "replace_rel": 1406, "swap_att": 666, "swap_obj": 245,
}  # fmt: skip
FULL_IMAGES = 1542
WORDS = (
    "a", "the", "two", "man", "woman", "dog", "cat", "red", "blue", "green", "small", "large",
    "young", "old", "table", "street", "tree", "car", "bench", "plate", "pizza", "horse", "sheep",
    "ball", "bat", "kite", "boat", "plane", "sign", "bus", "clock", "is", "are", "sits", "stands",
    "rides", "holds", "eats", "plays", "runs", "walks", "on", "in", "near", "under", "behind",
    "with", "and", "of", "at", "by", "wearing", "looking", "train",
)  # fmt: skip
Rows = dict[str, list[dict[str, Any]]]
"""Rows of each annotation file."""


def read_rows(folder: Path) -> Rows:
    """Return SugarCrepe++'s annotations; each file is a list."""
    return {path.name: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def made_rows(rng: np.random.Generator) -> Rows:
    """Return captions with SugarCrepe++'s statistics; the false ones change a word of the first."""
    rows: Rows = {}
    for name, count in CATEGORIES.items():
        rows[f"{name}.json"] = []
        for number in range(count):
            length = int(np.clip(rng.normal(11.5, 3), 5, 40))
            first, second = (list(rng.choice(WORDS, length)) for _ in range(2))
            false = list(first)
            false[int(rng.integers(length))] = "other"
            captions = [" ".join(map(str, words)) for words in (first, second, false)]
            image = f"{int(rng.integers(FULL_IMAGES)):012d}.jpg"
            keys = ("caption", "caption2", "negative_caption")
            row = {"id": number, "filename": image, **dict(zip(keys, captions, strict=True))}
            rows[f"{name}.json"].append(row)
    return rows


def write_images(folder: Path, names: list[str], rng: np.random.Generator) -> None:
    """Write JPEGs of 640 x 480 with large shapes and grain, about 100 kB each."""
    folder.mkdir(parents=True)
    for name in names:
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        pixels = np.asarray(coarse.resize((640, 480), Image.Resampling.BICUBIC)).astype(float)
        pixels += rng.normal(0, 8, pixels.shape)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / name, quality=90)


def published(clip: models.ClipModel, rows: Rows, images: Path) -> dict[str, list[int]]:
    """Return the number of rows right in ITT and in TOT, by file, going row by row."""
    from open_clip.transform import PreprocessCfg, image_transform_v2

    preprocess = image_transform_v2(PreprocessCfg(**clip.model.visual.preprocess_cfg), False)
    device = clip.device

    def image_features(name: str) -> torch.Tensor:
        pixels = preprocess(Image.open(images / name).convert("RGB"))
        return F.normalize(clip.model.encode_image(pixels[None].to(device)), dim=-1)

    def text_features(caption: str) -> torch.Tensor:
        return F.normalize(clip.model.encode_text(clip.tokenizer([caption]).to(device)), dim=-1)

    counts = {}
    clip.model.eval()
    with torch.no_grad():
        for name, own in rows.items():
            itt = tot = 0
            for row in own:
                image = image_features(row["filename"])
                keys = ("caption", "caption2", "negative_caption")
                first, second, false = (text_features(row[key]) for key in keys)
                i1, i2, i0 = (float(image @ text.T) for text in (first, second, false))
                t12, t10, t20 = (
                    float(a @ b.T) for a, b in ((first, second), (first, false), (second, false))
                )
                itt += i1 > i0 and i2 > i0
                tot += t12 > t10 and t12 > t20
            counts[name] = [itt, tot]
    return counts


def ours(clip: models.ClipModel, data: Path, cache: Path) -> dict[str, list[int]]:
    """Return the same counts from `clic.evaluate`."""
    report = evaluation.evaluate(
        Encoder(clip), ["sugarcrepe++"], data, cache=FeatureCache(cache), workers=1
    )
    numbers = report.benchmarks["sugarcrepe++"]
    return {
        f"{name}.json": [round(entry[m] * entry["n"] / 100) for m in ("itt", "tot")]
        for name, entry in numbers.items()
        if "_" in name
    }


def touch_texts(clip: models.ClipModel) -> None:
    """Change the text weights but not the features: twice a projection has the same direction."""
    with torch.no_grad():
        clip.model.text_projection.mul_(2)


def nodes_of(clip: models.ClipModel, rows: Rows) -> tuple[int, int, int]:
    """Return the distinct strings, the distinct texts by token ids, and their tree nodes."""
    strings = {
        row[key]
        for own in rows.values()
        for row in own
        for key in ("caption", "caption2", "negative_caption")
    }
    encoder = Encoder(clip)
    ends = models.TextEncoder(clip.model).rule.ends
    ids = {encoder.text_key(text) for text in strings}
    texts = sorted(key[: int(ends(torch.tensor(key))) + 1] for key in ids)
    at_once = Encoder.texts_at_once
    nodes = [len(pack(texts[i : i + at_once]).tokens) for i in range(0, len(texts), at_once)]
    return len(strings), len(texts), sum(nodes)


def main() -> None:
    """Time both ways and print their medians, the ratio, and those of the full set."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=40, help="images of the subset")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32", help="of ours")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    clip = models.create("ViT-B-32", None, options.device)
    root = os.environ.get("CLIC_TEST_DATA")
    full = read_rows(Path(root) / "sugarcrepe_pp") if root else made_rows(rng)
    names = sorted({row["filename"] for own in full.values() for row in own})
    rows: Rows = {}
    while not rows or not all(rows.values()):  # take the first sample with rows of every category
        chosen = sorted(str(name) for name in rng.choice(names, options.images, replace=False))
        mine = set(chosen)
        rows = {file: [r for r in own if r["filename"] in mine] for file, own in full.items()}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        (data / "sugarcrepe_pp").mkdir()
        for file, own in rows.items():
            (data / "sugarcrepe_pp" / file).write_text(json.dumps(own))
        write_images(data / "coco" / "val2017", chosen, rng)
        seconds = measure(clip, rows, data, options)
    source = "real annotations" if root else "made captions"
    report(clip, seconds, rows, full, f"{source}, {options.device}, {torch.__version__}")


def measure(
    clip: models.ClipModel, rows: Rows, data: Path, options: argparse.Namespace
) -> dict[str, float]:
    """Return the median seconds of each way."""
    on_gpu = clip.device.type == "cuda"
    clock = time.perf_counter if on_gpu else time.process_time
    seconds: dict[str, list[float]] = {}

    def timed(name: str, way: Callable[[], dict[str, list[int]]]) -> dict[str, list[int]]:
        start = clock()
        counts = way()
        seconds.setdefault(name, []).append(clock() - start)
        return counts

    warm = {file: own[:1] for file, own in rows.items()}
    published(clip, warm, data / "coco" / "val2017")
    ours(clip, data, data / "warm-up")
    for number in range(options.rounds):
        cache = data / f"cache-{number}"
        expected = timed("published", lambda: published(clip, rows, data / "coco" / "val2017"))
        for name in ("cold", "images cached", "all cached"):
            counts = timed(name, lambda cache=cache: ours(clip, data, cache))
            assert counts == expected, (name, counts, expected)
            if name == "cold":
                touch_texts(clip)
    print(f"counts (ITT, TOT): {expected}")
    return {name: median(values) for name, values in seconds.items()}


def report(
    clip: models.ClipModel, seconds: dict[str, float], rows: Rows, full: Rows, title: str
) -> None:
    """Print the subset's times and ratios, and the full set's."""
    count, images = [sum(map(len, r.values())) for r in (rows, full)], []
    for part in (rows, full):
        images.append(len({row["filename"] for own in part.values() for row in own}))
    strings, texts, nodes = nodes_of(clip, full)
    _, own_texts, own_nodes = nodes_of(clip, rows)
    start = time.process_time()
    clip.tokenizer([row["caption"] for own in full.values() for row in own])
    keys = (time.process_time() - start) * strings / count[1]
    print(
        f"ViT-B/32 of random weights, {title}, {torch.get_num_threads()} thread(s)\n"
        f"subset: {images[0]} images, {count[0]} rows, {own_texts} texts, {own_nodes} nodes\n"
        f"full:   {images[1]} images, {count[1]} rows, {strings} strings, {texts} texts, "
        f"{nodes} nodes (published: {3 * 77 * count[1]} tokens)"
    )
    print(f"  {'published':<14} {seconds['published']:8.2f} s")
    for name in ("cold", "images cached", "all cached"):
        ratio = seconds["published"] / seconds[name]
        print(f"  {name:<14} {seconds[name]:8.2f} s   {ratio:6.1f}x   (subset)")
    fixed = seconds["all cached"] + keys  # tokenizes the subset twice: a slight overestimate
    text = (seconds["images cached"] - seconds["all cached"]) / own_nodes * nodes
    image = (seconds["cold"] - seconds["images cached"]) / images[0] * images[1]
    whole = seconds["published"] / count[0] * count[1]
    print(f"full set, computed: published {whole:.0f} s; images {image:.0f} s, texts {text:.0f} s, "
          f"the rest {fixed:.1f} s")  # fmt: skip
    print(
        f"  cold {whole / (image + text + fixed):.1f}x, images cached {whole / (text + fixed):.1f}x"
    )


if __name__ == "__main__":
    main()
