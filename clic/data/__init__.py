"""Turns shards or the embedded world into batches, in an order that a single integer resumes.

In: settings, and images with captions as WebDataset tars. Out: the `Batch` of any step. Read
`shards` (samples on disk), `sampling` (which samples make a batch), and `batches` (pixels and
tokens); `streaming` reads shards that are too many or too far away to be indexed, `packing` makes
shards, and `tools` check and annotate them.
"""

from clic.data.batches.loader import BatchBuilder, make_loader
from clic.data.feeding import make_builder, make_sampler, make_sources
from clic.data.packing import pack
from clic.data.sampling.sample_sources import SampleSource, ShapesSource
from clic.data.sampling.sampler import BatchPlan, BatchRow, Sampler
from clic.data.shards.index import write_index
from clic.data.shards.shard_source import ShardSource

__all__ = [
    "BatchBuilder",
    "BatchPlan",
    "BatchRow",
    "SampleSource",
    "Sampler",
    "ShapesSource",
    "ShardSource",
    "make_builder",
    "make_loader",
    "make_sampler",
    "make_sources",
    "pack",
    "write_index",
]
