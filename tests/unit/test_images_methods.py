"""Pixels by each way of loading them: exact, fast and scaled."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from clic import images
from clic.errors import ConfigError, DataError
from clic.images import decoding

METHODS = ["exact", "fast", "scaled"]


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Return smooth colours with edges and noise, which a JPEG codes as it does a photograph."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / rng.uniform(9, 60)) + np.cos(y / rng.uniform(9, 60)) for _ in range(3)]
    blocks = np.kron(rng.normal(size=(height // 16 + 1, width // 16 + 1, 3)), np.ones((16, 16, 1)))
    pixels = 128 + 40 * np.stack(waves, axis=-1) + 25 * blocks[:height, :width]
    return np.clip(pixels + rng.normal(0, 6, pixels.shape), 0, 255).astype(np.uint8)


def encoded(image: Image.Image | np.ndarray, kind: str = "JPEG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def furthest(first: np.ndarray, second: np.ndarray) -> int:
    assert first.shape == second.shape
    return int(np.abs(first.astype(int) - second.astype(int)).max())


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.square(first.astype(float) - second).mean()))


# --- decoding ------------------------------------------------------------------------------------


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("shape", [(97, 131), (64, 48), (1, 1), (8, 401)])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpegs_decode_alike(subsampling: str, shape: tuple[int, int], progressive: bool) -> None:
    data = encoded(photo(*shape), quality=90, subsampling=subsampling, progressive=progressive)
    assert furthest(images.decode(data, "fast"), images.decode(data, "exact")) <= 1


def fixtures() -> dict[str, bytes]:
    """Return an image of each kind that the fast way hands to PIL, and some that it takes."""
    rgb = Image.fromarray(photo(40, 56))
    alpha = rgb.convert("RGBA")
    alpha.putalpha(Image.linear_gradient("L").resize(rgb.size))
    deep = Image.fromarray(np.arange(40 * 56, dtype=np.uint16).reshape(40, 56) * 29)
    return {
        "png": encoded(rgb, "PNG"),
        "webp": encoded(rgb, "WEBP"),
        "webp with alpha": encoded(alpha, "WEBP"),
        "png with alpha": encoded(alpha, "PNG"),
        "palette": encoded(rgb.quantize(16), "PNG"),
        "gif": encoded(rgb.quantize(16), "GIF"),
        "bmp": encoded(rgb, "BMP"),
        "16 bit": encoded(deep, "PNG"),
        "grey jpeg": encoded(rgb.convert("L")),
        "cmyk jpeg": encoded(rgb.convert("CMYK")),
        "rgb jpeg": encoded(rgb, keep_rgb=True),
        "mpo": encoded(rgb, "MPO", save_all=True, append_images=[rgb.rotate(90)]),
    }


@pytest.mark.parametrize("name", fixtures())
def test_every_kind_of_file_in_every_way(name: str) -> None:
    data = fixtures()[name]
    exact = images.decode(data)
    assert exact.shape == (40, 56, 3) and exact.dtype == np.uint8
    for method in ("fast", "scaled"):
        assert furthest(images.decode(data, method), exact) <= 1, method


@pytest.mark.parametrize("turn", range(1, 9))
def test_exif_rotation_in_every_way(turn: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    data = encoded(photo(64, 96), exif=exif, subsampling="4:4:4")
    exact = images.decode(data)
    assert furthest(images.decode(data, "fast"), exact) <= 1
    height, width = exact.shape[:2]
    scaled = images.decode(data, "scaled", least=(height // 2, width // 2))
    assert scaled.shape == (height // 2, width // 2, 3)
    half = images.single(exact, 24, "squash")
    assert psnr(images.single(scaled, 24, "squash"), half) > 30  # turned the right way


@pytest.mark.parametrize(
    ("least", "shape"),
    [(None, (96, 128)), ((48, 64), (48, 64)), ((49, 10), (60, 80)), ((500, 500), (96, 128))],
)
def test_scaled_decoding_leaves_what_is_needed(least: Any, shape: tuple[int, int]) -> None:
    data = encoded(photo(96, 128))
    assert images.decode(data, "scaled", least).shape == (*shape, 3)
    assert images.decode(data, "fast", least).shape == (96, 128, 3)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("keep", [0, 30, 700])
def test_a_cut_jpeg_is_refused_in_every_way(method: str, keep: int) -> None:
    data = encoded(photo(64, 64), quality=90)
    assert len(data) > 1000
    with pytest.raises(DataError, match="bytes"):
        images.decode(data[:keep], method)


def test_what_only_pil_accepts_is_decoded_by_it() -> None:
    """Libjpeg-turbo warns of bytes between segments; PIL, whose judgement holds, does not."""
    data = encoded(photo(64, 64))
    scan = data.index(b"\xff\xda")
    odd = data[:scan] + b"\x00\x00\x00" + data[scan:]
    assert np.array_equal(images.decode(odd, "fast"), images.decode(odd, "exact"))


def jpegs() -> dict[str, bytes]:
    """Return JPEGs with all that may stand in a header."""
    rgb = Image.fromarray(photo(40, 56))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = b'<x xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>'
    every = {
        "plain": encoded(rgb),
        "progressive": encoded(rgb, progressive=True, optimize=True),
        "restarts": encoded(rgb, restart_marker_rows=1),
        "grey": encoded(rgb.convert("L")),
        "comment and profile": encoded(rgb, comment=b"a\xff\xe1b", icc_profile=b"p" * 70_000),
        "adobe": encoded(rgb, keep_rgb=True),
        "exif": encoded(rgb, exif=exif),
        "xmp": encoded(rgb, xmp=turned),
        "cmyk": encoded(rgb.convert("CMYK")),
        "two images": encoded(rgb, "MPO", save_all=True, append_images=[rgb.rotate(90)]),
    }
    frame = every["plain"].index(b"\xff\xc0")
    return every | {
        "12 bits": every["plain"][: frame + 4] + b"\x0c" + every["plain"][frame + 5 :],
        "empty": every["plain"][: frame + 5] + b"\0\0" + every["plain"][frame + 7 :],
        "huge": every["plain"][: frame + 5] + b"\xff" * 4 + every["plain"][frame + 9 :],
    }


PLAIN = ("plain", "progressive", "restarts", "grey", "comment and profile", "adobe")


def outcome(data: bytes, method: str) -> Any:
    """Return the pixels of an image as a list, or what is said of a broken one."""
    try:
        return images.decode(data, method, (10, 10)).tolist()
    except DataError as error:
        return str(error)


@pytest.mark.parametrize("method", ["fast", "scaled"])
@pytest.mark.parametrize("name", jpegs())
def test_a_jpeg_that_passes_pil_by_is_what_it_is_by_way_of_pil(
    name: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = jpegs()[name]
    found, opened = outcome(data, method), []
    open_image = decoding.open_image
    monkeypatch.setattr(decoding, "open_image", lambda data: opened.append(1) or open_image(data))
    assert outcome(data, method) == found
    assert bool(opened) == (name not in PLAIN)
    monkeypatch.setattr(decoding, "_is_plain_jpeg", lambda data: False)
    assert outcome(data, method) == found


def test_headers_with_any_byte_changed_or_cut_off_decode_as_by_way_of_pil() -> None:
    rng, data = np.random.default_rng(0), jpegs()["plain"]
    scan = data.index(b"\xff\xda") + 14
    changed = [data[:at] + bytes([data[at] ^ 1 << int(rng.integers(8))]) + data[at + 1 :]
               for at in range(scan)]  # fmt: skip
    changed += [data[:at] for at in range(0, scan, 5)]
    found = [outcome(one, "fast") for one in changed]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "_is_plain_jpeg", lambda data: False)
        for one, before in zip(changed, found, strict=True):
            assert outcome(one, "fast") == before


def test_unknown_methods_are_named() -> None:
    for call in (
        lambda: images.decode(photo(4, 4), "fats"),
        lambda: images.single(photo(4, 4), 4, method="fats"),
        lambda: images.compose([photo(4, 4)] * 2, "pair", "landscape", 4, method="fats"),
    ):
        with pytest.raises(ConfigError, match=r"data\.decode='fats'.*did you mean 'fast'"):
            call()


# --- pixels as the model is given them -----------------------------------------------------------


@pytest.mark.parametrize("fit", ["squash", "crop"])
@pytest.mark.parametrize("size", [224, 225, 97])
@pytest.mark.parametrize("wide", [True, False])
def test_fast_composites_are_one_level_off_at_most(fit: Any, size: int, wide: bool) -> None:
    shapes = [(480, 640), (421, 555)] if wide else [(640, 480), (555, 421)]
    data = [encoded(photo(*shape, seed), quality=90) for seed, shape in enumerate(shapes)]
    kind = "landscape" if wide else "portrait"
    exact, fast = (
        images.compose([images.decode(d, m) for d in data], "pair", kind, size, fit, m)  # type: ignore[arg-type]
        for m in ("exact", "fast")
    )
    assert furthest(exact, fast) <= 1


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("resize_mode", ["shortest", "squash", "longest"])
@pytest.mark.parametrize("shape", [(480, 640), (341, 400), (77, 300), (301, 224), (50, 40)])
def test_fast_single_images(resize_mode: str, interpolation: str, shape: tuple[int, int]) -> None:
    """One level off at most where a photograph shrinks; two, on single pixels, elsewhere."""
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    for image in (photo(*shape), noise):
        exact, fast = (
            images.single(image, 224, resize_mode, interpolation, m) for m in ("exact", "fast")
        )
        assert furthest(exact, fast) <= (1 if min(shape) > 336 else 2)
        assert (np.abs(exact.astype(int) - fast) > 1).mean() < 1e-4


def test_arrays_that_torch_does_not_take_as_they_are() -> None:
    turned = np.rot90(photo(60, 40))
    locked = photo(40, 60)
    locked.setflags(write=False)
    for array in (turned, locked):
        assert furthest(images.single(array, 32, method="fast"), images.single(array, 32)) <= 1


def test_scaled_pixels_are_visibly_close() -> None:
    data = encoded(photo(480, 640), quality=90)
    least = images.largest_cell("pair", "landscape", 224)
    assert least == (112, 224)
    whole, scaled = (
        images.compose([images.decode(data, m, least)] * 2, "pair", "landscape", 224, method=m)
        for m in ("exact", "scaled")
    )
    assert 30 < psnr(whole, scaled) < 55


def test_what_a_canvas_needs() -> None:
    assert images.largest_cell("pair", "landscape", 225) == (113, 225)
    assert images.largest_cell("pair", "portrait", 225) == (225, 113)
    assert images.largest_cell("pair", "portrait", 225, "crop") == (225, 225)


def test_a_canvas_is_written_in_place() -> None:
    batch = np.zeros((2, 8, 8, 3), np.uint8)
    tiles = [np.full((4, 8, 3), value, np.uint8) for value in (1, 2)]
    result = images.compose(tiles, "pair", "landscape", 8, out=batch[1])
    assert np.shares_memory(result, batch)
    assert batch[0].max() == 0 and batch[1, 0, 0, 0] == 1 and batch[1, 7, 0, 0] == 2


@pytest.mark.parametrize("method", METHODS)
def test_a_strip_does_not_fill_the_memory(method: str) -> None:
    strip = np.zeros((1, 60_000, 3), np.uint8)
    with pytest.raises(DataError, match="60000 x 1 pixels is too narrow"):
        images.single(strip, 224, "shortest", method=method)
    assert images.single(strip, 8, "squash", method=method).shape == (8, 8, 3)


@pytest.mark.gpu
def test_normalised_pixels_have_the_same_bits_on_the_gpu() -> None:
    batch = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1).expand(1, 16, 16, 3)
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    expected = images.normalise(batch, mean, std)
    assert torch.equal(images.normalise(batch.cuda(), mean, std).cpu(), expected)
