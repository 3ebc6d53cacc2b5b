"""Measure what the photo base's text tower could learn from SugarCrepe++'s own kind of paraphrases.

    python scripts/photos_ceiling.py --model models/photos-base --data data

This is a diagnosis, not a result to report beside others: the tower is trained on rows of the
benchmark itself. The benchmark's images are split into two halves; the rows of each half are scored
by a tower trained on rows of the other. Training follows `photos_best` without photographs: the
same layers, rate and batch, a caption against its paraphrase with the false caption as a candidate,
and distillation towards the base. If swaps rise far above those of `photos_best`, its paraphrases
limit it; if they do not, the tower does.

The options narrow down the limit in the tower or its training: `--model` selects another tower,
`--train` other layers of it, `--steps` and `--distillation` set the training, and with
`--swaps 0.5` half of each batch are swaps, instead of the benchmark's fifth.
"""

from __future__ import annotations

import argparse
import copy
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from clic import metrics, models
from clic.errors import ClicError, DataError
from clic.evaluation.benchmarks.sugarcrepe import PLUS_CATEGORIES, load_sugarcrepe_pp
from clic.evaluation.tables.triplets import Triplets
from clic.losses.distillation import distillation_loss
from clic.losses.terms import paraphrase_loss
from clic.models import ClipModel, FeatureExtractor
from clic.seeding import generator, seed_torch
from clic.training.optim import adamw, set_lr, warmup_cosine

# Those of +experiment=photos_best.
LR, WARM_UP, BATCH = 1e-3, 0.1, 48
PARAPHRASES, SCALE = 2.0, 20.0
DECAY = 0.1
SWAPS = [number for number, name in enumerate(PLUS_CATEGORIES) if name.startswith("swap")]


@dataclass(frozen=True)
class Training:
    """The choices of the command line.

    Attributes:
        layers: `model.train`: the layers of the text tower to train.
        steps: Number of steps.
        distillation: Weight of the distillation towards the base.
        swaps: Share of swaps in a batch; None samples rows regardless of kind.
    """

    layers: str = "text.last:3"
    steps: int = 120
    distillation: float = 20.0
    swaps: float | None = None


