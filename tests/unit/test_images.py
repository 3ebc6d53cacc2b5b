"""Pixels, against values worked by hand."""

from __future__ import annotations

import io
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clic import images
from clic.errors import ConfigError, DataError


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_rgb_is_exact_and_arrays_pass_through() -> None:
    array = pixels(5, 7)
    assert np.array_equal(images.decode(encoded(Image.fromarray(array))), array)
    assert images.decode(array) is array


def test_transparency_lies_over_white() -> None:
    rgba = np.array([[[200, 0, 0, 255], [200, 0, 0, 0], [0, 0, 0, 51]]], dtype=np.uint8)
    expected = [[200, 0, 0], [255, 255, 255], [204, 204, 204]]
    assert images.decode(encoded(Image.fromarray(rgba)))[0].tolist() == expected
    la = np.array([[[10, 255], [10, 0]]], dtype=np.uint8)
    assert images.decode(encoded(Image.fromarray(la)))[0].tolist() == [[10] * 3, [255] * 3]


def test_palette_with_and_without_transparency() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([1, 2, 3, 40, 50, 60])
    image.putdata([0, 1])
    assert images.decode(encoded(image))[0].tolist() == [[1, 2, 3], [40, 50, 60]]
    see_through = images.decode(encoded(image, transparency=0))
    assert see_through[0].tolist() == [[255, 255, 255], [40, 50, 60]]
    animation = encoded(image, "GIF", save_all=True, append_images=[image.rotate(180)])
    assert images.decode(animation)[0].tolist() == [[1, 2, 3], [40, 50, 60]]


def test_a_transparent_colour_of_rgb_and_grey() -> None:
    image = Image.fromarray(np.array([[[1, 2, 3], [9, 9, 9]]], dtype=np.uint8))
    data = encoded(image, transparency=(1, 2, 3))
    assert images.decode(data)[0].tolist() == [[255, 255, 255], [9, 9, 9]]
    grey = Image.fromarray(np.array([[7, 8]], dtype=np.uint8))
    assert images.decode(encoded(grey, transparency=7))[0].tolist() == [[255] * 3, [8] * 3]


def test_grey_bilevel_and_cmyk() -> None:
    grey = Image.fromarray(np.array([[0, 127, 255]], dtype=np.uint8))
    assert images.decode(encoded(grey))[0].tolist() == [[0] * 3, [127] * 3, [255] * 3]
    assert images.decode(encoded(grey.convert("1", dither=0)))[0, :, 0].tolist() == [0, 0, 255]
    cmyk = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    assert np.abs(images.decode(encoded(cmyk, "JPEG"))[8, 8].astype(int) - [255, 0, 0]).max() <= 3
    assert images.decode(encoded(cmyk, "TIFF"))[0, 0].tolist() == [255, 0, 0]


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    deep = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    for kind in ("PNG", "TIFF"):
        decoded = images.decode(encoded(Image.fromarray(deep), kind))
        assert decoded[0, :, 1].tolist() == [0, 1, 128, 255]
    big_endian = Image.frombytes("I;16B", (4, 1), deep.astype(">u2").tobytes())
    assert images.decode(encoded(big_endian, "TIFF"))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_floating_point_pixels_are_refused() -> None:
    with pytest.raises(DataError, match="floating-point"):
        images.decode(encoded(Image.new("F", (2, 2), 0.5), "TIFF"))


KINDS: dict[str, tuple[str, dict[str, object]]] = {
    "JPEG": ("JPEG", {"quality": 95}),
    "MPO": ("MPO", {"save_all": True}),
    "PNG": ("PNG", {}),
    "WebP": ("WEBP", {"lossless": True}),
    "TIFF": ("TIFF", {}),
    "TIFF by libtiff": ("TIFF", {"compression": "tiff_lzw"}),
    "AVIF": ("AVIF", {"quality": 95}),
}


@pytest.mark.parametrize("method", ["exact", "fast", "scaled"])
@pytest.mark.parametrize("kind", [k for k in KINDS if k != "AVIF" or "AVIF" in Image.SAVE])
@pytest.mark.parametrize("turn", range(1, 9))
def test_every_orientation_is_turned_once_in_every_format(
    turn: int, kind: str, method: str
) -> None:
    """PIL turns TIFFs while it loads them, and nothing else."""
    upright = np.full((32, 48), 250, np.uint8)  # four fields, no two of which are equal
    upright[:16, :24], upright[:16, 24:], upright[16:, :24] = 0, 80, 160
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright, 1),  # shown after a quarter turn clockwise
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }[turn]
    exif = Image.Exif()
    exif[0x0112] = turn
    format, options = KINDS[kind]
    picture = Image.fromarray(np.ascontiguousarray(stored)).convert("RGB")
    if format == "MPO":
        options = options | {"append_images": [picture]}
    data = encoded(picture, format, exif=exif, **options)
    least = (16, 24) if method == "scaled" else None
    decoded = images.decode(data, method, least)[..., 0].astype(int)
    assert images.dimensions(data) == (48, 32)
    height, width = decoded.shape
    assert (height, width) in ([(32, 48), (16, 24)] if least else [(32, 48)])
    for row, column in ((1, 1), (1, 3), (3, 1), (3, 3)):  # the middles of the fields
        seen = decoded[row * height // 4, column * width // 4]
        assert abs(seen - int(upright[row * 8, column * 12])) < 12


def test_an_orientation_behind_the_pixels_of_a_png() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.fromarray(pixels(4, 6)), exif=exif)
    start = data.index(b"eXIf") - 4
    length = struct.unpack(">I", data[start : start + 4])[0] + 12
    chunk, rest = data[start : start + length], data[:start] + data[start + length :]
    moved = rest[:-12] + chunk + rest[-12:]
    assert images.decode(moved).shape == images.decode(data).shape == (6, 4, 3)
    assert images.dimensions(moved) == images.dimensions(data) == (4, 6)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_broken_exif_leaves_the_image_upright() -> None:
    data = encoded(
        Image.fromarray(pixels(4, 6)), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01"
    )
    assert images.decode(data).shape == (4, 6, 3)
    assert images.dimensions(data) == (6, 4)


