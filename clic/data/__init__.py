"""From shards or the embedded world to batches, in an order that one integer resumes."""

from clic.data.batches import BatchBuilder
from clic.data.loader import make_builder, make_loader
from clic.data.packing import pack
from clic.data.sampling import Plan, Row, Sampler
from clic.data.shards import ShardSource, write_index
from clic.data.sources import ShapesSource, Source
from clic.data.wiring import make_sampler, make_sources

__all__ = [
    "BatchBuilder",
    "Plan",
    "Row",
    "Sampler",
    "ShapesSource",
    "ShardSource",
    "Source",
    "make_builder",
    "make_loader",
    "make_sampler",
    "make_sources",
    "pack",
    "write_index",
]
