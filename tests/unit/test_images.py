"""Pixels, against values worked by hand."""

from __future__ import annotations

import io
import struct
import zlib

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


@pytest.mark.parametrize("turn", range(1, 9))
def test_exif_rotation(turn: int) -> None:
    upright = np.arange(6, dtype=np.uint8).reshape(2, 3)  # what must come out
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
    data = encoded(Image.fromarray(np.ascontiguousarray(stored)), exif=exif)
    assert np.array_equal(images.decode(data)[..., 0], upright)
    assert images.dimensions(data) == (3, 2)


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


def test_orientation() -> None:
    assert images.orientation(4, 3) == images.orientation(3, 3) == "landscape"
    assert images.orientation(3, 4) == "portrait"


def test_the_pair_is_stacked_or_set_side_by_side() -> None:
    first, second = np.full((9, 12, 3), 10, np.uint8), np.full((30, 40, 3), 200, np.uint8)
    stacked = images.compose_pair(first, second, "landscape", 8)
    assert stacked.shape == (8, 8, 3)
    assert (stacked[:4] == 10).all() and (stacked[4:] == 200).all()
    beside = images.compose_pair(first, second, "portrait", 8, swapped=True)
    assert (beside[:, :4] == 200).all() and (beside[:, 4:] == 10).all()


def test_crop_takes_the_middle_half() -> None:
    first, second = pixels(8, 8, 1), pixels(8, 8, 2)
    stacked = images.compose_pair(first, second, "landscape", 8, "crop")
    assert np.array_equal(stacked, np.concatenate([first[2:6], second[2:6]]))
    beside = images.compose_pair(first, second, "portrait", 8, "crop", swapped=True)
    assert np.array_equal(beside, np.concatenate([second[:, 2:6], first[:, 2:6]], axis=1))
    resized = np.asarray(Image.fromarray(pixels(20, 31)).resize((8, 8), Image.Resampling.BICUBIC))
    crop = images.compose_pair(pixels(20, 31), first, "landscape", 8, "crop")
    assert np.array_equal(crop[:4], resized[2:6])


def test_unknown_settings_are_named() -> None:
    a = pixels(4, 4)
    with pytest.raises(ConfigError, match=r"compose\.fit='cropp'"):
        images.compose_pair(a, a, "landscape", 8, "cropp")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"compose\.layout='pairs'"):
        images.compose([a, a], "pairs", "landscape", 8)
    with pytest.raises(ConfigError, match="orientation='square'"):
        images.compose_pair(a, a, "square", 8)  # type: ignore[arg-type]
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
