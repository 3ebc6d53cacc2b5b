"""Any source of images and captions, packed into WebDataset shards."""

from clic.data.packing.packer import Outcome, Progress, pack_source
from clic.data.packing.plan import Options
from clic.data.packing.readers import FORMATS, Reader, Request, open_source
from clic.data.packing.samples import pack

__all__ = [
    "FORMATS",
    "Options",
    "Outcome",
    "Progress",
    "Reader",
    "Request",
    "open_source",
    "pack",
    "pack_source",
]
