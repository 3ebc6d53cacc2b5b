"""The card of a row that a model got wrong: its images, its captions and the margin."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from PIL import Image

from clic.evaluation.encode.image_sources import ImageSource, image_path, image_pixels

SIDE = 224  # pixels of a picture's longer side
QUALITY = 80


@dataclass(frozen=True)
class Picture:
    """An image of a card.

    Attributes:
        label: Its role in the comparison.
        name: Its file, or number.
        uri: The image as a data URI, None if there is none.
    """

    label: str
    name: str
    uri: str | None = None


@dataclass(frozen=True)
class Text:
    """A caption or class of a card.

    Attributes:
        text: The caption.
        is_true: Whether it is the right one.
        scores: Its cosine with each image, or the scores that were compared.
    """

    text: str
    is_true: bool
    scores: tuple[float, ...] = ()


@dataclass(frozen=True)
class OtherRow:
    """Another row about an image of a card.

    Attributes:
        category: Its category or task.
        right: Whether the model gets it right.
        text: Its true captions, or its class.
    """

    category: str
    right: bool
    text: str


@dataclass(frozen=True)
class Failure:
    """A row that a model got wrong.

    Attributes:
        category: Category, task or direction.
        verdict: What went wrong, and by how much.
        pictures: Its images.
        texts: Its captions.
        outcomes: Whether the row is right, by metric.
        number: The row's number in its benchmark.
        others: Other rows about its images, as many as are shown.
        more: How many there are beyond these.
    """

    category: str
    verdict: str
    pictures: tuple[Picture, ...]
    texts: tuple[Text, ...]
    outcomes: dict[str, bool] = field(default_factory=dict)
    number: int = 0
    others: tuple[OtherRow, ...] = ()
    more: int = 0

    def with_images(self, images: Sequence[ImageSource]) -> Failure:
        """Return the card with its pictures made from the first of these images."""
        drawn = zip(self.pictures, images, strict=False)
        return replace(self, pictures=tuple(replace(p, uri=data_uri(i)) for p, i in drawn))


def data_uri(image: ImageSource) -> str:
    """Return a small copy of an image: JPEG for a photograph, PNG for a drawing."""
    picture = Image.fromarray(image_pixels(image))
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    file, kind = io.BytesIO(), "png" if image_path(image) is None else "jpeg"
    picture.save(file, kind.upper(), **({"quality": QUALITY} if kind == "jpeg" else {}))
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def lost_by(margin: float) -> str:
    """Return the end of a sentence that states by how much a comparison was lost."""
    return f", by {-margin:.3f}" if margin < -0.0005 else ", by a hair" if margin else ", in a tie"
