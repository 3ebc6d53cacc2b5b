"""Turns step plans into batches, and streams them from any step on, with any number of workers.

Each image that a batch needs, and no other, is read and decoded once.
"""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from clic import images
from clic.captions.composites import Place, TokenBudget
from clic.captions.text import is_foreign
from clic.config.train_settings import ComposeConfig
from clic.data.batches.captioner import (
    Captioner,
    CaptionTokenizer,
    check_captions,
)
from clic.data.batches.faults import first_usable, substitutes
from clic.data.sampling.sample_sources import SampleSource
from clic.data.sampling.sampler import BatchPlan, BatchRow, Sampler
from clic.errors import ClicError, DataError
from clic.images import Orientation
from clic.io.processes import usable_cores
from clic.models import Preprocess
from clic.seeding import generator
from clic.types import Batch, Fault, Kind, RowCaptions, Sample, Tally

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
EXAMPLES = 4
"""Number of rows of a batch whose captions are kept as texts."""


# --- one batch ---


class LoadedSample(NamedTuple):
    """A sample, its number and its pixels, at the model's size if its row is one image."""

    number: int
    sample: Sample
    pixels: np.ndarray


class _Row(NamedTuple):
    """A row of a batch: its samples in order, its captions and the faults met in loading it."""

    samples: list[Sample]
    captions: RowCaptions
    faults: list[Fault]


