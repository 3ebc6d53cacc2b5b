"""Packs images and captions from any source into WebDataset shards.

In: a source (a table, a JSON list, a folder, tars, a dataset). Out: tars, each with its index, and
the list of rejected items. Read `readers` and `items` first, then `image_bytes`, `shard_writer`
and `packer`.
"""

from clic.data.packing.packer import PackOutcome, pack_source
from clic.data.packing.readers import FORMATS, FormatReader, Request, open_source
from clic.data.packing.shard_writer import Options, pack

__all__ = [
    "FORMATS",
    "FormatReader",
    "Options",
    "PackOutcome",
    "Request",
    "open_source",
    "pack",
    "pack_source",
]