def test_dimensions_of_arrays() -> None:
    assert images.dimensions(pixels(4, 6)) == (6, 4)


@pytest.mark.parametrize("keep", [0, 5, 40, 300])
def test_broken_data_is_named(keep: int) -> None:
    for kind in ("PNG", "JPEG", "GIF"):
        data = encoded(Image.fromarray(pixels(64, 64)), kind)
        with pytest.raises(DataError, match="bytes"):
            images.decode(data[:keep])


WHAT_DECODERS_RAISE = [
    *(RuntimeError("decoder"), NotImplementedError("that"), SyntaxError("not a"), MemoryError()),
    *(struct.error("unpack"), ZeroDivisionError("by zero"), AssertionError(), AttributeError("x")),
    Image.DecompressionBombError("bomb"),
]


@pytest.mark.parametrize("error", WHAT_DECODERS_RAISE, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("place", ["PngImagePlugin.PngImageFile", "Image.Image"])
def test_whatever_a_decoder_raises_is_a_broken_image(
    error: Exception, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **options: object) -> None:
        raise error

    data = encoded(Image.fromarray(pixels(8, 8)).convert("CMYK"), "TIFF")
    png = encoded(Image.fromarray(pixels(8, 8)))
    if place == "Image.Image":  # while the pixels are loaded or converted
        monkeypatch.setattr("PIL.Image.Image.convert", fail)
        message = str(error) or type(error).__name__
        with pytest.raises(DataError, match=rf"TIFF\) cannot be decoded \({message}"):
            images.decode(data)
    else:  # while the header is read
        monkeypatch.setattr(f"PIL.{place}._open", fail)
        for call in (images.decode, images.dimensions):
            with pytest.raises(DataError, match="bytes"):
                call(png)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF"])
def test_nothing_but_a_broken_image_comes_of_damaged_bytes(format: str) -> None:
    if format not in Image.SAVE:
        return  # this Pillow can neither write nor read it
    whole = encoded(Image.fromarray(pixels(24, 32)), format)
    rng = np.random.default_rng(0)
    outcomes = set()
    for _ in range(150):
        data = np.frombuffer(whole, np.uint8).copy()
        places = rng.integers(0, min(len(data), 400), size=rng.integers(1, 6))
        data[places] = rng.integers(0, 256, size=len(places))
        try:
            height, width = images.decode(data.tobytes()).shape[:2]
            assert images.dimensions(data.tobytes()) == (width, height)
            outcomes.add("decoded")
        except DataError:
            outcomes.add("broken")
    assert outcomes == {"decoded", "broken"}


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"


@pytest.mark.parametrize("format", ["EPS", "PPM", "TGA", "JPEG2000", "ICO", "PCX", "SGI", "DDS"])
def test_formats_that_are_not_on_the_list_never_reach_their_reader(
    format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = EPS if format == "EPS" else encoded(Image.fromarray(pixels(16, 16)), format)
    Image.init()
    opened = []
    factory, accept = Image.OPEN[format]

    def spy(*args: object) -> Image.Image:
        opened.append(format)
        return factory(*args)

    monkeypatch.setitem(Image.OPEN, format, (spy, accept))
    Image.open(io.BytesIO(data))
    assert opened.pop() == format  # PIL itself would
    for call in (images.decode, images.dimensions, images.open_image):
        with pytest.raises(DataError, match=r"which is not read|not an image that PIL"):
            call(data)
    assert not opened


def test_a_pillow_without_avif_reads_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    from clic.images import decoding

    Image.init()
    monkeypatch.delitem(Image.OPEN, "AVIF", raising=False)
    decoding._formats.cache_clear()
    try:
        assert images.decode(encoded(Image.fromarray(pixels(4, 6)), "WEBP")).shape == (4, 6, 3)
        with pytest.raises(DataError, match="not an image that PIL can read"):
            images.decode(b"\0\0\0\x1cftypavif")
    finally:
        decoding._formats.cache_clear()


def test_images_are_opened_in_one_place_only() -> None:
    package = Path(images.__file__).parents[1]
    opening = [
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if re.search(r"Image\.open\(|import open\b|ImageFile\.Parser", path.read_text("utf-8"))
    ]
    assert opening == ["images/decoding.py"]


def test_a_decompression_bomb_is_refused_from_its_header() -> None:
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk
    data += struct.pack(">I", zlib.crc32(chunk)) + struct.pack(">I", 0) + b"IDAT"
    for call in (images.decode, images.dimensions):
        with pytest.raises(DataError, match="pixels"):
            call(data)


@pytest.mark.parametrize(
    "array", [np.zeros((4, 4)), np.zeros((4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8)]
)
def test_wrong_arrays_are_named(array: np.ndarray) -> None:
    with pytest.raises(DataError, match=r"give uint8 \[H, W, 3\]"):
        images.decode(array)


def compose_pair(
    first: np.ndarray,
    second: np.ndarray,
    orientation: images.Orientation,
    size: int,
    fit: str = "squash",
    swapped: bool = False,
) -> np.ndarray:
    pair = (second, first) if swapped else (first, second)
    return images.compose(pair, "pair", orientation, size, fit)


def test_the_pair_is_stacked_or_set_side_by_side() -> None:
    first, second = np.full((9, 12, 3), 10, np.uint8), np.full((30, 40, 3), 200, np.uint8)
    stacked = compose_pair(first, second, "landscape", 8)
    assert stacked.shape == (8, 8, 3)
    assert (stacked[:4] == 10).all() and (stacked[4:] == 200).all()
    beside = compose_pair(first, second, "portrait", 8, swapped=True)
    assert (beside[:, :4] == 200).all() and (beside[:, 4:] == 10).all()


def test_crop_takes_the_middle_half() -> None:
    first, second = pixels(8, 8, 1), pixels(8, 8, 2)
    stacked = compose_pair(first, second, "landscape", 8, "crop")
    assert np.array_equal(stacked, np.concatenate([first[2:6], second[2:6]]))
    beside = compose_pair(first, second, "portrait", 8, "crop", swapped=True)
    assert np.array_equal(beside, np.concatenate([second[:, 2:6], first[:, 2:6]], axis=1))
    resized = np.asarray(Image.fromarray(pixels(20, 31)).resize((8, 8), Image.Resampling.BICUBIC))
    crop = compose_pair(pixels(20, 31), first, "landscape", 8, "crop")
    assert np.array_equal(crop[:4], resized[2:6])


def test_unknown_settings_are_named() -> None:
    a = pixels(4, 4)
    with pytest.raises(ConfigError, match=r"compose\.fit='cropp'"):
        compose_pair(a, a, "landscape", 8, "cropp")
    with pytest.raises(ConfigError, match=r"compose\.layout='pairs'"):
        images.compose([a, a], "pairs", "landscape", 8)
    with pytest.raises(ConfigError, match="orientation='square'"):
        compose_pair(a, a, "square", 8)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="resize_mode"):
        images.single(a, 8, "short")
    with pytest.raises(ConfigError, match="interpolation"):
        images.single(a, 8, "squash", "nearest")


def test_a_further_layout_needs_only_its_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    def grid(orientation: str, size: int) -> list[images.Cell]:
        half = size // 2
        return [(top, left, half, half) for top in (0, half) for left in (0, half)]

    monkeypatch.setitem(images.LAYOUTS, "grid4", grid)
    tiles = [np.full((3, 5, 3), value, np.uint8) for value in (1, 2, 3, 4)]
    canvas = images.compose(tiles, "grid4", "landscape", 4, "crop")
    assert canvas[..., 0].tolist() == [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]


def test_normalise() -> None:
    batch = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(1, 1, 1, 3)
    result = images.normalise(batch, mean=(0.5, 0.1, 0.0), std=(0.5, 0.1, 2.0))
    assert result.shape == (1, 3, 1, 1) and result.dtype == torch.float32
    assert result.is_contiguous()
    torch.testing.assert_close(result.flatten(), torch.tensor([-1.0, 1.0, 0.5]))


@pytest.mark.parametrize("count", [0, 1, 5])
def test_normalise_gives_any_number_of_images_the_bits_of_the_formula(count: int) -> None:
    batch = torch.randint(0, 256, (count, 6, 6, 3), dtype=torch.uint8)
    mean, std = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)
    columns = [torch.tensor(values).view(3, 1, 1) for values in (mean, std)]
    expected = (batch.permute(0, 3, 1, 2).float() / 255 - columns[0]) / columns[1]
    result = images.normalise(batch, mean, std)
    assert torch.equal(result, expected) and result.is_contiguous()


@pytest.mark.parametrize(("width", "left"), [(33, 0), (35, 2), (37, 2), (39, 4)])
def test_half_a_pixel_of_a_crop_is_rounded_to_even_as_open_clip_does(width: int, left: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, width, 3), dtype=np.uint8)
    np.testing.assert_array_equal(images.single(image, 32), image[:, left : left + 32])
    upright = image.transpose(1, 0, 2)
    np.testing.assert_array_equal(images.single(upright, 32), upright[left : left + 32])