def main(words: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", required=True, help="the folder of photos-base")
    parser.add_argument("--data", required=True, type=Path, help="the folder of sugarcrepe_pp")
    parser.add_argument("--train", default=Training.layers, help="as model.train")
    parser.add_argument("--steps", type=int, default=Training.steps)
    parser.add_argument("--distillation", type=float, default=Training.distillation)
    parser.add_argument("--swaps", type=float, help="share of swaps in a batch")
    parser.add_argument("--rows", type=int, nargs="+", default=[300, 0], help="0: all rows")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    flags = parser.parse_args(words)
    if flags.swaps is not None and not 0 <= flags.swaps <= 1:
        parser.error(f"--swaps {flags.swaps} is no share; use 0 to 1")
    settings = Training(flags.train, flags.steps, flags.distillation, flags.swaps)
    try:
        print_table(flags.model, flags.data, flags.rows, flags.seeds, settings)
    except ClicError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def print_table(
    model: str, data: Path, counts: list[int], seeds: list[int], settings: Training
) -> None:
    """Print a line for the base, and one for each number of training rows."""
    table, base = load_sugarcrepe_pp(data), models.create(model)
    base.model.eval()
    tokens, rows = base.tokenizer(list(table.texts)), np.arange(len(table.image))
    old = _encoded(base, tokens, torch.arange(len(tokens)))
    print(f"| rows trained on | {' | '.join(PLUS_CATEGORIES)} | mean |")
    print(f"|---|{'--:|' * (len(PLUS_CATEGORIES) + 1)}")
    print(_line("none (base)", [_by_category(table, _correct(old, table, rows))]), flush=True)
    for most in counts:
        found = [cross_validated(base, table, tokens, old, most, settings, seed) for seed in seeds]
        print(_line(str(most or "all of a half"), found), flush=True)


def cross_validated(
    base: ClipModel,
    table: Triplets,
    tokens: Tensor,
    old: Tensor,
    rows: int,
    settings: Training,
    seed: int,
) -> list[float]:
    """Return TOT of each category, percent, each half scored by a tower trained on the other."""
    rng = generator(seed, "ceiling/halves", 0)
    half = rng.permutation(len(table.images)) % 2  # split by image, so that none is in both
    correct = np.zeros(len(table.image), dtype=bool)
    for fold in (0, 1):
        train = np.flatnonzero(half[table.image] != fold)
        chosen = rng.permutation(train)[: rows or len(train)]
        tuned = trained(base, table, tokens, old, chosen, settings, seed)
        test = np.flatnonzero(half[table.image] == fold)
        correct[test] = _correct(_encoded(tuned, tokens, _texts(table, test)), table, test)
    return _by_category(table, correct)


def trained(
    base: ClipModel,
    table: Triplets,
    tokens: Tensor,
    old: Tensor,
    rows: np.ndarray,
    settings: Training,
    seed: int,
) -> ClipModel:
    """Return a copy of the model with its text tower trained on some rows.

    `old` is the base's features of all texts [T, D], which the new features are kept near.
    """
    assert table.positive2 is not None
    clip = copy.deepcopy(base)
    features = FeatureExtractor(
        clip.model, models.set_trainable(clip.model, settings.layers, False)
    )
    models.set_mode(clip.model, features.trained)
    optimizer = adamw(clip.model, lr=LR, weight_decay=DECAY)
    seed_torch(seed)
    rng = generator(seed, "ceiling/batches", 0)
    columns = np.stack([table.positive1, table.positive2, table.negative], axis=1)
    warm_up = round(WARM_UP * settings.steps)
    for step in range(settings.steps):
        rate = warmup_cosine(step, lr=LR, steps=settings.steps, warmup_steps=warm_up)
        set_lr(optimizer, rate)
        batch = columns[_drawn(table, rows, settings.swaps, rng)]
        own = features.of_texts(tokens[batch])
        kept = distillation_loss(own[:, :2], old[batch[:, :2]])
        loss = PARAPHRASES * _paraphrases(own) + settings.distillation * kept
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    clip.model.eval()
    return clip


def _drawn(
    table: Triplets, rows: np.ndarray, swaps: float | None, rng: np.random.Generator
) -> np.ndarray:
    """Return the rows of a batch, each once.

    Raises:
        DataError: There are fewer rows of a kind than a batch needs.
    """
    if swaps is None:
        return rng.choice(rows, BATCH, replace=False)
    is_swap = np.isin(table.category[rows], SWAPS)
    count = round(swaps * BATCH)
    kinds = (rows[is_swap], count), (rows[~is_swap], BATCH - count)
    if any(len(own) < number for own, number in kinds):
        raise DataError(
            f"--swaps {swaps} takes {count} swaps and {BATCH - count} others a batch, and of the "
            f"{len(rows)} rows to train on {is_swap.sum()} are swaps; use more --rows, or 0 for all"
        )
    return np.concatenate([rng.choice(own, number, replace=False) for own, number in kinds])


def _paraphrases(features: Tensor) -> Tensor:
    """Return the text-to-text term, with each true caption in turn as the first."""
    first, second, negative = features.unbind(1)
    mask = torch.ones(len(first), 1, dtype=torch.bool)
    rest = negative.unsqueeze(1), mask, SCALE, 0
    return (paraphrase_loss(first, second, *rest) + paraphrase_loss(second, first, *rest)) / 2


def _texts(table: Triplets, rows: np.ndarray) -> Tensor:
    """Return the indices of the texts of some rows."""
    columns = (table.positive1, table.positive2, table.negative)
    return torch.from_numpy(np.unique([column[rows] for column in columns if column is not None]))


@torch.no_grad()
def _encoded(clip: ClipModel, tokens: Tensor, texts: Tensor) -> Tensor:
    """Return the features [T, D] of some texts, unit norm, and zeros for the others."""
    encode = models.TextEncoder(clip.model)  # reads no padding
    texts = texts[encode.rule.lengths(tokens[texts]).argsort()]
    found = torch.cat([encode(tokens[part]) for part in texts.split(256)])
    features = torch.zeros(len(tokens), found.shape[1])
    features[texts] = normalize(found, dim=-1)
    return features


def _correct(features: Tensor, table: Triplets, rows: np.ndarray) -> np.ndarray:
    """Return which of some rows are right by TOT."""
    assert table.positive2 is not None
    first, second, negative = (
        features[torch.from_numpy(column[rows])]
        for column in (table.positive1, table.positive2, table.negative)
    )
    return metrics.triplet(None, first, second, negative)["tot"].numpy()


def _by_category(table: Triplets, correct: np.ndarray) -> list[float]:
    of = [100 * correct[table.category == c].mean() for c in range(len(PLUS_CATEGORIES))]
    return [*of, float(np.mean(of))]


def _line(name: str, found: list[list[float]]) -> str:
    """Return a row of the table: means over seeds, with deviations if there are several."""
    means, cells = np.mean(found, axis=0), []
    for column, mean in enumerate(means):
        spread = np.std([one[column] for one in found], ddof=1) if len(found) > 1 else None
        cells.append(f"{mean:.1f}" + (f" ± {spread:.1f}" if spread is not None else ""))
    return f"| {name} | {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
