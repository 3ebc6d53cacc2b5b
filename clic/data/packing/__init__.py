"""Any source of images and captions, packed into WebDataset shards."""

from clic.data.packing.pack_plan import Options
from clic.data.packing.packer import PackOutcome, Progress, pack_source
from clic.data.packing.readers import FORMATS, FormatReader, Request, open_source
from clic.data.packing.shard_writer import pack

__all__ = [
    "FORMATS",
    "FormatReader",
    "Options",
    "PackOutcome",
    "Progress",
    "Request",
    "open_source",
    "pack",
    "pack_source",
]
