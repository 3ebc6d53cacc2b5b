"""Building a batch: each image that it needs, and no other, is read and decoded once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from clic import images
from clic.captions.composites import Place, TokenBudget
from clic.captions.text import is_foreign
from clic.config.train_settings import ComposeConfig
from clic.data.batches.captioner import Captioner, CaptionTokenizer, RowCaptions, check_captions
from clic.data.batches.faults import first_usable, substitutes
from clic.data.sampling.sample_sources import SampleSource
from clic.data.sampling.sampler import BatchPlan, BatchRow, Sampler
from clic.errors import DataError
from clic.models import Preprocess
from clic.seeding import generator
from clic.types import Batch, Fault, Kind, Sample, Tally

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class _Loaded(NamedTuple):
    """A sample, its number and its pixels, at the model's size where its row is a single image."""

    number: int
    sample: Sample
    pixels: np.ndarray


class _Row(NamedTuple):
    """A row of a batch: its samples in their order, its captions and the faults it met."""

    samples: list[Sample]
    captions: RowCaptions
    faults: list[Fault]


@dataclass(eq=False)
class BatchBuilder:
    """Turns the sampler's plans into batches.

    Attributes:
        sources: For each kind the source of its samples.
        sampler: Plans each step.
        captioner: Makes the captions.
        tokens: Makes token ids of captions.
        preprocess: What the vision tower expects.
        compose: The group `compose`.
        seed: The run's seed.
        decode: How pixels are loaded, a name of `clic.images.METHODS`.
    """

    sources: Mapping[Kind, SampleSource]
    sampler: Sampler
    captioner: Captioner
    tokens: CaptionTokenizer
    preprocess: Preprocess
    compose: ComposeConfig
    seed: int
    decode: str = "exact"

    def build(self, step: int) -> Batch:
        """Return this rank's batch of a step; a pure function of (seed, step).

        Raises:
            DataError: A hundred samples in a row are broken.
        """
        plan = self.sampler.plan(step)
        pixels, rows = self._rows(plan, len(plan.rows))
        positives, cut = self._tokens([row.captions.positives for row in rows])
        negatives, cut_negatives, mask = self._negatives(plan.kind, rows, positives)
        imagenet = plan.kind == "composite" and self.compose.statistics == "imagenet"
        faults = tuple(fault for row in rows for fault in row.faults)
        without = [] if mask is None else (~mask.any(1)).nonzero().flatten().tolist()
        true = positives[..., 0].numel()
        # Negatives that do not count because the context cut them are captions all the same.
        false = sum(negative is not None for row in rows for negative in row.captions.negatives)
        tally = Tally(
            samples=sum(len(row.samples) for row in rows) + len(faults),
            broken=len(faults),
            captions=true + false,
            cut=cut + cut_negatives,
            no_negative=len(without),
            retagged=sum(row.captions.retagged for row in rows),
            joined=true if plan.kind == "composite" else 0,
            shortened=sum(row.captions.shortened for row in rows),
            foreign=sum(is_foreign(rows[number].captions.positives[0]) for number in without),
        )
        return Batch(
            images=torch.from_numpy(pixels),
            mean=IMAGENET_MEAN if imagenet else self.preprocess.mean,
            std=IMAGENET_STD if imagenet else self.preprocess.std,
            positives=positives,
            negatives=negatives,
            negative_mask=mask,
            negative_kinds=self.captioner.negative_kinds(plan.kind),
            kind=plan.kind,
            step=plan.step,
            keys=[tuple(sample.key for sample in row.samples) for row in rows],
            tally=tally,
            faults=faults,
        )

    def preview(self, step: int, rows: int) -> list[tuple[np.ndarray, RowCaptions]]:
        """Return the image, uint8 [S, S, 3], and the captions of a step's first rows."""
        pixels, built = self._rows(self.sampler.plan(step), rows)
        return [(image, row.captions) for image, row in zip(pixels, built, strict=True)]

    def room(self) -> TokenBudget | None:
        """Return how much of a caption the model reads, None where its tokenizer cannot tell."""
        return self.tokens.room() if self.tokens.measures() else None

    def _rows(self, plan: BatchPlan, count: int) -> tuple[np.ndarray, list[_Row]]:
        """Return the images, uint8 [count, S, S, 3], and the rest of a plan's first rows."""
        size = self.preprocess.size
        pixels = np.empty((min(count, len(plan.rows)), size, size, 3), dtype=np.uint8)
        rows = [self._row(plan, row, out) for row, out in zip(plan.rows, pixels, strict=False)]
        return pixels, rows

    def _row(self, plan: BatchPlan, row: BatchRow, out: np.ndarray) -> _Row:
        """Build one row and write its image into `out`."""
        landscape = self.sampler.landscape[plan.kind]
        required = None if plan.kind == "single" else row.orientation == "landscape"
        loaded: list[_Loaded] = []
        faults: list[Fault] = []
        for place, index in enumerate(row.indices):
            taken = {*row.indices, *(part.number for part in loaded)}
            others = substitutes(landscape, required, taken, self.seed, plan.step, row.slot, place)
            found, broken = first_usable(partial(self._load, plan.kind, row), index, others)
            loaded.append(found)
            faults += broken
        places: list[Place] = []
        if plan.kind == "single":
            out[:] = loaded[0].pixels
        else:
            places = self._compose(plan, row, [part.pixels for part in loaded], out)
        samples = [part.sample for part in loaded]
        rng = generator(self.seed, "captions", plan.step, row.slot)
        return _Row(samples, self.captioner.make(plan.kind, samples, rng, places), faults)

    def _compose(
        self, plan: BatchPlan, row: BatchRow, pixels: Sequence[np.ndarray], out: np.ndarray
    ) -> list[Place]:
        """Join the images of a row in random order; return where each of them lies."""
        compose, size = self.compose, self.preprocess.size
        order = generator(self.seed, "order", plan.step, row.slot).permutation(len(pixels))
        shuffled = [pixels[i] for i in order]
        images.compose(
            shuffled, compose.layout, row.orientation, size, compose.fit, self.decode, out
        )
        cells = images.cells(compose.layout, row.orientation, size)
        return [cells[cell][:2] for cell in np.argsort(order)]

    def _load(self, kind: Kind, row: BatchRow, index: int) -> _Loaded:
        """Read and decode a sample; raises `DataError` where any part of it is broken."""
        sample = self.sources[kind].read(index)
        check_captions(sample)
        size, preprocess, compose = self.preprocess.size, self.preprocess, self.compose
        least = (size, size)
        if kind == "composite":
            least = images.largest_cell(compose.layout, row.orientation, size, compose.fit)
        try:
            pixels = images.decode(sample.image, self.decode, least)
            if kind == "single":
                pixels = images.single(
                    pixels, size, preprocess.resize_mode, preprocess.interpolation, self.decode
                )
        except DataError as error:
            raise DataError(f"sample {sample.key!r}: {error}") from error
        return _Loaded(index, sample, pixels)

    def _negatives(
        self, kind: Kind, rows: Sequence[_Row], positives: torch.Tensor
    ) -> tuple[torch.Tensor | None, int, torch.Tensor | None]:
        """Return the token ids of the negatives, how many are cut, and which of them count."""
        if not self.captioner.negative_kinds(kind):
            return None, 0, None
        slots = [row.captions.negatives for row in rows]
        made = torch.tensor([[negative is not None for negative in row] for row in slots])
        texts = [tuple(negative.text if negative else "" for negative in row) for row in slots]
        ids, cut = self._tokens(texts)
        # Cut to the context, a false caption may be equal to a true one.
        same = (ids.unsqueeze(2) == positives.unsqueeze(1)).all(-1).any(-1)
        return ids, cut, made & ~same

    def _tokens(self, texts: Sequence[tuple[str, ...]]) -> tuple[torch.Tensor, int]:
        flat, cut = self.tokens([text for row in texts for text in row])
        return flat.view(len(texts), len(texts[0]), -1), cut
