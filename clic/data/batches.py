"""Building a batch: each image it needs is read and decoded once, and nothing else is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from clic import images
from clic.config import ComposeConfig
from clic.data.captioning import Captioner, RowCaptions
from clic.data.sampling import Plan, Row, Sampler
from clic.data.sources import Source
from clic.errors import DataError
from clic.models import Preprocess
from clic.models.clip_model import Tokenizer
from clic.seeding import generator
from clic.types import Batch, Kind, Sample

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class BatchBuilder:
    """Turns the sampler's plans into batches.

    Args:
        sources: For each kind the source of its samples.
        sampler: Plans each step.
        captioner: Makes the captions.
        tokenizer: list of N captions -> int64 [N, L].
        preprocess: What the vision tower expects.
        compose: The group `compose`.
        seed: The run's seed.
    """

    def __init__(
        self,
        sources: Mapping[Kind, Source],
        sampler: Sampler,
        captioner: Captioner,
        tokenizer: Tokenizer,
        preprocess: Preprocess,
        compose: ComposeConfig,
        seed: int,
    ) -> None:
        self.sources, self.sampler, self.captioner = sources, sampler, captioner
        self.tokenizer, self.preprocess, self.compose = tokenizer, preprocess, compose
        self.seed = seed

    def build(self, step: int) -> Batch:
        """Return this rank's batch of a step; a pure function of (seed, step)."""
        return self._collate(self.sampler.plan(step))

    def preview(self, step: int, rows: int) -> list[tuple[np.ndarray, RowCaptions]]:
        """Return the image, uint8 [S, S, 3], and the captions of a step's first rows."""
        plan = self.sampler.plan(step)
        return [
            (self._pixels(plan, row, samples), self._captions(plan, row, samples))
            for row, samples in self._read(plan, rows)
        ]

    def _read(self, plan: Plan, rows: int | None = None) -> list[tuple[Row, list[Sample]]]:
        source = self.sources[plan.kind]
        return [(row, [source.read(index) for index in row.indices]) for row in plan.rows[:rows]]

    def _collate(self, plan: Plan) -> Batch:
        rows = self._read(plan)
        pixels = np.stack([self._pixels(plan, row, samples) for row, samples in rows])
        captions = [self._captions(plan, row, samples) for row, samples in rows]
        negatives, mask = self._negatives(plan.kind, captions)
        return Batch(
            images=images.normalise(torch.from_numpy(pixels), *self._statistics(plan.kind)),
            positives=self._tokens([row.positives for row in captions]),
            negatives=negatives,
            negative_mask=mask,
            kind=plan.kind,
            step=plan.step,
            keys=[tuple(sample.key for sample in samples) for _, samples in rows],
        )

    def _pixels(self, plan: Plan, row: Row, samples: Sequence[Sample]) -> np.ndarray:
        decoded = [_decode(sample) for sample in samples]
        size = self.preprocess.size
        if plan.kind == "single":
            return images.single(
                decoded[0], size, self.preprocess.resize_mode, self.preprocess.interpolation
            )
        order = generator(self.seed, "order", plan.step, row.slot).permutation(len(decoded))
        return images.compose(
            [decoded[i] for i in order],
            self.compose.layout,
            row.orientation,
            size,
            self.compose.fit,  # type: ignore[arg-type]
        )

    def _captions(self, plan: Plan, row: Row, samples: Sequence[Sample]) -> RowCaptions:
        rng = generator(self.seed, "captions", plan.step, row.slot)
        return self.captioner.make(plan.kind, samples, rng)

    def _statistics(self, kind: Kind) -> tuple[tuple[float, ...], tuple[float, ...]]:
        if kind == "composite" and self.compose.statistics == "imagenet":
            return IMAGENET_MEAN, IMAGENET_STD
        return self.preprocess.mean, self.preprocess.std

    def _negatives(
        self, kind: Kind, captions: Sequence[RowCaptions]
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        if not self.captioner.negatives(kind):
            return None, None
        texts = [(row.negative.text if row.negative else "",) for row in captions]
        mask = torch.tensor([[row.negative is not None] for row in captions])
        return self._tokens(texts), mask

    def _tokens(self, texts: Sequence[tuple[str, ...]]) -> torch.Tensor:
        flat = self.tokenizer([text for row in texts for text in row])
        return flat.view(len(texts), len(texts[0]), -1)


def _decode(sample: Sample) -> np.ndarray:
    try:
        return images.decode(sample.image)
    except DataError as error:
        raise DataError(f"sample {sample.key!r}: {error}") from error
