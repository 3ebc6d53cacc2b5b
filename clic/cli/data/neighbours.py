"""Find each image's nearest images, for sampling.hard_images.

Every image goes through the model once; then all pairs are compared, a block
at a time. The same command continues a call that was stopped.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from clic.cli.parser import Parser, check_least
from clic.errors import DataError
from clic.io.files import writing

EXAMPLES = ("clic-data neighbours /data/coco --model ViT-B-32:openai",)


def add_arguments(parser: Parser) -> None:
    """Add this command's arguments."""
    add = parser.add_argument
    add("shards", nargs="+", help="folders, brace patterns or files")
    add("--model", default="ViT-B-32:openai", help="as clic-eval takes it (ViT-B-32:openai)")
    add("--k", type=int, default=3, help="neighbours of each image (3, as NegCLIP)")
    add("--out", type=Path, help="file to write (default: neighbours-MODEL beside the shards)")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N (auto)")
    add("--precision", default="fp32", choices=("fp32", "bf16", "fp16"), help="fp32")
    add("--batch-size", type=int, default=128, help="images at a time (128)")
    add("--workers", type=int, default=2, help="threads that decode images (2)")


def run(flags: argparse.Namespace, words: Sequence[str]) -> None:
    """Write the neighbours."""
    import numpy as np
    import torch

    from clic.data.shards.shard_source import ShardSource
    from clic.data.tools.nearest import FeatureFile, encode_source, nearest, write_neighbours
    from clic.io.terminal import progress_bar
    from clic.models import encoder

    check_least(1, k=flags.k, batch_size=flags.batch_size, workers=flags.workers)
    source = ShardSource(flags.shards, "clic-data neighbours")
    if len(source) <= flags.k:
        raise DataError(f"{len(source)} images are too few for --k {flags.k} neighbours of each")
    name = re.sub(r"[^A-Za-z0-9.-]+", "-", flags.model).strip("-")
    out = flags.out or source.paths[0].parent / f"neighbours-{name}"
    model = encoder.load(flags.model, flags.device, flags.precision, flags.batch_size)
    identity = {**model.identity, "precision": flags.precision}
    width = int(model.clip.source.architecture["embed_dim"])

    def encode(pixels: Sequence[np.ndarray]) -> np.ndarray:
        return model.encode_image(pixels).numpy()

    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        path, whose = out.with_name(f".{out.name}.features"), [source.shard_counts(), identity]
        features = FeatureFile(path, (len(source), width), whose)
        if features.done:
            print(f"continuing after {features.done} of {len(source)} images")
        with progress_bar("encode", len(source), done=features.done) as advance:
            encode_source(source, features, encode, flags.batch_size, flags.workers, advance)
        broken = sum(
            int((~features.rows[i : i + 65536].any(axis=1)).sum())
            for i in range(0, len(source), 65536)
        )
        if len(source) - broken <= flags.k:
            features.remove()
            raise DataError(f"only {len(source) - broken} images are whole, too few for --k")
        device = model.device if model.device.type == "cuda" else torch.device("cpu")
        with progress_bar("compare", len(source)) as advance:
            found = nearest(features.rows, flags.k, device, advance)
        write_neighbours(out, source, found, identity)
        features.remove()
    note = f" ({broken} broken images are no image's neighbours; their own are arbitrary)"
    print(f"{out}: {flags.k} neighbours of each of {len(source)} images{note if broken else ''}")
    print(f"  clic-train ... sampling.kinds=single sampling.hard_images={out}")
