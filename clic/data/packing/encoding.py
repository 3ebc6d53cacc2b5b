"""An image as it is stored: shrunk and encoded anew, or its bytes as they are."""

from __future__ import annotations

import io

from PIL import Image

from clic import images
from clic.data.packing.items import RejectedError
from clic.errors import DataError

# MPO is what cameras call a JPEG with a second picture behind it.
ENDINGS = {
    "JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "BMP": "bmp",
    "TIFF": "tif",
}  # fmt: skip
"""The types of image that shards may hold, by PIL's name."""
INTERPOLATION = Image.Resampling.BICUBIC
JPEG_SIDE = 65_500
"""Pixels that libjpeg lets a side have."""


def kind_of(data: bytes) -> str:
    """Return PIL's name of an image's type, empty where it is none."""
    try:
        return images.open_image(data).format or ""
    except DataError:
        return ""


def encode(
    data: bytes, resize_short: int | None, quality: int | None
) -> tuple[str, bytes, int, int]:
    """Return the file ending, the bytes, width and height of an image as it is stored.

    Every image is decoded to its last pixel, so that a broken one is found here and not in a run.

    Args:
        data: The encoded image.
        resize_short: Shorter side in pixels that a larger image is shrunk to, by PIL's bicubic
            filter; smaller ones keep their size. None keeps the bytes as they are.
        quality: Of the JPEG. An upright RGB JPEG that is small enough keeps its bytes all the
            same, since encoding it again would only lose.

    Raises:
        RejectedError: The bytes are no image, a broken one, or of a type that shards do not hold.
    """
    try:
        width, height = images.dimensions(data)
        pixels = images.decode(data)
    except DataError as error:
        raise RejectedError(str(error)) from error
    kind = kind_of(data)
    if resize_short is None or quality is None:
        if kind not in ENDINGS:
            raise RejectedError(f"shards hold no images of type {kind}; leave out --keep-original")
        return ENDINGS[kind], data, width, height
    if min(width, height) <= resize_short and _is_plain_jpeg(data):
        return "jpg", data, width, height
    picture = Image.fromarray(pixels)
    if min(width, height) > resize_short:
        scale = resize_short / min(width, height)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        picture = picture.resize(size, INTERPOLATION)
    if max(picture.size) > JPEG_SIDE:
        raise RejectedError(
            f"no JPEG can be {picture.width} x {picture.height} pixels large; cut the image up, "
            "or say --keep-original"
        )
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=quality)
    return "jpg", buffer.getvalue(), picture.width, picture.height


def _is_plain_jpeg(data: bytes) -> bool:
    image = images.open_image(data)
    try:
        return image.format == "JPEG" and image.mode == "RGB" and not image.getexif()
    except Exception:  # noqa: BLE001, on broken metadata PIL raises whatever it likes
        return False