@dataclass(eq=False)
class BatchBuilder:
    """Turns the sampler's plans into batches.

    Attributes:
        sources: The source of each kind's samples.
        sampler: Plans each step.
        captioner: Makes the captions.
        tokens: Turns captions into token ids.
        preprocess: What the vision tower expects.
        compose: The settings group `compose`.
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
        composite = self.joins(plan.kind)
        pixels, rows = self._rows(plan, len(plan.rows))
        captions = [row.captions for row in rows]
        positives, cut = self._tokens([row.positives for row in captions])
        negatives, cut_negatives, mask = self._negatives(plan.kind, captions, positives)
        imagenet = composite and self.compose.statistics == "imagenet"
        faults = tuple(fault for row in rows for fault in row.faults)
        without = [] if mask is None else (~mask.any(1)).nonzero().flatten().tolist()
        true = positives[..., 0].numel()
        # Negatives that are masked because the context cut them still count as captions.
        false = sum(negative is not None for row in captions for negative in row.negatives)
        tally = Tally(
            samples=sum(len(row.samples) for row in rows) + len(faults),
            broken=len(faults),
            captions=true + false,
            cut=cut + cut_negatives,
            no_negative=len(without),
            retagged=sum(row.retagged for row in captions),
            joined=true if composite else 0,
            shortened=sum(row.shortened for row in captions),
            foreign=sum(is_foreign(captions[number].positives[0]) for number in without),
        )
        return Batch(
            images=torch.from_numpy(pixels),
            mean=IMAGENET_MEAN if imagenet else self.preprocess.mean,
            std=IMAGENET_STD if imagenet else self.preprocess.std,
            positives=positives,
            negatives=negatives,
            negative_mask=mask,
            negative_kinds=self.captioner.negative_kinds[plan.kind],
            kind=plan.kind,
            step=plan.step,
            keys=[tuple(sample.key for sample in row.samples) for row in rows],
            tally=tally,
            faults=faults,
            examples=tuple(captions[:EXAMPLES]),
        )

    def preview(self, step: int, rows: int) -> list[tuple[np.ndarray, RowCaptions]]:
        """Return the image, uint8 [S, S, 3], and the captions of a step's first rows."""
        pixels, built = self._rows(self.sampler.plan(step), rows)
        return [(image, row.captions) for image, row in zip(pixels, built, strict=True)]

    def joins(self, kind: Kind) -> bool:
        """Return whether a row of a kind is several images on one canvas."""
        return kind == "composite" and images.images_of(self.compose.layout) > 1

    def resume(self, total: Tally) -> str:
        """Continue after the samples of `total`; return what the user should know about that.

        A step's batch does not depend on earlier steps, so there is nothing to do.
        """
        return ""

    def token_budget(self) -> TokenBudget | None:
        """Return how much of a caption the model reads, or None if that cannot be measured."""
        return self.tokens.budget() if self.tokens.measures() else None

    def _rows(self, plan: BatchPlan, count: int) -> tuple[np.ndarray, list[_Row]]:
        """Return the images, uint8 [count, S, S, 3], and the rest of a plan's first rows."""
        size = self.preprocess.size
        pixels = np.empty((min(count, len(plan.rows)), size, size, 3), dtype=np.uint8)
        rows = [self._row(plan, row, out) for row, out in zip(plan.rows, pixels, strict=False)]
        return pixels, rows

    def _row(self, plan: BatchPlan, row: BatchRow, out: np.ndarray) -> _Row:
        """Build one row and write its image into `out`."""
        orientation, loaded, faults = self._draw(plan, row)
        places: list[Place] = []
        if self.joins(plan.kind):
            pixels = [part.pixels for part in loaded]
            places = self._compose(plan, row.slot, orientation, pixels, out)
        else:
            out[:] = loaded[0].pixels
        samples = [part.sample for part in loaded]
        rng = generator(self.seed, "captions", plan.step, row.slot)
        return _Row(samples, self.captioner.make(plan.kind, samples, rng, places), faults)

    def _draw(
        self, plan: BatchPlan, row: BatchRow
    ) -> tuple[Orientation, list[LoadedSample], list[Fault]]:
        """Return the orientation of a row, its samples with their pixels, and its faults."""
        landscape = self.sampler.landscape[plan.kind]
        required = bool(landscape[row.indices[0]]) if self.joins(plan.kind) else None
        loaded: list[LoadedSample] = []
        faults: list[Fault] = []
        for place, index in enumerate(row.indices):
            taken = {*row.indices, *(part.number for part in loaded)}
            others = substitutes(landscape, required, taken, self.seed, plan.step, row.slot, place)
            load = partial(self._load, plan.kind, row.orientation)
            found, broken = first_usable(load, index, others)
            loaded.append(found)
            faults += broken
        return row.orientation, loaded, faults

    def _compose(
        self,
        plan: BatchPlan,
        slot: int,
        orientation: Orientation,
        pixels: Sequence[np.ndarray],
        out: np.ndarray,
    ) -> list[Place]:
        """Join the images of a row in random order; return the place of each."""
        layout, fit, size = self.compose.layout, self.compose.fit, self.preprocess.size
        order = generator(self.seed, "order", plan.step, slot).permutation(len(pixels))
        shuffled = [pixels[i] for i in order]
        images.compose(shuffled, layout, orientation, size, fit, self.decode, out)
        cells = images.cells(layout, orientation, size)
        return [cells[cell][:2] for cell in np.argsort(order)]

    def _load(self, kind: Kind, orientation: Orientation, index: int) -> LoadedSample:
        """Read and decode a sample; raises `DataError` if any part of it is broken."""
        return self.decoded(kind, orientation, index, self.sources[kind].read(index))

    def decoded(
        self, kind: Kind, orientation: Orientation, number: int, sample: Sample
    ) -> LoadedSample:
        """Return a sample with its pixels; raises `DataError` if any part of it is broken."""
        check_captions(sample)
        model, compose = self.preprocess, self.compose
        least, joins = (model.size, model.size), self.joins(kind)
        if joins:
            least = images.largest_cell(compose.layout, orientation, model.size, compose.fit)
        try:
            pixels = images.decode(sample.image, self.decode, least)
            if not joins:
                pixels = images.single(
                    pixels, model.size, model.resize_mode, model.interpolation, self.decode
                )
        except DataError as error:
            raise DataError(f"sample {sample.key!r}: {error}") from error
        return LoadedSample(number, sample, pixels)

    def _negatives(
        self, kind: Kind, captions: Sequence[RowCaptions], positives: torch.Tensor
    ) -> tuple[torch.Tensor | None, int, torch.Tensor | None]:
        """Return the token ids of the negatives, how many are cut, and which of them count."""
        if not self.captioner.negative_kinds[kind]:
            return None, 0, None
        slots = [row.negatives for row in captions]
        made = torch.tensor([[negative is not None for negative in row] for row in slots])
        texts = [tuple(negative.text if negative else "" for negative in row) for row in slots]
        ids, cut = self._tokens(texts)
        # A false caption that is cut to the context may equal a true one.
        same = (ids.unsqueeze(2) == positives.unsqueeze(1)).all(-1).any(-1)
        return ids, cut, made & ~same

    def _tokens(self, texts: Sequence[tuple[str, ...]]) -> tuple[torch.Tensor, int]:
        flat, cut = self.tokens([text for row in texts for text in row])
        return flat.view(len(texts), len(texts[0]), -1), cut


