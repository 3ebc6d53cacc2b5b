"""`clic-data caption`: captions for the images of shards, by a captioning model."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from clic.cli.common import DataCommand, Parser, check_least
from clic.io.terminal import progress_bar

if TYPE_CHECKING:
    from clic.data.tools.image_captioning import Captioned

PROBLEM = 1
MODEL = "Salesforce/blip-image-captioning-base"


def _arguments(parser: Parser) -> None:
    add = parser.add_argument
    add("shards", metavar="SHARDS", nargs="+", help="folders, brace patterns or tars")
    add("--model", metavar="M", default=MODEL, help=f"of transformers ({MODEL})")
    add("--batch-size", metavar="N", type=int, default=32, help="images at a time (32)")
    add("--max-tokens", metavar="N", type=int, default=40, help="tokens of a caption (40)")
    add("--beams", metavar="N", type=int, default=3, help="beams of the search (3)")
    add("--device", metavar="D", default="auto", help="auto, cpu, cuda or cuda:N (auto)")
    add("--force", action="store_true", help="also where this model's caption is there already")
    add("--ray", metavar="ADDRESS", help="use a Ray cluster: auto, HOST:PORT or local")


def caption(flags: argparse.Namespace, words: Sequence[str]) -> int:
    """Caption the images of shards with a captioning model.

    The new caption becomes the sample's caption, those that were there are kept as
    own_captions in its JSON. Images without any caption get one, too. Each tar is
    replaced as a whole, together with its index, and samples that have this model's
    caption are left as they are, so the same command continues where it was
    stopped. Ends with 1 if a tar could not be captioned.
    """
    check_least(1, batch_size=flags.batch_size, max_tokens=flags.max_tokens, beams=flags.beams)
    from clic.data.shards.locating import find_shards
    from clic.data.tools.image_captioning import Captioning, caption_on_ray, caption_shards

    how = Captioning(
        flags.model, flags.batch_size, flags.max_tokens, flags.beams, flags.device, flags.force
    )
    shards = find_shards(flags.shards, "SHARDS")
    sizes = {str(shard.resolve()): shard.stat().st_size for shard in shards}
    parts: list[Captioned] = []
    with progress_bar("caption", sum(sizes.values()), in_bytes=True) as advance:
        if flags.ray is None:
            parts += caption_shards(shards, how, advance)
        else:
            for part in caption_on_ray(shards, how, flags.ray):
                parts.append(part)
                advance(sizes[part.shard])
    return _report(parts)


def _report(parts: Sequence[Captioned]) -> int:
    tars = "1 tar" if len(parts) == 1 else f"{len(parts):,} tars"
    made, kept = sum(part.captioned for part in parts), sum(part.kept for part in parts)
    print(f"{tars}: {made:,} images captioned, {kept:,} were already")
    if broken := sum(part.broken for part in parts):
        print(f"  {broken:,} samples cannot be read and are left unchanged (see clic-data verify)")
    problems = [part.problem for part in parts if part.problem is not None]
    for problem in problems:
        print(f"  left as it was: {' '.join(problem.split())}")
    return PROBLEM if problems else 0


CAPTION = DataCommand(
    caption,
    _arguments,
    ("clic-data caption /data/mine", "clic-data caption /data/mine --ray auto"),
)
