"""From the settings to the stream of batches, from any step on and with any number of workers."""

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

from clic.config.train_settings import Config
from clic.data.batches.builder import BatchBuilder
from clic.data.batches.captioner import Captioner, CaptionTokenizer, uses_tags
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

    def shards(setting: str, value: Any) -> ShardSource:
        return ShardSource(value, setting, data.cache_dir, data.cache_gb, negatives, tagged)

    captions = config.captions
    negatives = captions.single_negative == "stored"
    # False captions are made from a sample's first caption: no other caption's tags are needed.
    tagged = int(captions.tagger == "stored" and any(uses_tags(captions, kind) for kind in KINDS))
    main: SampleSource
    if data.mix:
        entries: Sequence[Mapping[str, Any]] = data.mix
        sources = [
            shards(f"data.mix[{number}].shards", entry["shards"])
            for number, entry in enumerate(entries)
        ]
        main = MixedSource(sources, [float(entry.get("weight", 1.0)) for entry in entries])
    else:
        main = shards("data.shards", data.shards)
    if data.single_shards:
        return {"composite": main, "single": shards("data.single_shards", data.single_shards)}
    return dict.fromkeys(KINDS, main)


def make_sampler(
    config: Config, sources: Mapping[Kind, SampleSource], rank: int, world_size: int
) -> Sampler:
    """Return what plans this rank's batch of any step.

    Raises:
        DataError: There is too little data for one batch, or the neighbours are of other shards.
    """
    sampling = config.sampling
    landscape: dict[int, np.ndarray] = {}  # kinds that share a source share its array
    for source in sources.values():
        if id(source) not in landscape:
            landscape[id(source)] = source.landscape(sampling.square, config.seed)
    neighbours = None
    if sampling.hard_images is not None:
        neighbours = read_neighbours(Path(sampling.hard_images).expanduser(), sources["single"])
    return Sampler(
        {kind: landscape[id(source)] for kind, source in sources.items()},
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
    """Item t is the batch of step t, so that workers share no state.

    The user's mistakes are returned as items: torch would bury them in a worker's traceback.
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
        sampler: Made by `make_sampler` from the same settings, if there is one already.

    Raises:
        ConfigError: The samples lack the tags or false captions that the settings need.
        DataError: There is too little data for one batch.
    """
    if sampler is None:
        sampler = make_sampler(config, sources, rank, world_size)
    tokens = CaptionTokenizer(clip.tokenizer)
    # Pairs' captions that exceed the context are cut, as in the papers; composites of more images,
    # which the papers do not have, leave images out of a caption instead.
    room = tokens.room() if images_of(config.compose.layout) > 2 else None
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
        start: First step: resuming needs nothing else.
        stop: Step before which to end.
        workers: Processes; 0 builds batches in this one, None uses up to 4 if there are as many
            cores. The batches do not depend on it.
        pin_memory: Put tensors into page-locked memory, for copies to a GPU.

    Raises:
        DataError: Too much of the data is broken, or a worker was killed.
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
    """Yield the loader's items; a killed worker ends them with a one-line error."""
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
    # Objects that exist by now live on: scanning them for garbage takes some percent of the time,
    # and copies the memory that a forked worker shares with its parent.
    gc.freeze()


def _end_with_parent() -> None:
    """End this process when its parent, and nobody else, sends SIGTERM."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