# --- the stream of batches ---


Plan = Callable[[Batch], Batch]
"""A function applied to each batch once it is built, such as `clic.models.TextPlanner`."""


def as_built(batch: Batch) -> Batch:
    """Return the batch as it is."""
    return batch


class _Steps(Dataset[Batch | ClicError]):
    """Item t is the batch of step t, so that workers share no state.

    Errors meant for the user are returned as items: torch would bury them in a worker's traceback.
    """

    def __init__(self, builder: BatchBuilder, plan: Plan) -> None:
        self.builder, self.plan = builder, plan

    def __getitem__(self, step: int) -> Batch | ClicError:
        try:
            return self.plan(self.builder.build(step))
        except ClicError as error:
            return error


def make_loader(
    builder: BatchBuilder,
    start: int,
    stop: int,
    workers: int | None,
    pin_memory: bool,
    plan: Plan = as_built,
) -> Iterator[Batch]:
    """Yield the batches of steps `start` to `stop` - 1, in order; resuming needs no other state.

    Args:
        builder: Builds any step's batch.
        start: First step.
        stop: One past the last step.
        workers: Processes; 0 builds batches in this one, None uses up to 4 if there are enough
            cores. The batches do not depend on it.
        pin_memory: Put tensors into page-locked memory, for copies to a GPU.
        plan: Called with each batch in the process that built it; must be picklable.

    Raises:
        DataError: Too much of the data is broken, or a worker was killed.
    """
    if workers is None:
        local_ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        workers = min(4, max(0, usable_cores() // local_ranks - 1))
    loader = DataLoader(
        _Steps(builder, plan),
        batch_size=None,
        sampler=range(start, stop),
        num_workers=workers,
        pin_memory=pin_memory,
        prefetch_factor=2 if workers else None,
        worker_init_fn=_start_worker,
    )
    for item in _watched(loader):
        if isinstance(item, ClicError):
            raise item
        yield item


def _watched(loader: DataLoader[Batch | ClicError]) -> Iterator[Batch | ClicError]:
    """Yield the loader's items; if a worker was killed, raise a one-line error."""
    items = iter(loader)
    while True:
        try:
            item = next(items)
        except StopIteration:
            return
        except RuntimeError as error:
            if not str(error).startswith("DataLoader worker"):
                raise
            reason = str(error).splitlines()[0].rstrip(". ")
            raise DataError(
                f"a loader worker was killed ({reason}), maybe because memory ran out; continue "
                "with fewer data.workers or a smaller train.batch_size"
            ) from error
        yield item


def _start_worker(worker: int) -> None:
    """Ignore the signals that terminals, torchrun and Slurm send to the whole process group.

    The training process handles them, and finishes its step first.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_with_parent, daemon=True).start()
    # Objects that exist by now are never freed: scanning them for garbage takes a few percent of
    # the time, and copies the memory that a forked worker shares with its parent.
    gc.freeze()


def _end_with_parent() -> None:
    """End this process when its parent, and no other process, sends SIGTERM."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
