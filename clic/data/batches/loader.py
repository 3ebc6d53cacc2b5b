"""The sources and the sampler that the settings name.

The stream of batches from any step on, with any number of worker processes.
"""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset

from clic import images
from clic.config.train_settings import Config, DataConfig
from clic.data.batches.builder import BatchBuilder
from clic.data.batches.caption_tokens import CaptionTokenizer
from clic.data.batches.captioner import Captioner
from clic.data.sampling.sample_sources import MixedSource, SampleSource, ShapesSource
from clic.data.sampling.sampler import Sampler
from clic.data.shards.shard_source import ShardSource
from clic.data.tools.nearest import read_neighbours
from clic.errors import ClicError, DataError
from clic.images import images_of
from clic.io.processes import usable_cores
from clic.models import ClipModel
from clic.types import KINDS, Batch, Kind


def make_sources(config: Config) -> dict[Kind, SampleSource]:
    """Return the source of each kind of step.

    The world gives single-object scenes to composites and two-object scenes to single steps;
    shards serve both kinds, unless `data.single_shards` names others for the single steps.

    Raises:
        DataError: Shards are missing or broken.
    """
    data = config.data
    if data.source == "shapes":
        assert data.split is not None and data.samples is not None  # `validate` saw to that
        return {
            kind: ShapesSource(data.split, objects, data.samples, config.seed)
            for kind, objects in zip(KINDS, (1, 2), strict=True)
        }
    negatives = config.captions.single_negative == "stored"
    main = (
        _mixed(data, negatives)
        if data.mix
        else _shards(data, data.shards, "data.shards", negatives)
    )
    if data.single_shards:
        single = _shards(data, data.single_shards, "data.single_shards", negatives)
        return {"composite": main, "single": single}
    return dict.fromkeys(KINDS, main)


def _shards(data: DataConfig, shards: Any, setting: str, negatives: bool) -> ShardSource:
    return ShardSource(shards, setting, data.cache_dir, data.cache_gb, negatives)


def _mixed(data: DataConfig, negatives: bool) -> SampleSource:
    entries: Sequence[Mapping[str, Any]] = data.mix
    sources = [
        _shards(data, entry["shards"], f"data.mix[{number}].shards", negatives)
        for number, entry in enumerate(entries)
    ]
    return MixedSource(sources, [float(entry.get("weight", 1.0)) for entry in entries])


def make_sampler(
    config: Config, sources: Mapping[Kind, SampleSource], rank: int, world_size: int
) -> Sampler:
    """Return what plans this rank's batch of any step.

    Raises:
        DataError: There is too little data for one batch, or the neighbours are of other shards.
    """
    sampling = config.sampling
    wide: dict[int, np.ndarray] = {}  # kinds that share a source share this too
    for source in sources.values():
        if id(source) not in wide:
            wide[id(source)] = source.landscape(sampling.square, config.seed)
    neighbours = None
    if sampling.hard_images is not None:
        neighbours = read_neighbours(Path(sampling.hard_images).expanduser(), sources["single"])
    return Sampler(
        {kind: wide[id(source)] for kind, source in sources.items()},
        sampling.kinds,
        config.train.batch_size,
        config.seed,
        rank,
        world_size,
        images_of(config.compose.layout),
        partner_self=sampling.partner_self,
        parts={kind: source.parts() for kind, source in sources.items()},
        samples=config.data.samples,
        replacement=sampling.replacement,
        neighbours=neighbours,
    )


class _Steps(Dataset[Batch | ClicError]):
    """Item t is the batch of step t, so workers share the steps without sharing any state.

    The user's mistakes come back as items: torch would bury their line in a worker's traceback.
    """

    def __init__(self, builder: BatchBuilder) -> None:
        self.builder = builder

    def __getitem__(self, step: int) -> Batch | ClicError:
        try:
            return self.builder.build(step)
        except ClicError as error:
            return error


def make_builder(
    config: Config,
    sources: Mapping[Kind, SampleSource],
    clip: ClipModel,
    rank: int = 0,
    world_size: int = 1,
    sampler: Sampler | None = None,
) -> BatchBuilder:
    """Return what builds this rank's batch of any step.

    Args:
        config: All settings.
        sources: Made by `make_sources`.
        clip: For its tokenizer and preprocessing.
        rank: This rank.
        world_size: Number of ranks.
        sampler: Made by `make_sampler` with the same settings, where there is one already.

    Raises:
        ConfigError: The samples carry no tags or no false captions, and the settings ask for them.
        DataError: There is too little data for one batch.
    """
    if sampler is None:
        sampler = make_sampler(config, sources, rank, world_size)
    tokens = CaptionTokenizer(clip.tokenizer)
    # What is too long is cut, as in the papers, but of more images than they join.
    room = tokens.room() if images.images_of(config.compose.layout) > 2 else None
    captioner = Captioner(config.captions, room)
    for kind in sampler.schedule:
        captioner.check(kind, sources[kind])
    return BatchBuilder(
        sources,
        sampler,
        captioner,
        tokens,
        clip.preprocess,
        config.compose,
        config.seed,
        config.data.decode,
    )


def make_loader(
    builder: BatchBuilder, start: int, stop: int, workers: int | None, pin_memory: bool
) -> Iterator[Batch]:
    """Yield the batches of steps `start` to `stop` - 1, in order.

    Args:
        builder: Builds any step's batch.
        start: First step, the one integer that resuming needs.
        stop: Step to end before.
        workers: Processes; 0 builds batches in this one, None takes up to 4 as the cores allow.
            The batches do not depend on it.
        pin_memory: Put tensors into page-locked memory, for copies to a GPU.

    Raises:
        DataError: The data are broken as a whole, or a worker was killed.
    """
    if workers is None:
        local_ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        workers = min(4, max(0, usable_cores() // local_ranks - 1))
    loader = DataLoader(
        _Steps(builder),
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
    """Yield what the loader gives; a worker that was killed ends it in one line."""
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
                f"a loader worker was killed ({reason}), maybe for want of memory; continue with "
                "fewer data.workers or a smaller train.batch_size"
            ) from error
        yield item


def _start_worker(worker: int) -> None:
    """Leave to the training process what terminals, torchrun and Slurm send to all processes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_when_told, daemon=True).start()
    # What is loaded by now stays: looking through it for garbage takes some percent of the time,
    # and copies the memory that a forked worker shares with its parent.
    gc.freeze()


def _end_when_told() -> None:
    """End this process at its parent's SIGTERM; of others', the parent finishes the step first."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
