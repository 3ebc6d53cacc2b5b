"""Build the base model of the shapes world: its vision tower binds, its text tower only lists.

    python scripts/build_shapes_base.py --out clic/shapes/base

The model is constructed for its purpose. Its two towers are trained one after the other:

1. The vision tower learns from labels alone: linear heads on the image embedding predict which
   colour and which shape is where, and which shape has which colour. The heads are then dropped, so
   everything they predicted, including binding and layout, is linear in the embedding.
2. The text tower learns from plain CLIP training against the frozen vision tower, on captions like
   those of the web: most are tags, a subset of the words in any order. Nothing in them rewards
   reading word order, so the tower becomes a bag of words without being forced to.

A linear probe then shows what the frozen embedding can distinguish, and the benchmarks show how
much of that the text tower uses. It takes three CPU minutes; the same seed, machine and torch give
the same bits.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from torch import Tensor, nn

import clic
from clic import models, shapes
from clic.images import normalise
from clic.losses import ClipObjective
from clic.models import ClipModel
from clic.seeding import generator, seed_torch
from clic.shapes.language import LEXICON
from clic.shapes.scenes import COLOURS, SHAPES, Scene, Thing, relation
from clic.training.optim import adamw, make_schedule, set_lr
from clic.types import INVERSE, RELATION_PHRASES, Features

ARCHITECTURE = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 12, "head_width": 32},
    "text_cfg": {
        "context_length": 32,
        "vocab_size": 49408,
        "width": 64,
        "heads": 2,
        "layers": 3,
    },
}
PREPROCESS = {"mean": list(OPENAI_DATASET_MEAN), "std": list(OPENAI_DATASET_STD)}
BENCHMARKS = ("shapes++", "shapes-relations", "shapes-retrieval", "shapes-zero-shot")

# Stage 1. The factor compensates for the unit norm of the embedding that the heads read.
VISION_LR = 3e-3
VISION_BATCH = 64
HEADS_FACTOR = 10.0
BINDING_WEIGHT = 2.0
# Stage 2.
LOGIT_SCALE = 30.0  # fixed: one from a short training would separate hard pairs too little
TEXT_LR = 2e-3
TEXT_BATCH = 128
PAIRS_SHARE = 0.6  # of the images; the others show one thing
TAGS_SHARE = 0.9  # of the captions
KEPT_WORDS = 0.5  # of the words of tags
FIRST_SHARE = 0.3  # of the captions, made from the first sentence, which names all things
PERIOD_SHARE = 0.5

PLACES = (*INVERSE, "middle")
LABELS = (
    [(colour, place) for colour in COLOURS for place in PLACES]
    + [(shape, place) for shape in SHAPES for place in PLACES]
    + [(colour, shape) for colour in COLOURS for shape in SHAPES]
)
NUMBER = {label: number for number, label in enumerate(LABELS)}
BINDING = torch.tensor([place not in PLACES for _, place in LABELS])


def labels_of(thing: Thing, place: str) -> list[int]:
    """Return the indices of the labels that are true of one thing."""
    pairs = [(thing.colour, place), (thing.shape, place), (thing.colour, thing.shape)]
    return [NUMBER[pair] for pair in pairs]


def targets(scene: Scene) -> np.ndarray:
    """Return which labels are true of a scene, float32 [labels]."""
    result = np.zeros(len(LABELS), dtype=np.float32)
    for thing, other in zip(scene.things, scene.things[::-1], strict=True):
        place = relation(thing, other) if len(scene.things) == 2 else "middle"
        result[labels_of(thing, place)] = 1
    return result


def pixels(images: list[np.ndarray]) -> Tensor:
    """Return images as the vision tower expects them, float32 [N, 3, 64, 64]."""
    batch = torch.from_numpy(np.stack(images))
    return normalise(batch, OPENAI_DATASET_MEAN, OPENAI_DATASET_STD)


def scenes(
    steps: int, batch: int, pairs: float, seed: int
) -> Iterator[list[tuple[Scene, clic.types.Sample]]]:
    """Yield batches of the training split; `pairs` is the share of images that show two things."""
    two = round(pairs * batch)
    for step in range(steps):
        numbers = range(step * batch, (step + 1) * batch)
        yield [
            shapes.sample_scene("train", number, 2 if number % batch < two else 1, seed)
            for number in numbers
        ]


def train_vision(clip: ClipModel, steps: int, seed: int) -> None:
    """Stage 1: train the vision tower on labels predicted linearly from its embedding."""
    tower = clip.model.visual
    heads = nn.Linear(ARCHITECTURE["embed_dim"], len(LABELS))
    nn.init.constant_(heads.bias, -3.0)  # few labels are true
    weight = torch.where(BINDING, BINDING_WEIGHT, 1.0)
    trained = nn.ModuleList([tower, heads]).train()
    optimizer = adamw(trained, lr=VISION_LR, weight_decay=0.1)
    schedule = make_schedule("warmup_cosine", lr=VISION_LR, steps=steps, warmup_steps=steps // 20)
    start = time.perf_counter()
    for step, batch in enumerate(scenes(steps, VISION_BATCH, 0.75, seed)):
        set_lr(optimizer, schedule(step))
        embedding = F.normalize(tower(pixels([sample.image for _, sample in batch])), dim=-1)
        truth = torch.from_numpy(np.stack([targets(scene) for scene, _ in batch]))
        logits = heads(HEADS_FACTOR * embedding)
        loss = F.binary_cross_entropy_with_logits(logits, truth, weight, reduction="sum")
        optimizer.zero_grad(set_to_none=True)
        (loss / len(batch)).backward()
        optimizer.step()
        report("vision", step, steps, loss.item() / len(batch), start)
    trained.eval().requires_grad_(False)


def web_caption(sentences: tuple[str, ...], rng: np.random.Generator) -> str:
    """Return a caption like those on web pages: mostly a subset of the words, in any order."""
    first = rng.random() < FIRST_SHARE
    caption = sentences[0] if first else sentences[rng.integers(1, len(sentences))]
    if rng.random() < TAGS_SHARE:
        words = rng.permutation(np.array(caption.split()))
        kept = words[rng.random(len(words)) < KEPT_WORDS]
        caption = " ".join(kept if len(kept) else words[:1])
    return caption + "." if rng.random() < PERIOD_SHARE else caption


def train_text(clip: ClipModel, steps: int, seed: int) -> None:
    """Stage 2: train the text tower by plain CLIP training against the frozen vision tower."""
    model, encode = clip.model, models.TextEncoder(clip.model)
    trained = models.set_trainable(model, "text", train_logit_scale=False)
    models.set_mode(model, trained)
    optimizer = adamw(model, lr=TEXT_LR, weight_decay=0.1)
    schedule = make_schedule("warmup_cosine", lr=TEXT_LR, steps=steps, warmup_steps=steps // 5)
    rng = generator(seed, "base/captions")
    start = time.perf_counter()
    for step, batch in enumerate(scenes(steps, TEXT_BATCH, PAIRS_SHARE, seed + 1)):
        set_lr(optimizer, schedule(step))
        captions = [web_caption(sample.captions, rng) for _, sample in batch]
        with torch.no_grad():
            image_features = model.encode_image(
                pixels([sample.image for _, sample in batch]), normalize=True
            )
        text_features = F.normalize(encode(clip.tokenizer(captions)), dim=-1)
        features = Features(image_features, text_features[:, None], model.logit_scale.exp())
        loss = ClipObjective()(features).total
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        report("text", step, steps, loss.item(), start)
    model.eval()


def report(stage: str, step: int, steps: int, loss: float, start: float) -> None:
    """Print a line of progress about twenty times a stage."""
    if step % max(1, steps // 20) == 0 or step == steps - 1:
        seconds = time.perf_counter() - start
        print(f"{stage} step {step:5d}/{steps}  loss {loss:7.3f}  {seconds:5.0f} s", flush=True)


def clear_unused_rows(clip: ClipModel) -> None:
    """Zero the embedding of every token that the world does not use, so that it compresses away.

    No gradient ever reaches these rows, so they stay zero.
    """
    used = torch.unique(clip.tokenizer([*LEXICON, "."]))
    weight = clip.model.token_embedding.weight
    with torch.no_grad():
        kept = weight[used].clone()
        weight.zero_()
        weight[used] = kept


def new_model(folder: Path, seed: int) -> ClipModel:
    """Create the model with random weights, from a config that is written into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_cfg": ARCHITECTURE, "preprocess_cfg": PREPROCESS}
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
    seed_torch(seed)
    clip = models.create(str(folder), pretrained=None)
    clear_unused_rows(clip)
    clip.model.logit_scale.data.fill_(math.log(LOGIT_SCALE))
    return clip


