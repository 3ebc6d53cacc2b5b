"""Generates captions for images in existing shards: CLoVe's first step, for your own images."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from clic import images
from clic.data.shards.index import index_path, is_indexed, write_index
from clic.data.shards.records import TAG_KEYS, captions_of, parse_record
from clic.data.shards.tar import IMAGE_TYPES, NOTHING, read_span, walk
from clic.data.tools.annotating import claimed, on_ray, rewrite
from clic.distributed import choose_device
from clic.errors import ConfigError, DataError, ModelError
from clic.io.processes import Ticker

BLIP = "Salesforce/blip-image-captioning-base"
OWN_CAPTIONS, CAPTIONED_BY = "own_captions", "captioned_by"
STALE = ("caption", *TAG_KEYS, "negatives")
"""Entries of a sample's JSON about its earlier captions, which the new one makes obsolete."""


@dataclass(frozen=True)
class Captioning:
    """How captions are made.

    Attributes:
        model: A captioning model of transformers, as a repository of the hub or a folder.
        batch_size: Images at a time.
        max_tokens: Maximum number of tokens of a caption.
        beams: Beams of the beam search; 1 is greedy decoding.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        force: Also caption images that already have this model's caption.
    """

    model: str = BLIP
    batch_size: int = 32
    max_tokens: int = 40
    beams: int = 3
    device: str = "auto"
    force: bool = False


@dataclass(frozen=True)
class Captioned:
    """Result of captioning a shard; the numbers count samples."""

    shard: str
    captioned: int = 0
    kept: int = 0  # that already had this model's caption
    broken: int = 0  # whose image or JSON cannot be read; they stay as they are
    problem: str | None = None  # why the whole shard was left as it is


class ImageCaptioner:
    """Captions images with a model of transformers.

    Raises:
        ConfigError: transformers is not installed.
        ModelError: There is no such model, or it does not caption images.
    """

    def __init__(self, how: Captioning) -> None:
        try:
            import transformers
        except ImportError as error:
            raise ConfigError(
                "captions need the package transformers; pip install 'clic[caption]' (in a "
                "checkout: pip install -e '.[caption]')"
            ) from error
        self.how, self.device = how, choose_device(how.device)
        loader = transformers.AutoModelForImageTextToText
        try:
            self.processor = transformers.AutoProcessor.from_pretrained(
                how.model, trust_remote_code=False
            )
            self.model = loader.from_pretrained(how.model, trust_remote_code=False)
        except (OSError, ValueError, KeyError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ModelError(
                f"--model {how.model} is no captioning model of transformers on the hub, in its "
                f"cache or in a folder ({reason})"
            ) from error
        self.model.eval().to(self.device)

    def __call__(self, pixels: Sequence[Any]) -> list[str]:
        """Return a caption for each image, uint8 [H, W, 3]; the same for the same images."""
        import torch

        inputs = self.processor(images=list(pixels), return_tensors="pt").to(self.device)
        with torch.inference_mode():
            tokens = self.model.generate(
                **inputs,
                max_new_tokens=self.how.max_tokens,
                num_beams=self.how.beams,
                do_sample=False,
            )
        return [text.strip() for text in self.processor.batch_decode(tokens, True)]


_captioner = lru_cache(maxsize=1)(ImageCaptioner)


def caption_shards(
    shards: Sequence[Path], how: Captioning, progress: Callable[[int], None]
) -> Iterator[Captioned]:
    """Caption the images of shards on this machine; yield each shard's result.

    Args:
        shards: The tars; each is replaced as a whole, together with its index.
        how: The model and its settings.
        progress: Called with the bytes processed since the last call.

    Raises:
        ConfigError: transformers is not installed.
        ModelError: There is no such model.
    """
    _captioner(how)  # fails before the first shard is opened
    for shard in shards:
        yield caption_shard(how, shard, Ticker(progress))


def caption_on_ray(shards: Sequence[Path], how: Captioning, address: str) -> Iterator[Captioned]:
    """Caption the images of shards on a Ray cluster, with a GPU for each task if it has any.

    See `clic.data.tools.annotating.on_ray` for the address, the device and the errors.
    """
    yield from on_ray(_caption_remote, (how,), shards, address, how.device)


def _caption_remote(how: Captioning, shard: str) -> Captioned:
    return caption_shard(how, Path(shard), Ticker(lambda samples: None))


def caption_shard(how: Captioning, shard: Path, tick: Ticker) -> Captioned:
    """Caption the images of one shard, and index it; `tick` counts the bytes processed."""
    try:
        with claimed(shard) as temporary, open(shard, "rb") as file:
            changed, kept, broken = _read(file, shard, how, tick)
            if changed:
                rewrite(file, temporary, changed)
                new_index = write_index(temporary, temporary.with_suffix(".index"))
                os.chmod(temporary, shard.stat().st_mode)
                # A kill from here on leaves a tar without an index, never with an outdated one.
                index_path(shard).unlink(missing_ok=True)
                os.replace(temporary, shard)
                os.replace(new_index, index_path(shard))
            elif not is_indexed(shard):
                write_index(shard)
    except (DataError, OSError) as error:
        return Captioned(str(shard), problem=str(error))
    return Captioned(str(shard), len(changed), kept, broken)


def _read(
    file: BinaryIO, shard: Path, how: Captioning, tick: Ticker
) -> tuple[dict[int, tuple[str, bytes]], int, int]:
    """Return the new JSONs, in `rewrite`'s form, and how many samples are kept and broken."""
    changed: dict[int, tuple[str, bytes]] = {}
    waiting: list[tuple[Any, int, str, dict[str, Any], list[str]]] = []
    kept = broken = 0

    def flush() -> None:
        if waiting:
            made = _captioner(how)([each[0] for each in waiting])
            for caption, (_, at, name, record, own) in zip(made, waiting, strict=True):
                changed[at] = (name, _record(record, own, caption, how.model))
            waiting.clear()

    for key, members in walk(file, shard):
        tick(sum(span.length for span in members.values()))
        meta, text = members.get(".json", NOTHING), members.get(".txt", NOTHING)
        image = next((members[kind] for kind in IMAGE_TYPES if kind in members), None)
        if image is None:
            continue
        try:
            record = parse_record(read_span(file, meta, shard)) if meta.length else {}
            if not how.force and record.get(CAPTIONED_BY) == how.model:
                kept += 1
                continue
            written = read_span(file, text, shard) if text.length else b""
            own = record.get(OWN_CAPTIONS)
            own = own if isinstance(own, list) else list(captions_of(record, written))
            pixels = images.decode(read_span(file, image, shard))
        except DataError:
            broken += 1
            continue
        at, name = (meta.offset, "") if meta.length else (image.offset, f"{key}.json")
        waiting.append((pixels, at, name, record, own))
        if len(waiting) == how.batch_size:
            flush()
    flush()
    return changed, kept, broken


def _record(record: dict[str, Any], own: list[str], caption: str, model: str) -> bytes:
    """Return a sample's JSON with its new caption; the earlier ones are kept beside it."""
    rest = {name: value for name, value in record.items() if name not in STALE}
    if negatives := record.get("negatives"):
        rest["own_negatives"] = negatives
    new = {"captions": [caption], OWN_CAPTIONS: own, CAPTIONED_BY: model}
    return json.dumps(rest | new).encode()
