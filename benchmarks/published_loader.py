"""The published CLIC code's loader, as benchmarks/data_speed.py times it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from open_clip import get_tokenizer
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torch import Tensor
from torchvision.transforms import functional

from clic.captions.composite_negatives import cross_swap
from clic.captions.composites import composite_positives, sentence_composite
from clic.captions.tagging import make_tagger
from clic.data.batches.loader import IMAGENET_MEAN, IMAGENET_STD

SIZE, POSITIVES = 224, 4
OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)


class Item(NamedTuple):
    """Both samples that the published loader makes from an image."""

    composite: Tensor
    captions: Tensor
    single: Tensor
    caption: Tensor


class Published:
    """The published loader, on files, with our tagger instead of spaCy.

    Args:
        files: JPEGs.
        captions: The sentences of each image.
    """

    def __init__(self, files: Sequence[Path], captions: Sequence[tuple[str, ...]]) -> None:
        self.files, self.captions = files, captions
        self.tokenizer, self.tagger = get_tokenizer("ViT-B-32"), make_tagger("hanta")
        config = PreprocessCfg(size=SIZE, mean=OPENAI_MEAN, std=OPENAI_STD)
        self.transform = image_transform_v2(config, is_train=False)

    def item(
        self, index: int, partners: Iterator[int], order: Sequence[int], rng: np.random.Generator
    ) -> Item:
        """Return an item.

        Args:
            index: The image.
            partners: Images to try as its partner.
            order: Order of the two on the canvas.
            rng: Draws the captions.
        """
        first = Image.open(self.files[index]).convert("RGBA")
        wide = first.width >= first.height
        for partner in partners:
            second = Image.open(self.files[partner])
            if (second.width >= second.height) == wide:
                break
        pair = [first, second.convert("RGBA")]
        cell = (SIZE, SIZE // 2) if wide else (SIZE // 2, SIZE)
        halves = [functional.to_tensor(image.resize(cell, Image.BICUBIC))[:3] for image in pair]  # type: ignore[attr-defined]
        canvas = torch.cat([halves[i] for i in order], dim=1 if wide else 2)
        composite = functional.normalize(canvas, IMAGENET_MEAN, IMAGENET_STD)
        single = self.transform(first.convert("RGB"))
        sentences = [tuple(s.lower() for s in self.captions[i]) for i in (index, partner)]
        positives = composite_positives(sentence_composite(sentences), POSITIVES, rng).texts
        opening = [own[0] for own in sentences]
        negative = cross_swap(opening, [self.tagger(text) for text in opening], rng)
        texts = [*positives, negative.text if negative else ""]
        tokens = torch.cat([self.tokenizer([text]) for text in texts])
        return Item(composite, tokens, single, self.tokenizer([opening[0]]))

    def batch(self, items: Sequence[Item], kind: str) -> tuple[Tensor, Tensor]:
        """Stack everything, then keep the part that the step's parity selects."""
        stacked = [torch.stack(parts) for parts in zip(*items, strict=True)]
        return (stacked[0], stacked[1]) if kind == "composite" else (stacked[2], stacked[3])