def probe(
    clip: ClipModel,
    benchmarks: Sequence[shapes.WorldTriplets],
    samples: int = 6000,
    steps: int = 400,
) -> dict[str, float]:
    """Return the scores of a linear probe of the frozen image embedding.

    The probe is logistic regression of the labels, fitted on the training split. A caption's score
    is the sum of the logits of the labels that it states; a row is right if positive 1 beats the
    negative.

    Args:
        clip: The model.
        benchmarks: Benchmarks to score, without a category in common.
        samples: Number of images that the probe is fitted on.
        steps: Steps of the fit.

    Returns:
        Percentages by category.
    """
    tower = clip.model.visual.eval()
    with torch.no_grad():
        batches = list(scenes(samples // 200, 200, 0.8, seed=2**20))
        embed = [F.normalize(tower(pixels([s.image for _, s in b])), dim=-1) for b in batches]
        truth = torch.from_numpy(np.stack([targets(scene) for b in batches for scene, _ in b]))
        tested = [embeddings(tower, benchmark.images) for benchmark in benchmarks]
    seed_torch(0)
    heads = nn.Linear(ARCHITECTURE["embed_dim"], len(LABELS))
    optimizer = torch.optim.Adam(heads.parameters(), lr=0.05)
    inputs = HEADS_FACTOR * torch.cat(embed)
    for _ in range(steps):
        loss = F.binary_cross_entropy_with_logits(heads(inputs), truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    outcomes: dict[str, list[bool]] = {}
    for benchmark, embedding in zip(benchmarks, tested, strict=True):
        logits = heads(HEADS_FACTOR * embedding).detach()
        for row in benchmark.rows:
            true, false = (
                logits[row.image, said(caption)].sum() for caption in (row.positive1, row.negative)
            )
            outcomes.setdefault(row.category, []).append(bool(true > false))
    return {name: 100 * float(np.mean(rights)) for name, rights in outcomes.items()}


def embeddings(tower: nn.Module, images: shapes.SceneImages) -> Tensor:
    """Return the unit-norm embeddings of a benchmark's images, [N, D]."""
    parts = [images[i : i + 200] for i in range(0, len(images), 200)]
    return torch.cat([F.normalize(tower(pixels(part)), dim=-1) for part in parts])


def said(caption: str) -> list[int]:
    """Return the indices of the labels that a caption of two things states."""
    words = caption.split()
    colours = [word for word in words if word in COLOURS]
    nouns = [word for word in words if word in SHAPES]
    stated = [NUMBER[pair] for pair in zip(colours, nouns, strict=True)]
    for first, phrases in RELATION_PHRASES.items():
        if any(f" {phrase} " in caption for phrase in phrases):
            second = INVERSE[first]
            for place, colour, noun in zip((first, second), colours, nouns, strict=True):
                stated += [NUMBER[colour, place], NUMBER[noun, place]]
    return stated


def main(arguments: list[str] | None = None) -> None:
    """Train, save, probe and score."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the model")
    parser.add_argument("--seed", type=int, default=0, help="another seed makes another base")
    parser.add_argument("--vision-steps", type=int, default=1400)
    parser.add_argument("--text-steps", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1, help="the bits depend on it")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)

    start = time.process_time()
    clip = new_model(options.out, options.seed)
    # Seeds whose scenes no run with a seed below a million trains on.
    train_vision(clip, options.vision_steps, seed=10**6 + 2 * options.seed)
    train_text(clip, options.text_steps, seed=10**6 + 2 * options.seed)
    models.save(clip, options.out)
    print(f"{options.out}: made in {time.process_time() - start:.0f} CPU seconds")
    print("linear probe of the vision tower, positive 1 beats the negative, % (test split):")
    print(json.dumps(probe(clip, (shapes.triplets("test"), shapes.relations("test")))))
    result = clic.evaluate(clic.load(str(options.out)), BENCHMARKS).to_dict()
    print("benchmarks (test split):")
    print(json.dumps(result["benchmarks"], indent=1))


if __name__ == "__main__":
    main()
